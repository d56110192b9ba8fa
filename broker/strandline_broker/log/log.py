"""One partition's log on this broker: appends, reads, truncation, and how far it is durable.

Who uses it: the partition layer, on the event loop's thread; nothing here blocks on a sync except opening, closing,
truncation and changes of the log start, which are rare. A log does not know high watermarks, leaders or clients.

Two steps make an append. `stage` judges one batch, gives it its offsets and patches them in; `commit` writes all that is
staged with one system call. A failed write takes everything back: file, offsets, producers.

Durability: `end_offset` is written, `synced_end` is on the disk. `begin_sync` captures what is to be made durable (the
files written to, sealed indexes, leader epochs, new names), a thread does it, `finish_sync` raises `synced_end`. After a
failed sync nobody knows what the disk holds: the log refuses work until `reopen`.

Beside this file: `recovery.py` (opening), `segment.py`, and what a log does seldom: `rolling.py`, `follower.py`,
`truncation.py`, `retention.py`, `lookup.py` (timestamps, verification). Their functions and `Log` are one unit: attributes
without an underscore that the class does not document are theirs, and nobody else's.
"""

from __future__ import annotations

import errno
import logging
import struct
import threading
from bisect import bisect_right
from typing import TYPE_CHECKING, NoReturn

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log import follower, lookup, retention, rolling, sync_work, truncation
from strandline_broker.log.checkpoints import encode_single_offset
from strandline_broker.log.files import FileCache
from strandline_broker.log.names import LOG_START_CHECKPOINT
from strandline_broker.log.producer_state import DEFAULT_EXPIRATION_MS, ProducerState
from strandline_broker.log.producers import write_snapshot
from strandline_broker.log.recovery import RecoveryReport, load_log
from strandline_broker.log.scan import CorruptBatch
from strandline_broker.log.segment import Batch, Segment, TornAppend
from strandline_broker.log.staged import RecoveryPointKeeper, Staged
from strandline_broker.log.sync_work import SyncWork
from strandline_broker.log.tier import LogTier
from strandline_broker.log.validate import validate_client_batch
from strandline_broker.seams.disk import DiskError, FileSlice
from strandline_broker.wire.batch import LOG_OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from strandline_broker.log.cleaner_swap import Cleaning
    from strandline_broker.log.config import LogConfig
    from strandline_broker.log.epochs import LeaderEpochs
    from strandline_broker.log.producer_state import ProducerEntry
    from strandline_broker.seams.disk import Disk, File

logger = logging.getLogger(__name__)

_SMALL_CACHE_FILES = 16
_NEW, _DUPLICATE = False, True
_pack_offsets = struct.Struct(">qii").pack_into


