"""Committed offsets of a restored cluster: never above what is restored, never of what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.tiered.bucket_support import (
    FIRST_MS,
    NEW,
    OFFSETS,
    OLD,
    ORDERS,
    put_offsets,
    put_partition,
    put_topic,
)
from tests.unit.tiered.test_restore_plan import named, tiers

from strandline_tiered.epochs import EpochStart
from strandline_tiered.keys import OffsetsName, TopicKeys
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.offsets_snapshot import CommittedOffset, TopicPartition
from strandline_tiered.restore_offsets import GroupReport, OffsetsPlan, RestoredEnd, clamped, plan_offsets
from strandline_tiered.restore_plan import Choice, plan_topics
from strandline_tiered.restore_reading import read_cluster

RESTORED_MS = FIRST_MS + 5_000_000


def partition_of(group: str, count: int) -> int:
    return sum(group.encode()) % count


def planned(store: MemoryStore, *topics: str, left_out: tuple[str, ...] = ()) -> OffsetsPlan:
    found = asyncio.run(read_cluster(store, OLD))
    choice = Choice(frozenset(topics), frozenset(left_out))
    result = plan_topics(found, target=NEW, choice=choice, tiers=tiers)
    assert not result.problems
    return plan_offsets(
        found,
        result.topics,
        target=NEW,
        choice=choice,
        partition_of=partition_of,
        restored_at_ms=RESTORED_MS,
    )


def fill(partitions: int = 4) -> MemoryStore:
    async def work() -> MemoryStore:
        store = MemoryStore()
        history = (EpochStart(2, 0), EpochStart(4, 50))
        await put_partition(store, ORDERS.partition(0), (0, 20, 60), history=history, high_watermark=90)
        await put_topic(store, ORDERS, 2, config={"a": "b"})
        await put_topic(store, named("table"), 3, config={"cleanup.policy": "compact"})
        await put_topic(store, OFFSETS, partitions, epoch=8)
        return store

    return asyncio.run(work())


def all_offsets(plan: OffsetsPlan) -> dict[str, Mapping[TopicPartition, CommittedOffset]]:
    return {group: offsets for snapshot in plan.snapshots for group, offsets in snapshot.groups.items()}


def test_offsets_are_clamped_to_the_restored_end_and_counted() -> None:
    store = fill()
    groups = {
        "fast": {("orders", 0): 88, ("orders", 1): 3},
        "slow": {("orders", 0): 12, ("gone", 0): 5, ("table", 2): 7},
        "lost": {("gone", 1): 5},
    }
    asyncio.run(put_offsets(store, 1, groups, epoch=11))
    plan = planned(store)
    assert plan.keys == TopicKeys(NEW, OFFSETS.topic, OFFSETS.topic_id)
    found = all_offsets(plan)
    assert {group: {at: one.offset for at, one in offsets.items()} for group, offsets in found.items()} == {
        "fast": {("orders", 0): 60, ("orders", 1): 0},
        "slow": {("orders", 0): 12, ("table", 2): 0},
    }
    # The epoch of the last record that is left, so that clients find no truncation.
    assert found["fast"][TopicPartition("orders", 0)].leader_epoch == 4
    assert found["fast"][TopicPartition("orders", 1)].leader_epoch == -1
    assert {one.committed_at_ms for offsets in found.values() for one in offsets.values()} == {RESTORED_MS}
    assert plan.groups == (
        GroupReport("fast", 2, 2, 0),
        GroupReport("lost", 0, 0, 1),
        GroupReport("slow", 2, 1, 1),
    )
    assert plan.leader_epoch == 12
    assert [snapshot.name for snapshot in plan.snapshots] == [OffsetsName(12, 1)] * 4
    assert [snapshot.partition for snapshot in plan.snapshots] == [0, 1, 2, 3]


def test_groups_go_where_the_new_cluster_looks_for_them() -> None:
    store = fill(partitions=3)
    asyncio.run(put_offsets(store, 0, {name: {("orders", 0): 1} for name in "abcdefg"}))
    for snapshot in planned(store).snapshots:
        assert all(partition_of(group, 3) == snapshot.partition for group in snapshot.groups)
    # No topic manifest yet: as many as clusters make, and at least those that are there.
    key = next(key for key in store.objects if key.startswith(OFFSETS.prefix) and key.endswith(".topic"))
    del store.objects[key]
    assert len(planned(store).snapshots) == 50
    asyncio.run(put_offsets(store, 77, {"z": {("orders", 0): 1}}))
    assert len(planned(store).snapshots) == 78


def test_offsets_of_an_earlier_topic_of_that_name_are_left_out() -> None:
    store = fill()
    asyncio.run(put_offsets(store, 0, {"old": {("orders", 0): 5}}, topic_id=UUID(int=77)))
    asyncio.run(put_offsets(store, 1, {"new": {("orders", 0): 5}}, topic_id=ORDERS.topic_id))
    plan = planned(store)
    assert set(all_offsets(plan)) == {"new"}
    assert all_offsets(plan)["new"][TopicPartition("orders", 0)].topic_id == ORDERS.topic_id


def test_only_offsets_of_topics_that_are_restored_come_along() -> None:
    store = fill()
    asyncio.run(put_offsets(store, 0, {"both": {("orders", 0): 5, ("table", 0): 1}}))
    assert planned(store, "table").groups == (GroupReport("both", 1, 1, 1),)


def test_the_newest_snapshot_counts() -> None:
    store = fill()
    asyncio.run(put_offsets(store, 0, {"g": {("orders", 0): 5}}, epoch=3, sequence=9))
    asyncio.run(put_offsets(store, 0, {"g": {("orders", 0): 7}}, epoch=4, sequence=1))
    assert all_offsets(planned(store))["g"][TopicPartition("orders", 0)].offset == 7


def test_a_bucket_without_committed_offsets_restores_none() -> None:
    async def work() -> MemoryStore:
        store = MemoryStore()
        await put_topic(store, ORDERS, 1)
        return store

    assert planned(asyncio.run(work())) == OffsetsPlan()


def test_damaged_snapshots_and_doubtful_topics_stand_in_the_way() -> None:
    store = fill()
    asyncio.run(put_offsets(store, 0, {"g": {("orders", 0): 5}}))
    key = next(key for key in store.objects if key.endswith(".offsets"))
    whole = store.objects[key]
    store.objects[key] = whole[:-1]
    (problem,) = planned(store).problems
    assert key in problem
    store.objects[key] = whole
    second = TopicKeys(OLD, OFFSETS.topic, UUID(int=3))
    asyncio.run(put_topic(store, second, 4))
    assert "2 topics are called __consumer_offsets" in planned(store).problems[0]
    assert not planned(store, left_out=(f"{second.topic}-{second.topic_id}",)).problems


@given(
    offset=st.integers(0, 200),
    end=st.integers(0, 100),
    starts=st.lists(st.integers(0, 100), unique=True, max_size=4),
)
def test_a_clamped_offset_lies_within_and_names_an_epoch_that_is_there(
    offset: int, end: int, starts: list[int]
) -> None:
    history = tuple(EpochStart(epoch, at) for epoch, at in enumerate(sorted(starts), 3) if at < end)
    result = clamped(CommittedOffset(offset, 99, "m", 5), RestoredEnd(end, history, None))
    assert result.offset == min(offset, end)
    if offset <= end:
        assert result.leader_epoch == 99
    else:
        assert result.leader_epoch in {-1, *(epoch for epoch, _ in history)}
        assert result.metadata == "m"
