"""A network in memory: hosts, links with latency, and connections that break, stall and are cut in one direction.

Implements `seams.network` for brokers, so that their servers and connections run as they are; clients and followers use
`FrameChannel`. What a link does to what is sent over it:

- everything arrives later by a drawn latency; bytes of one connection and direction stay in order, connections do not;
- over a *cut* direction nothing arrives. A new connection is refused after a while; an open one keeps what is sent and
  delivers it, late, when the cut ends, as TCP's retransmissions do, unless it was reset meanwhile;
- `reset` breaks the open connections between two hosts, and what was under way on them is lost in both directions: that
  is how a request is handled whose answer never comes.
"""

from __future__ import annotations

import contextvars
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.simulation.loop import Process, VirtualLoop, current_process

if TYPE_CHECKING:
    from strandline_broker.seams.disk import Buffer, File
    from strandline_broker.seams.network import Address, Stream

CONNECT_TIMEOUT_S = 1.0
_FIRST_PORT = 20_000


class Links:
    """What lies between hosts: latency, cuts. Directions are (from, to) pairs of host names."""

    def __init__(self, rng: random.Random, *, latency_s: tuple[float, float] = (0.0002, 0.002)) -> None:
        self._rng = rng
        self.latency_s = latency_s
        self.slow: dict[tuple[str, str], float] = {}
        """Directions that take so many seconds more, at most (drawn per message)."""
        self.cut: dict[tuple[str, str], int] = {}
        """How many faults cut a direction."""

    def delay_s(self, source: str, target: str) -> float:
        """Draw how long a message takes."""
        low, high = self.latency_s
        extra = self.slow.get((source, target))
        delay = low + (high - low) * self._rng.random()
        return delay if extra is None else delay + extra * self._rng.random()

    def is_cut(self, source: str, target: str) -> bool:
        """Say whether nothing arrives in this direction."""
        return (source, target) in self.cut

    def add_cut(self, source: str, target: str) -> None:
        """Cut a direction once more."""
        self.cut[source, target] = self.cut.get((source, target), 0) + 1

    def remove_cut(self, source: str, target: str) -> None:
        """End one cut of a direction."""
        left = self.cut.get((source, target), 0) - 1
        if left > 0:
            self.cut[source, target] = left
        else:
            self.cut.pop((source, target), None)


