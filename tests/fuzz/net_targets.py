"""Framing: two connections of one hub, fed in pieces, against the obvious model of what they should do.

The input is a small program: each instruction lets one connection send a frame, raw bytes or a wrong
length, lets a piece arrive, lets the peer take some bytes, or completes an answer that was put off. What
must hold: the frames before the first fault are handled once, in order and unchanged; answers come in
order; a fault of one connection is not the other's; nothing is left in the shared buffers at the end.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from tests.fuzz.target import Target

from strandline_broker.net.connection import Connection, Listener
from strandline_broker.net.handler import Pending, Response
from strandline_broker.net.hub import Hub
from strandline_broker.net.limits import SMALL_FRAME_BYTES, Limits
from strandline_broker.net.metrics import NetMetrics
from strandline_broker.seams.disk import Buffer, File

LIMITS = Limits(
    max_frame_bytes=200_000,
    max_in_flight_requests=4,
    max_requests_per_burst=3,
    request_memory_bytes=1 << 20,
    output_backlog_bytes=4096,
    send_quantum_bytes=2048,
    receive_buffer_bytes=2 * SMALL_FRAME_BYTES,
)
MAX_INSTRUCTIONS = 300

# The first byte of a frame tells the handler what to do with it.
ANSWER, LATER, MUTED, SILENT, MALFORMED, BUG = range(6)


class Loop:
    """The two things a hub wants of an event loop."""

    def __init__(self) -> None:
        self.soon: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self.soon.append((callback, arguments))


class FakeStream:
    """A stream whose other end is the fuzzer."""

    peer = ("192.0.2.1", 1)
    unsent = 0

    def __init__(self) -> None:
        self.arrived = bytearray()
        self.coming = bytearray()
        self.sent = bytearray()
        self.room = 0
        self.ended = False
        self.closed = False
        self.reader: Callable[[], None] | None = None
        self.writer: Callable[[], None] | None = None

    def recv_into(self, buffer: memoryview, /) -> int:
        assert not self.closed
        assert len(buffer)
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
        data = b"".join(parts)[: self.room]
        if not data:
            raise BlockingIOError
        self.room -= len(data)
        self.sent += data
        return len(data)

    def sendfile(self, file: File, offset: int, count: int, /) -> int:
        raise AssertionError("nobody answers with files here")

    def set_reader(self, callback: Callable[[], None] | None, /) -> None:
        self.reader = callback

    def set_writer(self, callback: Callable[[], None] | None, /) -> None:
        self.writer = callback

    def shutdown_write(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
        self.reader = self.writer = None


class Peer:
    """One connection, what was sent over it, and what should come of that."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.stream = FakeStream()
        self.handled: list[bytes] = []
        self.expected: list[bytes] = []
        self.faulty = False
        self.muted: Pending | None = None
        self.open: deque[tuple[Pending, bytes]] = deque()
        self.answers: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self.stream.coming += struct.pack(">i", len(frame)) + frame
        if not self.faulty:
            self.expected.append(frame)
            self.faulty = frame[0] % 16 in (MALFORMED, BUG)


class Handler:
    """Does what the first byte of each frame says."""

    def __init__(self) -> None:
        self.peers: dict[Connection, Peer] = {}
        self.bursting = False

    def handle(self, conn: Connection, frame: memoryview) -> Response | Pending | None:
        peer = self.peers[conn]
        assert peer.muted is None or peer.muted.done, "a frame was handled while the connection was muted"
        assert len(peer.open) < LIMITS.max_in_flight_requests, "too many requests in flight"
        assert not frame.readonly
        self.bursting = True
        content = bytes(frame)
        peer.handled.append(content)
        frame[:] = bytes(len(frame))
        what = content[0] % 16
        answer = struct.pack(">iI", 4, len(peer.handled))
        if what == MALFORMED:
            raise ValueError("as told")
        if what == BUG:
            raise RuntimeError("as told")
        if what == SILENT:
            return None
        peer.answers.append(answer)
        if what in (LATER, MUTED):
            pending = Pending(mute=what == MUTED)
            if what == MUTED:
                peer.muted = pending
            peer.open.append((pending, answer))
            return pending
        return answer if content[0] & 0x80 else [answer[:3], memoryview(answer)[3:]]

    def end_of_burst(self) -> None:
        assert self.bursting
        self.bursting = False

    def connection_lost(self, conn: Connection) -> None:
        del self.peers[conn]


