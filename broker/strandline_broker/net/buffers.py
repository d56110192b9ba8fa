"""Memory for requests that are not complete yet, bounded for the whole broker and reused.

Small requests live in the shared receive buffer and need none of this. A large one is received straight into
a buffer from this pool. Buffers come in size classes and are kept for a while, because the page faults of a
fresh megabyte cost more than receiving into one that is already mapped.

The bound is split in two, so that neither kind of request can starve the other, and waiting ends by itself:
- 7/8 of it for large requests (`try_acquire`), first come first served, each with its whole size reserved at
  once, so that two half-received requests never wait for each other;
- 1/8 of it for received bytes that cannot be handled now (`charge`). When that is used up, `full` tells
  connections that hold nothing not to read at all; it can be exceeded by one receive buffer.

Used by `net.connection` and `net.inbox` only; one thread.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable

_SMALLEST_CLASS = 256 * 1024
_LARGEST_CLASS = 16 * 1024 * 1024
_PAGE = mmap.PAGESIZE


def capacity_for(size: int) -> int:
    """Return the size class: a power of two and a sixteenth: 1 MiB of records plus headers is no 2 MiB."""
    if size > _LARGEST_CLASS:
        return -(-size // _PAGE) * _PAGE
    capacity = _SMALLEST_CLASS
    while capacity + capacity // 16 < size:
        capacity *= 2
    return capacity + capacity // 16


class PoolBuffer:
    """A writable buffer; `capacity` bytes of the pool's limit are its."""

    __slots__ = ("capacity", "view")

    def __init__(self, capacity: int) -> None:
        # Anonymous mapping: page-aligned, pages appear as they are touched, and go back to the system at the
        # end.
        self.view = memoryview(mmap.mmap(-1, capacity))
        self.capacity = capacity


class Ticket:
    """A place in the line for memory."""

    __slots__ = ("granted", "size")

    def __init__(self, size: int, granted: Callable[[PoolBuffer | None], None]) -> None:
        self.size = size
        self.granted: Callable[[PoolBuffer | None], None] | None = granted

    def cancel(self) -> None:
        """Leave the line."""
        self.granted = None


class BufferPool:
    """See the module's docstring. `call_soon` runs grants outside of whatever released the memory."""

    __slots__ = (
        "_cache_limit",
        "_cached",
        "_call_soon",
        "_charge_limit",
        "_charged",
        "_free",
        "_granting",
        "_large",
        "_large_limit",
        "_lines",
        "_low",
    )

    def __init__(
        self, limit_bytes: int, cache_bytes: int, call_soon: Callable[[Callable[[], None]], object]
    ) -> None:
        self._charge_limit = limit_bytes // 8
        self._large_limit = limit_bytes - self._charge_limit
        self._charged = 0
        self._large = 0
        self._cache_limit = cache_bytes
        self._cached = 0
        self._call_soon = call_soon
        self._granting = False
        self._free: dict[int, list[PoolBuffer]] = {}
        self._low: dict[
            int, int
        ] = {}  # fewest free buffers of a class since the last trim: those nobody needed
        # Two lines: for a large buffer, and for permission to read at all.
        self._lines: tuple[deque[Ticket], deque[Ticket]] = (deque(), deque())

    @property
    def in_use(self) -> int:
        """Bytes that requests hold now."""
        return self._large + self._charged

    @property
    def full(self) -> bool:
        """Whether nothing more should be read that does not complete what is here already."""
        return self._charged >= self._charge_limit

    @property
    def contended(self) -> bool:
        """Whether somebody waits for a large buffer."""
        return any(ticket.granted is not None for ticket in self._lines[0])

    def try_acquire(self, size: int) -> PoolBuffer | None:
        """Return a buffer of at least `size` bytes, or None: then `wait`. Who waits already comes first.

        Raises OSError when the system has no memory.
        """
        line = self._lines[0]
        while line and line[0].granted is None:
            line.popleft()
        if line:
            return None
        return self._take(size)

    def _take(self, size: int) -> PoolBuffer | None:
        capacity = capacity_for(size)
        if self._large + capacity > self._large_limit:
            return None
        free = self._free.get(capacity)
        if free:
            self._cached -= capacity
            buffer = free.pop()
            if len(free) < self._low[capacity]:
                self._low[capacity] = len(free)
        else:
            buffer = PoolBuffer(capacity)
        self._large += capacity
        return buffer

    def release(self, buffer: PoolBuffer) -> None:
        """Take a buffer back; whoever still holds a view of it sees other bytes soon."""
        capacity = buffer.capacity
        if capacity <= _LARGEST_CLASS + _LARGEST_CLASS // 16 and self._cached + capacity <= self._cache_limit:
            self._free.setdefault(capacity, []).append(buffer)
            self._low.setdefault(capacity, 0)
            self._cached += capacity
        self._large -= capacity
        assert self._large >= 0, "a buffer was given back twice"
        self._wake_line()

    def charge(self, size: int) -> None:
        """Count bytes that were received already and have to stay somewhere."""
        self._charged += size

    def refund(self, size: int) -> None:
        """Give back what was charged."""
        self._charged -= size
        assert self._charged >= 0, "more memory given back than taken"
        self._wake_line()

    def _wake_line(self) -> None:
        if not self._granting and (self._lines[0] or self._lines[1]):
            self._granting = True
            self._call_soon(self._grant)

    def wait(self, size: int, granted: Callable[[PoolBuffer | None], None]) -> Ticket:
        """Wait in line for a buffer of `size` bytes, or with size 0 until the pool is not `full`.

        `granted` gets the buffer (None for size 0, or when the system has no memory), in a later turn of the loop.
        """
        ticket = Ticket(size, granted)
        self._lines[0 if size else 1].append(ticket)
        return ticket

    def _grant(self) -> None:
        self._granting = False
        large, gate = self._lines
        while large:
            ticket = large[0]
            buffer = None
            if ticket.granted is not None:
                try:
                    buffer = self._take(ticket.size)
                except OSError:
                    pass  # no memory: the one who waits is told so by getting no buffer
                else:
                    if buffer is None:
                        break
            large.popleft()
            if ticket.granted is not None:
                ticket.granted(buffer)
        for _ in range(len(gate)):
            if self.full:
                break
            ticket = gate.popleft()
            if ticket.granted is not None:
                ticket.granted(None)

    def trim(self) -> None:
        """Give back the idle buffers that were not needed since the last call."""
        for capacity, unused in self._low.items():
            free = self._free[capacity]
            del free[:unused]
            self._cached -= unused * capacity
            self._low[capacity] = len(free)