class SimStream:
    """One end of a connection; see `seams.network.Stream`."""

    __slots__ = (
        "_arrives_at",
        "_broken",
        "_closed",
        "_context",
        "_data",
        "_ended",
        "_held",
        "_network",
        "_reader",
        "_scheduled",
        "_shut",
        "host",
        "other",
        "peer",
        "process",
        "unsent",
    )

    def __init__(self, network: SimNetwork, host: str, peer: Address, process: Process | None) -> None:
        self._network = network
        self.host = host
        self.peer = peer
        self.process = process
        self._context: contextvars.Context | None = process.context if process is not None else None
        self.other: SimStream = self
        self.unsent = 0
        self._data: deque[bytes] = deque()
        self._ended = False
        self._broken = False
        self._closed = False
        self._shut = False
        self._reader: Callable[[], None] | None = None
        self._scheduled = False
        self._arrives_at = 0.0
        # Sent over a cut direction, in order: bytes, or None for the end of the stream.
        self._held: list[bytes | None] = []

    # -- Stream --

    def recv_into(self, buffer: memoryview, /) -> int:
        """See `Stream.recv_into`."""
        data = self._data
        if not data:
            if self._broken:
                raise ConnectionResetError("connection reset by peer")
            if self._ended:
                return 0
            raise BlockingIOError
        room = len(buffer)
        taken = 0
        while data and taken < room:
            piece = data[0]
            count = len(piece)
            if count > room - taken:
                count = room - taken
                data[0] = piece[count:]
                piece = piece[:count]
            else:
                data.popleft()
            buffer[taken : taken + count] = piece
            taken += count
        return taken

    def take(self) -> bytes | None:
        """Return all that arrived, None at the end; what `recv_into` raises. For readers without a buffer."""
        data = self._data
        if data:
            piece = data.popleft() if len(data) == 1 else b"".join(data)
            data.clear()
            return piece
        if self._broken:
            raise ConnectionResetError("connection reset by peer")
        if self._ended:
            return None
        raise BlockingIOError

    def send(self, parts: Sequence[Buffer], /, *, more: bool = False) -> int:
        """See `Stream.send`; everything is taken at once."""
        if self._broken or self._closed or self._shut:
            raise BrokenPipeError("the connection is gone")
        data = b"".join(parts)
        self._send(data)
        return len(data)

    def sendfile(self, file: File, offset: int, count: int, /) -> int:
        """See `Stream.sendfile`."""
        data = file.pread(count, offset)
        return self.send([data]) if data else 0

    def set_reader(self, callback: Callable[[], None] | None, /) -> None:
        """See `Stream.set_reader`."""
        self._reader = callback
        if callback is not None and (self._data or self._ended or self._broken):
            self._schedule()

    def set_writer(self, callback: Callable[[], None] | None, /) -> None:
        """See `Stream.set_writer`: there is always room."""
        if callback is not None and not self._closed:
            self._network.loop.call_soon(callback, context=self._context)

    def shutdown_write(self) -> None:
        """See `Stream.shutdown_write`."""
        if not self._shut and not self._closed and not self._broken:
            self._shut = True
            self._send(None)

    def close(self) -> None:
        """See `Stream.close`."""
        if not self._closed:
            if not self._shut and not self._broken:
                self._send(None)
            self._closed = True
            self._reader = None
            self._data.clear()
            self._network.forget(self)

    # -- the network --

    def _send(self, data: bytes | None) -> None:
        if self._held or self._network.links.is_cut(self.host, self.other.host):
            self._held.append(data)
        else:
            self._transmit(data)

    def _transmit(self, data: bytes | None) -> None:
        loop = self._network.loop
        arrives_at = loop.time() + self._network.links.delay_s(self.host, self.other.host)
        # One microsecond apart: timers of one instant have no order.
        self._arrives_at = max(arrives_at, self._arrives_at + 1e-6)
        other = self.other
        loop.call_at(self._arrives_at, other._arrive, data, context=self._network.context)

    def _arrive(self, data: bytes | None) -> None:
        if self._closed or self._broken:
            if data is not None:
                self._network.lose_later(self.other, self)
            return
        if data is None:
            self._ended = True
        else:
            self._data.append(data)
        if self._reader is not None and not self._scheduled:
            process = self.process
            if process is not None and process.ready:
                # Now, as its loop would: it is nobody's turn but the network's.
                process.context.run(self._readable)
            else:
                self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._network.loop.call_soon(self._readable, context=self._context)

    def _readable(self) -> None:
        self._scheduled = False
        if self._reader is None:
            return
        self._reader()
        if self._reader is not None and (self._data or self._ended or self._broken):
            self._schedule()

    def break_off(self) -> None:
        """Lose the connection on this side: what was under way is gone."""
        if self._closed or self._broken:
            return
        self._broken = True
        self._data.clear()
        self._held.clear()
        self._network.forget(self)
        if self._reader is not None:
            self._schedule()

    def release(self) -> None:
        """Send what a cut held back."""
        if self._held and not self._network.links.is_cut(self.host, self.other.host):
            held, self._held = self._held, []
            if not self._broken:
                for data in held:
                    self._transmit(data)


class SimListener:
    """See `seams.network.ListenSocket`."""

    __slots__ = ("_network", "accepted", "host", "port", "process")

    def __init__(
        self, network: SimNetwork, host: str, port: int, accepted: Callable[[Stream], None], process: Process
    ) -> None:
        self._network = network
        self.host = host
        self.port = port
        self.accepted = accepted
        self.process = process

    def close(self) -> None:
        """See `ListenSocket.close`."""
        self._network.listeners.pop((self.host, self.port), None)


