"""Connections between brokers over real sockets, with the real server on the other side."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.unit.peers.support import OTHER_TOKEN, TOKEN, answer, between_brokers, peers_with

from strandline_broker.net.handler import Pending
from strandline_broker.net.metrics import CloseReason
from strandline_broker.peers import socket_peers
from strandline_broker.peers.contract import PeerError
from strandline_broker.seams.local_network import LocalNetwork, LocalStream
from strandline_broker.security import scram_client
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.header import RequestHeader, decode_request_header
from strandline_broker.wire.sasl import encode_sasl_authenticate_response, encode_sasl_handshake_response

FETCH, VERSION = ApiKey.FETCH, 17


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await scenario

    asyncio.run(main())


def test_requests_and_answers_of_every_size(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with between_brokers(tmp_path) as here:
            connection = await here.peers().connect("127.0.0.1", here.port)
            for size in (0, 1, 70_000, 5_000_000, 10):
                body = bytes(i & 0xFF for i in range(251)) * (size // 251) + bytes(size % 251)
                assert bytes(await connection.request(FETCH, VERSION, body)) == body
            assert [header.client_id for header in here.handler.headers] == ["broker-7"] * 5
            assert set(here.handler.principals) == {"User:__broker"}
            (served,) = here.server.connections
            assert served.context is None, "an authenticated connection costs nothing more"
            connection.close()
            connection.close()

    run(scenario())


def test_a_wrong_token_is_refused_and_appears_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        caplog.set_level(logging.DEBUG)
        async with between_brokers(tmp_path) as here:
            peers = here.peers(OTHER_TOKEN)
            with pytest.raises(PeerError, match="does not accept our token") as refused:
                await peers.connect("127.0.0.1", here.port)
            async with asyncio.timeout(10):
                while here.server.metrics.closed[CloseReason.AUTHENTICATION_FAILED] != 1:
                    await asyncio.sleep(0)
            connection = await here.peers().connect("127.0.0.1", here.port)
            connection.close()
            for text in (str(refused.value), caplog.text, repr(vars(peers))):
                assert TOKEN not in text
            assert OTHER_TOKEN not in str(refused.value) + caplog.text

    run(scenario())


def test_a_rotated_token_counts_for_new_connections(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        caplog.set_level(logging.INFO)
        async with between_brokers(tmp_path) as here:
            both = here.inter_broker.peers(LocalNetwork())
            old = await both.connect("127.0.0.1", here.port)
            here.token_file.write_text(OTHER_TOKEN + OTHER_TOKEN)
            await here.inter_broker.check_token()
            new = await both.connect("127.0.0.1", here.port)
            for connection in (old, new):
                assert bytes(await connection.request(FETCH, VERSION, b"x")) == b"x"
            with pytest.raises(PeerError, match="does not accept our token"):
                await here.peers(TOKEN).connect("127.0.0.1", here.port)
            old.close()
            new.close()
        assert "has a new token between brokers" in caplog.text
        assert OTHER_TOKEN not in caplog.text

    run(scenario())


def test_keys_are_derived_once_per_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    derived = []

    def derive(*arguments: Any) -> Any:
        derived.append(arguments[2:])
        return original(*arguments)

    original = scram_client.derive_client_keys
    monkeypatch.setattr(socket_peers, "derive_client_keys", derive)

    async def scenario() -> None:
        async with between_brokers(tmp_path) as here:
            peers = here.peers()
            for _ in range(3):
                (await peers.connect("127.0.0.1", here.port)).close()
            assert len(derived) == 1

    run(scenario())


@contextlib.asynccontextmanager
async def impostor(behaviour: str) -> Any:
    """Somebody who answers everything without knowing the token."""

    serving = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                frame = memoryview(await reader.readexactly(size))
                writer.write(pretend(behaviour, decode_request_header(frame), frame))
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*filter(None, serving))


def pretend(behaviour: str, header: RequestHeader, frame: memoryview) -> bytes:
    correlation_id = header.correlation_id
    if header.api_key == ApiKey.SASL_HANDSHAKE:
        if behaviour == "huge":
            return struct.pack(">i", 1 << 20)
        if behaviour == "malformed":
            return answer(header, b"\0", flexible=False)
        if behaviour == "not between brokers":
            return encode_sasl_handshake_response(correlation_id, 34, ())
        return encode_sasl_handshake_response(correlation_id, 0, ["SCRAM-SHA-256"])
    first = bytes(frame)
    if b"n=__broker" in first:
        nonce = first.partition(b",r=")[2].rstrip(b"\0")
        count = b"4095" if behaviour == "weak" else b"999999" if behaviour == "expensive" else b"4096"
        token = b"r=" + nonce + b"xyz,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=" + count
        return encode_sasl_authenticate_response(2, correlation_id, 0, None, token, 0)
    token = b"" if behaviour == "silent" else b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    return encode_sasl_authenticate_response(2, correlation_id, 0, None, token, 0)


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ("proofless", "does not know the secret"),
        ("silent", "the final message is not SCRAM"),
        ("weak", "4095 iterations"),
        ("expensive", "999999 iterations"),
        ("huge", "an answer of 1048576 bytes, where at most 16384"),
        ("malformed", "malformed SaslHandshake"),
        ("not between brokers", r"not a listener between brokers \(ILLEGAL_SASL_STATE\)"),
    ],
)
def test_a_server_that_does_not_prove_itself_gets_no_request(behaviour: str, why: str) -> None:
    async def scenario() -> None:
        async with impostor(behaviour) as port:
            with pytest.raises(PeerError, match=rf"broker at 127\.0\.0\.1:{port}: .*{why}"):
                await peers_with().connect("127.0.0.1", port)

    run(scenario())


def test_nobody_there_and_nobody_answering() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with pytest.raises(PeerError, match=r"not connected within 0\.05 s"):
                await peers_with(connect_timeout_s=0.05).connect("127.0.0.1", port)
        with pytest.raises(PeerError, match="refused"):
            await peers_with().connect("127.0.0.1", port)

    run(scenario())


def test_a_connect_that_is_given_up_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[LocalStream] = []

    class Watched(LocalNetwork):
        async def connect(self, host: str, port: int) -> LocalStream:
            streams.append(await super().connect(host, port))
            return streams[-1]

    async def scenario() -> None:
        peers = peers_with()
        monkeypatch.setattr(peers, "_network", Watched())
        with socket.create_server(("127.0.0.1", 0)) as silent:
            task = asyncio.ensure_future(peers.connect("127.0.0.1", silent.getsockname()[1]))
            while not streams:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert streams[0]._fd == -1

    run(scenario())


def test_what_a_server_does_to_a_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with between_brokers(tmp_path) as here:
            peers = here.peers(request_timeout_s=0.2, max_response_bytes=1 << 20)

            def wrong_id(header: RequestHeader, frame: memoryview) -> bytes:
                return answer(header._replace(correlation_id=header.correlation_id + 1), b"x")

            def malformed(header: RequestHeader, frame: memoryview) -> bytes:
                raise ValueError("as told")

            for behaviour, why in (
                (wrong_id, "the answer to request"),
                (malformed, "closed by the other side|reset"),
                (lambda header, frame: Pending(), r"no answer within 0\.2 s"),
                (lambda header, frame: answer(header, bytes(1 << 20)), "an answer of 1048581 bytes"),
            ):
                here.handler.answer = behaviour
                connection = await peers.connect("127.0.0.1", here.port)
                with pytest.raises(PeerError, match=why):
                    await connection.request(FETCH, VERSION, b"x")
                assert connection.closed

    run(scenario())


def test_a_server_that_stops_ends_idle_connections(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with between_brokers(tmp_path) as here:
            connection = await here.peers().connect("127.0.0.1", here.port)
        async with asyncio.timeout(10):
            while not connection.closed:
                await asyncio.sleep(0.001)

    run(scenario())
