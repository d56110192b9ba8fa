"""What a broker does for its tiered partitions as time goes by: sealing by age, retention, scrubs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from tests.unit.replica.support import lead_alone
from tests.unit.replica.tiered_support import KEYS, InlineThreads, LoopClock, led
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.log.config import LogConfig
from strandline_broker.replica.partition import Partition
from strandline_broker.replica.remote import RemoteCorrupt
from strandline_broker.replica.tier import PartitionTier
from strandline_broker.server.config import load
from strandline_broker.server.tiering import Tiering
from strandline_tiered.cost import RequestCounts
from strandline_tiered.keys import OffsetsName, PartitionKeys, SegmentName
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.offsets_snapshot import CommittedOffset, OffsetsSnapshot, TopicPartition
from strandline_tiered.offsets_store import write_offsets

OWN = ["broker_id=0", "data_dir=/d", "store=sqlite:/s"]


class Replicas:
    """Leads one partition."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    def led(self) -> list[tuple[tuple[UUID, int], Partition]]:
        return [((KEYS.topic_id, 0), self._partition)]


class World:
    """A broker that leads one partition, and a bucket."""

    def __init__(self, partition: Partition, *assignments: str, bucket: MemoryStore | None = None) -> None:
        self.partition = partition
        self.tier: PartitionTier = partition.start_tiering()
        self.bucket = bucket or MemoryStore()
        self.synced: list[Partition] = []
        self.tiering = Tiering(
            load(None, [*OWN, *assignments], {}),
            self.bucket,
            counts=RequestCounts(),
            cluster_id=str(KEYS.cluster_id),
            incarnation="i",
            clock=LoopClock(),
            rng=random.Random(1),
            threads=InlineThreads(),
            request_sync=self.synced.append,
        )
        self.tiering.roles_changed(cast("Any", Replicas(partition)))
        self._task = asyncio.get_running_loop().create_task(self.tiering.run())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.tiering.close()

    def bases(self) -> list[int]:
        names = [KEYS.parse(key) for key in self.bucket.objects]
        return sorted(name.base_offset for name in names if isinstance(name, SegmentName))


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    virtually(test)


def test_a_quiet_partition_is_uploaded_when_its_records_are_old_enough() -> None:
    async def test() -> None:
        world = World(led(), "tiering_max_unuploaded_age_ms=60000")
        log = world.partition.log
        await asyncio.sleep(59)
        base = log.active.base_offset
        assert log.active.size > 0
        assert world.tier.tiered_through == base
        await asyncio.sleep(3)
        assert world.tier.tiered_through == log.end_offset > base
        assert world.synced == [world.partition]
        count = len(log.segments)
        await asyncio.sleep(600)
        assert len(log.segments) == count, "an empty segment is never sealed"
        await world.close()

    run(test)


def test_a_topic_that_is_not_copied_is_not_sealed_for_it() -> None:
    async def test() -> None:
        partition = led()
        partition.log.config = LogConfig(segment_bytes=1000, remote_log_copy_disable=True)
        world = World(partition, "tiering_max_unuploaded_age_ms=60000")
        await asyncio.sleep(300)
        assert partition.log.active.size > 0
        assert world.bases() == []
        await world.close()

    run(test)


def test_retention_takes_what_is_too_much_and_too_old() -> None:
    async def test() -> None:
        partition = led()
        config = LogConfig(segment_bytes=1000, retention_bytes=partition.log.size_bytes // 2, retention_ms=-1)
        partition.log.config = config
        world = World(partition)
        await asyncio.sleep(60)
        start = partition.log_start_offset
        assert 50 <= start <= 70
        assert min(world.bases()) == start
        # The records are of the seconds behind NOW_MS: all are older than a minute by then.
        partition.log.config = LogConfig(segment_bytes=1000, retention_bytes=-1, retention_ms=60_000)
        await asyncio.sleep(600)
        assert partition.log_start_offset == partition.log.end_offset
        assert world.bases() == []
        await world.close()

    run(test)


def test_scrubs_come_by_the_clock() -> None:
    async def test() -> None:
        former = World(led())
        await asyncio.sleep(10)
        await former.close()
        stray = KEYS.key(SegmentName(0, 1, UUID(int=99)))
        former.bucket.objects[stray] = b"a late upload"
        partition = led()
        lead_alone(partition, 2)
        world = World(partition, "tiering_scrub_interval_ms=3600000", bucket=former.bucket)
        await asyncio.sleep(300)
        assert stray in world.bucket.objects
        await asyncio.sleep(3 * 3600)
        assert stray not in world.bucket.objects
        assert len(world.bases()) == len(set(world.bases())) > 0
        await world.close()

    run(test)


def test_the_newest_snapshot_of_group_offsets_is_found_or_said_why_not() -> None:
    async def test() -> None:
        world = World(led())
        offsets = cast("Any", SimpleNamespace(topic="o", topic_id=UUID(int=8).bytes, index=4))
        keys = PartitionKeys(KEYS.cluster_id, "o", UUID(int=8), 4)
        assert await world.tiering.newest_offsets(offsets) is None
        groups = {"g": {TopicPartition("t", 0): CommittedOffset(3, 1, "", 5)}}
        for sequence in (1, 2):
            snapshot = OffsetsSnapshot(4, OffsetsName(7, sequence), 9, groups)
            await write_offsets(world.bucket, keys, snapshot)
        found = await world.tiering.newest_offsets(offsets)
        assert found is not None
        assert (found.name, found.groups) == (OffsetsName(7, 2), groups)
        world.bucket.objects[keys.key(OffsetsName(7, 3))] = b"damaged"
        with pytest.raises(RemoteCorrupt):
            await world.tiering.newest_offsets(offsets)
        await world.close()

    virtually(test)