class Log:
    """See the module. Offsets are record offsets; `start_offset` never falls but by `reset_to`.

    `tier` is there for partitions that are tiered: the log then begins at `tier.log_start`, this part of it at
    `start_offset`.
    """

    __slots__ = (
        "_bases",
        "_config",
        "_sealed_bytes",
        "active",
        "active_dirty",
        "careful",
        "cleaning",
        "directory",
        "dirty_directories",
        "dirty_files",
        "disk",
        "end_offset",
        "epochs",
        "failed",
        "files",
        "in_background",
        "in_flight",
        "keeper",
        "next_offset",
        "now_ms",
        "producers",
        "recovery",
        "segments",
        "small_files_lock",
        "snapshots",
        "staged",
        "staged_bytes",
        "start_offset",
        "sync_round",
        "synced_end",
        "tier",
    )

    def __init__(
        self, files: FileCache, directory: str, config: LogConfig, producer_expiration_ms: int
    ) -> None:
        self.disk = files.disk
        self.directory = directory
        self.keeper: RecoveryPointKeeper | None = None
        self.cleaning: Cleaning | None = None
        self.small_files_lock = threading.Lock()
        self.in_background: Callable[[Callable[[], None]], object] = lambda job: job()
        self.producers = ProducerState(expiration_ms=producer_expiration_ms)
        self.files = files
        self._config = config
        self.sync_round = 0
        self.in_flight: list[SyncWork] = []

    @classmethod
    def open(
        cls,
        disk: Disk,
        directory: str,
        config: LogConfig,
        *,
        now_ms: int,
        clean: bool,
        recovery_point: int = 0,
        start_offset: int = 0,
        files: FileCache | None = None,
        producer_expiration_ms: int = DEFAULT_EXPIRATION_MS,
    ) -> Log:
        """Open the log in `directory`, or create it.

        `clean` says that the last use ended with `close`. Otherwise everything from `recovery_point` on is
        checked, cut at the first bad batch, and made durable. `start_offset` is the least log start, from a
        checkpoint. Raises DiskError.
        """
        log = cls(files or FileCache(disk, _SMALL_CACHE_FILES), directory, config, producer_expiration_ms)
        log._load(now_ms, clean=clean, recovery_point=recovery_point, start_offset=start_offset)
        return log

    def _load(self, now_ms: int, *, clean: bool, recovery_point: int, start_offset: int) -> None:
        loaded = load_log(
            self.files,
            self.directory,
            self._config,
            self.producers,
            now_ms=now_ms,
            clean=clean,
            recovery_point=recovery_point,
            start_offset=start_offset,
        )
        self.recovery: RecoveryReport = loaded.report
        self.epochs: LeaderEpochs = loaded.epochs
        self.snapshots: list[int] = loaded.snapshots
        self.start_offset = loaded.start_offset
        self.tier: LogTier | None = loaded.tier
        self.failed = ""
        self.staged: list[Batch] = []
        self.staged_bytes = 0
        self.now_ms = now_ms
        self.set_segments(loaded.segments)
        self.end_offset = self.next_offset = self.active.next_offset
        self.synced_end = self.end_offset
        self.dirty_files: list[File] = []
        self.dirty_directories: set[str] = {self.directory} if loaded.names_dirty else set()
        self.active_dirty = False

    def set_segments(self, segments: list[Segment]) -> None:
        """Make these the segments, the last one active."""
        self.segments = segments
        self._bases = [segment.base_offset for segment in segments]
        self.active = segments[-1]
        self._sealed_bytes = sum(segment.size for segment in segments[:-1])
        self.careful = True

    def __repr__(self) -> str:
        return f"<Log {self.directory} [{self.start_offset}, {self.end_offset}) synced={self.synced_end}>"

    # -- what others may know --------------------------------------------------------------------------------

    @property
    def last_epoch(self) -> int:
        """The newest leader epoch in this log, -1 for none."""
        return self.epochs.latest_epoch

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments, written ones only."""
        return self._sealed_bytes + self.active.size

    @property
    def config(self) -> LogConfig:
        """The configuration; setting it is a dynamic change and takes effect with the next append."""
        return self._config

    @config.setter
    def config(self, config: LogConfig) -> None:
        self._config = config
        for segment in self.segments:
            segment.config = config
        self.active.watch_time_later()

    @property
    def wants_sync(self) -> bool:
        """Whether something waits to be made durable."""
        return self.active_dirty or bool(self.dirty_files or self.dirty_directories) or self.epochs.dirty

    def refuse(self) -> NoReturn:
        """Raise KafkaError(KAFKA_STORAGE_ERROR): the log is out of service."""
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.directory}: {self.failed}")

    def fail(self, reason: str) -> None:
        """Take the log out of service."""
        logger.error("%s is out of service until it is reopened: %s", self.directory, reason)
        self.failed = reason

    # -- appends ---------------------------------------------------------------------------------------------

    def stage(self, batch: memoryview, epoch: int, now_ms: int) -> Staged:
        """Take one batch of a client as leader in `epoch`; `commit` writes it. The buffer must stay valid until then.

        Base offset and leader epoch (with LogAppendTime also the timestamp) are patched in place. Raises
        KafkaError as `validate_client_batch` and `ProducerState.judge` say, KAFKA_STORAGE_ERROR if failed.
        """
        if self.failed:
            self.refuse()
        config = self._config
        batch, header = validate_client_batch(batch, config, now_ms)
        (_, length, _, _, _, _, delta, _, timestamp, producer_id, producer_epoch, sequence, _) = header
        if epoch != self.epochs.latest_epoch:
            self.assign_epoch_start(epoch)
        base_offset = self.next_offset
        last_offset = base_offset + delta
        if producer_id >= 0:
            earlier = self.producers.judge(producer_id, producer_epoch, sequence, delta)
            if earlier is not None:
                append_time = earlier.timestamp if config.log_append_time else -1
                return Staged(earlier.first_offset, earlier.last_offset, append_time, _DUPLICATE)
            self.producers.note(producer_id, producer_epoch, sequence, delta, last_offset, timestamp)
        _pack_offsets(batch, 0, base_offset, length, epoch)
        if timestamp > self.active.roll_timestamp:
            self.careful = True
        self.now_ms = now_ms
        size = length + LOG_OVERHEAD
        self.staged.append((batch, base_offset, last_offset, timestamp, size))
        self.staged_bytes += size
        self.next_offset = last_offset + 1
        return Staged(base_offset, last_offset, now_ms if config.log_append_time else -1, _NEW)

    def commit(self) -> None:
        """Write everything staged, rolling where due.

        Raises KafkaError(KAFKA_STORAGE_ERROR) with everything staged taken back; the next attempt may
        succeed.
        """
        staged = self.staged
        if not staged:
            return
        self.staged = []
        active = self.active
        segments = len(self.segments)
        try:
            if self.failed:
                raise DiskError(errno.EIO, self.failed)
            if (
                self.careful
                or active.size + self.staged_bytes > active.safe_size
                or self.next_offset > active.max_next_offset
            ):
                rolling.append_rolling(self, staged)
            else:
                active.append(staged, self.staged_bytes)
        except OSError as error:
            self._undo(error)
        self.staged_bytes = 0
        self.active_dirty = True
        self.end_offset = self.producers.map_end_offset = self.next_offset
        self.producers.settle()
        if len(self.segments) != segments:
            self.take_snapshot()

    def add_segment(self, segment: Segment) -> None:
        """Let a new segment follow the active one, which is sealed."""
        self._sealed_bytes += self.active.size
        self.segments.append(segment)
        self._bases.append(segment.base_offset)
        self.active = segment

    def _undo(self, error: OSError) -> None:
        """Take a failed commit back. Raises KafkaError(KAFKA_STORAGE_ERROR), always."""
        self.unstage()
        if self.keeper is not None and not self.failed:
            self.keeper.write_failed(error)
        self.careful = True
        # The next sync makes it final that the failed batches are gone, before it records a new epoch.
        self.active_dirty = True
        if isinstance(error, TornAppend):
            self.fail(str(error))
        elif max(self.active.next_offset, self.active.base_offset) > self.end_offset:
            try:
                truncation.undo(self, self.end_offset)
            except (OSError, CorruptBatch) as worse:
                self.fail(f"cannot undo a failed append: {worse}")
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.directory}: {error}") from error

    def unstage(self) -> None:
        """Take back everything staged."""
        self.staged = []
        self.staged_bytes = 0
        self.next_offset = self.end_offset
        self.producers.undo()

    def append_follower(self, batches: memoryview) -> int:
        """Append batches as they are, with the offsets and epochs that their leader gave; return the last offset.

        An incomplete last batch is left out. Returns -1 if there was no complete batch. Raises KafkaError:
        CORRUPT_MESSAGE, OFFSET_OUT_OF_RANGE (an offset at or below one that the log has),
        KAFKA_STORAGE_ERROR.
        """
        if self.failed:
            self.refuse()
        follower.stage_follower(self, batches)
        if not self.staged:
            return -1
        self.commit()
        return self.end_offset - 1

    def assign_epoch_start(self, epoch: int) -> None:
        """Note that `epoch` begins at the log end: this broker became its leader.

        Raises KafkaError(FENCED_LEADER_EPOCH) for an epoch below the last one of this log (design section
        3.3).
        """
        if epoch < self.epochs.latest_epoch:
            raise KafkaError(
                ErrorCode.FENCED_LEADER_EPOCH,
                f"{self.directory}: epoch {epoch} is below {self.epochs.latest_epoch}, the last one of this log",
            )
        self.epochs.assign(epoch, self.next_offset)

    def roll(self, now_ms: int) -> bool:
        """Seal the active segment now unless it is empty; return whether it was. Raises KafkaError."""
        return rolling.roll(self, now_ms)

    def roll_if_due(self, now_ms: int) -> bool:
        """Seal the active segment if it is older than `segment.ms`, so that quiet partitions roll too."""
        return self.roll_if_older(now_ms, self._config.roll_ms)

    def roll_if_older(self, now_ms: int, age_ms: int) -> bool:
        """Seal the active segment if it was begun more than `age_ms` ago; return whether it was. Raises KafkaError."""
        active = self.active
        return bool(active.size) and now_ms - active.created_ms > age_ms and self.roll(now_ms)

    def take_snapshot(self) -> None:
        """Write the producers' state at the log end, for recovery; a full disk costs only a longer recovery."""
        if not self.snapshots or self.snapshots[-1] < self.end_offset:
            file = write_snapshot(self.disk, self.directory, self.end_offset, self.producers, self.snapshots)
            if file is not None:
                self.dirty_files.append(file)
                self.dirty_directories.add(self.directory)

    # -- reads -----------------------------------------------------------------------------------------------

    def read(
        self, offset: int, max_bytes: int, upper_offset: int, *, min_one_batch: bool
    ) -> FileSlice | None:
        """Return whole batches from the one that holds `offset` on, below `upper_offset`, within `max_bytes`.

        With `min_one_batch` the first batch comes even if it is larger. None: there is nothing (yet), or the
        first batch is larger. Raises KafkaError OFFSET_OUT_OF_RANGE, or CORRUPT_MESSAGE with the file and
        position.
        """
        end_offset = self.end_offset
        if offset < self.start_offset or offset > end_offset:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"offset {offset} is not in [{self.start_offset}, {end_offset}]",
            )
        if upper_offset > end_offset:
            upper_offset = end_offset
        if offset >= upper_offset:
            return None
        segment = self.active
        try:
            if offset >= segment.base_offset:
                start = segment.position_of(offset)
            else:
                segment, start = self._find(offset)
            beyond = upper_offset >= segment.next_offset
            end = segment.size if beyond else segment.position_of(upper_offset)
            length = end - start
            if length > max_bytes:
                length = segment.cut(start, start + max_bytes) - start
                if length <= 0:
                    header = segment.header_at(start)
                    length = header.size
                    if length > max_bytes and not min_one_batch:
                        return None
                    segment.remember(header.next_offset, start + length)
            elif length <= 0:
                return None
        except CorruptBatch as error:
            raise _corrupt(error) from error
        except OSError as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.directory}: {error}") from error
        return FileSlice(segment.file, start, length)

    def _find(self, offset: int) -> tuple[Segment, int]:
        """Return the segment and position of the first batch that ends at or above `offset`."""
        index = bisect_right(self._bases, offset) - 1
        segment = self.segments[index]
        position = segment.position_of(offset)
        # Compaction may have emptied the end of a segment.
        while position >= segment.size and segment is not self.active:
            index += 1
            segment = self.segments[index]
            position = 0
        return segment, position

    def segment_of(self, offset: int) -> int:
        """Return the index in `segments` of the one that holds `offset`."""
        return max(0, bisect_right(self._bases, offset) - 1)

    def offset_for_timestamp(self, timestamp_ms: int, upper_offset: int) -> tuple[int, int, int] | None:
        """Return (timestamp, offset, leader epoch) of the first record at or after a time, None below `upper_offset`."""
        try:
            return lookup.offset_for_timestamp(self, timestamp_ms, upper_offset)
        except CorruptBatch as error:
            raise _corrupt(error) from error

    def max_timestamp(self, upper_offset: int) -> tuple[int, int, int] | None:
        """Return (timestamp, offset, leader epoch) of the first record with the largest timestamp, None for none."""
        try:
            return lookup.max_timestamp(self, upper_offset)
        except CorruptBatch as error:
            raise _corrupt(error) from error

    def epoch_end_offset(self, epoch: int) -> tuple[int, int]:
        """Return (largest epoch not above `epoch`, its end offset), (-1, -1) if unknown (Kafka's OffsetForLeaderEpoch)."""
        return self.epochs.end_offset(epoch, self.end_offset)

    def verify(self) -> list[CorruptBatch]:
        """Check every batch of every segment; return what is wrong, at most one finding per segment. Slow."""
        return lookup.verify(self)

    # -- truncation ------------------------------------------------------------------------------------------

    def truncate_to(self, offset: int) -> None:
        """Drop every batch that reaches `offset`.

        Durable when it returns. Raises KafkaError(KAFKA_STORAGE_ERROR).
        """
        truncation.truncate_to(self, offset)

    def reset_to(
        self, offset: int, epochs: Iterable[tuple[int, int]] = (), producers: Iterable[ProducerEntry] = ()
    ) -> None:
        """Drop everything and start over at `offset`, which may be anywhere.

        `epochs` (epoch, start offset) and `producers` are what came before `offset`, where that lies in the bucket.
        Raises KafkaError(KAFKA_STORAGE_ERROR).
        """
        truncation.reset_to(self, offset, epochs, producers)

    def advance_start(self, offset: int) -> None:
        """Raise the log start (DeleteRecords); durable when it returns. Whole segments below go with the next retention.

        Raises KafkaError OFFSET_OUT_OF_RANGE beyond the log end, KAFKA_STORAGE_ERROR.
        """
        if self.failed:
            self.refuse()
        if offset > self.end_offset:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE, f"offset {offset} is beyond the log end {self.end_offset}"
            )
        if offset <= self.start_offset:
            return
        try:
            self.write_start(offset)
        except OSError as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.directory}: {error}") from error
        self.start_offset = offset
        self.epochs.truncate_from_start(offset if self.tier is None else self.tier.log_start)

    def start_tiering(self) -> LogTier:
        """Let the log have a part in the bucket from now on; durable when it returns. Raises KafkaError.

        Does nothing the second time.
        """
        if self.tier is None:
            if self.failed:
                self.refuse()
            try:
                self.tier = LogTier.create(self.disk, self.directory, self.start_offset)
            except OSError as error:
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.directory}: {error}") from error
        return self.tier

    def write_start(self, offset: int) -> None:
        """Record the log start durably. Raises DiskError."""
        self.disk.write_atomic(f"{self.directory}/{LOG_START_CHECKPOINT}", encode_single_offset(offset))

    def apply_retention(self, now_ms: int, high_watermark: int) -> int:
        """Delete the segments that time, size or the log start make obsolete; return the bytes freed.

        Raises KafkaError(KAFKA_STORAGE_ERROR).
        """
        if self.failed or self.staged:
            return 0
        return retention.apply_retention(self, now_ms, high_watermark)

    # -- durability ------------------------------------------------------------------------------------------

    def begin_sync(self) -> SyncWork | None:
        """Capture what is to be made durable; None if there is nothing, or if the log failed. Run it in a thread."""
        return sync_work.capture(self)

    def finish_sync(self, work: SyncWork) -> bool:
        """Draw the conclusion of a sync; return False if it failed, and with it this log."""
        return sync_work.conclude(self, work)

    def sync(self) -> None:
        """Make everything durable, here and now. Raises DiskError."""
        sync_work.sync_now(self)

    # -- the end ---------------------------------------------------------------------------------------------
    def close(self, *, clean: bool = True) -> None:
        """Stop using the log. A clean close makes everything durable, so that the next opening need not check it.

        Raises KafkaError(KAFKA_STORAGE_ERROR) if that fails: then the stop was not clean.
        """
        # A log that never held anything is as a clean close leaves it; most internal logs are.
        if clean and (self.failed or self.wants_sync or self.end_offset > 0):
            if self.failed:
                self.refuse()
            assert not self.staged
            try:
                self.take_snapshot()
                self.active_dirty = False
                self.dirty_files.extend(self.active.seal())
                self.dirty_directories.add(self.directory)
                self.sync()
            except OSError as error:
                self.fail(f"close failed: {error}")
                self.refuse()
        self.failed = self.failed or "closed"
        self._forget_files()

    def _forget_files(self) -> None:
        if self.cleaning is not None:
            self.cleaning.abort()
        for segment in self.segments:
            segment.forget_files()

    def reopen(self, now_ms: int) -> None:
        """Take a failed log back into service, cut at its synced end: beyond it the disk may hold less than it shows.

        Raises KafkaError(KAFKA_STORAGE_ERROR) if the disk still fails.
        """
        synced_end = self.synced_end
        self._forget_files()
        self.sync_round += 1
        try:
            self._load(now_ms, clean=False, recovery_point=synced_end, start_offset=self.start_offset)
            if self.end_offset > synced_end:
                self.truncate_to(synced_end)
            elif self.end_offset < synced_end and self.keeper is not None:
                self.keeper.recovery_point_falls(self, self.end_offset)
        except OSError as error:
            self.fail(f"reopening failed: {error}")
            self.refuse()

    def abandon(self, reason: str) -> None:
        """Let go of all files without writing anything; the log is of no use afterwards."""
        with self.small_files_lock:
            self.failed = reason
        self._forget_files()

    def delete(self) -> None:
        """Remove the directory and everything in it. Raises DiskError."""
        self.abandon("deleted")
        self.disk.remove_tree(self.directory)
        self.disk.sync_dir(self.directory.rpartition("/")[0])


def _corrupt(error: CorruptBatch) -> KafkaError:
    logger.error("corrupt batch: %s", error)
    return KafkaError(ErrorCode.CORRUPT_MESSAGE, str(error))
