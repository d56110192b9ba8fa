"""The offset index of a segment: where in the file to start looking for an offset.

Format (Kafka `OffsetIndex`): 8-byte entries, big-endian: the last offset of a batch relative to the segment's
base offset (u32), and the position at which that batch starts (u32). Sparse: one entry per
`index.interval.bytes` of log.
"""

from __future__ import annotations

import struct

from strandline_broker.log.sparse_index import SparseIndex


class OffsetIndex(SparseIndex):
    """Offsets to positions."""

    __slots__ = ()

    entry_format = struct.Struct(">II")

    @property
    def is_full(self) -> bool:
        """Whether the segment must roll before the next entry."""
        return len(self) >= self.max_entries

    @property
    def last_offset(self) -> int:
        """The last indexed offset, or the base offset."""
        return self.base_offset + (self.entry(len(self) - 1)[0] if len(self) else 0)

    def append(self, last_offset: int, position: int) -> None:
        """Index the batch at `position` that ends with `last_offset`."""
        relative = last_offset - self.base_offset
        tail = self._tail
        if tail:
            if relative <= tail[-1][0]:
                return
        elif self._stored and relative <= self.entry(self._stored - 1)[0]:
            return
        self._add((relative, position))

    def lookup(self, offset: int) -> tuple[int, int]:
        """Return (offset, position) of the last entry at or below `offset`, or the start of the segment."""
        count = self._count_at_most(0, offset - self.base_offset)
        if count == 0:
            return self.base_offset, 0
        relative, position = self.entry(count - 1)
        return self.base_offset + relative, position

    def entry_at_most(self, limit: int) -> tuple[int, int]:
        """Return (last offset, position) of the last entry not beyond position `limit`, or the segment's start."""
        count = self._count_at_most(1, limit)
        if count == 0:
            return self.base_offset, 0
        relative, position = self.entry(count - 1)
        return self.base_offset + relative, position

    def truncate_to(self, offset: int) -> None:
        """Drop entries at or above `offset`."""
        self._cut(self._count_at_most(0, offset - self.base_offset - 1))
