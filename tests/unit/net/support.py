"""A handler that does what the first byte of a frame says, a server around it, and small clients."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from strandline_broker.net.connection import Connection
from strandline_broker.net.handler import Pending, Response
from strandline_broker.net.limits import Limits
from strandline_broker.net.server import ListenerConfig, Server
from strandline_broker.net.tls import TlsConfig
from strandline_broker.seams.disk import File, FileSlice
from strandline_broker.seams.local_network import LocalNetwork

TIMEOUT_S = 30.0


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


class ReadOnlyFile:
    """The part of `seams.disk.File` that sending needs."""

    def __init__(self, path: Path, *, descriptor: bool = True) -> None:
        self.path = str(path)
        self._file = path.open("rb")
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._file.fileno() if self._descriptor else -1

    def pread(self, length: int, offset: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)

    def pread_into(self, buffer: bytearray | memoryview, offset: int) -> int:
        self._file.seek(offset)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()


def file_range(file: ReadOnlyFile, offset: int, length: int) -> FileSlice:
    return FileSlice(cast(File, file), offset, length)


class ScriptedHandler:
    """First byte: e echo, p pending, m muting pending, n no answer, f file, s several parts, b big answer,
    v ValueError, x a bug, c close after the answer, d pending that is done at once, w complete all pendings.
    """

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.bursts: list[int] = []
        self.pendings: list[tuple[Pending, bytes]] = []
        self.lost: list[Connection] = []
        self.connections: dict[int, Connection] = {}
        self.files: dict[bytes, FileSlice] = {}
        self.complete_at_end_of_burst = False
        self.fail_at_end_of_burst = False
        self.big = b""
        self._in_burst = 0

    def handle(self, conn: Connection, view: memoryview, /) -> Response | Pending | None:
        assert not view.readonly
        body = bytes(view)
        self.connections[conn.id] = conn
        self.frames.append(body)
        self._in_burst += 1
        kind = body[:1]
        if kind in b"pm":
            pending = Pending(mute=kind == b"m")
            self.pendings.append((pending, body))
            return pending
        if kind == b"n":
            return None
        if kind == b"v":
            raise ValueError("the length of a string is beyond the frame")
        if kind == b"x":
            raise RuntimeError("a bug")
        if kind == b"f":
            part = self.files[body[1:]]
            return [struct.pack(">i", len(part) + 2), part, b"", b"ok"]
        if kind == b"s":
            return (struct.pack(">i", len(body)), memoryview(body)[:1], body[1:])
        if kind == b"b":
            return self.big
        if kind == b"c":
            conn.close("asked to")
        if kind == b"w":
            self.complete_all()
        if kind == b"d":
            done = Pending()
            done.complete(frame(body))
            return done
        return frame(body)

    def complete_all(self) -> None:
        pendings, self.pendings = self.pendings, []
        for pending, body in pendings:
            pending.complete(frame(body))

    def end_of_burst(self) -> None:
        self.bursts.append(self._in_burst)
        self._in_burst = 0
        if self.complete_at_end_of_burst:
            self.complete_all()
        if self.fail_at_end_of_burst:
            raise RuntimeError("a bug at the end of a burst")

    def connection_lost(self, conn: Connection, /) -> None:
        assert conn not in self.lost
        self.lost.append(conn)


class Client:
    """A client on a non-blocking socket, with control over every byte."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()

    @classmethod
    async def connect(
        cls,
        port: int,
        *,
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
        source: str | None = None,
    ) -> Client:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            sock.bind((source, 0))
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def ask(self, body: bytes) -> bytes:
        await self.send(frame(body))
        return await self.answer()

    async def _fill(self, size: int) -> bool:
        loop = asyncio.get_running_loop()
        while len(self.received) < size:
            data = await loop.sock_recv(self.sock, 1 << 20)
            if not data:
                return False
            self.received += data
        return True

    async def answer(self) -> bytes:
        """Return the body of the next answer. Raises EOFError."""
        if not await self._fill(4):
            raise EOFError
        (size,) = struct.unpack_from(">i", self.received)
        if not await self._fill(4 + size):
            raise EOFError
        body = bytes(self.received[4 : 4 + size])
        del self.received[: 4 + size]
        return body

    async def answers(self, count: int) -> list[bytes]:
        return [await self.answer() for _ in range(count)]

    async def ended(self) -> bool:
        """Wait for the end of the connection, by FIN or RST; whatever comes before is dropped."""
        try:
            while await asyncio.get_running_loop().sock_recv(self.sock, 1 << 20):
                pass
        except ConnectionError:
            pass
        return True

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds; fails after 20 s."""
    async with asyncio.timeout(20):
        while not condition():  # it is the state of the program under test
            await asyncio.sleep(0.001)


async def turns(count: int = 20) -> None:
    """Let the loop run for a while, to see that something does *not* happen."""
    for _ in range(count):
        await asyncio.sleep(0.001)


class Serving:
    """A running server and its clients."""

    def __init__(self, server: Server, handler: ScriptedHandler, port: int) -> None:
        self.server = server
        self.handler = handler
        self.port = port
        self._clients: list[Client] = []

    async def client(self, **options: Any) -> Client:
        client = await Client.connect(self.port, **options)
        self._clients.append(client)
        return client

    async def received(self, count: int) -> None:
        """Wait until the server has received exactly `count` bytes."""
        await until(lambda: self.server.metrics.bytes_in == count)

    def close_clients(self) -> None:
        for client in self._clients:
            client.close()


@asynccontextmanager
async def serving(
    *,
    tls: TlsConfig | None = None,
    handler: ScriptedHandler | None = None,
    more: Mapping[str, int] | None = None,
    **limits: int,
) -> AsyncIterator[Serving]:
    handler = handler or ScriptedHandler()
    server = Server(LocalNetwork(), handler, Limits(**(limits | dict(more or {}))))
    _, port = await server.open(ListenerConfig("CLIENT", "127.0.0.1", 0, tls=tls))
    running = Serving(server, handler, port)
    try:
        yield running
    finally:
        running.close_clients()
        await server.close(grace_ms=200)
        assert server.metrics.connections_open == 0
        assert server.metrics.open_by_listener["CLIENT"] == 0
        assert server._hub.pool.in_use == 0
        assert not server._hub.frame_started


def run(test: Callable[[], Coroutine[Any, Any, None]] | Callable[[], Awaitable[None]]) -> None:
    """Run a test in a loop of its own; an exception in any callback fails it."""
    problems: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with asyncio.timeout(TIMEOUT_S):
            await test()

    asyncio.run(main())
    assert not problems
