"""What offset index and time index have in common: a sorted array of fixed-size entries, its end in memory.

New entries stay in memory and reach the file in blocks, at the latest when the segment is sealed or the log
closed: an index can always be rebuilt from its segment, so nothing here is synced before the segment is
sealed. Lookups search the part in memory first (that is where readers are), then the file with a few small
reads; nothing is mapped or loaded whole.
"""

from __future__ import annotations

import errno
import logging
import struct
from typing import TYPE_CHECKING, cast

from strandline_broker.seams.disk import DiskError

if TYPE_CHECKING:
    from strandline_broker.log.files import FileCache
    from strandline_broker.seams.disk import File

logger = logging.getLogger(__name__)

_SPILL_AT_ENTRIES = 1024
_BLOCK_ENTRIES = 512

Entry = tuple[int, int]


class SparseIndex:
    """A sorted list of (first, second) pairs.

    Both columns rise. Subclasses say how an entry looks on disk.
    """

    __slots__ = (
        "_block",
        "_block_end",
        "_block_start",
        "_files",
        "_stored",
        "_tail",
        "base_offset",
        "max_entries",
        "path",
    )

    entry_format: struct.Struct

    def __init__(self, files: FileCache, path: str, base_offset: int, max_bytes: int) -> None:
        self._files = files
        self.path = path
        self.base_offset = base_offset
        self.max_entries = max_bytes // self.entry_format.size
        self._stored = 0
        self._tail: list[Entry] = []
        # The entries of the file that were read last, as bytes: sequential readers stay within them for long.
        self._block = b""
        self._block_start = self._block_end = 0

    def __len__(self) -> int:
        return self._stored + len(self._tail)

    def load(self) -> bool:
        """Take over what the file holds.

        Return False if it is missing or no index (it must be rebuilt then).
        """
        try:
            size = self._files.open(self.path).size()
        except FileNotFoundError:
            return False
        self._stored, torn = divmod(size, self.entry_format.size)
        self._tail.clear()
        self._forget_block()
        if torn:
            self._stored = 0
            return False
        return self._plausible()

    def _plausible(self) -> bool:
        """Look at both ends: preallocated zeros and garbage rarely rise."""
        count = len(self)
        if count == 0:
            return True
        first, last = self.entry(0), self.entry(count - 1)
        if count == 1:
            return first[0] >= 0 and first[1] >= 0
        before_last = self.entry(count - 2)
        return 0 <= first[0] <= before_last[0] < last[0] and 0 <= first[1] <= before_last[1] <= last[1]

    def _forget_block(self) -> None:
        self._block_start = self._block_end = 0

    def _load_block(self, start: int, end: int) -> None:
        """Read the entries `[start, end)` of the file."""
        size = self.entry_format.size
        data = self._files.open(self.path).pread((end - start) * size, start * size)
        if len(data) != (end - start) * size:
            raise DiskError(errno.EIO, "the index is shorter than it was", self.path)
        self._block, self._block_start, self._block_end = data, start, end

    def entry(self, number: int) -> Entry:
        """Return one entry, offsets relative to the base offset. Raises DiskError."""
        if number >= self._stored:
            return self._tail[number - self._stored]
        if not self._block_start <= number < self._block_end:
            start = max(0, number - _BLOCK_ENTRIES + 1)
            self._load_block(start, min(self._stored, start + _BLOCK_ENTRIES))
        return cast(
            "Entry",
            self.entry_format.unpack_from(self._block, (number - self._block_start) * self.entry_format.size),
        )

    def to_bytes(self) -> bytes:
        """Return all entries as the file holds them once it is complete. Raises DiskError."""
        size = self._stored * self.entry_format.size
        stored = self._files.open(self.path).pread(size, 0) if size else b""
        if len(stored) != size:
            raise DiskError(errno.EIO, "the index is shorter than it was", self.path)
        pack = self.entry_format.pack
        return stored + b"".join([pack(*entry) for entry in self._tail])

    def _count_at_most(self, column: int, limit: int) -> int:
        """Return how many entries have at most `limit` in a column."""
        tail = self._tail
        if tail and tail[0][column] <= limit:
            low, high = 0, len(tail)
            while low < high:
                middle = (low + high) >> 1
                if tail[middle][column] <= limit:
                    low = middle + 1
                else:
                    high = middle
            return self._stored + low
        return self._count_stored(column, limit) if self._stored else 0

    def _count_stored(self, column: int, limit: int) -> int:
        """Search the file.

        In the block at hand if the answer is there, else entry by entry until a block holds it.
        """
        size = self.entry_format.size
        unpack = self.entry_format.unpack_from
        start, end = self._block_start, self._block_end
        low, high = 0, self._stored
        if (
            start < end
            and unpack(self._block)[column] <= limit < unpack(self._block, (end - start - 1) * size)[column]
        ):
            low, high = start, end
        elif high > _BLOCK_ENTRIES:
            file = self._files.open(self.path)
            while high - low > _BLOCK_ENTRIES:
                middle = (low + high) >> 1
                data = file.pread(size, middle * size)
                if len(data) != size:
                    raise DiskError(errno.EIO, "the index is shorter than it was", self.path)
                if unpack(data)[column] <= limit:
                    low = middle + 1
                else:
                    high = middle
        if low < high and not start <= low < high <= end:
            # With an entry on either side, so that the next search nearby knows that it can stay.
            low_read, high_read = max(0, low - 1), min(self._stored, high + 1)
            self._load_block(low_read, high_read)
            start = low_read
        block = self._block
        while low < high:
            middle = (low + high) >> 1
            if unpack(block, (middle - start) * size)[column] <= limit:
                low = middle + 1
            else:
                high = middle
        return low

    def _add(self, entry: Entry) -> None:
        self._tail.append(entry)
        if len(self._tail) >= _SPILL_AT_ENTRIES and len(self._tail) % _SPILL_AT_ENTRIES == 0:
            self._spill(len(self._tail) // 2)

    def _spill(self, count: int) -> bool:
        """Move the oldest entries in memory to the file.

        On a full disk they stay here and nothing is lost.
        """
        pack = self.entry_format.pack
        data = b"".join([pack(*entry) for entry in self._tail[:count]])
        expected = self._stored * self.entry_format.size
        try:
            file = self._files.open(self.path, create=True)
            if file.size() != expected:
                file.truncate(expected)
            file.append([data])
        except OSError as error:
            logger.warning("%s: %d entries stay in memory: %s", self.path, len(self._tail), error)
            return False
        self._stored += count
        del self._tail[:count]
        self._forget_block()
        return True

    def flush(self) -> File | None:
        """Write all entries to the file, and return it for syncing; None if the disk does not take them."""
        if not self._spill(len(self._tail)):
            return None
        return self._files.open(self.path, create=True)

    def _cut(self, count: int) -> None:
        """Keep the first `count` entries."""
        if count >= self._stored:
            del self._tail[count - self._stored :]
            return
        self._tail.clear()
        self._stored = count
        self._forget_block()
        self._files.open(self.path, create=True).truncate(count * self.entry_format.size)

    def clear(self) -> None:
        """Drop all entries, in the file too."""
        self._stored = 0
        self._tail.clear()
        self._forget_block()
        try:
            self._files.open(self.path).truncate(0)
        except FileNotFoundError:
            pass

    def remove(self) -> None:
        """Remove the file."""
        self._files.forget(self.path)
        self._files.disk.remove(self.path)