class SimNetwork:
    """The network that all hosts share. A `HostNetwork` is what one process sees of it."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self.loop = loop
        # What is under way belongs to no process: it arrives also when its sender is dead.
        self.context = contextvars.Context()
        self.links = Links(rng)
        self.listeners: dict[Address, SimListener] = {}
        self._streams: dict[SimStream, None] = {}
        self._next_port = _FIRST_PORT

    def of(self, host: str) -> HostNetwork:
        """Return the network as the processes of `host` see it."""
        return HostNetwork(self, host)

    def port(self) -> int:
        """Return a port that nobody had."""
        self._next_port += 1
        return self._next_port

    def forget(self, stream: SimStream) -> None:
        """Take note that one end is closed."""
        self._streams.pop(stream, None)

    def process_ended(self, process: Process) -> None:
        """See `loop.Ending`: the kernel closes what the process had open."""
        for address in [key for key, listener in self.listeners.items() if listener.process is process]:
            del self.listeners[address]
        for stream in [stream for stream in self._streams if stream.process is process]:
            self._lose(stream)

    def _lose(self, stream: SimStream) -> None:
        """Break one end now; the other learns of it later, unless the way there is cut."""
        stream.break_off()
        self.lose_later(stream.other, stream)

    def lose_later(self, stream: SimStream, told_by: SimStream) -> None:
        """Tell one end that the other is gone, unless the way there is cut."""
        if not self.links.is_cut(told_by.host, stream.host):
            delay_s = self.links.delay_s(told_by.host, stream.host)
            self.loop.call_later(delay_s, stream.break_off, context=self.context)

    def reset(self, first: str, second: str) -> int:
        """Break all connections between two hosts; return how many."""
        broken = [s for s in self._streams if s.host == first and s.other.host == second]
        for stream in broken:
            self._lose(stream)
            self._lose(stream.other)
        return len(broken)

    def cut(self, source: str, target: str) -> None:
        """Let nothing through from `source` to `target`."""
        self.links.add_cut(source, target)

    def heal(self, source: str, target: str) -> None:
        """End one cut; what waited leaves now."""
        self.links.remove_cut(source, target)
        for stream in list(self._streams):
            if stream.host == source and stream.other.host == target:
                stream.release()

    def open(self, host: str, listener: SimListener, process: Process | None) -> SimStream:
        """Make the two ends of a connection and have it accepted."""
        near = SimStream(self, host, (listener.host, listener.port), process)
        far = SimStream(self, listener.host, (host, self.port()), listener.process)
        near.other, far.other = far, near
        self._streams[near] = self._streams[far] = None
        self.loop.call_soon(listener.accepted, far, context=listener.process.context)
        return near


class HostNetwork:
    """See `seams.network.Network`."""

    def __init__(self, network: SimNetwork, host: str) -> None:
        self._network = network
        self.host = host

    async def listen(
        self,
        host: str,
        port: int,
        accepted: Callable[[Stream], None],
        *,
        backlog: int = 1024,
        failed: Callable[[OSError], None] | None = None,
    ) -> SimListener:
        """See `Network.listen`; the host is this one, whatever is asked for."""
        process = current_process()
        assert process is not None, "only processes listen"
        address = (self.host, port or self._network.port())
        if address in self._network.listeners:
            raise OSError(98, f"{address[0]}:{address[1]} is in use")
        listener = SimListener(self._network, *address, accepted, process)
        self._network.listeners[address] = listener
        return listener

    async def connect(self, host: str, port: int) -> SimStream:
        """See `Network.connect`."""
        network = self._network
        links = network.links
        loop = network.loop
        if links.is_cut(self.host, host) or links.is_cut(host, self.host):
            await _sleep(loop, CONNECT_TIMEOUT_S)
            raise TimeoutError(f"{host} does not answer")
        await _sleep(loop, links.delay_s(self.host, host) + links.delay_s(host, self.host))
        listener = network.listeners.get((host, port))
        if listener is None:
            raise ConnectionRefusedError(f"{host}:{port} refuses connections")
        return network.open(self.host, listener, current_process())


async def _sleep(loop: VirtualLoop, seconds: float) -> None:
    done = loop.create_future()
    timer = loop.call_later(seconds, _set, done)
    try:
        await done
    finally:
        timer.cancel()


def _set(future: object) -> None:
    if not future.done():  # type: ignore[attr-defined]
        future.set_result(None)  # type: ignore[attr-defined]
