"""Objects put at a steady rate by somebody who is no broker: what a bucket on the same machine costs all by itself.

The process (`python -m benchmarks.bare_uploads OBJECT_BYTES BYTES_PER_S`) reads a line with a JSON list of places, which it
writes to in turn, each object as fast as the bucket takes it: presigned URLs for an S3 server, paths for a directory. When
its standard input ends it prints the bytes it put, and ends.

It costs next to no processor time, so what others notice of it is the bucket.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from benchmarks.load import LoadError

PLACES = 16
"""Objects that are written again and again."""
_END_S = 60.0


@contextmanager
def uploads(places: Sequence[str], object_bytes: int, bytes_per_s: int) -> Iterator[None]:
    """Put objects at a steady rate within the block.

    Raises:
        LoadError: the bucket refused one, or took less than nine tenths of the rate.

    """
    command = [sys.executable, "-m", "benchmarks.bare_uploads", str(object_bytes), str(bytes_per_s)]
    began = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(list(places)) + "\n")
        process.stdin.flush()
        try:
            yield
        finally:
            process.stdin.close()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
        output = process.stdout.read()
    took_s = time.monotonic() - began
    if process.returncode != 0 or not output.strip().isdigit():
        raise LoadError(f"bare uploads failed ({process.returncode}): {output[-500:]}")
    if int(output) < 0.9 * bytes_per_s * (took_s - 2.0):
        raise LoadError(f"{int(output)} bytes were put in {took_s:.0f} s, less than was asked for")


def put_file(path: Path, data: bytes) -> None:
    """Write a file as a directory bucket does: elsewhere, synced, under its name in one step."""
    temporary = path.with_suffix(".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class _Http:
    """PUTs of presigned URLs of one server, on one connection."""

    def __init__(self, address: SplitResult) -> None:
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        assert address.hostname is not None, "a URL that was presigned"
        self._connection = kind(address.hostname, address.port, timeout=_END_S)

    def put(self, url: str, data: bytes) -> None:
        """Send one object. Raises LoadError unless the server takes it."""
        address = urlsplit(url)
        self._connection.request("PUT", f"{address.path}?{address.query}", data)
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status != http.client.OK:
            raise LoadError(f"PUT {address.path}: {answer.status} {said[:200]!r}")


def _putter(place: str) -> Callable[[str, bytes], None]:
    address = urlsplit(place)
    if address.scheme in ("http", "https"):
        return _Http(address).put
    return lambda path, data: put_file(Path(path), data)


def _run(places: Sequence[str], object_bytes: int, bytes_per_s: int) -> int:
    data = random.Random(0).randbytes(object_bytes)
    put = _putter(places[0])
    ended = selectors.DefaultSelector()
    ended.register(sys.stdin, selectors.EVENT_READ)
    count, began = 0, time.monotonic()
    while not ended.select(max(0.0, began + count * object_bytes / bytes_per_s - time.monotonic())):
        put(places[count % len(places)], data)
        count += 1
    return count * object_bytes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare_uploads", description=__doc__)
    parser.add_argument("object_bytes", type=int)
    parser.add_argument("bytes_per_s", type=int)
    options = parser.parse_args()
    places = json.loads(sys.stdin.readline())
    try:
        print(_run(places, options.object_bytes, options.bytes_per_s))
    except (LoadError, OSError, http.client.HTTPException) as failed:
        sys.exit(f"{type(failed).__name__}: {failed}")


if __name__ == "__main__":
    main()
