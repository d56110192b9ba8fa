"""Purged topics are swept out of the bucket: by whom, when, and again."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from tests.unit.tiered.virtual_time import virtually

from strandline_broker.cluster.model import BrokerLease, BrokerPhase, ClusterState
from strandline_broker.cluster.view import ClusterView
from strandline_broker.seams.clock import ManualClock
from strandline_broker.server.topic_sweeper import SECOND_LOOK_S, TopicSweeper, whose_turn
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind, ScriptedFaults
from strandline_tiered.keys import ClaimName, SegmentName, TopicKeys
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.topic_manifest import FINAL

CLUSTER = UUID(int=1)
FIRST = TopicKeys(CLUSTER, "a", UUID(int=10))
SECOND = TopicKeys(CLUSTER, "b", UUID(int=11))
INTERVAL_S = 600.0


def lease(broker_id: int, state: BrokerPhase = BrokerPhase.RUNNING, incarnation: str = "i") -> BrokerLease:
    return BrokerLease(broker_id, incarnation, 1, {}, state=state)


def turn(*leases: BrokerLease, silent: Iterable[int] = ()) -> int | None:
    return whose_turn({one.broker_id: one for one in leases}, frozenset(silent))


def test_the_lowest_broker_that_runs_sweeps() -> None:
    assert turn() is None
    assert turn(lease(2), lease(1)) == 1
    assert turn(lease(0, BrokerPhase.STARTING), lease(1, BrokerPhase.DRAINING), lease(2)) == 2
    assert turn(lease(0), lease(1), silent={0}) == 1
    assert turn(lease(0, incarnation=""), lease(1)) == 1


class World:
    """A sweeper, what it sees of the cluster, and a bucket with two topics."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bucket = MemoryStore()
        self.store = FaultyStore(self.bucket)
        self.silent: frozenset[int] = frozenset()
        self.view = SimpleNamespace(
            state=ClusterState("c"), leases={0: lease(0), 1: lease(1)}, silent_brokers=lambda: self.silent
        )
        self.sweeper = self.of_broker(0)
        for topic in (FIRST, SECOND):
            self.land(topic)

    def of_broker(self, broker_id: int) -> TopicSweeper:
        return TopicSweeper(
            self.store,
            CLUSTER,
            view=cast("ClusterView", self.view),
            broker_id=broker_id,
            interval_s=INTERVAL_S,
            clock=self.clock,
            rng=random.Random(1),
        )

    def land(self, topic: TopicKeys) -> None:
        self.bucket.objects[topic.partition(0).key(ClaimName(1))] = b""
        self.bucket.objects[topic.partition(0).key(SegmentName(0, 1, UUID(int=1)))] = b""

    def purge(self, *topics: TopicKeys) -> None:
        ids = tuple(topic.topic_id for topic in topics)
        self.view.state = replace(self.view.state, purged_topic_ids=ids)

    def is_swept(self, topic: TopicKeys) -> bool:
        return {key for key in self.bucket.objects if key.startswith(topic.prefix)} == {topic.key(FINAL)}

    async def look(self, after_s: float = 0.0) -> None:
        self.clock.advance(after_s)
        await self.sweeper.look()


def scenario(test: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await test(World())

    virtually(main)


def test_a_purge_is_followed_at_once_and_then_ever_more_rarely() -> None:
    async def test(world: World) -> None:
        await world.look()
        assert world.sweeper.sweeps == 0, "where nothing was purged, not even a listing"
        world.purge(FIRST)
        await world.look()
        assert world.is_swept(FIRST)
        assert not world.is_swept(SECOND)
        assert world.sweeper.deleted == 2
        world.land(FIRST)
        await world.look(SECOND_LOOK_S - 1)
        assert not world.is_swept(FIRST)
        await world.look(1)
        assert world.is_swept(FIRST)
        at = [SECOND_LOOK_S * 2, SECOND_LOOK_S * 4, SECOND_LOOK_S * 8, INTERVAL_S, INTERVAL_S]
        for number, delay_s in enumerate(at, 3):
            await world.look(delay_s - 1)
            assert world.sweeper.sweeps == number - 1
            await world.look(1)
            assert world.sweeper.sweeps == number
        world.purge(FIRST, SECOND)
        await world.look()
        assert world.is_swept(SECOND), "another purge, another beginning"
        await world.look(SECOND_LOOK_S)
        assert world.sweeper.sweeps == len(at) + 4
        # Ids that are forgotten because there are too many ask for nothing.
        world.purge(SECOND)
        await world.look()
        assert world.sweeper.sweeps == len(at) + 4

    scenario(test)


def test_a_failure_is_counted_and_tried_again_later() -> None:
    async def test(world: World) -> None:
        world.purge(FIRST)
        world.store.plan = ScriptedFaults([Fault(Kind.UNAVAILABLE)] * 2, operations=("delete",))
        await world.look()
        await world.look(1)
        assert world.sweeper.failures == 1
        await world.look(5)
        assert world.sweeper.failures == 2
        await world.look(10)
        assert (world.sweeper.failures, world.sweeper.sweeps) == (2, 1)
        assert world.is_swept(FIRST)

    scenario(test)


def test_who_comes_after_goes_on_and_whose_turn_it_is_not_does_nothing() -> None:
    async def test(world: World) -> None:
        other = world.of_broker(1)
        world.purge(FIRST)
        await other.look()
        assert not world.is_swept(FIRST)
        world.store.plan = ScriptedFaults([Fault(Kind.UNAVAILABLE)], operations=("delete",))
        await world.look()
        world.silent = frozenset({0})
        await other.look()
        assert world.is_swept(FIRST)
        await world.look(1000)
        assert world.sweeper.sweeps == 0, "it is another's turn"
        world.silent = frozenset()
        await world.look()
        assert world.sweeper.sweeps == 1
        world.silent = frozenset({0})
        await world.look()
        world.silent = frozenset()
        await world.look()
        assert world.sweeper.sweeps == 2, "back in turn it begins anew"
        await other.look()
        assert other.sweeps == 1

    scenario(test)


def test_without_a_cluster_state_nothing_is_swept() -> None:
    async def test(world: World) -> None:
        world.view.state = None
        await world.look()
        assert (world.sweeper.sweeps, world.sweeper.failures) == (0, 0)
        assert not world.is_swept(FIRST)

    scenario(test)
