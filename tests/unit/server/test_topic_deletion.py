"""A topic is deleted, step by step as ADR 0012 has it, and everything ends between any two of the steps.

The steps of the controller are its own pure transitions; brokers are a recorder and a sweeper each, over one bucket.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from tests.unit.replica.support import state_of
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import BrokerLease, BrokerPhase, ClusterState, PartitionSet
from strandline_broker.cluster.model.partition_set import SLICE_SIZE, new_partition_set
from strandline_broker.seams.clock import ManualClock
from strandline_broker.server.topic_records import TopicRecorder
from strandline_broker.server.topic_sweeper import SECOND_LOOK_S, TopicSweeper
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind, ScriptedFaults
from strandline_tiered.keys import ClaimName, ManifestName, SegmentName, TopicKeys
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.topic_manifest import FINAL, TopicManifest
from strandline_tiered.topic_store import load_newest_topic_manifest

CLUSTER = UUID(int=1)
KEYS = TopicKeys(CLUSTER, "orders", UUID(int=2))
PURGED = ClusterState("c", purged_topic_ids=(KEYS.topic_id,))
BROKERS = range(3)


def slices() -> tuple[PartitionSet, PartitionSet]:
    ours = state_of((0, 1), (1, 1), leader=0, epoch=4)

    def slice_of(index: int, count: int) -> PartitionSet:
        return new_partition_set(
            cluster="c",
            topic_id=KEYS.topic_id,
            topic_name=KEYS.topic,
            slice_index=index,
            config={},
            partitions=(ours,) * count,
        )

    return slice_of(0, SLICE_SIZE), slice_of(1, 3)


def deleting(part: PartitionSet) -> PartitionSet:
    return transitions.mark_deleting(part, "2026-01-02T03:04:05Z")


HEAD, TAIL = slices()
# What the store holds after each step of the controller.
STEPS: tuple[tuple[tuple[PartitionSet, ...], ClusterState], ...] = (
    ((HEAD, TAIL), ClusterState("c")),
    ((deleting(HEAD), TAIL), ClusterState("c")),
    ((deleting(HEAD), deleting(TAIL)), ClusterState("c")),
    ((deleting(HEAD), deleting(TAIL)), PURGED),
    ((deleting(TAIL),), PURGED),
    ((), PURGED),
)
FIRST_PURGED = 3


class World:
    """Brokers that all see the same, and a bucket that holds the topic's records."""

    def __init__(self) -> None:
        self.bucket = MemoryStore()
        self.store = FaultyStore(self.bucket)
        self.clock = ManualClock()
        self.starts = 0
        self.view: Any = SimpleNamespace(silent_brokers=frozenset)
        self.see(0)
        for index in (0, 102):
            self.land(index)
        # The first start of broker 0 is the one that the epoch was given to.
        self.brokers = {
            broker_id: self.start(broker_id, "i" if broker_id == 0 else "") for broker_id in BROKERS
        }

    def see(self, step: int) -> None:
        sets, self.view.state = STEPS[step]
        self.view.partition_sets = lambda: iter(sets)

    def land(self, index: int) -> None:
        keys = KEYS.partition(index)
        for name in (ClaimName(4), ManifestName(4, 1), SegmentName(0, 4, UUID(int=9))):
            self.bucket.objects[keys.key(name)] = b""

    def start(self, broker_id: int, incarnation: str = "") -> tuple[TopicRecorder, TopicSweeper]:
        self.starts += 1
        rng = random.Random(self.starts)
        recorder = TopicRecorder(
            self.store,
            CLUSTER,
            view=self.view,
            broker_id=broker_id,
            incarnation=incarnation or f"start {self.starts}",
            clock=self.clock,
            rng=rng,
        )
        sweeper = TopicSweeper(
            self.store,
            CLUSTER,
            view=self.view,
            broker_id=broker_id,
            interval_s=600.0,
            clock=self.clock,
            rng=rng,
        )
        return recorder, sweeper

    async def act(self) -> None:
        """Let every broker that runs do what there is to do now."""
        self.view.leases = {
            broker_id: BrokerLease(broker_id, "x", 1, {}, state=BrokerPhase.RUNNING)
            for broker_id in self.brokers
        }
        await asyncio.gather(*(recorder.record() for recorder, _ in self.brokers.values()))
        await asyncio.gather(*(sweeper.look() for _, sweeper in self.brokers.values()))

    async def newest(self) -> TopicManifest | None:
        return await load_newest_topic_manifest(self.bucket, KEYS)

    @property
    def segments(self) -> int:
        return sum(key.endswith(".seg") for key in self.bucket.objects)


