"""Which leader epoch started at which offset: the basis of truncation by epoch and of OffsetForLeaderEpoch.

Who uses it: `Log`. Pure; the log writes the file (`leader-epoch-checkpoint`) before it counts a record of a
new epoch as synced. Both epochs and start offsets rise from entry to entry.

Source: Kafka `LeaderEpochFileCache`, KIP-101, KIP-279.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

UNDEFINED_EPOCH = -1
UNDEFINED_OFFSET = -1


class LeaderEpochs:
    """Sorted (epoch, start offset) pairs. `dirty` says whether they differ from the file."""

    __slots__ = ("_entries", "dirty", "latest_epoch")

    def __init__(self, entries: Iterable[tuple[int, int]] = ()) -> None:
        self._entries: list[tuple[int, int]] = []
        self.latest_epoch = UNDEFINED_EPOCH
        for epoch, start in entries:
            self.assign(epoch, start)
        self.dirty = False

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[tuple[int, int]]:
        """A copy of all (epoch, start offset) pairs."""
        return list(self._entries)

    def _changed(self) -> None:
        self.dirty = True
        self.latest_epoch = self._entries[-1][0] if self._entries else UNDEFINED_EPOCH

    def assign(self, epoch: int, start_offset: int) -> None:
        """Let `epoch` begin at `start_offset`.

        Entries that contradict it are dropped (newest information wins).
        """
        if epoch < 0 or start_offset < 0:
            return
        entries = self._entries
        if entries and entries[-1][0] == epoch and start_offset >= entries[-1][1]:
            return
        while entries and (entries[-1][0] >= epoch or entries[-1][1] >= start_offset):
            entries.pop()
        entries.append((epoch, start_offset))
        self._changed()

    def end_offset(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """Return (largest known epoch not above `epoch`, its end offset), or (-1, -1) if that cannot be said."""
        entries = self._entries
        if epoch == UNDEFINED_EPOCH or not entries:
            return UNDEFINED_EPOCH, UNDEFINED_OFFSET
        if epoch == self.latest_epoch:
            return epoch, log_end_offset
        after = bisect_right(entries, epoch, key=lambda entry: entry[0])
        if after == len(entries):
            return UNDEFINED_EPOCH, UNDEFINED_OFFSET
        if after == 0:
            return epoch, entries[0][1]
        return entries[after - 1][0], entries[after][1]

    def epoch_of(self, offset: int) -> int:
        """Return the epoch in which the record at `offset` was written, -1 if unknown."""
        after = bisect_right(self._entries, offset, key=lambda entry: entry[1])
        return self._entries[after - 1][0] if after else UNDEFINED_EPOCH

    def truncate_from_end(self, end_offset: int) -> None:
        """Drop epochs that start at or above `end_offset`."""
        if self._entries and self._entries[-1][1] >= end_offset:
            while self._entries and self._entries[-1][1] >= end_offset:
                self._entries.pop()
            self._changed()

    def truncate_from_start(self, start_offset: int) -> None:
        """Let the epoch of `start_offset` begin there, and drop older ones."""
        after = bisect_right(self._entries, start_offset, key=lambda entry: entry[1])
        if after == 0 or (after == 1 and self._entries[0][1] == start_offset):
            return
        self._entries[:after] = [(self._entries[after - 1][0], start_offset)]
        self._changed()

    def prepend(self, older: Iterable[tuple[int, int]]) -> None:
        """Put the history of what is no longer here in front: the entries that precede the first one known."""
        first = self._entries[0] if self._entries else (1 << 31, 1 << 63)
        added = LeaderEpochs(entry for entry in older if entry[0] < first[0] and entry[1] < first[1])
        if len(added):
            self._entries[:0] = added.entries
            self._changed()

    def clear(self) -> None:
        """Forget everything."""
        if self._entries:
            self._entries.clear()
            self._changed()
