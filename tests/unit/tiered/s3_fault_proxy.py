"""A proxy in front of an S3 server that does to HTTP what networks and busy servers do.

One request per connection (it closes them), whole requests in memory: it is for tests. Headers pass unchanged, `Host`
included, so signatures stay valid.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import urlsplit


class Harm(Enum):
    SLOW_DOWN = auto()  # 503 SlowDown with Retry-After: 0, nothing forwarded
    SERVER_ERROR = auto()  # 500 InternalError, nothing forwarded
    GARBAGE = auto()  # no HTTP at all
    RESET_BEFORE = auto()  # reset before the request was read
    RESET_IN_BODY = auto()  # the answer's body is cut by a reset
    CLOSED_IN_BODY = auto()  # the answer's body is cut by an orderly close
    SHORT_BODY = auto()  # the answer is cut and its Content-Length says so: only ranges and checksums tell
    FLIPPED_BIT = auto()  # one bit of the answer's body is wrong
    STALL = auto()  # the request is read, and that is all
    LOST_ANSWER = auto()  # forwarded, the answer thrown away, the connection reset
    TWICE = auto()  # forwarded twice, the second answer returned
    LATE = auto()  # reset at once, forwarded when `land` is called


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    raw: bytes


class S3FaultProxy:
    """`script` gives each request that `concerns` accepts its harm (None: none), in order; then all pass."""

    def __init__(
        self, upstream: str, script: Iterable[Harm | None], concerns: Callable[[Request], bool]
    ) -> None:
        address = urlsplit(upstream)
        self._upstream = (address.hostname, address.port)
        self._script = iter(script)
        self._concerns = concerns
        self._late: list[Request] = []
        self._connections: set[asyncio.Task[None]] = set()
        self.requests: list[Request] = []
        self.harmed: list[Harm] = []

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        try:
            yield f"http://{host}:{port}"
        finally:
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def land(self) -> int:
        """Forward what was held back; return how many requests that were."""
        late, self._late = self._late, []
        for request in late:
            await self._forward(request)
        return len(late)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read_request(reader)
        if request is None:
            return
        self.requests.append(request)
        harm = next(self._script, None) if self._concerns(request) else None
        if harm is None:
            writer.write(await self._forward(request))
            await writer.drain()
            return
        self.harmed.append(harm)
        await self._harm(harm, request, writer)

    async def _harm(self, harm: Harm, request: Request, writer: asyncio.StreamWriter) -> None:
        if harm in (Harm.SLOW_DOWN, Harm.SERVER_ERROR):
            status, code = (
                ("503 Slow Down", "SlowDown") if harm is Harm.SLOW_DOWN else ("500 Error", "InternalError")
            )
            body = f"<Error><Code>{code}</Code><Message>Reduce your request rate</Message></Error>".encode()
            writer.write(
                f"HTTP/1.1 {status}\r\nRetry-After: 0\r\nContent-Type: application/xml\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            )
            writer.write(body)
            await writer.drain()
        elif harm is Harm.GARBAGE:
            writer.write(b"\x00\xff" * 40 + b"\r\n\r\n")
            await writer.drain()
        elif harm is Harm.STALL:
            await asyncio.get_running_loop().create_future()
        elif harm is Harm.RESET_BEFORE:
            _reset(writer)
        elif harm is Harm.LATE:
            self._late.append(request)
            _reset(writer)
        elif harm is Harm.LOST_ANSWER:
            await self._forward(request)
            _reset(writer)
        elif harm is Harm.TWICE:
            await self._forward(request)
            writer.write(await self._forward(request))
            await writer.drain()
        else:
            await self._harm_answer(harm, await self._forward(request), writer)

    async def _harm_answer(self, harm: Harm, answer: bytes, writer: asyncio.StreamWriter) -> None:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert len(body) > 1, "there must be something to cut"
        if harm is Harm.FLIPPED_BIT:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        else:
            body = body[: len(body) // 2]
        if harm is Harm.SHORT_BODY:
            head = re.sub(rb"(?i)content-length: \d+", b"Content-Length: %d" % len(body), head)
        writer.write(head + b"\r\n\r\n" + body)
        await writer.drain()
        if harm is Harm.RESET_IN_BODY:
            _reset(writer)

    async def _forward(self, request: Request) -> bytes:
        """Send a request to the server and return its whole answer."""
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request.raw)
            await writer.drain()
            return await reader.read(-1)
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else b""
    # The server shall close the connection, so that the end of its answer is plain.
    head = re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", head)
    head = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    return Request(method, target, head + body)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
