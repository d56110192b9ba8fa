"""Opening a log: which files are there, what of them can be trusted, and what has to be rebuilt.

Who uses it: `Log.open` and `Log.reopen`; nobody else. After a clean stop files are taken at their word and
sealed segments are not even read. After any other stop every batch from the recovery point's segment on is
checked; the log ends before the first one that is torn, corrupt or out of order, and what follows it is
removed. What is accepted above the recovery point is written once more before it is synced: it was read from the
page cache of a machine that may have gone on, and a sync that failed for the process before this one leaves
pages there that no later sync writes. (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020.)

One rule is ours: a *gap* between two segments above the recovery point means that the end of the older one
was lost, cut at a batch boundary, and ends the log too. (Kafka leaves such gaps by compaction; here a cleaned
segment keeps its last batch, if need be empty, and with it its end.)

Source: Kafka `LogLoader`, `LogSegment.recover`, `UnifiedLog.rebuildProducerState`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strandline_broker.log.checkpoints import (
    CorruptCheckpoint,
    encode_epochs,
    read_epochs,
    read_single_offset,
)
from strandline_broker.log.cleaner_recovery import complete_swaps
from strandline_broker.log.epochs import LeaderEpochs
from strandline_broker.log.names import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    LEADER_EPOCH_CHECKPOINT,
    LOG_START_CHECKPOINT,
    LOG_SUFFIX,
    SEGMENT_SUFFIXES,
    SNAPSHOT_SUFFIX,
    TEMPORARY_SUFFIX,
    split_name,
)
from strandline_broker.log.producers import load_producers
from strandline_broker.log.scan import CorruptBatch, iter_verified
from strandline_broker.log.segment import MAX_RELATIVE_OFFSET, Segment
from strandline_broker.log.tier import LogTier

if TYPE_CHECKING:
    from strandline_broker.log.config import LogConfig
    from strandline_broker.log.files import FileCache
    from strandline_broker.log.producer_state import ProducerState
    from strandline_broker.seams.disk import File

logger = logging.getLogger(__name__)

_COPY_BYTES = 1 << 20


@dataclass(slots=True)
class RecoveryReport:
    """What opening a log found.

    `lost_synced` is the alarm: the log ends below a point that was recorded as durable.
    """

    clean: bool
    recovery_point: int
    end_offset: int = 0
    segments_checked: int = 0
    truncated_bytes: int = 0
    removed_segments: int = 0
    reason: str = ""

    @property
    def lost_synced(self) -> bool:
        """Whether bytes that had been synced are gone."""
        return self.end_offset < self.recovery_point


@dataclass(slots=True)
class LoadedLog:
    """A log as found on disk, ready to be served."""

    segments: list[Segment]
    epochs: LeaderEpochs
    snapshots: list[int]
    start_offset: int
    tier: LogTier | None
    report: RecoveryReport
    names_dirty: bool
    """Whether names in the directory may not be durable yet; the first flush sees to it."""


def load_log(
    files: FileCache,
    directory: str,
    config: LogConfig,
    producers: ProducerState,
    *,
    now_ms: int,
    clean: bool,
    recovery_point: int,
    start_offset: int,
) -> LoadedLog:
    """Open the log in `directory`, making it if there is none, and fill `producers`.

    When it returns, all that was found is durable. Raises DiskError.
    """
    loader = _Loader(files, directory, config, now_ms, RecoveryReport(clean, recovery_point))
    return loader.load(producers, start_offset)


class _Loader:
    def __init__(
        self, files: FileCache, directory: str, config: LogConfig, now_ms: int, report: RecoveryReport
    ) -> None:
        self.files = files
        self.disk = files.disk
        self.directory = directory
        self.config = config
        self.now_ms = now_ms
        self.report = report
        self.segments: list[Segment] = []
        self.snapshots: list[int] = []
        self.names_changed = False
        self.synced = False
        self.dirty: list[File] = []
        self.unproven: list[tuple[File, int, int]] = []
        """Files, and which bytes [start, end) of them were accepted above the recovery point."""
        self.epoch_changes: list[tuple[int, int]] = []

    def load(self, producers: ProducerState, start_offset: int) -> LoadedLog:
        is_new = not self.disk.exists(self.directory)
        self.disk.makedirs(self.directory)
        if not self.report.clean and not is_new:
            # A killed process leaves names that a power failure would still take back; what follows relies on them.
            self.disk.sync_dir(self.directory)
        recorded_start = self._recorded_start()
        tier = LogTier.load(self.disk, self.directory)
        start_offset = max(start_offset, recorded_start or 0, tier.log_start if tier is not None else 0)
        self._list_files(start_offset)
        is_new = is_new or not self.segments
        if recorded_start is not None and self.segments and self.segments[0].base_offset > start_offset:
            # The segment of the log start is gone, so it was never synced, nor anything behind it.
            self.report.reason = f"nothing holds offset {start_offset}, where the log starts"
            logger.warning("%s: %s; starting over there", self.directory, self.report.reason)
            self._remove_segments(0)
        if self.segments:
            start_offset = max(start_offset, self.segments[0].base_offset)
            self._find_end()
        if self.segments and self.segments[-1].next_offset < start_offset:
            logger.warning(
                "%s ends at %d, below its start %d: starting over there",
                self.directory,
                self.segments[-1].next_offset,
                start_offset,
            )
            self._remove_segments(0)
        self._ensure_segment(start_offset)
        end_offset = self.segments[-1].next_offset
        self.report.end_offset = end_offset
        epochs = self._load_epochs(tier.log_start if tier is not None else start_offset, end_offset)
        self._sync()
        if epochs.dirty:
            # What is found counts as synced, so later recoveries may not look at these batches again.
            self.disk.write_atomic(
                f"{self.directory}/{LEADER_EPOCH_CHECKPOINT}", encode_epochs(epochs.entries)
            )
            epochs.dirty = False
        # Above the recovery point a snapshot may tell of batches that took the place of those found here.
        self._drop_snapshots_above(
            end_offset if self.report.clean else min(end_offset, self.report.recovery_point)
        )
        self.snapshots = load_producers(
            producers,
            self.segments,
            self.snapshots,
            start_offset,
            end_offset,
            self.now_ms,
            self._remove_snapshot,
        )
        if is_new or self.names_changed:
            self._sync_names()
        if self.report.lost_synced:
            logger.error(
                "%s ends at %d although it was durable up to %d: %s",
                self.directory,
                end_offset,
                self.report.recovery_point,
                self.report.reason or "segments are missing",
            )
        return LoadedLog(
            self.segments,
            epochs,
            self.snapshots,
            start_offset,
            tier,
            self.report,
            not self.report.clean and not self.synced,
        )

    def _ensure_segment(self, start_offset: int) -> None:
        if not self.segments:
            segment = Segment(self.files, self.directory, start_offset, self.config, self.now_ms)
            segment.create()
            segment.watch_time()
            self.segments.append(segment)

    # -- files -----------------------------------------------------------------------------------------------

    def _recorded_start(self) -> int | None:
        try:
            return read_single_offset(self.disk, f"{self.directory}/{LOG_START_CHECKPOINT}")
        except CorruptCheckpoint as error:
            logger.warning("ignored: %s", error)
            return None

    def _list_files(self, start_offset: int) -> None:
        bases: list[int] = []
        indexes: list[tuple[int, str]] = []
        self.names_changed = complete_swaps(self.files, self.directory) or self.names_changed
        for name in self.disk.listdir(self.directory):
            offset, suffix = split_name(name)
            if suffix == LOG_SUFFIX:
                bases.append(offset)
            elif suffix == SNAPSHOT_SUFFIX:
                self.snapshots.append(offset)
            elif suffix in SEGMENT_SUFFIXES:
                indexes.append((offset, name))
            elif name.endswith((DELETED_SUFFIX, CLEANED_SUFFIX, TEMPORARY_SUFFIX)):
                self._remove(f"{self.directory}/{name}")
        bases.sort()
        self.snapshots.sort()
        # What retention or DeleteRecords had given up, and a crash brought back.
        while len(bases) > 1 and bases[1] <= start_offset:
            Segment(self.files, self.directory, bases.pop(0), self.config, self.now_ms).remove()
            self.names_changed = True
        known = set(bases)
        for offset, name in indexes:
            if offset not in known:
                self._remove(f"{self.directory}/{name}")
        for base in bases:
            segment = Segment(self.files, self.directory, base, self.config, self.now_ms)
            segment.size = segment.file.size()
            if self.segments:
                self.segments[-1].next_offset = base
            self.segments.append(segment)

    def _remove(self, path: str) -> None:
        self.files.forget(path)
        self.disk.remove(path)
        self.names_changed = True

    def _remove_snapshot(self, offset: int) -> None:
        self._remove(f"{self.directory}/{offset:020d}{SNAPSHOT_SUFFIX}")

    def _drop_snapshots_above(self, end_offset: int) -> None:
        while self.snapshots and self.snapshots[-1] > end_offset:
            self._remove_snapshot(self.snapshots.pop())

    def _remove_segments(self, first: int) -> None:
        """Remove segments from the newest down, so that a crash in between leaves no hole."""
        while len(self.segments) > first:
            self.segments.pop().remove()
            self.report.removed_segments += 1
            self.names_changed = True

    # -- the end of the log ----------------------------------------------------------------------------------

    def _find_end(self) -> None:
        active = self.segments[-1]
        if self.report.clean:
            try:
                active.find_end()
            except CorruptBatch as error:
                logger.warning("%s: not as a clean stop leaves it (%s), recovering", self.directory, error)
                self.report.clean = False
                self._recover(active.base_offset)
        else:
            self._recover(self.report.recovery_point)

    def _recover(self, recovery_point: int) -> None:
        first = 0
        for index, segment in enumerate(self.segments):
            # A segment that ends at the recovery point is checked too: what follows its last batch may be the
            # rest of a failed append, whose removal the crash undid.
            if segment.base_offset < recovery_point:
                first = index
        index = first
        while index < len(self.segments):
            segment = self.segments[index]
            if index > first and not self._continues(self.segments[index - 1], segment, recovery_point):
                self._remove_segments(index)
                break
            whole = self._recover_segment(segment)
            self.report.segments_checked += 1
            index += 1
            if not whole:
                self._remove_segments(index)
        for segment in self.segments[first:-1]:
            self.dirty.extend(segment.seal())
        self.dirty.append(self.segments[-1].hold())

    def _continues(self, before: Segment, segment: Segment, recovery_point: int) -> bool:
        end, base = before.next_offset, segment.base_offset
        if end == base:
            return True
        if end < base and (base <= recovery_point or base - before.base_offset > MAX_RELATIVE_OFFSET):
            return True
        self.report.reason = f"{segment.path} does not continue the segment before it, which ends at {end}"
        logger.warning("%s; the log ends there", self.report.reason)
        return False

    def _recover_segment(self, segment: Segment) -> bool:
        """Check a segment, cut it before the first bad batch, rebuild its indexes.

        Return whether it was whole.
        """
        file = segment.hold()
        found = segment.size
        position = proven = 0
        next_offset = segment.base_offset
        reason = ""
        epoch = self.epoch_changes[-1][0] if self.epoch_changes else -1
        segment.start_indexing()
        try:
            for position, header in iter_verified(file, 0, found):
                last_offset = header.last_offset
                if (
                    header.base_offset < next_offset
                    or last_offset - segment.base_offset > MAX_RELATIVE_OFFSET
                ):
                    raise CorruptBatch(
                        segment.path,
                        position,
                        f"offset {header.base_offset} where {next_offset} was expected",
                    )
                if header.leader_epoch > epoch:
                    epoch = header.leader_epoch
                    self.epoch_changes.append((epoch, header.base_offset))
                segment.index_batch(position, last_offset, header.max_timestamp, header.size)
                next_offset = last_offset + 1
                if next_offset <= self.report.recovery_point:
                    proven = position + header.size
            position = found
        except CorruptBatch as error:
            position, reason = error.position, str(error)
        segment.next_offset = next_offset
        segment.size = position
        segment.first_timestamp = None
        if position < found:
            logger.warning("%s; cut there, %d bytes are dropped", reason, found - position)
            self.report.reason = reason
            self.report.truncated_bytes += found - position
            file.truncate(position)
        if proven < position:
            self.unproven.append((file, proven, position))
        return position == found

    def _load_epochs(self, start_offset: int, end_offset: int) -> LeaderEpochs:
        path = f"{self.directory}/{LEADER_EPOCH_CHECKPOINT}"
        try:
            epochs = LeaderEpochs(read_epochs(self.disk, path))
            changes = self.epoch_changes
        except (FileNotFoundError, CorruptCheckpoint) as error:
            if self.segments[-1].next_offset > self.segments[0].base_offset:
                logger.warning("%s: rebuilding the leader epochs: %s", self.directory, error)
            epochs = LeaderEpochs()
            changes = self._scan_epochs()
        epochs.truncate_from_end(end_offset)
        for epoch, offset in changes:
            if epoch > epochs.latest_epoch:
                epochs.assign(epoch, offset)
        epochs.truncate_from_start(start_offset)
        return epochs

    def _scan_epochs(self) -> list[tuple[int, int]]:
        changes: list[tuple[int, int]] = []
        for segment in self.segments:
            try:
                for _, header in segment.headers():
                    if not changes or header.leader_epoch > changes[-1][0]:
                        changes.append((header.leader_epoch, header.base_offset))
            except CorruptBatch as error:
                logger.warning("leader epochs behind a corrupt batch are unknown: %s", error)
        return changes

    def _sync(self) -> None:
        """Make durable what recovery accepted, unless it was known to be."""
        report = self.report
        if self.dirty and (report.truncated_bytes or report.end_offset > report.recovery_point):
            for file, start, end in self.unproven:
                _write_again(file, start, end)
            for file in self.dirty:
                file.datasync()
            self._sync_names()

    def _sync_names(self) -> None:
        self.disk.sync_dir(self.directory)
        self.disk.sync_dir(self.directory.rpartition("/")[0])
        self.names_changed = False
        self.synced = True


def _write_again(file: File, start: int, end: int) -> None:
    """Make the bytes [start, end) of a file wait for its next sync, whatever became of the last one."""
    while start < end:
        data = file.pread(min(_COPY_BYTES, end - start), start)
        file.pwrite(data, start)
        start += len(data)