async def finished(world: World) -> None:
    """Whatever happened: a while after the last step only the final tombstone is left, and nothing undoes that."""
    world.see(len(STEPS) - 1)
    world.store.plan = None
    for _ in range(3):
        world.clock.advance(700)
        await world.act()
    assert set(world.bucket.objects) == {KEYS.key(FINAL)}
    world.land(7)
    newest = await world.newest()
    assert newest is not None
    assert newest.deleted_at_ms is not None
    world.clock.advance(2400)
    await world.act()
    assert set(world.bucket.objects) == {KEYS.key(FINAL)}


@pytest.mark.parametrize("crash_after", range(len(STEPS)))
@pytest.mark.parametrize("acts_before_the_crash", [True, False])
@pytest.mark.parametrize("back", [(), (0,), (1, 2), (0, 1, 2)], ids=str)
def test_everything_ends_after_any_step_and_somebody_comes_back(
    crash_after: int, acts_before_the_crash: bool, back: tuple[int, ...]
) -> None:
    async def test() -> None:
        world = World()
        for step in range(len(STEPS)):
            world.see(step)
            if step != crash_after or acts_before_the_crash:
                await world.act()
            if step == crash_after:
                world.brokers = {broker_id: world.start(broker_id) for broker_id in back}
                await world.act()
            newest = await world.newest()
            if step < FIRST_PURGED:
                assert world.segments == 2, "nothing goes before the purge"
                assert newest is None or newest.name != FINAL
            if step == 0 and acts_before_the_crash:
                assert newest is not None
                assert (newest.deleted_at_ms, newest.partitions) == (None, SLICE_SIZE + 3)
            elif 0 < step < FIRST_PURGED and (
                step < crash_after or (step == crash_after and acts_before_the_crash)
            ):
                assert newest is not None
                assert newest.deleted_at_ms
        world.brokers = world.brokers or {2: world.start(2)}
        await finished(world)

    virtually(test)


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.LOST_ANSWER, Kind.LATE, Kind.TWICE])
@pytest.mark.parametrize("at", range(12))
def test_any_request_fails_or_lands_late(at: int, kind: Kind) -> None:
    """A write that lands late does so long after the topic is gone."""

    async def test() -> None:
        world = World()
        faults = [None] * at + [Fault(kind, 500.0)]
        world.store.plan = ScriptedFaults(faults, operations=("put", "list", "delete"))
        for step in range(len(STEPS)):
            world.see(step)
            await world.act()
            assert step >= FIRST_PURGED or world.segments == 2
        world.clock.advance(SECOND_LOOK_S)
        await world.act()
        await world.store.landed()
        await finished(world)

    virtually(test)


def test_a_topic_that_is_brought_back_in_time_stays_whole_whoever_leads_it_then() -> None:
    async def test() -> None:
        world = World()
        for step in range(3):
            world.see(step)
            await world.act()
        back = tuple(transitions.unmark_deleting(part) for part in STEPS[2][0])
        world.view.partition_sets = lambda: iter(back)
        await world.act()
        newest = await world.newest()
        assert newest is not None
        assert newest.deleted_at_ms is None
        # Somebody else leads it next, of whom the tombstone may be late.
        first = replace(back[0].partitions[0], leader=1, leader_epoch=5, leader_incarnation="new")
        moved = replace(back[0], partitions=(first, *back[0].partitions[1:]))
        world.view.partition_sets = lambda: iter((moved, back[1]))
        world.brokers[1] = world.start(1, "new")
        await world.act()
        newest = await world.newest()
        assert newest is not None
        assert (newest.deleted_at_ms, newest.name.leader_epoch) == (None, 5)
        assert world.segments == 2

    virtually(test)
