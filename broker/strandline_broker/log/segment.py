"""One segment of a log: a file of batches, its two sparse indexes, and what is known about positions in it.

Who uses it: `Log` and the modules beside it. Not for anybody else: a segment knows nothing of high
watermarks, epochs or durability.

Positions are remembered in two small bounded maps, `marks` (where appends ended) and `hints` (where readers
stopped), so that tail readers and sequential readers find their next batch without touching the index or the
file.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from strandline_broker.log.names import (
    DELETED_SUFFIX,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    TIME_INDEX_SUFFIX,
    TXN_INDEX_SUFFIX,
    file_name,
)
from strandline_broker.log.offset_index import OffsetIndex
from strandline_broker.log.scan import CorruptBatch, check_header, iter_headers
from strandline_broker.log.time_index import NO_TIMESTAMP, TimeIndex
from strandline_broker.wire.batch import HEADER_SIZE, BatchHeader, read_header

if TYPE_CHECKING:
    from strandline_broker.log.config import LogConfig
    from strandline_broker.log.files import FileCache
    from strandline_broker.seams.disk import Buffer, Disk, File

logger = logging.getLogger(__name__)

MAX_RELATIVE_OFFSET = (1 << 31) - 1
MAX_POSITION = (1 << 31) - 1
_MAX_MARKS = 256
_MAX_HINTS = 128
_ALLOCATE_FROM_BYTES = 1 << 20
_ALLOCATE_MOST_BYTES = 16 << 20
# More than one commit adds to an index between two looks at it.
_INDEX_MARGIN = 4096

Batch = tuple["Buffer", int, int, int, int]
"""What an append needs of a batch: its bytes, base offset, last offset, largest timestamp, size."""


class Segment:
    """A segment. `next_offset` is exact for the active segment and an upper bound for sealed ones.

    `max_timestamp` and `max_timestamp_offset` (the last offset of the batch that has it) are -1 until known
    or if no record has a timestamp; sealed segments read theirs from the time index when first asked.

    An append that stays within `safe_size`, `max_next_offset` and `roll_timestamp` needs no `should_roll`.
    """

    __slots__ = (
        "_allocated",
        "_file",
        "_files",
        "_indexes_loaded",
        "_jitter_ms",
        "_max_timestamp",
        "_max_timestamp_offset",
        "_offset_index",
        "_suffix",
        "_time_index",
        "base_offset",
        "bytes_since_index",
        "config",
        "created_ms",
        "directory",
        "first_timestamp",
        "hints",
        "marks",
        "max_next_offset",
        "next_offset",
        "path",
        "roll_timestamp",
        "safe_size",
        "size",
    )

    def __init__(
        self,
        files: FileCache,
        directory: str,
        base_offset: int,
        config: LogConfig,
        now_ms: int,
        *,
        suffix: str = "",
    ) -> None:
        """`suffix` (`.cleaned`, `.swap`) stands behind the file names of a segment that is to replace others."""
        self._files = files
        self._suffix = suffix
        self.directory = directory
        self.base_offset = base_offset
        self.config = config
        self.created_ms = now_ms
        self.path = self._sibling(LOG_SUFFIX)
        index_bytes = config.segment_index_bytes
        self._offset_index = OffsetIndex(files, self._sibling(INDEX_SUFFIX), base_offset, index_bytes)
        self._time_index = TimeIndex(files, self._sibling(TIME_INDEX_SUFFIX), base_offset, index_bytes)
        self._indexes_loaded = False
        self._file: File | None = None
        self._allocated = 0
        self.size = 0
        self.next_offset = base_offset
        self.max_next_offset = base_offset + MAX_RELATIVE_OFFSET + 1
        self.safe_size = 0
        self.bytes_since_index = 0
        self.first_timestamp: int | None = None
        self._max_timestamp: int | None = None
        self._max_timestamp_offset = NO_TIMESTAMP
        self.marks: dict[int, int] = {}
        self.hints: dict[int, int] = {}
        # Kafka draws the jitter at random; what matters is that partitions differ.
        jitter = min(config.segment_jitter_ms, config.roll_ms)
        self._jitter_ms = zlib.crc32(self.path.encode()) % jitter if jitter > 0 else 0
        self.roll_timestamp = NO_TIMESTAMP - 1

    def __repr__(self) -> str:
        return f"<Segment {self.path} size={self.size} next_offset={self.next_offset}>"

    def _sibling(self, kind: str) -> str:
        return f"{self.directory}/{file_name(self.base_offset, kind)}{self._suffix}"

    # -- files and indexes -----------------------------------------------------------------------------------

    @property
    def disk(self) -> Disk:
        """The disk below."""
        return self._files.disk

    @property
    def file(self) -> File:
        """The file of batches; the active segment holds it, a sealed one borrows it from the cache."""
        return self._file or self._files.open(self.path)

    def create(self) -> None:
        """Make the file, empty, and hold it. Raises DiskError."""
        file = self._files.disk.open(self.path, create=True)
        if file.size():
            file.truncate(0)
        self._file = file
        self._indexes_loaded = True
        self._max_timestamp = NO_TIMESTAMP
        self._offset_index.clear()
        self._time_index.clear()

    def hold(self) -> File:
        """Keep the file open from now on, for appends."""
        if self._file is None:
            self._files.forget(self.path)
            self._file = self._files.disk.open(self.path)
            self._allocated = 0
        return self._file

    def release(self) -> None:
        """Give reserved blocks back and stop holding the file."""
        if self._file is not None:
            if self._allocated > self.size:
                self._file.truncate(self.size)
            self._allocated = 0
            self._file = None

    @property
    def offset_index(self) -> OffsetIndex:
        """The offset index, loaded or rebuilt when first asked for.

        Raises CorruptBatch if it cannot be rebuilt.
        """
        if not self._indexes_loaded:
            self._load_indexes()
        return self._offset_index

    @property
    def time_index(self) -> TimeIndex:
        """The time index; as `offset_index`."""
        if not self._indexes_loaded:
            self._load_indexes()
        return self._time_index

    def _load_indexes(self) -> None:
        offsets, times = self._offset_index, self._time_index
        sound = offsets.load() and times.load()
        if sound and len(offsets):
            relative, position = offsets.entry(len(offsets) - 1)
            sound = position + HEADER_SIZE <= self.size and relative < self.next_offset - self.base_offset
        if sound and self.size:
            # The time index of whatever was closed or sealed ends with the largest timestamp.
            sound = times.last_entry[1] < self.next_offset and (
                len(times) > 0 or self.header_at(0).max_timestamp < 0
            )
        self._indexes_loaded = True
        if not sound and self.size:
            logger.warning("%s: missing or inconsistent index, rebuilding it", self.path)
            try:
                self._build_indexes()
            except CorruptBatch as error:
                logger.error("%s; what lies behind it cannot be read", error)

    def _build_indexes(self) -> None:
        """Build both indexes again from the headers in the file.

        Raises CorruptBatch with them complete up to it.
        """
        self.start_indexing()
        try:
            for position, header in self._own_headers(0):
                self.index_batch(position, header.last_offset, header.max_timestamp, header.size)
        finally:
            self._time_index.maybe_append(self.max_timestamp, self._max_timestamp_offset)
            self._offset_index.flush()
            self._time_index.flush()

    def _own_headers(self, start: int) -> Iterator[tuple[int, BatchHeader]]:
        """Walk the headers as `headers` does, but take only offsets that can be in this segment."""
        for position, header in iter_headers(self.file, start, self.size):
            relative = header.base_offset - self.base_offset
            if relative < 0 or relative + header.last_offset_delta > MAX_RELATIVE_OFFSET:
                raise CorruptBatch(
                    self.path, position, f"offset {header.base_offset} cannot be in this segment"
                )
            yield position, header

    def start_indexing(self) -> None:
        """Empty the indexes; `index_batch` fills them."""
        self._offset_index.clear()
        self._time_index.clear()
        self._indexes_loaded = True
        self.bytes_since_index = 0
        self._max_timestamp = NO_TIMESTAMP
        self._max_timestamp_offset = self.base_offset

    def index_batch(self, position: int, last_offset: int, max_timestamp: int, size: int) -> None:
        """Take note of the next batch (recovery and rebuilding; appends do the same inline)."""
        if max_timestamp > self.max_timestamp:
            self._max_timestamp = max_timestamp
            self._max_timestamp_offset = last_offset
        if self.bytes_since_index > self.config.index_interval_bytes:
            self._offset_index.append(last_offset, position)
            self._time_index.maybe_append(self.max_timestamp, self._max_timestamp_offset)
            self.bytes_since_index = 0
        self.bytes_since_index += size

    # -- timestamps ------------------------------------------------------------------------------------------

    @property
    def max_timestamp(self) -> int:
        """The largest timestamp in the segment, -1 for none."""
        if self._max_timestamp is None:
            # Read first: loading may rebuild, which sets both.
            timestamp, offset = self.time_index.last_entry
            if self._max_timestamp is None:
                self._max_timestamp, self._max_timestamp_offset = timestamp, offset
        return self._max_timestamp

    @property
    def max_timestamp_offset(self) -> int:
        """The last offset of the first batch that has the largest timestamp."""
        return self._max_timestamp_offset if self.max_timestamp >= 0 else self.base_offset

    @property
    def age_timestamp(self) -> int:
        """The time that retention goes by: the largest timestamp, or when the segment was made or opened."""
        timestamp = self.max_timestamp
        return timestamp if timestamp >= 0 else self.created_ms

    def load_first_timestamp(self) -> int:
        """Return the largest timestamp of the first batch, -1 for none. Raises CorruptBatch."""
        if self.first_timestamp is None:
            self.first_timestamp = self.header_at(0).max_timestamp if self.size else NO_TIMESTAMP
        return self.first_timestamp

    def watch_time(self) -> None:
        """Set `roll_timestamp`: a batch later than this may have to go to a new segment."""
        first = self.load_first_timestamp() if self.size else NO_TIMESTAMP
        # Without timestamps the wall clock decides, so every append has to look.
        self.roll_timestamp = (
            first + self.config.roll_ms - self._jitter_ms if first >= 0 else NO_TIMESTAMP - 1
        )
        self._watch_indexes()

    def _watch_indexes(self) -> None:
        """Set `safe_size`; an index that is nearly full makes every append look."""
        room = self._time_index.max_entries - max(len(self._offset_index), len(self._time_index))
        self.safe_size = min(self.config.segment_bytes, MAX_POSITION) if room > _INDEX_MARGIN else 0

    def watch_time_later(self) -> None:
        """Let the next append look at everything, without reading the file now."""
        self.roll_timestamp = NO_TIMESTAMP - 1
        self.safe_size = 0

    def should_roll(
        self, size: int, last_offset: int, max_timestamp: int, now_ms: int, pending_bytes: int
    ) -> bool:
        """Say whether a batch has to go to a new segment, with `pending_bytes` to be written here before it.

        Source: Kafka `LogSegment.shouldRoll`.
        """
        filled = self.size + pending_bytes
        if filled == 0:
            return last_offset - self.base_offset > MAX_RELATIVE_OFFSET
        if filled + size > min(self.config.segment_bytes, MAX_POSITION):
            return True
        if last_offset - self.base_offset > MAX_RELATIVE_OFFSET:
            return True
        if self._offset_index.is_full or self._time_index.is_full:
            return True
        first = self.load_first_timestamp()
        waited = max_timestamp - first if first >= 0 else now_ms - self.created_ms
        return waited > self.config.roll_ms - self._jitter_ms

    # -- writing ---------------------------------------------------------------------------------------------

    def append(self, batches: Sequence[Batch], byte_count: int) -> None:
        """Write batches, `byte_count` bytes in all, with one system call and index them.

        Raises DiskError with the file as it was, or `TornAppend` if even that could not be restored.
        """
        file = self._file or self.hold()
        position = self.size
        end = position + byte_count
        if end > self._allocated and end >= _ALLOCATE_FROM_BYTES:
            self._allocate(file, end)
        try:
            file.append([batch[0] for batch in batches])
        except OSError:
            self._restore(file, position)
            raise
        if position == 0:
            self.first_timestamp = batches[0][3]
            self.watch_time()
        interval = self.config.index_interval_bytes
        max_timestamp = self.max_timestamp
        since = self.bytes_since_index
        last = self.next_offset - 1
        for _, _, last, timestamp, size in batches:
            if timestamp > max_timestamp:
                self._max_timestamp = max_timestamp = timestamp
                self._max_timestamp_offset = last
            if since > interval:
                self._offset_index.append(last, position)
                self._time_index.maybe_append(max_timestamp, self._max_timestamp_offset)
                if not len(self._offset_index) & 1023:
                    self._watch_indexes()
                since = 0
            since += size
            position += size
        self.bytes_since_index = since
        self.size = position
        self.next_offset = last + 1
        marks = self.marks
        marks[last + 1] = position
        if len(marks) > _MAX_MARKS:
            del marks[next(iter(marks))]

    def _allocate(self, file: File, end: int) -> None:
        ahead = min(end, _ALLOCATE_MOST_BYTES)
        self._allocated = max(end, min(end + ahead, self.config.segment_bytes))
        file.allocate(self._allocated)

    def _restore(self, file: File, position: int) -> None:
        try:
            if file.size() > position:
                file.truncate(position)
                # Or a crash might bring refused batches back among those that are written over them.
                file.datasync()
        except OSError as error:
            raise TornAppend(
                f"{self.path}: cannot cut a failed append back to {position}: {error}"
            ) from error
        self._allocated = 0

    def seal(self) -> list[File]:
        """End the segment: write the indexes; return the files that must be synced with it."""
        self._time_index.maybe_append(self.max_timestamp, self.max_timestamp_offset)
        log_file = self.hold()
        files = [log_file]
        for index in (self._offset_index, self._time_index):
            file = index.flush()
            if file is not None:
                files.append(file)
        self.release()
        self.marks.clear()
        return files

    def unseal(self) -> None:
        """Become the active segment again, after a roll was undone or later segments were truncated."""
        self.hold()
        self.watch_time_later()

    def truncate_to(self, offset: int) -> None:
        """Drop all batches that end at or above `offset`. Raises DiskError, CorruptBatch."""
        position = self.position_of(offset)
        self.marks.clear()
        self.hints.clear()
        offsets, times = self.offset_index, self.time_index
        self.hold().truncate(position)
        self._allocated = 0
        self.size = position
        self.next_offset = min(self.next_offset, offset)
        offsets.truncate_to(offset)
        times.truncate_to(offset)
        self._reread_tail()

    def _reread_tail(self) -> None:
        """Find out again what only the batches behind the last index entry know."""
        self._max_timestamp, self._max_timestamp_offset = self._time_index.last_entry
        count = len(self._offset_index)
        start = self._offset_index.entry(count - 1)[1] if count else 0
        self.bytes_since_index = 0
        self.first_timestamp = None
        self.next_offset = self.base_offset
        for _, header in self._own_headers(start):
            if header.max_timestamp > self._max_timestamp:
                self._max_timestamp = header.max_timestamp
                self._max_timestamp_offset = header.last_offset
            self.bytes_since_index += header.size
            self.next_offset = header.last_offset + 1
        self.watch_time_later()

    def find_end(self) -> None:
        """After a clean stop: learn `next_offset` and the tail from the last index entry on.

        Raises CorruptBatch if the file does not end with a whole batch.
        """
        self.next_offset = self.base_offset + MAX_RELATIVE_OFFSET + 1
        self._load_indexes()
        self._reread_tail()
        if max(self._offset_index.last_offset, self._time_index.last_entry[1]) >= max(
            self.next_offset, self.base_offset + 1
        ):
            logger.warning("%s: its index goes beyond its end, rebuilding it", self.path)
            self._build_indexes()
            self._reread_tail()

    # -- reading ---------------------------------------------------------------------------------------------

    def header_at(self, position: int) -> BatchHeader:
        """Read the header of the batch at a position. Raises CorruptBatch."""
        data = self.file.pread(HEADER_SIZE, position)
        if len(data) < HEADER_SIZE:
            raise CorruptBatch(self.path, position, "the file ends within a batch header")
        header = read_header(data)
        check_header(header, self.path, position, self.size)
        return header

    def headers(self, position: int = 0) -> Iterator[tuple[int, BatchHeader]]:
        """Walk the batch headers from a position on. Raises CorruptBatch."""
        return iter_headers(self.file, position, self.size)

    def position_of(self, offset: int) -> int:
        """Return where the first batch starts that ends at or above `offset`; `size` if there is none.

        Raises CorruptBatch.
        """
        if offset <= self.base_offset:
            return 0
        position = self.marks.get(offset)
        if position is None:
            position = self.hints.get(offset)
            if position is None:
                position = self._search(offset)
                self.remember(offset, position)
        return position

    def _search(self, offset: int) -> int:
        indexed, start = self.offset_index.lookup(offset)
        if start and not self._agrees(indexed, start):
            # Is it the index, or is it the segment? A corrupt batch must not cost the index what it knows
            # behind it.
            for _ in iter_headers(self.file, 0, self.size):
                pass
            logger.warning("%s: the index is wrong about offset %d, rebuilding it", self.path, indexed)
            self._build_indexes()
            _, start = self._offset_index.lookup(offset)
        for position, header in iter_headers(self.file, start, self.size):
            if header.base_offset + header.last_offset_delta >= offset:
                return position
        return self.size

    def _agrees(self, last_offset: int, position: int) -> bool:
        """Whether a batch with this last offset lies where the index says."""
        try:
            return self.header_at(position).last_offset == last_offset
        except CorruptBatch:
            return False

    def remember(self, offset: int, position: int) -> None:
        """Keep in mind that reading goes on at `position` for `offset`."""
        hints = self.hints
        hints[offset] = position
        if len(hints) > _MAX_HINTS:
            del hints[next(iter(hints))]

    def cut(self, start: int, limit: int) -> int:
        """Return a batch boundary in `(start, limit]`, as high as the index knows, or `start` if it knows none.

        The reader that continues there is expected: its offset is remembered.
        """
        indexed, position = self.offset_index.entry_at_most(limit)
        if position <= start:
            return start
        try:
            header = self.header_at(position)
        except CorruptBatch:
            return start
        if header.last_offset != indexed:
            return start  # a wrong index; `_search` repairs it, here it must only not cut a batch in two
        self.remember(header.base_offset, position)
        return position

    # -- the end ---------------------------------------------------------------------------------------------

    def paths(self) -> list[str]:
        """Return every file that belongs to this segment.

        The log file last, so that a half-removed one is an orphan.
        """
        return [
            self._sibling(TXN_INDEX_SUFFIX),
            self._time_index.path,
            self._offset_index.path,
            self.path,
        ]

    def remove(self) -> None:
        """Remove the files. Readers that still send from them are not disturbed."""
        self._file = None
        for path in self.paths():
            self._files.forget(path)
            self._files.disk.remove(path)

    def retire(self) -> list[str]:
        """Rename the files out of the way (quick, and a new segment may take their names).

        Return what to remove.
        """
        self._file = None
        doomed = []
        for path in self.paths():
            self._files.forget(path)
            try:
                self._files.disk.rename(path, path + DELETED_SUFFIX)
            except FileNotFoundError:
                continue
            doomed.append(path + DELETED_SUFFIX)
        return doomed

    @property
    def suffix(self) -> str:
        """What stands behind the file names; nothing but while the segment is replacing others."""
        return self._suffix

    def change_suffix(self, suffix: str) -> None:
        """Rename the files, the log file last. Raises DiskError, FileNotFoundError; `paths` stays right."""
        self._suffix = suffix
        for index, kind in ((self._time_index, TIME_INDEX_SUFFIX), (self._offset_index, INDEX_SUFFIX)):
            index.path = self._rename(index.path, self._sibling(kind))
        self.path = self._rename(self.path, self._sibling(LOG_SUFFIX))

    def _rename(self, path: str, target: str) -> str:
        if path != target:
            try:
                self._files.disk.rename(path, target)
            except FileNotFoundError:
                if path == self.path:
                    raise
            self._files.forget(path)
            self._files.forget(target)
        return target

    def forget_files(self) -> None:
        """Let go of all descriptors without writing anything."""
        self._file = None
        for path in self.paths():
            self._files.forget(path)


class TornAppend(OSError):  # noqa: N818 # it names what was left behind
    """An append failed and could not be undone: the log must be recovered before it is used again."""
