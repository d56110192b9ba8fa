"""A connection over a stream whose every byte the test moves."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strandline_broker.peers.connection import SocketPeerConnection
from strandline_broker.peers.contract import PeerError
from strandline_broker.seams.disk import Buffer, File
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.header import decode_request_header

FETCH, VERSION = ApiKey.FETCH, 17


class FakeStream:
    """Both ends in one object."""

    peer = ("192.0.2.1", 1)
    unsent = 0

    def __init__(self) -> None:
        self.arrived = bytearray()
        self.ended = False
        self.error: OSError | None = None
        self.sent = bytearray()
        self.room = 1 << 30
        self.closed = 0
        self.reader: Callable[[], None] | None = None
        self.writer: Callable[[], None] | None = None

    def recv_into(self, buffer: memoryview, /) -> int:
        assert not self.closed
        assert len(buffer)
        if self.error is not None:
            raise self.error
        if not self.arrived:
            if self.ended:
                return 0
            raise BlockingIOError
        count = min(len(buffer), len(self.arrived))
        buffer[:count] = self.arrived[:count]
        del self.arrived[:count]
        return count

    def send(self, parts: Sequence[Buffer], /, *, more: bool = False) -> int:
        assert not self.closed
        if self.error is not None:
            raise self.error
        data = b"".join(parts)[: self.room]
        if not data:
            raise BlockingIOError
        self.room -= len(data)
        self.sent += data
        return len(data)

    def sendfile(self, file: File, offset: int, count: int, /) -> int:
        raise AssertionError("requests are no files")

    def set_reader(self, callback: Callable[[], None] | None, /) -> None:
        self.reader = callback

    def set_writer(self, callback: Callable[[], None] | None, /) -> None:
        self.writer = callback

    def shutdown_write(self) -> None:
        raise AssertionError("nobody asked for that")

    def close(self) -> None:
        self.closed += 1
        self.reader = self.writer = None

    def arrive(self, data: bytes) -> None:
        """Let bytes arrive, as the loop would tell it."""
        self.arrived += data
        while self.arrived and self.reader is not None:
            self.reader()

    def take(self, count: int) -> None:
        """Let the other side take some bytes."""
        self.room += count
        if self.writer is not None:
            self.writer()

    def requests(self) -> list[bytes]:
        """What was sent, request by request, without length prefixes."""
        found, data = [], bytes(self.sent)
        while data:
            (size,) = struct.unpack_from(">i", data)
            found.append(data[4 : 4 + size])
            data = data[4 + size :]
        return found


def connected(**options: Any) -> tuple[SocketPeerConnection, FakeStream]:
    stream = FakeStream()
    options = {"request_timeout_s": 30.0, "max_response_bytes": 1 << 20} | options
    connection = SocketPeerConnection(stream, "broker 5", client_id="us", buffer_bytes=1 << 21, **options)
    return connection, stream


def response(correlation_id: int, body: bytes, tags: bytes = b"\0") -> bytes:
    return struct.pack(">ii", 4 + len(tags) + len(body), correlation_id) + tags + body


async def asking(connection: SocketPeerConnection, body: bytes = b"ask") -> asyncio.Task[memoryview]:
    task = asyncio.ensure_future(connection.request(FETCH, VERSION, body))
    await asyncio.sleep(0)
    return task


def run(scenario: Coroutine[Any, Any, None]) -> None:
    problems: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with asyncio.timeout(30):
            await scenario

    asyncio.run(main())
    assert not problems


async def refused(task: asyncio.Task[memoryview], why: str, connection: SocketPeerConnection) -> None:
    with pytest.raises(PeerError, match=f"broker 5: .*{why}"):
        await task
    assert connection.closed
    with pytest.raises(PeerError, match=why):
        await connection.request(FETCH, VERSION, b"")


@settings(deadline=None, max_examples=60)
@given(
    bodies=st.lists(st.integers(0, 300) | st.integers(60_000, 140_000), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 70_000) | st.integers(1, 9), max_size=12),
    tags=st.sampled_from([b"\0", b"\x01\x05\x02ab"]),
)
def test_answers_in_any_pieces(bodies: list[int], cuts: list[int], tags: bytes) -> None:
    async def scenario() -> None:
        connection, stream = connected()
        for number, size in enumerate(bodies, 1):
            task = await asking(connection, b"request %d" % number)
            body = bytes((number + i) & 0xFF for i in range(size))
            data = response(number, body, tags)
            for cut in cuts:
                stream.arrive(data[:cut])
                data = data[cut:]
            stream.arrive(data)
            answer = await task
            assert bytes(answer) == body
            assert not answer.readonly
        for number, frame in enumerate(stream.requests(), 1):
            header = decode_request_header(memoryview(frame))
            assert header[:4] == (FETCH, VERSION, number, "us")
            assert frame[header.body_offset :] == b"request %d" % number
        connection.close()

    run(scenario())


def test_headers_are_those_of_the_version() -> None:
    async def scenario() -> None:
        connection, stream = connected()
        task = asyncio.ensure_future(connection.request(ApiKey.SASL_HANDSHAKE, 1, b"x"))
        await asyncio.sleep(0)
        assert decode_request_header(memoryview(stream.requests()[0])).body_offset == 12
        stream.arrive(response(1, b"body", tags=b""))
        assert bytes(await task) == b"body"
        connection.close()

    run(scenario())


@pytest.mark.parametrize("step", [1, 7, 5000])
def test_requests_go_out_as_the_stream_takes_them(step: int) -> None:
    async def scenario() -> None:
        connection, stream = connected()
        stream.room = 0
        body = bytes(range(256)) * (1 if step < 100 else 200)
        task = await asking(connection, body)
        assert stream.sent == b""
        while len(stream.sent) < 17 + len(body):  # with its header
            sent = len(stream.sent)
            stream.take(step)
            assert sent < len(stream.sent) <= sent + step
        assert stream.requests()[0].endswith(body)
        stream.arrive(response(1, b"answer"))
        assert bytes(await task) == b"answer"
        stream.room = 1 << 20
        task = await asking(connection)
        assert stream.writer is None
        assert len(stream.requests()) == 2
        connection.close()
        await refused(task, "closed by us", connection)

    run(scenario())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (response(2, b"x"), "the answer to request 2, where 1 was asked"),
        (response(1, b"x") + b"y", "1 bytes behind an answer"),
        (struct.pack(">ii", 4, 1), "without a header"),
        (response(1, b"", b"\x01\x05\x09ab"), "tagged field exceeds"),
        (response(1, b"", b"\x81\x80"), "malformed response header|tagged fields in"),
        (struct.pack(">i", (1 << 20) + 1), "an answer of 1048577 bytes, where at most 1048576"),
        (struct.pack(">i", 3), "an answer of 3 bytes"),
        (b"HTTP/1.1 400 Bad Request", "an answer of 1213486160 bytes"),
    ],
)
def test_answers_that_make_no_sense(data: bytes, why: str) -> None:
    async def scenario() -> None:
        connection, stream = connected()
        task = await asking(connection)
        stream.arrive(data)
        await refused(task, why, connection)
        assert stream.closed == 1
        connection.close()
        assert stream.closed == 1

    run(scenario())


def test_an_answer_before_the_request_is_out_is_refused() -> None:
    async def scenario() -> None:
        connection, stream = connected()
        stream.room = 5
        task = await asking(connection)
        stream.arrive(response(1, b"x"))
        await refused(task, "was not sent yet", connection)

    run(scenario())


def test_the_other_side_goes_away() -> None:
    async def scenario() -> None:
        for part in (b"", response(1, b"abc")[:6]):
            connection, stream = connected()
            task = await asking(connection)
            stream.arrive(part)
            stream.ended = True
            assert stream.reader is not None
            stream.reader()
            await refused(task, "closed by the other side", connection)
        connection, stream = connected()
        task = await asking(connection)
        stream.error = ConnectionResetError(104, "Connection reset by peer")
        assert stream.reader is not None
        stream.reader()
        await refused(task, "receiving failed: .*reset", connection)
        connection, stream = connected()
        stream.error = BrokenPipeError(32, "Broken pipe")
        await refused(await asking(connection), "sending failed: .*pipe", connection)

    run(scenario())


def test_what_happens_while_nothing_is_asked() -> None:
    async def scenario() -> None:
        for data, why in ((b"", "closed by the other side"), (b"hello", "it sent something unasked")):
            connection, stream = connected()
            task = await asking(connection)
            stream.arrive(response(1, b"last"))
            body = await task
            stream.arrived += data
            stream.ended = True
            assert stream.reader is not None
            stream.reader()
            assert connection.closed
            assert bytes(body) == b"last", "its memory is left alone"
            await refused(await asking(connection), why, connection)

    run(scenario())


def test_an_answer_that_does_not_come_in_time() -> None:
    async def scenario() -> None:
        connection, stream = connected(request_timeout_s=0.01)
        task = await asking(connection)
        stream.arrive(response(1, b"abc")[:-1])
        await refused(task, "no answer within 0.01 s", connection)
        assert stream.closed == 1

    run(scenario())


def test_a_request_that_is_given_up_ends_the_connection() -> None:
    async def scenario() -> None:
        connection, stream = connected()
        task = await asking(connection)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stream.closed == 1
        await refused(await asking(connection), "given up", connection)

    run(scenario())


def test_two_requests_at_once_are_our_bug() -> None:
    async def scenario() -> None:
        connection, stream = connected()
        task = await asking(connection)
        with pytest.raises(RuntimeError, match="under way already"):
            await connection.request(FETCH, VERSION, b"")
        stream.arrive(response(1, b"fine"))
        assert bytes(await task) == b"fine"
        connection.close()

    run(scenario())


def test_a_bug_in_a_callback_ends_the_connection_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        connection, stream = connected()
        task = await asking(connection)

        def broken(buffer: memoryview, /) -> int:
            raise RuntimeError("a bug")

        stream.recv_into = broken  # type: ignore[method-assign]
        assert stream.reader is not None
        stream.reader()
        await refused(task, "RuntimeError: a bug", connection)

    run(scenario())
    assert "talking to broker 5 failed" in caplog.text
