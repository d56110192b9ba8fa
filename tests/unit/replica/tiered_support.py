"""A led partition with sealed segments, and a bucket that they are uploaded to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar, cast
from uuid import UUID

from tests.unit.replica.support import lead_alone

from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.replica.bucket_log import BucketLog, BucketReader
from strandline_broker.replica.partition import FlushMode, Partition
from strandline_broker.replica.uploads import SegmentUploader
from strandline_broker.seams.clock import SystemClock
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.wire.batch import Record, build_batch
from strandline_tiered.epochs import history_of
from strandline_tiered.keys import ManifestName, PartitionKeys
from strandline_tiered.manifest import Manifest, empty_manifest
from strandline_tiered.manifest_events import Stamped, Uploaded, apply
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.object_store import ObjectStore
from strandline_tiered.protocol_messages import SealedSegment, Upload

T = TypeVar("T")

NOW_MS = 1_700_000_000_000
KEYS = PartitionKeys(UUID(int=1), "t", UUID(int=2), 0)
PER_BATCH = 3
MEMORY_BYTES = 32 << 20


class LoopClock:
    """The time of the running loop."""

    def monotonic(self) -> float:
        """Seconds."""
        return asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return NOW_MS + int(self.monotonic() * 1000)


class Inline(Executor):
    """Does its jobs at once."""

    def submit(self, job: Callable[..., T], /, *arguments: Any, **keywords: Any) -> Future[T]:
        """See `Executor.submit`."""
        future: Future[T] = Future()
        try:
            future.set_result(job(*arguments, **keywords))
        except Exception as error:  # noqa: BLE001 - as executors do
            future.set_exception(error)
        return future


class InlineThreads:
    """See `seams.threads.Threads`."""

    def pool(self, name: str, threads: int = 1) -> Executor:
        """Return one that does its jobs at once."""
        return Inline()


class Waiter:
    """Whoever produces without wanting to know."""

    acks = 1
    patient = False

    def partition_done(self, row: list[object]) -> None:
        """Take the answer."""


def append(partition: Partition, first: int, batches: int, *, value_bytes: int = 60) -> None:
    """Append batches of three records each; the record at offset n is of second n, and says so in its value."""
    for number in range(first, first + batches):
        base = number * PER_BATCH
        records = [
            Record(value=b"%08d" % offset + bytes(value_bytes), timestamp=NOW_MS + 1000 * offset)
            for offset in range(base, base + PER_BATCH)
        ]
        batch = build_batch(records, producer_id=7, producer_epoch=0, base_sequence=base)
        partition.stage(cast("Any", Waiter()), [0] * 8, memoryview(bytearray(batch)), NOW_MS)
        partition.commit()


def led(batches: int = 40, *, segment_bytes: int = 1000, epoch: int = 1) -> Partition:
    """Return a partition that is led here, in small segments."""
    log = Log.open(
        SimDisk(),
        "t-0",
        LogConfig(segment_bytes=segment_bytes, index_interval_bytes=300),
        now_ms=NOW_MS,
        clean=False,
    )
    partition = Partition("t", KEYS.topic_id.bytes, 0, log, FlushMode.REPLICATED, 0)
    lead_alone(partition, epoch)
    append(partition, 0, batches)
    return partition


def sealed(partition: Partition) -> list[SealedSegment]:
    """Return the sealed segments."""
    segments = partition.log.segments
    return [SealedSegment(one.base_offset, after.base_offset) for one, after in pairwise(segments)]


def uploader(store: ObjectStore) -> SegmentUploader:
    """Return an uploader with ids that are the same every time."""
    rng = random.Random(1)
    return SegmentUploader(
        store,
        executor=ThreadPoolExecutor(1),
        clock=SystemClock(),
        new_id=lambda: UUID(int=rng.getrandbits(128), version=4),
        max_uploads=2,
        bytes_per_second=0,
    )


async def archived(
    partition: Partition, store: ObjectStore, *, start: int = 0, log_start: int = 0
) -> Manifest:
    """Upload all sealed segments from `start` on, and return the manifest that has them."""
    up = uploader(store)
    manifest = empty_manifest(KEYS.topic_id, 0, start)
    for segment in sealed(partition):
        if segment.end_offset > start:
            entry = await up.upload(partition, KEYS, Upload(max(start, segment.base_offset), segment))
            manifest = apply(manifest, Uploaded(entry, history_of(partition.log.epochs.entries)))
    manifest = apply(manifest, Stamped(ManifestName(1, 1), partition.high_watermark, NOW_MS))
    assert manifest.log_start >= log_start
    return manifest


async def in_bucket(partition: Partition, store: MemoryStore, **how: int) -> BucketLog:
    """Upload all sealed segments, and return what reads them."""
    return BucketReader(store, MEMORY_BYTES).log_of(KEYS, await archived(partition, store, **how))
