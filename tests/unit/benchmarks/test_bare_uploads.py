"""The client that keeps a bucket busy: it writes what was asked for, and says so when a bucket refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from benchmarks.bare_uploads import put_file, uploads
from benchmarks.load import LoadError

OBJECT_BYTES = 100_000
BYTES_PER_S = 2_000_000
PATIENCE_S = 30.0


class Server(ThreadingHTTPServer):
    """Takes every PUT, or answers 403."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.refuses = refuses
        self.got: list[tuple[str, int]] = []
        self.enough = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, len(body)))
        if self.server.refuses or len(self.server.got) == 3:
            self.server.enough.set()
        self.send_response(403 if self.server.refuses else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(params=[False, True], ids=["takes", "refuses"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(refuses=request.param) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    place = tmp_path / "bare" / "0"
    for data in (b"before", b"after"):
        put_file(place, data)
        assert place.read_bytes() == data
    assert [path.name for path in place.parent.iterdir()] == ["0"]


def test_a_server_gets_presigned_requests_and_may_refuse(server: Server) -> None:
    places = [f"{server.address}/bucket/{number}?X-Amz-Signature=s" for number in range(2)]

    def run() -> None:
        with uploads(places, OBJECT_BYTES, BYTES_PER_S):
            assert server.enough.wait(PATIENCE_S)

    if server.refuses:
        with pytest.raises(LoadError, match="failed"):
            run()
    else:
        run()
    paths = [path for path, _ in server.got[:3]]
    assert paths == [f"/bucket/{number}?X-Amz-Signature=s" for number in (0, 1, 0)][: len(paths)]
    assert {size for _, size in server.got} == {OBJECT_BYTES}
