"""However a byte stream is cut, the handler sees the same frames."""

from __future__ import annotations

import itertools
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.net.support import ScriptedHandler, frame

from strandline_broker.net.connection import Connection, Listener
from strandline_broker.net.hub import Hub
from strandline_broker.net.limits import SMALL_FRAME_BYTES, Limits
from strandline_broker.net.metrics import NetMetrics
from strandline_broker.seams.disk import Buffer, File

MAX_FRAME = 300_000
LIMITS = Limits(
    max_frame_bytes=MAX_FRAME,
    max_requests_per_burst=7,
    request_memory_bytes=1 << 20,
    receive_buffer_bytes=2 * SMALL_FRAME_BYTES,
)


class ManualLoop:
    """What a hub wants of an event loop."""

    def __init__(self) -> None:
        self._soon: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self._soon.append((callback, arguments))

    def run(self) -> None:
        while self._soon:
            callback, arguments = self._soon.popleft()
            callback(*arguments)


class PieceStream:
    """A stream whose pieces are given; one recv never returns bytes of two pieces."""

    peer = ("192.0.2.7", 7)
    unsent = 0

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = deque(memoryview(piece) for piece in pieces if piece)
        self.sent = bytearray()
        self.closed = False
        self.reader: Callable[[], None] | None = None

    def recv_into(self, buffer: memoryview, /) -> int:
        assert len(buffer), "an empty read looks like the end of the stream"
        if not self._pieces:
            raise BlockingIOError
        piece = self._pieces.popleft()
        size = min(len(piece), len(buffer))
        buffer[:size] = piece[:size]
        if size < len(piece):
            self._pieces.appendleft(piece[size:])
        return size

    def send(self, parts: Sequence[Buffer], /, *, more: bool = False) -> int:
        for part in parts:
            self.sent += part
        return sum(map(len, parts))

    def sendfile(self, file: File, offset: int, count: int, /) -> int:
        raise AssertionError("not called here")

    def set_reader(self, callback: Callable[[], None] | None, /) -> None:
        self.reader = callback

    def set_writer(self, callback: Callable[[], None] | None, /) -> None:
        assert callback is None, "everything was taken"

    def shutdown_write(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def feed(self, loop: ManualLoop) -> None:
        """Call the reader until all pieces are consumed or nobody reads any more."""
        while self._pieces and self.reader is not None and not self.closed:
            self.reader()
            loop.run()


def _handle(pieces: list[bytes]) -> tuple[ScriptedHandler, PieceStream, Hub]:
    loop = ManualLoop()
    handler = ScriptedHandler()
    hub = Hub(cast(Any, loop), handler, LIMITS, NetMetrics(), lambda _: None)
    stream = PieceStream(pieces)
    Connection(hub, stream, Listener("TEST")).start()
    stream.feed(loop)
    return handler, stream, hub


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(borders)]


SIZES = st.one_of(
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(SMALL_FRAME_BYTES - 20, SMALL_FRAME_BYTES + 20),
    st.integers(0, MAX_FRAME - 1),
)


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(SIZES, max_size=12),
    cuts=st.lists(st.integers(0, 1 << 30), max_size=30),
    small_cuts=st.lists(st.integers(0, 60), max_size=10),
)
def test_the_same_frames_however_they_are_cut(
    sizes: list[int], cuts: list[int], small_cuts: list[int]
) -> None:
    bodies = [b"e" + bytes([index % 251]) * size for index, size in enumerate(sizes)]
    data = b"".join(map(frame, bodies))
    handler, stream, hub = _handle(_cut(data, cuts + small_cuts))
    assert handler.frames == bodies
    assert stream.sent == data
    assert not stream.closed
    assert hub.pool.in_use == 0
    assert not hub.frame_started


def _expected(data: bytes) -> tuple[list[bytes], bool]:
    """Return the frames of a byte stream, and whether a bad length ends it."""
    bodies: list[bytes] = []
    position = 0
    while position + 4 <= len(data):
        (size,) = struct.unpack_from(">i", data, position)
        if not 0 < size <= MAX_FRAME:
            return bodies, True
        if position + 4 + size > len(data):
            break
        bodies.append(data[position + 4 : position + 4 + size])
        position += 4 + size
    return bodies, False


# Mostly small lengths, so that random bytes hold more than one frame, of kinds that are answered at once.
NOISE = st.lists(
    st.one_of(
        st.binary(max_size=8),
        st.integers(-2, 30).map(lambda size: struct.pack(">i", size)),
        st.sampled_from([b"e", b"n", b"d", b"s"]),
        st.binary(max_size=30).map(lambda body: frame(b"e" + body)),
    ),
    max_size=40,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(data=NOISE, cuts=st.lists(st.integers(0, 1 << 30), max_size=40))
def test_random_bytes_give_the_same_frames_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    bodies, bad = _expected(data)
    if any(body[:1] not in (b"e", b"n", b"d", b"s") for body in bodies):
        bodies = [b"e" + body for body in bodies]
        data = b"".join(map(frame, bodies)) + (struct.pack(">i", -1) if bad else b"")
    handler, stream, hub = _handle(_cut(data, cuts))
    assert handler.frames == bodies
    assert stream.closed == bad
    assert hub.pool.in_use == 0 or not bad
