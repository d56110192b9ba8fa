"""Committed group offsets go to the bucket: when, what, under which names, and what happens when that fails."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from tests.unit.coordinator.support import NOW_MS, TOPIC, Bench, FakeShard, FakeTicket, run
from tests.unit.replica.support import state_of

from strandline_broker.cluster.model import ReplicaRef
from strandline_broker.coordinator import offset_snapshots
from strandline_broker.coordinator.offset_snapshots import COLLECT_EVERY, OffsetSnapshots
from strandline_broker.coordinator.slot import Slot
from strandline_broker.group.config import GroupConfig
from strandline_broker.group.records import encode_offset_key
from strandline_broker.group.requests import CommitRequest, PartitionCommit, TopicCommit
from strandline_broker.group.shard import GroupShard
from strandline_broker.wire.batch import Record, build_batch
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind, ScriptedFaults
from strandline_tiered.keys import OffsetsName, PartitionKeys
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.object_store import Unavailable
from strandline_tiered.offsets_snapshot import (
    CommittedOffset,
    OffsetsSnapshot,
    TopicPartition,
    encode_offsets,
)
from strandline_tiered.offsets_store import load_newest_offsets, write_offsets

CLUSTER = UUID(int=1)
KEYS = PartitionKeys(CLUSTER, TOPIC, UUID(int=0), 0)
INTERVAL_S = 60.0


class World(Bench):
    """A group coordinator of one partition, and a bucket. `lead` as in `Bench`, in epochs given to this start."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.bucket = MemoryStore()
        self.store = FaultyStore(self.bucket)
        self.snapshots = OffsetSnapshots(
            self.store,
            CLUSTER,
            incarnation="i",
            slots=lambda: cast("list[Slot[GroupShard]]", self.runtime.active_slots()),
            interval_s=INTERVAL_S,
            clock=self.clock,
            rng=random.Random(1),
        )

    def _make(self) -> FakeShard:
        self.shards.append(cast("FakeShard", GroupShard(GroupConfig(), random.Random(0))))
        return self.shards[-1]

    def ask(self, group: str, offsets: Mapping[tuple[str, int], int]) -> FakeTicket:
        """Commit offsets, and wait for nothing."""
        ticket = FakeTicket()
        topics = tuple(
            TopicCommit(topic, (PartitionCommit(partition, offset, 3, "m"),))
            for (topic, partition), offset in offsets.items()
        )
        self.runtime.run(
            self.runtime.slot(0),
            lambda shard, now_ms: cast("GroupShard", shard).commit_offsets(
                ticket, CommitRequest(group, topics), now_ms
            ),
        )
        return ticket

    async def commit(self, group: str, topic: str, offset: int, partition: int = 0) -> None:
        ticket = self.ask(group, {(topic, partition): offset})
        self.sync()
        await self.settle()
        assert ticket.answers

    async def look(self, after_s: float = 0.0) -> None:
        self.clock.advance(after_s)
        await self.snapshots.look()

    def names(self) -> list[OffsetsName]:
        names = [KEYS.parse(key) for key in self.bucket.objects]
        assert all(isinstance(name, OffsetsName) for name in names)
        return sorted(cast("list[OffsetsName]", names))

    async def newest(self) -> OffsetsSnapshot:
        found = await load_newest_offsets(self.bucket, KEYS)
        assert found is not None
        return found


