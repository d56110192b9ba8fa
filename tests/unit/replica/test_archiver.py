"""The archiver of one epoch: a partition, a bucket, and the protocol between them. Time is virtual."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

import pytest
from tests.unit.replica.support import lead_alone, state_of
from tests.unit.replica.tiered_support import KEYS, MEMORY_BYTES, Inline, LoopClock, append, led, sealed
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.cluster.model import ReplicaRef
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.replica.archiver import Archiver
from strandline_broker.replica.bucket_log import BucketReader
from strandline_broker.replica.partition import Partition
from strandline_broker.replica.recovery import Recovery
from strandline_broker.replica.tier import PartitionTier, Renewal
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

    def archive(
        self, partition: Partition, *, may_write: bool = True, wants_epoch: bool = False
    ) -> tuple[Archiver, PartitionTier]:
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
            wants_epoch=wants_epoch,
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


def recovering(partition: Partition, epoch: int) -> Partition:
    """Let the partition be led here after an election that may have lost what is in the bucket."""
    state = state_of((0, 1), epoch=epoch, recovering=True)
    partition.lead(ReplicaRef(0, 1), state, 1, 0.0, recovery=Recovery.LOG)
    return partition


def to_do(partition: Partition) -> Recovery:
    return partition.recovery


async def tiered(world: World) -> int:
    """Have a partition in the bucket, written in epoch 1, and return where the bucket ends."""
    archiver, tier = world.archive(led())
    await settled(archiver)
    await archiver.close()
    return tier.tiered_through


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
        assert caught.value.code is ErrorCode.LEADER_NOT_AVAILABLE
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
        assert old_tier.renewal == Renewal(2, recovering=True), "the store knows whether another one leads"
        assert new_tier.renewal is None
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


def test_who_resumed_an_epoch_reads_and_writes_nothing_but_the_claim() -> None:
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


def renewal_of(tier: PartitionTier) -> Renewal | None:
    return tier.renewal


def test_who_leads_on_in_an_epoch_asks_for_another_when_the_bucket_is_there() -> None:
    async def test(world: World) -> None:
        world.store.plan = Always("list", "get")
        archiver, tier = world.archive(led(), may_write=False, wants_epoch=True)
        await asyncio.sleep(60)
        assert renewal_of(tier) is None, "until then another epoch were of no use"
        world.store.plan = None
        await settled(archiver)
        assert renewal_of(tier) == Renewal(1, recovering=False)
        lead_alone(archiver.partition, 2)
        assert renewal_of(tier) is None

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


# -- recovering --


def test_a_log_that_lacks_what_is_in_the_bucket_begins_where_the_bucket_ends() -> None:
    async def test(world: World) -> None:
        end = await tiered(world)
        partition = recovering(led(10), 2)
        archiver, tier = world.archive(partition)
        assert to_do(partition) is Recovery.LOG
        await settled(archiver)
        log = partition.log
        assert to_do(partition) is Recovery.NONE
        assert (log.start_offset, log.end_offset, partition.high_watermark) == (end, end, end)
        assert log.epochs.entries == [(1, 0), (2, end)]
        assert (tier.loaded().end_offset, tier.tiered_through, tier.log_start) == (end, end, 0)
        assert world.names(ManifestName)[-1].leader_epoch == 2
        # The producer goes on with its sequence, and what it appends is uploaded behind the rest.
        append(partition, end // 3, 30)
        assert log.end_offset == end + 90
        archiver.look_at_log()
        await settled(archiver)
        assert tier.tiered_through == log.active.base_offset > end

    run(test)


def test_a_log_that_differs_from_what_is_in_the_bucket_goes_and_nothing_of_it_gets_there() -> None:
    async def test(world: World) -> None:
        end = await tiered(world)
        partition = led(10)
        lead_alone(partition, 2)
        append(partition, 10, 60)
        recovering(partition, 3)
        archiver, _ = world.archive(partition)
        before = world.names(SegmentName)
        await settled(archiver)
        assert (partition.log.start_offset, partition.log.end_offset) == (end, end)
        assert world.names(SegmentName) == before
        assert to_do(partition) is Recovery.NONE

    run(test)


def test_a_log_that_has_all_of_it_stays_as_it_is() -> None:
    async def test(world: World) -> None:
        await tiered(world)
        partition = recovering(led(60), 2)
        archiver, tier = world.archive(partition)
        await settled(archiver)
        assert (partition.log.start_offset, partition.log.end_offset) == (0, 180)
        assert to_do(partition) is Recovery.NONE
        assert tier.tiered_through == partition.log.active.base_offset

    run(test)


@pytest.mark.parametrize("batches", [0, 10])
def test_an_empty_bucket_is_claimed_and_written_before_records_are_taken(batches: int) -> None:
    async def test(world: World) -> None:
        partition = recovering(led(batches), 2)
        archiver, _ = world.archive(partition)
        world.store.plan = Always("put")
        await asyncio.sleep(10)
        assert to_do(partition) is Recovery.LOG
        world.store.plan = None
        await settled(archiver)
        assert to_do(partition) is Recovery.NONE
        assert partition.log.end_offset == 3 * batches
        assert world.names(ManifestName)[-1].leader_epoch == 2

    run(test)


@pytest.mark.parametrize("operation", ["put", "list", "get", "head"])
def test_it_takes_nothing_while_the_bucket_is_away(operation: str) -> None:
    async def test(world: World) -> None:
        end = await tiered(world)
        partition = recovering(led(10), 2)
        world.store.plan = Always(operation)
        archiver, _ = world.archive(partition)
        await asyncio.sleep(1000)
        assert to_do(partition) is Recovery.LOG
        with pytest.raises(KafkaError) as caught:
            partition.check_leader()
        assert caught.value.code is ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert bool(archiver.problem) == (operation == "head"), (
            "the log cannot be replaced without the state there"
        )
        for _ in range(100):
            archiver.scrub()
        assert len(archiver._held_back or []) < 5
        world.store.plan = None
        await settled(archiver)
        assert (partition.recovery, partition.log.start_offset) == (Recovery.NONE, end)
        assert not archiver.problem

    run(test)


def test_the_log_of_a_leader_that_was_deposed_meanwhile_is_not_replaced() -> None:
    async def test(world: World) -> None:
        await tiered(world)
        partition = recovering(led(10), 2)
        world.store.plan = Always("head")
        archiver, _ = world.archive(partition)
        await asyncio.sleep(5)
        assert archiver.problem
        partition.resign(1, 3)
        world.store.plan = None
        await settled(archiver)
        assert (partition.log.start_offset, partition.log.end_offset) == (0, 30)

    run(test)


def test_who_leads_after_one_that_died_before_it_had_recovered_does_the_same() -> None:
    async def test(world: World) -> None:
        end = await tiered(world)
        first = recovering(led(10), 2)
        archiver, _ = world.archive(first)
        await settled(archiver)
        append(first, end // 3, 4)
        await archiver.close()
        # Another replica, which had not begun to copy, and the first one again, with what it had taken.
        other = recovering(led(12), 3)
        archiver, _ = world.archive(other)
        await settled(archiver)
        assert (other.recovery, other.log.start_offset, other.log.end_offset) == (Recovery.NONE, end, end)
        await archiver.close()
        recovering(first, 4)
        archiver, _ = world.archive(first)
        await settled(archiver)
        assert (first.recovery, first.log.start_offset, first.log.end_offset) == (
            Recovery.NONE,
            end,
            end + 12,
        )

    run(test)
