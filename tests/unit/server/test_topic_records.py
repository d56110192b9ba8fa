"""Topic manifests: what a broker has to say of which topics, and when it says it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from tests.unit.replica.support import state_of
from tests.unit.replica.tiered_support import LoopClock
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import (
    CLUSTER_STATE,
    PARTITION_SET,
    ClusterState,
    PartitionSet,
    PartitionState,
)
from strandline_broker.cluster.model.partition_set import SLICE_SIZE, new_partition_set
from strandline_broker.cluster.store import Event, EventType
from strandline_broker.cluster.view import ClusterView
from strandline_broker.server.topic_records import TopicRecorder, is_recorded, topics_to_record
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind, ScriptedFaults
from strandline_tiered.keys import TopicKeys, TopicManifestName
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.topic_manifest import TopicManifest, decode_topic_manifest
from strandline_tiered.topic_store import load_newest_topic_manifest, write_topic_manifest

CLUSTER = UUID(int=1)
TOPIC_ID = UUID(int=2)
KEYS = TopicKeys(CLUSTER, "orders", TOPIC_ID)
OURS = state_of((0, 1), (1, 1), leader=0, epoch=4)
DELETED_AT = "2026-01-02T03:04:05Z"
DELETED_AT_MS = 1_767_323_045_000


def slice_of(
    *states: PartitionState, index: int = 0, topic: str = "orders", topic_id: UUID = TOPIC_ID
) -> PartitionSet:
    return new_partition_set(
        cluster="c",
        topic_id=topic_id,
        topic_name=topic,
        slice_index=index,
        config={"retention.ms": "5"},
        partitions=states,
    )


ORDERS = slice_of(OURS, OURS, OURS)


def recorded(*sets: PartitionSet, purged: tuple[UUID, ...] = ()) -> dict[UUID, TopicManifest]:
    return topics_to_record(sets, purged, 0, "i")


def test_a_topic_is_described_by_who_was_given_its_first_partition() -> None:
    assert recorded(ORDERS) == {
        TOPIC_ID: TopicManifest(
            topic="orders",
            topic_id=TOPIC_ID,
            name=TopicManifestName(4, 0),
            topic_epoch=0,
            partitions=3,
            replicas=2,
            config={"retention.ms": "5"},
        )
    }
    elsewhere = replace(OURS, leader=1)
    assert recorded(slice_of(elsewhere, OURS)) == {}
    assert recorded(slice_of(replace(OURS, leader_incarnation="before"))) == {}
    assert recorded(slice_of(OURS, elsewhere)).keys() == {TOPIC_ID}


def test_all_slices_count_and_the_first_speaks() -> None:
    full = slice_of(*[OURS] * SLICE_SIZE)
    more = replace(slice_of(OURS, OURS, index=1), config={"retention.ms": "not yet"})
    (found,) = recorded(more, full).values()
    assert found.partitions == SLICE_SIZE + 2
    assert found.config == {"retention.ms": "5"}
    assert recorded(more) == {}


def test_a_reassignment_under_way_changes_the_replicas_once() -> None:
    moving = replace(OURS, replicas=(2, 3, 0, 1), adding=(2, 3), removing=(0, 1))
    (found,) = recorded(slice_of(moving)).values()
    assert found.replicas == 2
    (found,) = recorded(slice_of(replace(OURS, target=(0, 1, 2)))).values()
    assert found.replicas == 3


def test_a_deleted_topic_has_a_tombstone_until_it_is_purged() -> None:
    deleted = transitions.mark_deleting(ORDERS, DELETED_AT)
    (found,) = recorded(deleted).values()
    assert found.deleted_at_ms == DELETED_AT_MS
    (found,) = recorded(replace(deleted, deleting_since=None)).values()
    assert found.deleted_at_ms == 0
    (found,) = recorded(transitions.unmark_deleting(deleted)).values()
    assert found.deleted_at_ms is None
    assert recorded(deleted, purged=(TOPIC_ID,)) == {}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"name": TopicManifestName(4, 9), "topic_epoch": 3, "written_at_ms": 4}, True),
        ({"name": TopicManifestName(3, 9)}, False),
        ({"partitions": 4}, False),
        ({"deleted_at_ms": 0}, False),
    ],
)
def test_each_epoch_says_it_again(change: dict[str, Any], expected: bool) -> None:
    (wanted,) = recorded(ORDERS).values()
    assert is_recorded(wanted, replace(wanted, **change)) is expected
    assert not is_recorded(wanted, None)


class World:
    """A recorder, the view that it follows, and a bucket."""

    def __init__(self) -> None:
        self.view = ClusterView(None, "c", rng=random.Random(0))  # type: ignore[arg-type]
        self.bucket = MemoryStore()
        self.store = FaultyStore(self.bucket)
        self.recorder = TopicRecorder(
            self.store,
            CLUSTER,
            view=self.view,
            broker_id=0,
            incarnation="i",
            clock=LoopClock(),
            rng=random.Random(0),
        )
        self._task = asyncio.get_running_loop().create_task(self.recorder.run())

    def see(self, *sets: PartitionSet) -> None:
        for part in sets:
            event = Event(EventType.MODIFIED, part.to_object())
            change = self.view.apply(PARTITION_SET, event)
            if change is not None:
                self.view._deliver([change])

    def purge(self, *ids: UUID) -> None:
        state = ClusterState("c", purged_topic_ids=ids)
        self.view.apply(CLUSTER_STATE, Event(EventType.MODIFIED, state.to_object()))

    def stored(self) -> list[tuple[int, int]]:
        names = [decode_topic_manifest(data).name for data in self.bucket.objects.values()]
        return sorted((name.leader_epoch, name.sequence) for name in names)

    async def newest(self, keys: TopicKeys = KEYS) -> TopicManifest:
        found = await load_newest_topic_manifest(self.bucket, keys)
        assert found is not None
        return found

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def scenario(test: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        world = World()
        await asyncio.sleep(0)
        await test(world)
        await world.close()

    virtually(main)


def test_every_change_is_written_and_only_changes_are() -> None:
    async def test(world: World) -> None:
        world.see(ORDERS)
        await asyncio.sleep(1)
        assert (await world.newest()).config == {"retention.ms": "5"}
        world.see(
            replace(ORDERS, partitions=(replace(OURS, isr=OURS.isr[:1]), replace(OURS, leader=1), OURS))
        )
        assert world.recorder.written == 1, "the ISR is nobody's business"
        assert not world.recorder._changed.is_set()
        changed = transitions.change_config(ORDERS, {"retention.ms": "6"})
        world.see(changed)
        await asyncio.sleep(1)
        newest = await world.newest()
        assert (newest.config, newest.topic_epoch) == ({"retention.ms": "6"}, changed.topic_epoch)
        world.see(replace(changed, partitions=(OURS,) * 5))
        await asyncio.sleep(1)
        assert (await world.newest()).partitions == 5
        assert world.stored() == [(4, 2), (4, 3)], "older ones are collected"

    scenario(test)


def test_a_topic_is_deleted_and_brought_back() -> None:
    async def test(world: World) -> None:
        world.see(ORDERS)
        await asyncio.sleep(1)
        deleted = transitions.mark_deleting(ORDERS, DELETED_AT)
        world.see(deleted)
        await asyncio.sleep(1)
        assert (await world.newest()).deleted_at_ms == DELETED_AT_MS
        world.see(transitions.unmark_deleting(deleted))
        await asyncio.sleep(1)
        newest = await world.newest()
        assert (newest.deleted_at_ms, newest.name) == (None, TopicManifestName(4, 3))

    scenario(test)


def test_what_a_deposed_leader_sent_is_never_the_newest() -> None:
    """Nothing changed between its epoch and this one; still this one writes first thing."""

    async def test(world: World) -> None:
        world.see(slice_of(replace(OURS, leader=1)))
        await asyncio.sleep(1)
        assert not world.bucket.objects
        world.see(slice_of(replace(OURS, leader_epoch=5)))
        await asyncio.sleep(1)
        (late,) = topics_to_record([slice_of(replace(OURS, leader=1))], (), 1, "i").values()
        late = replace(late, name=TopicManifestName(4, 88), deleted_at_ms=7)
        await write_topic_manifest(world.bucket, KEYS, late)
        newest = await world.newest()
        assert (newest.deleted_at_ms, newest.name.leader_epoch) == (None, 5)

    scenario(test)


def test_no_name_is_used_twice_whatever_comes_and_goes() -> None:
    async def test(world: World) -> None:
        world.see(ORDERS)
        await asyncio.sleep(1)
        gone = world.view.apply(PARTITION_SET, Event(EventType.DELETED, ORDERS.to_object()))
        assert gone is not None
        world.view._deliver([gone])
        await asyncio.sleep(1)
        world.see(transitions.change_config(ORDERS, {}))
        await asyncio.sleep(1)
        assert (await world.newest()).config == {}
        assert world.stored() == [(4, 1), (4, 2)]

    scenario(test)


def test_while_the_bucket_is_away_nothing_is_forgotten() -> None:
    async def test(world: World) -> None:
        others = [slice_of(OURS, topic=f"t{n}", topic_id=UUID(int=100 + n)) for n in range(20)]
        world.store.plan = ScriptedFaults([Fault(Kind.UNAVAILABLE)] * 50 + [None] * 999, operations=("put",))
        world.see(ORDERS, *others)
        await asyncio.sleep(1)
        assert world.recorder.pending == 21
        assert world.recorder.failures == 21
        # Changes do not make it try more often.
        for number in range(100):
            world.see(replace(ORDERS, partitions=(OURS,) * (number + 1)))
        assert world.recorder.failures == 21
        await asyncio.sleep(60)
        assert (world.recorder.pending, world.recorder.failures) == (0, 50)
        assert (await world.newest()).partitions == 100
        for part in others:
            await world.newest(TopicKeys(CLUSTER, part.topic_name, part.topic_id))

    scenario(test)


def test_older_manifests_that_could_not_be_collected_go_with_the_next() -> None:
    async def test(world: World) -> None:
        world.see(ORDERS)
        await asyncio.sleep(1)
        world.store.plan = ScriptedFaults([Fault(Kind.REFUSED)] * 2, operations=("delete",))
        for number in range(2, 4):
            world.see(transitions.change_config(ORDERS, {"n": str(number)}))
            await asyncio.sleep(1)
        assert world.recorder.pending == 0
        assert (world.recorder.failures, len(world.stored())) == (1, 3)
        world.store.plan = None
        world.see(transitions.change_config(ORDERS, {"n": "4"}))
        await asyncio.sleep(1)
        assert world.stored() == [(4, 3), (4, 4)]

    scenario(test)


def test_nothing_more_is_said_of_a_purged_topic() -> None:
    async def test(world: World) -> None:
        world.purge(TOPIC_ID)
        world.see(transitions.mark_deleting(ORDERS, DELETED_AT))
        await asyncio.sleep(1)
        assert not world.bucket.objects

    scenario(test)