def scenario(tmp_path: Path, test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World(tmp_path)
        world.lead(4)
        await test(world)
        await world.runtime.close()

    run(main())


def test_what_is_committed_is_written_once_the_interval_is_over(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.look()
        await world.commit("g", "orders", 17, 2)
        await world.commit("h", "x", 5)
        await world.look(1.0)
        assert not world.bucket.objects, "the first one of an epoch waits for a part of the interval"
        await world.look(INTERVAL_S)
        assert await world.newest() == OffsetsSnapshot(
            partition=0,
            name=OffsetsName(4, 1),
            end_offset=world.log.end_offset,
            groups={
                "g": {TopicPartition("orders", 2): CommittedOffset(17, 3, "m", NOW_MS)},
                "h": {TopicPartition("x", 0): CommittedOffset(5, 3, "m", NOW_MS)},
            },
            written_at_ms=world.clock.now_ms(),
        )
        (data,) = world.bucket.objects.values()
        assert data == encode_offsets(await world.newest()), "canonical, although it is encoded in pieces"

    scenario(tmp_path, test)


def test_nothing_is_written_unless_something_changed(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.look(2 * INTERVAL_S)
        await world.look(2 * INTERVAL_S)
        assert not world.bucket.objects, "a partition that was never written to"
        await world.commit("g", "t", 1)
        await world.look(INTERVAL_S)
        assert world.names() == [OffsetsName(4, 1)]
        await world.look(10 * INTERVAL_S)
        assert world.names() == [OffsetsName(4, 1)]
        assert world.snapshots.stale_s == 0.0
        await world.commit("g", "t", 2)
        await world.look()
        assert world.names()[-1] == OffsetsName(4, 2), "after a long rest at once"
        await world.commit("g", "t", 3)
        await world.look(INTERVAL_S - 1)
        assert world.names()[-1] == OffsetsName(4, 2)
        assert world.snapshots.stale_s == 0.0
        await world.look(0.5)
        assert world.snapshots.stale_s == 0.5
        await world.look(0.5)
        assert world.names()[-1] == OffsetsName(4, 3)
        assert world.snapshots.written == 3

    scenario(tmp_path, test)


def test_what_was_deleted_is_gone_from_the_next_one(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.commit("g", "t", 1)
        await world.look()
        await world.look(INTERVAL_S)
        ticket = FakeTicket()
        world.runtime.run(
            world.runtime.slot(0),
            lambda shard, now_ms: cast("GroupShard", shard).delete_group(ticket, "g", now_ms),
        )
        world.sync()
        await world.settle()
        await world.look(INTERVAL_S)
        assert (await world.newest()).groups == {}

    scenario(tmp_path, test)


def test_what_is_on_its_way_is_not_in_it(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.commit("g", "t", 1)
        end = world.log.end_offset
        ticket = world.ask("g", {("t", 0): 2, ("u", 0): 9})
        await world.look()
        await world.look(INTERVAL_S)
        newest = await world.newest()
        assert newest.end_offset == end < world.log.end_offset
        assert {where: at.offset for where, at in newest.groups["g"].items()} == {TopicPartition("t", 0): 1}
        # Committed, and its shard does not know it yet.
        world.sync()
        assert not ticket.answers
        assert world.partition.high_watermark > end
        assert world.runtime.slot(0).settled_through == end
        await world.settle()
        assert world.runtime.slot(0).settled_through == world.log.end_offset
        await world.look(INTERVAL_S)
        assert len((await world.newest()).groups["g"]) == 2

    scenario(tmp_path, test)


def test_the_first_of_an_epoch_is_written_although_nothing_changed_in_it(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.commit("g", "t", 1)
        await world.look()
        await world.look(INTERVAL_S)
        world.resign()
        await world.look(INTERVAL_S)
        world.lead(6)
        await world.until(lambda: bool(world.runtime.active_slots()))
        await world.look()
        await world.look(INTERVAL_S)
        assert world.names() == [OffsetsName(4, 1), OffsetsName(6, 2)]
        assert (await world.newest()).groups.keys() == {"g"}

    scenario(tmp_path, test)


def test_a_partition_without_any_offset_left_is_not_passed_over(tmp_path: Path) -> None:
    """The last leader may have written a snapshot before the last one was deleted."""

    async def main() -> None:
        world = World(tmp_path)
        former = OffsetsSnapshot(
            0, OffsetsName(3, 9), 5, {"g": {TopicPartition("t", 0): CommittedOffset(1, 0, "", 0)}}
        )
        await write_offsets(world.bucket, KEYS, former)
        deleted = Record(timestamp=NOW_MS, key=encode_offset_key("g", "t", 0), value=None)
        world.append(bytes(build_batch([deleted], base_offset=0, leader_epoch=3)))
        world.sync()
        world.lead(4)
        await world.until(lambda: bool(world.runtime.active_slots()))
        await world.look()
        await world.look(INTERVAL_S)
        newest = await world.newest()
        assert (newest.name.leader_epoch, newest.groups) == (4, {})
        await world.runtime.close()

    run(main())


@pytest.mark.parametrize("state", [{"leader_incarnation": "before"}, {"recovering": True}], ids=str)
def test_an_epoch_that_is_resumed_is_not_written_under_nor_one_that_has_to_recover(
    tmp_path: Path, state: dict[str, Any]
) -> None:
    """What names were used in the one the last start knew; the other holds less than the newest snapshot."""

    async def main() -> None:
        world = World(tmp_path)
        given = replace(state_of((0, 1), leader=0, epoch=4), **state)
        world.partition.lead(ReplicaRef(0, 1), given, 1, 0.0)
        world.runtime.reconcile()
        await world.commit("g", "t", 1)
        await world.look()
        await world.look(INTERVAL_S)
        await world.snapshots.write_all()
        assert not world.bucket.objects
        await world.runtime.close()

    run(main())


def test_a_failure_is_counted_and_tried_again_under_another_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(world: World) -> None:
        await world.commit("g", "t", 1)
        await world.look()
        world.store.plan = ScriptedFaults(
            [Fault(Kind.LOST_ANSWER), Fault(Kind.UNAVAILABLE)], operations=("put",)
        )
        with caplog.at_level(logging.WARNING):
            await world.look(INTERVAL_S)
        assert "tried again in" in caplog.text
        assert world.snapshots.failures == 1
        await world.look()
        assert world.snapshots.failures == 1, "not at once"
        await world.look(1.0)
        assert world.snapshots.failures == 2
        assert world.snapshots.stale_s > INTERVAL_S
        await world.look(2.0)
        assert world.names() == [OffsetsName(4, 1), OffsetsName(4, 3)]
        assert world.snapshots.stale_s == 0.0
        await world.look(10 * INTERVAL_S)
        assert world.snapshots.written == 1

    scenario(tmp_path, test)


def test_older_ones_are_collected_now_and_then(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.bucket.objects = {KEYS.key(OffsetsName(epoch, 1)): b"" for epoch in range(4)}
        await world.look()
        for number in range(COLLECT_EVERY):
            await world.commit("g", "t", number)
            await world.look(INTERVAL_S)
            if number == 0:
                assert world.names() == [OffsetsName(3, 1), OffsetsName(4, 1)]
            elif number < COLLECT_EVERY - 1:
                assert len(world.names()) == number + 2
        assert world.names() == [OffsetsName(4, COLLECT_EVERY - 1), OffsetsName(4, COLLECT_EVERY)]

    scenario(tmp_path, test)


def test_a_collection_that_fails_costs_nothing_and_is_made_up_for(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.bucket.objects = {KEYS.key(OffsetsName(epoch, 1)): b"" for epoch in range(4)}
        world.store.plan = ScriptedFaults([Fault(Kind.UNAVAILABLE)], operations=("delete",))
        await world.look()
        await world.commit("g", "t", 1)
        await world.look(INTERVAL_S)
        assert (world.snapshots.written, world.snapshots.failures) == (1, 1)
        assert len(world.names()) == 5
        await world.look(INTERVAL_S)
        assert len(world.names()) == 5, "it is in the bucket: nothing is due"
        await world.commit("g", "t", 2)
        await world.look()
        assert world.names() == [OffsetsName(4, 1), OffsetsName(4, 2)]

    scenario(tmp_path, test)


def test_offsets_that_are_no_positions_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(world: World) -> None:
        await world.commit("g", "t", -5)
        await world.commit("g", "u", 5, partition=-1)
        await world.commit("h", "u", 6)
        await world.look()
        with caplog.at_level(logging.WARNING):
            await world.look(INTERVAL_S)
        assert (await world.newest()).groups.keys() == {"h"}
        assert "2 committed offsets are no positions" in caplog.text

    scenario(tmp_path, test)


def test_who_stops_writes_what_is_not_due_yet(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.commit("g", "t", 1)
        await world.look()
        await world.snapshots.write_all()
        assert world.names() == [OffsetsName(4, 1)]
        await world.snapshots.write_all()
        assert world.names() == [OffsetsName(4, 1)], "nothing changed since"
        await world.commit("g", "t", 2)
        world.store.plan = ScriptedFaults([Fault(Kind.UNAVAILABLE)], operations=("put",))
        with pytest.raises(Unavailable):
            await world.snapshots.write_all()

    scenario(tmp_path, test)


def test_commits_go_on_while_a_large_one_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset_snapshots, "SLICE_S", -1.0)

    async def test(world: World) -> None:
        groups = [f"g{number:02}" for number in range(30)]
        for group in groups:
            world.ask(group, {("t", number): number for number in range(10)})
        world.sync()
        await world.settle()
        await world.look()
        end = world.log.end_offset
        world.clock.advance(INTERVAL_S)
        writing = asyncio.create_task(world.snapshots.look())
        await asyncio.sleep(0)
        for group in groups:
            world.ask(group, {("t", 0): 77})
        world.sync()
        await world.settle()
        assert world.runtime.slot(0).settled_through > end
        assert not writing.done()
        await writing
        newest = await world.newest()
        assert newest.end_offset == end
        expected = {TopicPartition("t", number): number for number in range(10)}
        assert newest.groups.keys() == set(groups)
        for group in groups:
            assert {where: at.offset for where, at in newest.groups[group].items()} == expected
        await world.look(INTERVAL_S)
        assert {at[TopicPartition("t", 0)].offset for at in (await world.newest()).groups.values()} == {77}

    scenario(tmp_path, test)


@pytest.mark.parametrize("turns", [1, 8])
def test_one_that_is_encoded_when_its_epoch_ends_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    monkeypatch.setattr(offset_snapshots, "SLICE_S", -1.0)

    async def test(world: World) -> None:
        for number in range(5):
            await world.commit(f"g{number}", "t", 1)
        await world.look()
        world.clock.advance(INTERVAL_S)
        writing = asyncio.create_task(world.snapshots.look())
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not writing.done()
        world.resign()
        await writing
        assert not world.bucket.objects

    scenario(tmp_path, test)


def test_a_shard_that_cannot_be_encoded_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World) -> None:
        await world.commit("g", "t", 1)
        await world.look()
        monkeypatch.setattr(offset_snapshots, "encode_topic", lambda topic, offsets: 1 // 0)
        await world.look(INTERVAL_S)
        assert world.snapshots.failures == 1
        monkeypatch.undo()
        await world.look(INTERVAL_S)
        assert world.snapshots.written == 1

    scenario(tmp_path, test)
