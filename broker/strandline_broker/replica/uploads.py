"""Sealed segments on their way to the bucket: few at once, at a bounded rate, read in pieces while they are sent.

Who uses it: `server.tiering` makes one `SegmentUploader`, which all archivers of a broker share. In memory are, for each
upload, its indexes and producers, and the pieces that the store has under way: never a segment.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.producer_snapshot import CorruptSnapshot
from strandline_broker.log.producer_snapshot import decode as decode_snapshot
from strandline_broker.log.producer_snapshot import encode as encode_snapshot
from strandline_broker.log.producer_state import ProducerState
from strandline_broker.log.producers import note_batch, snapshot_path
from strandline_broker.log.scan import CorruptBatch
from strandline_broker.replica.remote import RemoteUnavailable
from strandline_tiered.epochs import history_of
from strandline_tiered.keys import SegmentName
from strandline_tiered.manifest import Entry
from strandline_tiered.object_store import ObjectStoreError
from strandline_tiered.segment_object import Companions, SegmentInfo, build

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from uuid import UUID

    from strandline_broker.log.log import Log
    from strandline_broker.log.segment import Segment
    from strandline_broker.replica.partition import Partition
    from strandline_broker.seams.clock import Clock
    from strandline_broker.seams.disk import File
    from strandline_tiered.keys import PartitionKeys
    from strandline_tiered.object_store import ObjectStore
    from strandline_tiered.protocol_messages import Upload
    from strandline_tiered.segment_object import SegmentObject


class Pace:
    """Lets bytes through at a rate, on average: who takes some waits until those before it would have passed."""

    def __init__(self, bytes_per_second: int, clock: Clock) -> None:
        """`bytes_per_second` is 0 for no limit."""
        self._rate = bytes_per_second
        self._clock = clock
        self._free_at = 0.0

    async def take(self, byte_count: int) -> None:
        """Wait for one's turn."""
        if self._rate > 0:
            now = self._clock.monotonic()
            turn = max(now, self._free_at)
            self._free_at = turn + byte_count / self._rate
            if turn > now:
                await asyncio.sleep(turn - now)


class FileSource:
    """See `strandline_tiered.object_store.Source`: the file of a sealed segment."""

    __slots__ = ("_file", "size")

    def __init__(self, file: File, size: int) -> None:
        self._file = file
        self.size = size

    def read(self, start: int, length: int) -> bytes:
        """See `Source.read`."""
        return self._file.pread(length, start)


class SegmentUploader:
    """See the module, and `archiver.Uploader`."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        executor: Executor,
        clock: Clock,
        new_id: Callable[[], UUID],
        max_uploads: int,
        bytes_per_second: int,
    ) -> None:
        self._store = store
        self._executor = executor
        self._new_id = new_id
        self._turn = asyncio.Semaphore(max_uploads)
        self._pace = Pace(bytes_per_second, clock)
        # For metrics.
        self.uploads = 0
        self.uploaded_bytes = 0
        self.under_way = 0

    async def upload(self, partition: Partition, keys: PartitionKeys, effect: Upload) -> Entry:
        """Upload a sealed segment under a new name; return its entry.

        Raises RemoteUnavailable, KafkaError(KAFKA_STORAGE_ERROR) where the segment cannot be read.
        """
        async with self._turn:
            self.under_way += 1
            try:
                return await self._upload(partition, keys, effect)
            except ObjectStoreError as error:
                raise RemoteUnavailable(str(error)) from error
            except (OSError, CorruptBatch) as error:
                raise KafkaError(
                    ErrorCode.KAFKA_STORAGE_ERROR, f"{partition.log.directory}: {error}"
                ) from error
            finally:
                self.under_way -= 1

    async def _upload(self, partition: Partition, keys: PartitionKeys, effect: Upload) -> Entry:
        log, wanted = partition.log, effect.segment
        number = log.segment_of(wanted.base_offset)
        segment = log.segments[number]
        if segment is log.active or segment.base_offset != wanted.base_offset:
            raise KafkaError(
                ErrorCode.KAFKA_STORAGE_ERROR, f"{log.directory}: {wanted} is no sealed segment any more"
            )
        leader_epoch = partition.leader_epoch
        # Everything that is read of the log here is read at once: it may go on, or end, while this waits.
        file, log_bytes = segment.file, segment.size
        start_position = segment.position_of(effect.start_offset)
        base_timestamp, max_timestamp = segment.load_first_timestamp(), segment.max_timestamp
        indexes = segment.offset_index.to_bytes(), segment.time_index.to_bytes()
        epochs = history_of(entry for entry in log.epochs.entries if entry[1] < wanted.end_offset)
        segments, snapshots = log.segments[: number + 1], list(log.snapshots)
        info = SegmentInfo(
            keys.topic_id,
            keys.partition,
            leader_epoch,
            wanted.base_offset,
            wanted.end_offset,
            base_timestamp,
            max_timestamp,
        )

        def prepare() -> SegmentObject:
            producers = producers_at(log, segments, snapshots, wanted.end_offset)
            companions = Companions(*indexes, epochs=epochs, producers=producers)
            return build(info, FileSource(file, log_bytes), companions)

        source = await asyncio.get_running_loop().run_in_executor(self._executor, prepare)
        name = SegmentName(wanted.base_offset, leader_epoch, self._new_id())
        await self._pace.take(source.size)
        await self._store.put(keys.key(name), source)
        self.uploads += 1
        self.uploaded_bytes += source.size
        return Entry(
            effect.start_offset,
            wanted.end_offset,
            name,
            source.size,
            log_bytes,
            start_position,
            base_timestamp,
            max_timestamp,
        )


def producers_at(log: Log, segments: list[Segment], snapshots: list[int], offset: int) -> bytes:
    """Return the producer snapshot at the end of the last of `segments`: the one on the disk, or made from an older one.

    Blocks. What was written before the oldest segment here is not known then, as after a recovery. Raises OSError,
    CorruptBatch.
    """
    producers = ProducerState()
    covered = segments[0].base_offset
    for snapshot in (
        snapshots[bisect_right(snapshots, offset) - 1 :: -1] if snapshots and snapshots[0] <= offset else ()
    ):
        if snapshot < covered:
            break
        try:
            data = log.disk.read_bytes(snapshot_path(log.directory, snapshot))
            entries = decode_snapshot(data)
        except (FileNotFoundError, CorruptSnapshot):
            continue
        if snapshot == offset:
            return data
        producers.load(entries, snapshot, log.now_ms)
        covered = snapshot
        break
    for segment in segments[max(bisect_right(segments, covered, key=lambda one: one.base_offset) - 1, 0) :]:
        for position, header in segment.headers():
            if header.base_offset >= covered:
                note_batch(producers, segment, position, header)
    producers.settle()
    return encode_snapshot(producers)
