"""All logs of one broker: found and opened at start, created and deleted by name, checkpointed, swept, closed.

Who uses it: the replica manager and the broker's life cycle. `open`, `open_or_create`, `purge`,
`Checkpoint.write` and `close` block on the disk and may run in a thread, one of them at a time; the rest is
for the event loop's thread.

The data directory looks as Kafka's does: one directory per partition with `partition.metadata` (its topic
id), checkpoint files for recovery points, log starts and high watermarks, and `.kafka_cleanshutdown`, which
exists only between a clean stop and the next start.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.checkpoints import (
    CLEANER_OFFSETS,
    HIGH_WATERMARKS,
    LOG_STARTS,
    RECOVERY_POINTS,
    CorruptCheckpoint,
    TopicPartition,
    decode_partition_metadata,
    encode_offsets,
    encode_partition_metadata,
    read_offsets,
)
from strandline_broker.log.config import LogConfig
from strandline_broker.log.files import DEFAULT_MAX_OPEN_FILES, FileCache
from strandline_broker.log.log import Log
from strandline_broker.log.names import (
    DELETE_DIR_SUFFIX,
    PARTITION_METADATA,
    STRAY_DIR_SUFFIX,
    log_directory,
    parse_log_directory,
)
from strandline_broker.log.producer_state import DEFAULT_EXPIRATION_MS

if TYPE_CHECKING:
    from uuid import UUID

    from strandline_broker.seams.clock import Clock
    from strandline_broker.seams.disk import Disk

logger = logging.getLogger(__name__)

CLEAN_SHUTDOWN = ".kafka_cleanshutdown"


class Checkpoint:
    """The offsets of all logs at one moment, captured on the loop's thread.

    `write` blocks and may run on another.
    """

    __slots__ = ("_high_watermarks", "_manager", "_recovery_points", "_round", "_starts")

    def __init__(self, manager: LogManager, high_watermarks: Mapping[TopicPartition, int]) -> None:
        # A thread may be adding logs meanwhile.
        logs = list(manager.logs.items())
        points, starts = manager.offsets_of_closed()
        self._manager = manager
        self._round = manager.checkpoint_round
        self._recovery_points = points | {key: log.synced_end for key, log in logs}
        self._starts = starts | {key: log.start_offset for key, log in logs}
        self._high_watermarks = dict(high_watermarks)

    def write(self) -> None:
        """Write the three files. Raises DiskError."""
        manager = self._manager
        with manager.checkpoint_lock:
            # A truncation since then has written lower recovery points: these would undo it.
            if self._round == manager.checkpoint_round:
                manager.write_offsets(RECOVERY_POINTS, self._recovery_points)
            manager.write_offsets(LOG_STARTS, self._starts)
            manager.write_offsets(HIGH_WATERMARKS, self._high_watermarks)


class LogManager:
    """See the module. `offline` holds the logs that could not be opened, with the reason."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        *,
        root: str = "",
        max_open_files: int = DEFAULT_MAX_OPEN_FILES,
        producer_expiration_ms: int = DEFAULT_EXPIRATION_MS,
        in_background: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """Prepare, touching nothing.

        `in_background` takes the removal of big files off the caller's thread (an executor's `submit`).
        """
        self._disk = disk
        self._clock = clock
        self._root = root
        self._files = FileCache(disk, max_open_files)
        self._producer_expiration_ms = producer_expiration_ms
        self._in_background = in_background or (lambda job: job())
        self._recovery_points: dict[TopicPartition, int] = {}
        self._starts: dict[TopicPartition, int] = {}
        self._high_watermarks: dict[TopicPartition, int] = {}
        self._topic_ids: dict[TopicPartition, UUID] = {}
        self._deleted_names = 0
        self.logs: dict[TopicPartition, Log] = {}
        self.offline: dict[TopicPartition, str] = {}
        self.cleaned: dict[TopicPartition, int] = {}
        """Where the dirty part of each log begins that was cleaned."""
        self.strays: dict[str, UUID] = {}
        """Directories of topics that had a name which now belongs to another topic."""
        self.clean_start = False
        """Whether the last stop was clean."""
        self.on_write_failed: Callable[[OSError], None] = _ignore
        """Called when the disk did not take what was to be appended to a log."""
        self.checkpoint_lock = threading.Lock()
        self.checkpoint_round = 0

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name

    def __iter__(self) -> Iterator[Log]:
        return iter(self.logs.values())

    # -- start -----------------------------------------------------------------------------------------------

    def open(self, config_of: Callable[[str], LogConfig] | None = None) -> None:
        """Open every log in the data directory, recovering them unless the last stop was clean.

        A log that cannot be opened is put `offline` and harms no other. Raises DiskError if the directory
        itself fails.
        """
        if self._root:
            self._disk.makedirs(self._root)
        self.clean_start = self._take_clean_mark()
        names = self._disk.listdir(self._root)
        # What a checkpoint says of a log that is gone must not reach a new log of the same name.
        present = {key for name in names if (key := parse_log_directory(name)) is not None}
        self._recovery_points = self._read_offsets(RECOVERY_POINTS, present)
        self._starts = self._read_offsets(LOG_STARTS, present)
        self._high_watermarks = self._read_offsets(HIGH_WATERMARKS, present)
        self.cleaned = self._read_offsets(CLEANER_OFFSETS, present)
        for name in names:
            if name.endswith(DELETE_DIR_SUFFIX):
                self._remove_in_background(self._path(name))
            elif name.endswith(STRAY_DIR_SUFFIX):
                self._note_stray(self._path(name))
            key = parse_log_directory(name)
            if key is None:
                continue
            config = config_of(key[0]) if config_of is not None else LogConfig()
            try:
                self._open(key, config, clean=self.clean_start)
            except (OSError, KafkaError, CorruptCheckpoint) as error:
                logger.error("cannot open %s: %s", name, error)
                self.offline[key] = str(error)

    def _take_clean_mark(self) -> bool:
        path = self._path(CLEAN_SHUTDOWN)
        clean = self._disk.exists(path)
        if clean:
            # Gone for good before anything is written: a crash from here on is not a clean stop.
            self._disk.remove(path)
        # Otherwise a killed process may have left directories that a power failure would still take back.
        self._disk.sync_dir(self._root)
        return clean

    def _read_offsets(self, name: str, present: set[TopicPartition]) -> dict[TopicPartition, int]:
        try:
            offsets = read_offsets(self._disk, self._path(name))
            kept = {key: offset for key, offset in offsets.items() if key in present}
            if len(kept) < len(offsets):
                # Now, not with the next checkpoint: a crash before that would find the file and the new log.
                self.write_offsets(name, kept)
            return kept
        except CorruptCheckpoint as error:
            logger.warning("ignored, everything is checked instead: %s", error)
            return {}

    def _open(self, key: TopicPartition, config: LogConfig, *, clean: bool) -> Log:
        directory = self._path(log_directory(*key))
        topic_id = self._read_topic_id(directory)
        log = Log.open(
            self._disk,
            directory,
            config,
            now_ms=self._clock.now_ms(),
            clean=clean,
            recovery_point=self._recovery_points.get(key, 0),
            start_offset=self._starts.get(key, 0),
            files=self._files,
            producer_expiration_ms=self._producer_expiration_ms,
        )
        if log.end_offset < self.cleaned.get(key, 0):
            logger.warning("%s ends below what was cleaned of it: all of it counts as dirty", directory)
            with self.checkpoint_lock:
                self._set_cleaned(key, log.start_offset)
        log.keeper = self
        log.in_background = self._in_background
        if topic_id is not None:
            self._topic_ids[key] = topic_id
        self.logs[key] = log
        return log

    def _read_topic_id(self, directory: str) -> UUID | None:
        try:
            return decode_partition_metadata(self._disk.read_bytes(f"{directory}/{PARTITION_METADATA}"))
        except FileNotFoundError:
            return None

    @property
    def lost_synced(self) -> list[Log]:
        """The logs that ended below a recorded synced point.

        This volume needs a new generation (design 3.2).
        """
        return [log for log in self if log.recovery.lost_synced]

    # -- logs by name ----------------------------------------------------------------------------------------

    def get(self, topic: str, partition: int) -> Log | None:
        """Return an open log."""
        return self.logs.get((topic, partition))

    def topic_id(self, topic: str, partition: int) -> UUID | None:
        """Return the topic id that is recorded with a log."""
        return self._topic_ids.get((topic, partition))

    def high_watermark(self, topic: str, partition: int) -> int:
        """Return the high watermark of the last checkpoint, 0 if there is none."""
        return self._high_watermarks.get((topic, partition), 0)

    def open_or_create(self, topic: str, partition: int, topic_id: UUID, config: LogConfig) -> Log:
        """Return the log of a partition of this very topic, making it if there is none.

        A log that was offline is tried again. One of this name that belongs to another topic id is moved aside, never
        deleted (`purge` deletes). Raises DiskError, CorruptCheckpoint, and KafkaError(INCONSISTENT_TOPIC_ID) if there are
        records without any topic id.
        """
        key = (topic, partition)
        known = self._topic_ids.get(key) or self._read_topic_id(self._path(log_directory(topic, partition)))
        if known is not None and known != topic_id:
            self._move_aside(key, known)
            known = None
        log = self.logs.get(key)
        if log is None:
            log = self._open(key, config, clean=False)
            self.offline.pop(key, None)
        if known is None:
            if log.end_offset > log.start_offset:
                raise KafkaError(
                    ErrorCode.INCONSISTENT_TOPIC_ID,
                    f"{log.directory} holds records, but not the id of its topic",
                )
            self._disk.write_atomic(
                f"{log.directory}/{PARTITION_METADATA}", encode_partition_metadata(topic_id)
            )
            self._topic_ids[key] = topic_id
        if log.config != config:
            log.config = config
        return log

    def _move_aside(self, key: TopicPartition, topic_id: UUID) -> None:
        """Keep the log of another topic that had this name under a name of its own, until its id is purged."""
        directory = self._path(log_directory(*key))
        self.set_aside(*key)
        stray = f"{directory}.{topic_id.hex}{STRAY_DIR_SUFFIX}"
        logger.warning(
            "%s belongs to topic id %s, which is not served: moved to %s", directory, topic_id, stray
        )
        self._disk.rename(directory, stray)
        self._disk.sync_dir(self._root)
        self._forget([key])
        self.strays[stray] = topic_id

    def _note_stray(self, directory: str) -> None:
        try:
            topic_id = self._read_topic_id(directory)
        except CorruptCheckpoint as error:
            logger.warning("%s: %s", directory, error)
            return
        if topic_id is not None:
            self.strays[directory] = topic_id

    def set_aside(self, topic: str, partition: int) -> None:
        """Close a log that this broker no longer serves; its data stays. It may be opened again."""
        log = self.logs.pop((topic, partition), None)
        if log is None:
            return
        try:
            log.close()
        except KafkaError as error:
            logger.warning("%s", error)
        self._recovery_points[(topic, partition)] = log.synced_end
        self._starts[(topic, partition)] = log.start_offset

    def holds(self, topic_id: UUID) -> bool:
        """Whether there is data of this topic."""
        return topic_id in self._topic_ids.values() or topic_id in self.strays.values()

    def purge(self, topic_id: UUID) -> None:
        """Delete all logs of a topic for good, strays too. Raises DiskError."""
        self._delete([key for key, held in list(self._topic_ids.items()) if held == topic_id])
        for directory in [directory for directory, held in self.strays.items() if held == topic_id]:
            del self.strays[directory]
            self._remove_in_background(directory)

    def delete(self, topic: str, partition: int) -> None:
        """Delete one log: at once under its name, then its files. Raises DiskError."""
        self._delete([(topic, partition)])

    def _delete(self, keys: list[TopicPartition]) -> None:
        doomed: list[str] = []
        for key in keys:
            log = self.logs.pop(key, None)
            if log is not None:
                log.abandon("deleted")
            directory = self._path(log_directory(*key))
            self._deleted_names += 1
            doomed.append(
                f"{directory}.{self._clock.now_ms():016x}{self._deleted_names:016x}{DELETE_DIR_SUFFIX}"
            )
            self._disk.rename(directory, doomed[-1])
        if doomed:
            self._disk.sync_dir(self._root)
            self._forget(keys)
        for path in doomed:
            self._remove_in_background(path)

    def _forget(self, keys: list[TopicPartition]) -> None:
        """Let no checkpoint speak of these logs any more.

        A new log of the same name must start from nothing.
        """
        for key in keys:
            self._topic_ids.pop(key, None)
            self._recovery_points.pop(key, None)
            self._starts.pop(key, None)
            self._high_watermarks.pop(key, None)
            self.offline.pop(key, None)
        with self.checkpoint_lock:
            self.checkpoint_round += 1
            for key in self.cleaned.keys() & keys:
                self._set_cleaned(key, None)
        self.checkpoint().write()

    def _remove_in_background(self, path: str) -> None:
        def remove() -> None:
            try:
                self._disk.remove_tree(path)
            except OSError as error:
                logger.warning("%s stays until the next start: %s", path, error)

        self._in_background(remove)

    # -- upkeep ----------------------------------------------------------------------------------------------

    def sweep(self, now_ms: int, high_watermark_of: Callable[[Log], int]) -> list[Log]:
        """Apply retention, roll old segments and forget idle producers; return the logs that want a sync now.

        Meant for every `log.retention.check.interval.ms`; a log that fails is reported and skipped.
        """
        unsynced: list[Log] = []
        for log in list(self):
            try:
                log.roll_if_due(now_ms)
                log.apply_retention(now_ms, high_watermark_of(log))
            except KafkaError as error:
                logger.error("retention of %s: %s", log.directory, error)
            log.producers.expire(now_ms)
            if log.wants_sync and not log.failed:
                unsynced.append(log)
        return unsynced

    def set_producer_expiration(self, expiration_ms: int) -> None:
        """Forget idle producers after another time from now on (`producer.id.expiration.ms`)."""
        self._producer_expiration_ms = expiration_ms
        for log in list(self):
            log.producers.expiration_ms = expiration_ms

    def checkpoint(self, high_watermarks: Mapping[TopicPartition, int] | None = None) -> Checkpoint:
        """Capture all offsets; `write` the result in a thread, about once a minute."""
        if high_watermarks is not None:
            self._high_watermarks.update(high_watermarks)
        return Checkpoint(self, self._high_watermarks)

    def offsets_of_closed(self) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Return recovery points and log starts as known from before, which are those of all logs that are not open.

        They must not be forgotten: how much of such a log was durable is judged when it can be opened.
        """
        return dict(self._recovery_points), dict(self._starts)

    def write_offsets(self, name: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Write one checkpoint file. Raises DiskError."""
        self._disk.write_atomic(self._path(name), encode_offsets(offsets))

    def recovery_point_falls(self, log: Log, offset: int) -> None:
        """Lower the recorded recovery point before a truncation (see `log.RecoveryPointKeeper`)."""
        with self.checkpoint_lock:
            self.checkpoint_round += 1
            points = dict(self._recovery_points) | {
                key: offset if entry is log else entry.synced_end for key, entry in list(self.logs.items())
            }
            self.write_offsets(RECOVERY_POINTS, points)
            # What takes the place of what is cut off has not been cleaned.
            for key, cleaned in list(self.cleaned.items()):
                if self.logs.get(key) is log and offset < cleaned:
                    self._set_cleaned(key, offset)

    def write_failed(self, error: OSError) -> None:
        """Pass it on (see `log.RecoveryPointKeeper`)."""
        self.on_write_failed(error)

    def note_cleaned(self, key: TopicPartition, log: Log, offset: int, sync_round: int) -> None:
        """Record that `log` is cleaned up to `offset`, unless it went or was cut since `sync_round`. Raises DiskError."""
        with self.checkpoint_lock:
            if self.logs.get(key) is log and not log.failed and log.sync_round == sync_round:
                self._set_cleaned(key, offset)

    def _set_cleaned(self, key: TopicPartition, offset: int | None) -> None:
        """Record where the dirty part of a log begins, None for nowhere. Raises DiskError."""
        if offset is None:
            self.cleaned.pop(key, None)
        else:
            self.cleaned[key] = offset
        self.write_offsets(CLEANER_OFFSETS, dict(self.cleaned))

    def close(self, high_watermarks: Mapping[TopicPartition, int] | None = None) -> bool:
        """Close all logs, write the checkpoints, and mark the stop as clean; return whether it was."""
        clean = not self.offline
        for log in self:
            try:
                log.close()
            except KafkaError as error:
                logger.error("%s", error)
                clean = False
        try:
            self.checkpoint(high_watermarks).write()
            if clean:
                mark = json.dumps({"version": 0, "brokerEpoch": -1}).encode()
                self._disk.write_atomic(self._path(CLEAN_SHUTDOWN), mark)
        except OSError as error:
            logger.error("the stop is not clean: %s", error)
            clean = False
        self.logs.clear()
        return clean


def _ignore(error: OSError) -> None:
    """Stand in until somebody wants to know; whoever appended is told anyway."""
