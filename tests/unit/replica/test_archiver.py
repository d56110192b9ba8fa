"""The archiver of one epoch: a partition, a bucket, and the protocol between them. Time is virtual."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

import pytest
from tests.unit.replica.support import lead_alone
from tests.unit.replica.tiered_support import KEYS, MEMORY_BYTES, Inline, LoopClock, append, led, sealed
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.replica.archiver import Archiver
from strandline_broker.replica.bucket_log import BucketReader
from strandline_broker.replica.partition import Partition
from strandline_broker.replica.tier import PartitionTier
from strandline_broker.replica.uploads import SegmentUploader
from strandline_tiered.effects import BucketEffects
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind
from strandline_tiered.keys import ClaimName, ManifestName, SegmentName
from strandline_tiered.leadership import Phase
from strandline_tiered.memory_store import MemoryStore


class Always:
    """The same fault for every request of some kinds."""

    def __init__(self, *operations: str) -> None:
        self._operations = operations

    def draw(self, operation: str, key: str) -> Fault | None:
        return Fault(Kind.UNAVAILABLE) if operation in self._operations else None


class World:
    """A bucket, and what shares it."""

    def __init__(self) -> None:
        self.bucket = MemoryStore()
        self.store = FaultyStore(self.bucket)
        self.rng = random.Random(3)
        self.reader = BucketReader(self.store, MEMORY_BYTES)
        self.uploader = SegmentUploader(
            self.store,
            executor=Inline(),
            clock=LoopClock(),
            new_id=self.new_id,
            max_uploads=2,
            bytes_per_second=0,
        )

    def new_id(self) -> UUID:
        return UUID(int=self.rng.getrandbits(128), version=4)

    def archive(self, partition: Partition, *, may_write: bool = True) -> tuple[Archiver, PartitionTier]:
        tier = partition.start_tiering()
        archiver = Archiver(
            partition,
            KEYS,
            bucket=BucketEffects(self.store, KEYS, partition.leader_epoch, self.new_id),
            uploader=self.uploader,
            reader=self.reader,
            clock=LoopClock(),
            loop=asyncio.get_running_loop(),
            rng=self.rng,
            may_write=may_write,
            max_uploads=2,
        )
        archiver.begin()
        return archiver, tier

    def names(self, kind: type) -> list[Any]:
        return [name for key in sorted(self.bucket.objects) if isinstance(name := KEYS.parse(key), kind)]


def successor() -> Partition:
    """Return the partition as another broker has it that leads on in the next epoch."""
    partition = led()
    lead_alone(partition, 2)
    return partition


def run(test: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    virtually(lambda: test(World()))


async def settled(archiver: Archiver) -> None:
    """Wait until the archiver has nothing to do."""
    while archiver._tasks:
        await asyncio.wait(archiver._tasks)
        await asyncio.sleep(0)


def test_sealed_segments_go_to_the_bucket_and_may_go_here() -> None:
    async def test(world: World) -> None:
        partition = led()
        archiver, tier = world.archive(partition)
        assert tier.remote is None
        with pytest.raises(KafkaError) as caught:
            tier.loaded()
        assert caught.value.code is ErrorCode.OFFSET_NOT_AVAILABLE
        await settled(archiver)
        end = partition.log.active.base_offset
        assert tier.loaded().end_offset == tier.tiered_through == end
        assert len(world.names(SegmentName)) == len(sealed(partition))
        assert world.names(ClaimName) == [ClaimName(1)]
        assert len(world.names(ManifestName)) == 1, "those before it are gone"
        assert tier.segment_key == KEYS.key(world.names(SegmentName)[-1])
        append(partition, 40, 10)
        archiver.look_at_log()
        await settled(archiver)
        assert tier.tiered_through == partition.log.active.base_offset > end
        before = dict(world.bucket.objects)
        archiver.look_at_log()
        await settled(archiver)
        assert world.bucket.objects == before, "without news nothing is written"

    run(test)


def test_the_log_start_moves_when_the_bucket_has_it() -> None:
    async def test(world: World) -> None:
        partition = led()
        archiver, tier = world.archive(partition)
        await settled(archiver)
        deleting = asyncio.create_task(partition.delete_records(50))
        await asyncio.sleep(0)
        assert partition.log_start_offset == 0
        assert await deleting == 50
        await settled(archiver)
        assert (tier.log_start, tier.loaded().end_offset) == (50, partition.log.active.base_offset)
        bases = [name.base_offset for name in world.names(SegmentName)]
        assert max(base for base in bases if base <= 50) == min(bases), (
            "what is below is gone from the bucket"
        )

    run(test)


def test_deleting_begins_to_wait_before_the_manifest_is_loaded() -> None:
    async def test(world: World) -> None:
        partition = led()
        archiver, tier = world.archive(partition)
        deleting = asyncio.create_task(partition.delete_records(7))
        assert await deleting == 7
        assert tier.log_start == 7
        await archiver.close()

    run(test)


def test_who_was_replaced_authorises_nothing_more() -> None:
    async def test(world: World) -> None:
        partition, other = led(), successor()
        old, old_tier = world.archive(partition)
        await settled(old)
        through = old_tier.tiered_through
        new, new_tier = world.archive(other)
        await settled(new)
        assert new.state.phase is Phase.READY
        assert new_tier.tiered_through == through, "it goes on where the other one was"
        append(partition, 40, 20)
        old.look_at_log()
        await settled(old)
        assert old.state.phase is Phase.SUPERSEDED
        assert old_tier.tiered_through == through
        assert new.state.published is not None
        assert new.state.published.name.leader_epoch == 2

    run(test)


@pytest.mark.parametrize("operation", ["put", "list", "get", "delete"])
def test_a_bucket_that_is_away_is_asked_again_and_again(operation: str) -> None:
    async def test(world: World) -> None:
        first, _ = world.archive(led())
        await settled(first)
        partition = successor()
        world.store.plan = Always(operation)
        archiver, tier = world.archive(partition)
        await asyncio.sleep(100)
        asked = archiver.failures
        assert operation == "delete" or asked > 3
        await asyncio.sleep(1000)
        assert archiver.failures - asked < 80, "but not in a loop"
        world.store.plan = None
        append(partition, 40, 20)
        archiver.look_at_log()
        await settled(archiver)
        assert archiver.state.phase is Phase.READY
        assert tier.tiered_through == partition.log.active.base_offset
        assert not archiver.state.condemned
        await first.close()

    run(test)


def test_who_resumed_an_epoch_reads_and_writes_nothing() -> None:
    async def test(world: World) -> None:
        first, _ = world.archive(led())
        await settled(first)
        await first.close()
        before = dict(world.bucket.objects)
        again = led(60)
        archiver, tier = world.archive(again, may_write=False)
        await settled(archiver)
        archiver.look_at_log()
        archiver.scrub()
        tier.ask_log_start(30)
        await settled(archiver)
        assert world.bucket.objects == before
        assert tier.loaded().end_offset > 0
        assert (tier.tiered_through, tier.log_start) == (0, 0)

    run(test)


def test_nothing_is_copied_where_the_topic_says_so() -> None:
    async def test(world: World) -> None:
        partition = led()
        partition.log.config = LogConfig(segment_bytes=1000, remote_log_copy_disable=True)
        archiver, tier = world.archive(partition)
        await settled(archiver)
        assert world.names(SegmentName) == []
        partition.log.config = LogConfig(segment_bytes=1000)
        archiver.look_at_log()
        await settled(archiver)
        assert tier.tiered_through == partition.log.active.base_offset

    run(test)


def test_a_closed_archiver_hears_nothing() -> None:
    async def test(world: World) -> None:
        partition = led()
        world.store.plan = Always("put")
        archiver, _ = world.archive(partition)
        await asyncio.sleep(1)
        await archiver.close()
        world.store.plan = None
        archiver.look_at_log()
        assert not archiver._tasks
        assert world.bucket.objects == {}

    run(test)


def test_another_epoch_of_the_partition_is_another_archivers() -> None:
    async def test(world: World) -> None:
        partition = led()
        archiver, tier = world.archive(partition)
        await settled(archiver)
        assert archiver.is_of(partition)
        lead_alone(partition, 2)
        assert not archiver.is_of(partition)
        assert tier.remote is None
        archiver.look_at_log()
        assert not archiver._tasks

    run(test)


def test_a_scrub_takes_what_no_manifest_has() -> None:
    async def test(world: World) -> None:
        first, _ = world.archive(led())
        await settled(first)
        stray = SegmentName(0, 1, UUID(int=99))
        world.bucket.objects[KEYS.key(stray)] = b"a late upload"
        partition = successor()
        archiver, tier = world.archive(partition)
        await settled(archiver)
        archiver.scrub()
        await settled(archiver)
        archiver.scrub()
        await settled(archiver)
        assert stray not in world.names(SegmentName)
        assert len(world.names(SegmentName)) == len(sealed(partition))
        assert world.names(ClaimName) == [ClaimName(2)]
        assert tier.tiered_through == partition.log.active.base_offset

    run(test)
