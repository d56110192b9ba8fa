"""The part of a cleaning that takes long: reading everything, and writing what stays into new segments.

Who uses it: `cleaner_swap` through the `Worker` protocol. `InlineWorker` does the work in the calling thread
(tests, simulated disks); a broker gives it to a child process (`cleaner_child`), because Python code that
computes in a second thread would make every request on the event loop wait for the interpreter lock.

Input are sealed segments, which nobody writes to; output are files named `.cleaned`, which nobody reads. So
nothing here needs to know whether the log is still there.

Memory: one entry of the offset map takes up to `ENTRY_BYTES`: a key of at most 31 bytes as it is, else its
digest of 32 bytes (80), an offset (32) and its part of the table while that grows (90). A full map ends the
cleaned part early, as in Kafka, and the next cleaning goes on from there. On top come one chunk of input, or
one batch if that is larger, and its decompressed records.

Source: Kafka `Cleaner` (LogCleaner.scala), `SkimpyOffsetMap`, `Throttler`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from strandline_broker.log.cleaner_plan import Group, Source
from strandline_broker.log.cleaner_records import (
    empty_batch,
    index_keys,
    rewrite_batch,
    select_records,
)
from strandline_broker.log.config import LogConfig
from strandline_broker.log.files import FileCache
from strandline_broker.log.names import CLEANED_SUFFIX
from strandline_broker.log.scan import CorruptBatch, check_header
from strandline_broker.log.segment import Batch, Segment
from strandline_broker.wire.batch import HEADER_SIZE, BatchHeader, crc_ok, read_header
from strandline_broker.wire.compression import decompress
from strandline_broker.wire.errors import DecodeError

if TYPE_CHECKING:
    from strandline_broker.seams.disk import Disk, File

logger = logging.getLogger(__name__)

ENTRY_BYTES = 208
DEFAULT_DEDUPE_BUFFER_BYTES = 128 << 20
DEFAULT_IO_BUFFER_BYTES = 512 << 10
_OPEN_FILES = 8


class CleaningAborted(Exception):  # noqa: N818 # not an error: somebody wanted it
    """The log was truncated, closed or deleted meanwhile, or the broker stops."""


@dataclass(frozen=True, slots=True)
class Job:
    """All that is to be known of a log to clean it."""

    directory: str
    sources: tuple[Source, ...]
    first_dirty_offset: int
    now_ms: int
    segment_bytes: int
    segment_index_bytes: int
    index_interval_bytes: int
    delete_retention_ms: int
    last_batches: dict[int, tuple[int, int]]
    """Active producers: (offset of the last record, -1 for a marker, and epoch)."""
    dedupe_buffer_bytes: int = DEFAULT_DEDUPE_BUFFER_BYTES
    io_buffer_bytes: int = DEFAULT_IO_BUFFER_BYTES
    max_bytes_per_second: int = 0
    """Limit of what is read and written together, 0 for none."""

    def log_config(self) -> LogConfig:
        """Return what a segment needs to know."""
        return LogConfig(
            segment_bytes=self.segment_bytes,
            segment_index_bytes=self.segment_index_bytes,
            index_interval_bytes=self.index_interval_bytes,
        )


@dataclass(frozen=True, slots=True)
class Mapped:
    """The offset map is built: records below `end_offset` are in it."""

    end_offset: int
    bytes_read: int
    keys: int
    full: bool


@dataclass(slots=True)
class Cleaned:
    """A replacement is written and synced. Not `changed`: it would hold what its only source holds."""

    size: int = 0
    changed: bool = False
    bytes_read: int = 0
    records_read: int = 0
    records_kept: int = 0
    records_without_key: int = 0


class Worker(Protocol):
    """Does the work of one cleaning, called from one thread; only `cancel` may come from another."""

    def build(self, job: Job) -> Mapped:
        """Read the dirty part. Raises CorruptBatch, DecodeError, OSError, CleaningAborted."""
        ...

    def write(self, group: Group) -> Cleaned:
        """Write and sync the replacement of a group, named `.cleaned`. Raises as `build`; then nothing is left."""
        ...

    def cancel(self) -> None:
        """Let the running call end soon."""
        ...

    def close(self) -> None:
        """Give back the memory."""
        ...


class Throttle:
    """Keeps the average below a rate by sleeping."""

    __slots__ = ("_bytes", "_monotonic", "_rate", "_sleep", "_started")

    def __init__(
        self,
        bytes_per_second: int,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_second
        self._monotonic = monotonic
        self._sleep = sleep
        self._bytes = 0
        self._started = monotonic()

    def account(self, byte_count: int) -> None:
        """Take note of bytes read or written; sleep if that was too fast."""
        if self._rate > 0:
            self._bytes += byte_count
            ahead = self._bytes / self._rate - (self._monotonic() - self._started)
            if ahead > 0:
                self._sleep(ahead)


class InlineWorker:
    """Does the work where it is called."""

    def __init__(
        self,
        disk: Disk,
        *,
        check: Callable[[], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`check` is called for every chunk and may raise to end the work."""
        self._disk = disk
        self._check = check
        self._monotonic = monotonic
        self._sleep = sleep
        self._cancelled = False
        self._latest: dict[bytes, int] = {}
        self._mapped_end = 0

    def cancel(self) -> None:
        """Let the running call end soon."""
        self._cancelled = True

    def close(self) -> None:
        """Give back the memory."""
        self._latest = {}

    def _progress(self, byte_count: int) -> None:
        if self._check is not None:
            self._check()
        if self._cancelled:
            raise CleaningAborted
        self._throttle.account(byte_count)

    # -- the offset map --------------------------------------------------------------------------------------

    def build(self, job: Job) -> Mapped:
        """Read the dirty part and note the last offset of every key."""
        self._job = job
        self._throttle = Throttle(job.max_bytes_per_second, self._monotonic, self._sleep)
        self._latest = {}
        max_keys = max(1, job.dedupe_buffer_bytes // ENTRY_BYTES)
        self._mapped_end = job.first_dirty_offset
        bytes_read = 0
        full = False
        for source in job.sources:
            if source.next_offset <= job.first_dirty_offset:
                continue
            for chunk, batches in self._chunks(source):
                bytes_read += len(chunk)
                full = self._index(source, chunk, batches, max_keys)
                if full:
                    break
            if full:
                break
            self._mapped_end = source.next_offset
        return Mapped(self._mapped_end, bytes_read, len(self._latest), full)

    def _index(
        self, source: Source, chunk: bytes, batches: list[tuple[int, BatchHeader]], max_keys: int
    ) -> bool:
        """Note the keys of a chunk's batches; return whether the map is full."""
        first_dirty = self._job.first_dirty_offset
        for start, header in batches:
            if header.last_offset < first_dirty:
                continue
            end_offset = header.next_offset
            if not _is_opaque(header):
                data, position, end = _records(source, chunk, start, header)
                end_offset = index_keys(self._latest, max_keys, data, position, end, header, first_dirty)
            self._mapped_end = max(self._mapped_end, end_offset)
            if end_offset < header.next_offset:
                return True
        return False

    # -- the replacement -------------------------------------------------------------------------------------

    def write(self, group: Group) -> Cleaned:
        """Copy what stays of a group into a new segment."""
        job = self._job
        files = FileCache(self._disk, _OPEN_FILES)
        segment = Segment(
            files, job.directory, group.base_offset, job.log_config(), job.now_ms, suffix=CLEANED_SUFFIX
        )
        result = Cleaned()
        try:
            segment.create()
            rewritten = self._copy(group, segment, result)
            result.changed = rewritten or len(group.sources) > 1
            result.size = segment.size
            if result.changed and segment.size:
                for file in segment.seal():
                    file.datasync()
            else:
                result.changed = False
                segment.remove()
        except BaseException as error:
            _discard(segment, error)
            raise
        return result

    def _copy(self, group: Group, segment: Segment, result: Cleaned) -> bool:
        """Fill the new segment; return whether it holds anything else than its sources."""
        rewritten = False
        filled = [source for source in group.sources if source.size]
        for source in filled:
            end = source.size if source is filled[-1] else -1
            position = 0
            for chunk, batches in self._chunks(source):
                view = memoryview(chunk)
                output: list[Batch] = []
                byte_count = 0
                for start, header in batches:
                    batch = view[start : start + header.size]
                    position += header.size
                    kept, timestamp = self._clean_batch(
                        source, chunk, batch, start, header, result, keep=position == end
                    )
                    rewritten = rewritten or kept is not batch
                    if kept is not None:
                        output.append((kept, header.base_offset, header.last_offset, timestamp, len(kept)))
                        byte_count += len(kept)
                if output:
                    segment.append(output, byte_count)
                result.bytes_read += len(chunk)
                self._progress(byte_count)
        return rewritten

    def _clean_batch(
        self,
        source: Source,
        chunk: bytes,
        batch: memoryview,
        start: int,
        header: BatchHeader,
        result: Cleaned,
        *,
        keep: bool,
    ) -> tuple[memoryview | bytearray | None, int]:
        """Return what is to be written of a batch, and its largest timestamp; None for nothing.

        A batch stays, if need be without records, where it is a producer's last one or the last one of its
        segment (`keep`), so that segments go on ending where the next ones begin.
        """
        if not crc_ok(batch):
            raise CorruptBatch(source.path, -1, f"wrong checksum of the batch at offset {header.base_offset}")
        result.records_read += header.record_count
        if header.base_offset >= self._mapped_end or _is_opaque(header):
            result.records_kept += header.record_count
            return batch, header.max_timestamp
        keep = keep or self._is_last_of_producer(header)
        if header.record_count == 0:
            return (batch if keep else None), header.max_timestamp
        data, position, end = _records(source, chunk, start, header)
        job = self._job
        horizon = header.base_timestamp if header.has_delete_horizon else None
        selection = select_records(
            self._latest,
            self._mapped_end,
            data,
            position,
            end,
            header,
            drop_tombstones=horizon is not None and horizon <= job.now_ms,
        )
        result.records_kept += selection.kept
        result.records_without_key += selection.keyless
        if selection.kept == 0:
            return (empty_batch(header) if keep else None), header.max_timestamp
        new_horizon = (
            job.now_ms + job.delete_retention_ms if selection.tombstones and horizon is None else None
        )
        if selection.kept == header.record_count and new_horizon is None:
            return batch, header.max_timestamp
        return rewrite_batch(data, selection, header, new_horizon)

    def _is_last_of_producer(self, header: BatchHeader) -> bool:
        """Whether an active producer's last sequence would be lost with this batch."""
        if header.producer_id < 0:
            return False
        known = self._job.last_batches.get(header.producer_id)
        return known is not None and known[0] == header.last_offset

    # -- reading ---------------------------------------------------------------------------------------------

    def _chunks(self, source: Source) -> Iterator[tuple[bytes, list[tuple[int, BatchHeader]]]]:
        """Yield whole batches in pieces of about the I/O buffer: bytes, and (start, header) of each batch in them."""
        if not source.size:
            return
        file = self._disk.open(source.path)
        position = 0
        while position < source.size:
            wanted = min(self._job.io_buffer_bytes, source.size - position)
            chunk, batches, used = _read_batches(file, source, position, wanted)
            if not batches:
                # A batch larger than the buffer; its header said how large.
                chunk, batches, used = _read_batches(file, source, position, used)
            if not batches:
                raise CorruptBatch(source.path, position, "the file ends within a batch")
            position += used
            self._progress(len(chunk))
            yield chunk, batches


def _read_batches(
    file: File, source: Source, position: int, wanted: int
) -> tuple[bytes, list[tuple[int, BatchHeader]], int]:
    """Read the whole batches in `wanted` bytes; without any, return how many bytes the first one takes."""
    chunk = file.pread(wanted, position)
    batches: list[tuple[int, BatchHeader]] = []
    start = 0
    while start + HEADER_SIZE <= len(chunk):
        header = read_header(chunk, start)
        check_header(header, source.path, position + start, source.size)
        size = header.size
        if start + size > len(chunk):
            break
        batches.append((start, header))
        start += size
    if batches:
        return chunk, batches, start
    return chunk, batches, header.size if len(chunk) >= HEADER_SIZE else HEADER_SIZE


def _is_opaque(header: BatchHeader) -> bool:
    """Whether a batch stays as it is: markers, and records that transactions may have aborted."""
    return header.is_control or header.is_transactional


def _records(source: Source, chunk: bytes, start: int, header: BatchHeader) -> tuple[bytes, int, int]:
    """Return the records of a batch: bytes, first position, end."""
    if not header.compression:
        return chunk, start + HEADER_SIZE, start + header.size
    try:
        data = decompress(header.compression, memoryview(chunk)[start + HEADER_SIZE : start + header.size])
    except DecodeError as error:
        raise DecodeError(f"{source.path}, batch at offset {header.base_offset}: {error}") from error
    data = data if isinstance(data, bytes) else bytes(data)
    return data, 0, len(data)


def _discard(segment: Segment, error: BaseException) -> None:
    """Remove a replacement that came to nothing, unless the disk will not even do that."""
    try:
        segment.remove()
    except OSError as worse:
        logger.warning("%s stays until the next start: %s, after %r", segment.path, worse, error)
