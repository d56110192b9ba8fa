"""Where the received bytes of one connection are: in the shared buffer, kept, or in a buffer of their own.

    EMPTY   the next recv goes to the shared buffer; after the burst
              nothing is left                                           -> EMPTY
              bytes that cannot be handled now, or half a small frame   -> KEPT
              the start of a large frame, and a buffer is granted       -> LARGE
    KEPT    handled once the connection may go on; half a small frame is put before the next recv in
            the shared buffer, and so is EMPTY again
    LARGE   recv goes straight to its place, exactly up to the frame's end; handled when complete -> EMPTY

A small frame's rest is copied once more (at most 64 KiB) so that one recv still brings as many following
frames as it can; a large frame is never copied except for the bytes that came with its length prefix, and
those are kept few by receiving only 16 KiB first when the last frame was large.

Used by `net.connection` only. Frames handed out are slices of `view` and die with the burst.
"""

from __future__ import annotations

from strandline_broker.net.buffers import BufferPool, PoolBuffer
from strandline_broker.net.limits import SMALL_FRAME_BYTES
from strandline_broker.seams.network import Stream

_FIRST_RECV_BYTES = 16 * 1024
_EMPTY = memoryview(b"")


class ReceiveBuffer:
    """The one buffer that all connections of a loop read into."""

    __slots__ = ("first", "whole")

    def __init__(self, size: int) -> None:
        self.whole = memoryview(bytearray(size))
        self.first = self.whole[:_FIRST_RECV_BYTES]


class Inbox:
    """Bytes [start, end) of `view` are received and not handled."""

    __slots__ = ("_charged", "_expect_large", "_large", "_pool", "_shared", "end", "need", "start", "view")

    def __init__(self, shared: ReceiveBuffer, pool: BufferPool) -> None:
        self._shared = shared
        self._pool = pool
        self.view = _EMPTY
        self.start = 0
        self.end = 0
        self.need = 0
        """Size of the incomplete frame at `start`, prefix included; 0 when unknown."""
        self._charged = 0
        self._large: PoolBuffer | None = None
        self._expect_large = False

    @property
    def holding(self) -> bool:
        """Whether received bytes are kept."""
        return self.end > self.start

    @property
    def large(self) -> bool:
        """Whether a large frame is under way in its own buffer."""
        return self._large is not None

    @property
    def complete(self) -> bool:
        """Whether a large frame has all its bytes (small ones are found by parsing)."""
        return self.end >= self.need

    def receive(self, stream: Stream) -> int:
        """Do one recv and return its result, 0 at the end of the stream; errors as `Stream.recv_into`.

        Precondition: what is kept holds no complete frame.
        """
        if self._large is not None:
            received = stream.recv_into(self.view[self.end : self.need])
            self.end += received
            return received
        kept = self.end - self.start
        whole = self._shared.whole
        if not kept:
            received = stream.recv_into(self._shared.first if self._expect_large else whole)
            self.view = whole
            self.start = 0
            self.end = received
            return received
        assert kept < len(whole), "a complete frame was kept"
        # When memory is short, read what completes the frame and nothing beyond it.
        stop = self.need if self.need and self._pool.full else len(whole)
        received = stream.recv_into(whole[kept:stop])
        whole[:kept] = self.view[self.start : self.end]
        self._refund()
        self.view = whole
        self.start = 0
        self.end = kept + received
        return received

    def settle(self, position: int, need: int) -> None:
        """Keep what follows `position` after a burst; `need` is the size of the frame begun there."""
        self.need = need
        if self._large is not None:
            if position:
                self._pool.release(self._large)
                self._large = None
                self._clear()
            return
        rest = self.end - position
        if rest == 0:
            self._expect_large = False
            self._clear()
        elif self._charged:
            self.start = position
        else:
            data = bytearray(self.view[position : self.end])
            self._charged = rest
            self._pool.charge(rest)
            self.view = memoryview(data)
            self.start = 0
            self.end = rest

    def wants_large(self, need: int) -> bool:
        """Say whether a frame of this size (prefix included) needs a buffer of its own."""
        return need > SMALL_FRAME_BYTES and self._large is None

    def begin_large(self, buffer: PoolBuffer, position: int, need: int) -> None:
        """Move the start of a large frame from `position` into `buffer`."""
        have = self.end - position
        buffer.view[:have] = self.view[position : self.end]
        self._refund()
        self._large = buffer
        self._expect_large = True
        self.view = buffer.view
        self.start = 0
        self.end = have
        self.need = need

    def clear(self) -> None:
        """Drop everything; the connection is gone."""
        if self._large is not None:
            self._pool.release(self._large)
            self._large = None
        self._clear()

    def _clear(self) -> None:
        if self._charged:
            self._refund()
        self.view = _EMPTY
        self.start = self.end = self.need = 0

    def _refund(self) -> None:
        if self._charged:
            self._pool.refund(self._charged)
            self._charged = 0