class Scene:
    """The loop, the hub and two peers."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.handler = Handler()
        self.hub = Hub(cast("Any", self.loop), self.handler, LIMITS, NetMetrics(), self._removed)
        self.hub.log.log = lambda *_, **__: None  # type: ignore[method-assign]
        self.peers = [Peer(0), Peer(1)]
        self.connections = [Connection(self.hub, peer.stream, Listener("L")) for peer in self.peers]
        for connection, peer in zip(self.connections, self.peers, strict=True):
            self.handler.peers[connection] = peer
            self.hub.connections[connection] = None
            connection.start()

    def _removed(self, connection: Connection) -> None:
        self.hub.connections.pop(connection, None)

    def settle(self) -> None:
        """Run until nothing more happens by itself."""
        for _ in range(10_000):
            if self.loop.soon:
                callback, arguments = self.loop.soon.popleft()
                callback(*arguments)
                continue
            for peer in self.peers:
                stream = peer.stream
                if stream.reader is not None and (stream.arrived or stream.ended):
                    stream.reader()
                    break
                if stream.writer is not None and stream.room:
                    stream.writer()
                    break
            else:
                return
        raise AssertionError("the connections never come to rest")

    def complete(self, peer: Peer, position: int) -> None:
        """Complete one of the open answers."""
        if peer.open:
            position %= len(peer.open)
            pending, answer = peer.open[position]
            del peer.open[position]
            pending.complete(None if pending.lost else answer)

    def finish(self) -> None:
        """Let everything arrive, be answered and be taken; then check."""
        for _ in range(3 * MAX_INSTRUCTIONS + 10):
            for peer in self.peers:
                peer.stream.arrived += peer.stream.coming
                peer.stream.coming.clear()
                peer.stream.room = 1 << 30
                self.complete(peer, 0)
            self.settle()
            if not any(peer.open for peer in self.peers):
                break
        for peer in self.peers:
            assert peer.handled == peer.expected
            assert peer.stream.closed == peer.faulty
            wanted = b"".join(peer.answers)
            assert wanted.startswith(peer.stream.sent) if peer.faulty else wanted == peer.stream.sent
            peer.stream.ended = True
        self.settle()
        assert all(connection.closed for connection in self.connections)
        assert not self.handler.peers
        assert self.hub.pool.in_use == 0, "request memory leaks"
        assert not self.hub.frame_started


def framing(data: bytes) -> None:
    scene = Scene()
    program = memoryview(data)
    for _ in range(MAX_INSTRUCTIONS):
        if len(program) < 3:
            break
        code, low, high = program[:3]
        program = program[3:]
        number = low | high << 8
        peer = scene.peers[code & 1]
        what = code >> 1 & 7
        if what == 0:  # a small frame
            peer.send(bytes([low]) + bytes(program[: high % 64]))
            program = program[high % 64 :]
        elif what == 1:  # a large one
            peer.send(bytes([low]) + bytes([high]) * (number * 3))
        elif what == 2 and not peer.faulty and high < 32:  # a wrong length
            bad = (0, -1, -(1 << 31), (1 << 31) - 1, LIMITS.max_frame_bytes + 1)[low % 5]
            peer.stream.coming += struct.pack(">i", bad)
            peer.faulty = True
        elif what == 3:  # bytes behind a fault, whatever they are
            if peer.faulty:
                peer.stream.coming += program[: high % 64]
        elif what in (4, 5):  # a piece arrives
            size = number if what == 4 else low % 8 + 1
            peer.stream.arrived += peer.stream.coming[:size]
            del peer.stream.coming[:size]
            scene.settle()
        elif what == 6:  # the peer takes some of what is for it
            peer.stream.room += low
            scene.settle()
        else:
            scene.complete(peer, low)
            if high & 1:
                scene.settle()
    scene.finish()


def _program(*instructions: tuple[int, int, int, int, bytes]) -> bytes:
    return b"".join(
        bytes([what << 1 | peer, low, high]) + content for peer, what, low, high, content in instructions
    )


_SEEDS = (
    _program((0, 0, ANSWER, 5, b"hello"), (0, 4, 255, 255, b""), (0, 6, 200, 0, b"")),
    _program((0, 0, LATER, 2, b"ab"), (0, 0, 0x80, 2, b"cd"), (1, 0, MUTED, 1, b"x"), (1, 0, 0x80, 1, b"y"))
    + _program(
        (0, 4, 255, 255, b""), (1, 5, 3, 0, b""), (1, 4, 255, 0, b""), (0, 7, 0, 1, b""), (1, 7, 0, 1, b"")
    ),
    _program((0, 1, 0x80, 200, b""), (0, 4, 0, 100, b""), (1, 1, ANSWER, 250, b""), (1, 4, 0, 250, b"")),
    _program((0, 0, MALFORMED, 0, b""), (0, 3, 0, 9, b"123456789"), (0, 4, 255, 1, b""), (1, 2, 3, 0, b"")),
    _program((0, 0, BUG, 0, b""), (0, 4, 255, 1, b""), (1, 0, SILENT, 0, b""), (1, 0, 0x80, 0, b"")),
)

NET_TARGETS = (Target("framing", framing, (), _SEEDS),)
