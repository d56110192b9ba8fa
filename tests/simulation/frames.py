"""One connection of a simulated client or follower: request frames out, answer frames in, in their order."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.network import HostNetwork, SimStream

_unpack_length = struct.Struct(">i").unpack_from


class ChannelClosed(Exception):  # noqa: N818 - it names what happened
    """The connection is gone; whether open requests were handled is unknown."""


class FrameChannel:
    """Pipelines requests. Create it with `connect`."""

    def __init__(self, stream: SimStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._waiting: deque[asyncio.Future[bytes]] = deque()
        self._loop = asyncio.get_running_loop()
        self.closed = False
        stream.set_reader(self._on_readable)

    @classmethod
    async def connect(cls, network: HostNetwork, host: str, port: int) -> FrameChannel:
        """Open a connection. Raises ChannelClosed."""
        try:
            return cls(await network.connect(host, port))
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def send(self, frame: bytes) -> asyncio.Future[bytes]:
        """Send a request (length prefix included); the future gets its answer, without a length prefix.

        Raises ChannelClosed, as does the future.
        """
        if self.closed:
            raise ChannelClosed("the connection is closed")
        try:
            self._stream.send([frame])
        except OSError as error:
            self.close()
            raise ChannelClosed(str(error)) from error
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting.append(future)
        return future

    async def ask(self, frame: bytes, timeout_s: float) -> bytes:
        """Send and wait. A request that takes too long ends the connection. Raises ChannelClosed."""
        future = self.send(frame)
        timer = self._loop.call_later(timeout_s, self.close)
        try:
            return await future
        finally:
            timer.cancel()

    def close(self) -> None:
        """Hang up; what waits ends with ChannelClosed."""
        if self.closed:
            return
        self.closed = True
        self._stream.close()
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(ChannelClosed("the connection was closed"))
                future.exception()  # an answer nobody waits for any more is no error

    def _on_readable(self) -> None:
        try:
            data = self._stream.take()
        except BlockingIOError:
            return
        except OSError:
            data = None
        if data is None:
            self.close()
            return
        buffer = self._buffer
        buffer += data
        position = 0
        while len(buffer) - position >= 4:
            (size,) = _unpack_length(buffer, position)
            if len(buffer) - position - 4 < size:
                break
            frame = bytes(buffer[position + 4 : position + 4 + size])
            position += 4 + size
            if not self._waiting:
                self.close()
                return
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(frame)
        del buffer[:position]
