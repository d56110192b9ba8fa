"""The time index of a segment: the first offset that can have a timestamp.

Format (Kafka `TimeIndex`): 12-byte entries, big-endian: a timestamp in milliseconds (i64) and an offset
relative to the segment's base offset (u32): up to that offset nothing is later than that timestamp.
Timestamps rise strictly. The last entry of a sealed segment holds its largest timestamp, which time-based
retention reads.
"""

from __future__ import annotations

import struct

from strandline_broker.log.sparse_index import SparseIndex

NO_TIMESTAMP = -1


class TimeIndex(SparseIndex):
    """Timestamps to offsets."""

    __slots__ = ()

    entry_format = struct.Struct(">qI")

    @property
    def is_full(self) -> bool:
        """Whether the segment must roll; one slot stays free for the entry made at sealing."""
        return len(self) >= self.max_entries - 1

    @property
    def last_entry(self) -> tuple[int, int]:
        """(timestamp, offset) of the last entry, or (-1, base offset)."""
        if not len(self):
            return NO_TIMESTAMP, self.base_offset
        timestamp, relative = self.entry(len(self) - 1)
        return timestamp, self.base_offset + relative

    def maybe_append(self, timestamp: int, offset: int) -> None:
        """Add an entry if its timestamp is later than all before."""
        if timestamp > (self._tail[-1][0] if self._tail else self.last_entry[0]):
            self._add((timestamp, offset - self.base_offset))

    def lookup(self, timestamp: int) -> tuple[int, int]:
        """Return the last entry (timestamp, offset) at or before `timestamp`, or (-1, base offset)."""
        count = self._count_at_most(0, timestamp)
        if count == 0:
            return NO_TIMESTAMP, self.base_offset
        found, relative = self.entry(count - 1)
        return found, self.base_offset + relative

    def truncate_to(self, offset: int) -> None:
        """Drop entries at or above `offset`."""
        self._cut(self._count_at_most(1, offset - self.base_offset - 1))
