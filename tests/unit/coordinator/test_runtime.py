"""The runtime over a real log and partition, with a scripted shard."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.coordinator.support import NOW_MS, Bench, FakeTicket, run
from tests.unit.log.support import FailingDisk
from tests.unit.replica.support import lead_alone

from strandline_broker.coordinator.slot import Phase
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.group.effects import Effects
from strandline_broker.wire.batch import Record, build_batch, build_end_txn_marker, iter_batches, iter_records


def code_of(bench: Bench) -> ErrorCode:
    try:
        bench.runtime.slot(0)
    except KafkaError as error:
        return error.code
    return ErrorCode.NONE


def test_an_empty_log_is_served_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        assert code_of(bench) is ErrorCode.NOT_COORDINATOR
        bench.lead(1)
        assert code_of(bench) is ErrorCode.NONE
        assert bench.active == [0]

    run(scenario())


def test_replies_leave_at_once_and_the_others_when_the_records_are_committed(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.lead(1)
        now, later = FakeTicket(), FakeTicket()
        effects = Effects(
            records=[(b"a", b"1"), (b"b", None)],
            replies=[(now, {"x": 1})],
            committed=[(later, {"x": 2})],
            token="t",
        )
        bench.runtime.run(bench.runtime.slot(0), lambda shard, now_ms: effects)
        await bench.settle()
        assert now.answers == [{"x": 1}]
        assert later.answers == []
        assert bench.sync_requests == 1
        bench.sync()
        await bench.settle()
        assert later.answers == [{"x": 2}]
        assert bench.shard.committed == ["t"]
        part = bench.log.read(0, 1 << 20, bench.log.end_offset, min_one_batch=True)
        assert part is not None
        data = memoryview(part.read())
        ((_, header),) = iter_batches(data)
        assert header.leader_epoch == 1
        assert [(r.key, r.value, r.timestamp) for r in iter_records(data)] == [
            (b"a", b"1", NOW_MS),
            (b"b", None, NOW_MS),
        ]

    run(scenario())


def test_appends_are_settled_in_order_and_may_lead_to_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.lead(1)
        tickets = [FakeTicket(str(number)) for number in range(3)]
        for number, ticket in enumerate(tickets):
            bench.write(ticket, number)
        third = FakeTicket()
        bench.shard.on_committed = Effects(records=[(b"n", b"")], committed=[(third, {})], token="next")
        bench.sync()
        await bench.settle()
        assert bench.shard.committed == [0, 1, 2]
        assert [ticket.answers for ticket in tickets] == [[{"done": 0}], [{"done": 1}], [{"done": 2}]]
        assert third.answers == []
        bench.sync()
        await bench.settle()
        assert third.answers == [{}]

    run(scenario())


def test_a_write_that_fails_is_taken_back_by_the_shard(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = FailingDisk(tmp_path)
        bench = Bench(tmp_path, disk=disk)
        bench.lead(1)
        disk.room = 0
        ticket, told = FakeTicket(), FakeTicket()
        bench.shard.on_failed = Effects(replies=[(told, {"failed": True})])
        bench.write(ticket, "t")
        await bench.settle()
        assert bench.shard.failed == [("t", ErrorCode.KAFKA_STORAGE_ERROR)]
        assert ticket.answers == [], "the shard answers it, as it sees fit"
        assert told.answers == [{"failed": True}]
        disk.room = None
        bench.write(ticket, "u")
        bench.sync()
        await bench.settle()
        assert ticket.answers == [{"done": "u"}]

    run(scenario())


def test_records_that_the_log_refuses_fail_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.lead(1)
        bench.write(FakeTicket(), "t", b"x" * (2 << 20))
        assert bench.shard.failed == [("t", ErrorCode.MESSAGE_TOO_LARGE)]

    run(scenario())


def test_a_failed_sync_makes_the_shard_start_over_from_the_log(tmp_path: Path) -> None:
    """Nobody knows what the disk holds then: a shard that took the records back might be as wrong as one that did not."""

    async def scenario() -> None:
        disk = FailingDisk(tmp_path)
        bench = Bench(tmp_path, disk=disk)
        bench.lead(1)
        first = FakeTicket()
        bench.write(first, "safe")
        bench.sync()
        await bench.settle()
        ticket = FakeTicket()
        bench.write(ticket, "t")
        bench.shard.waiting.append(ticket)
        disk.fail_sync = True
        bench.sync()
        await bench.settle()
        assert bench.shard.failed == []
        assert ticket.answers == [ErrorCode.NOT_COORDINATOR]
        assert code_of(bench) is ErrorCode.NOT_COORDINATOR
        disk.fail_sync = False
        bench.runtime.reconcile()
        assert len(bench.shards) == 1, "the log is out of service"
        bench.partition.resign(-1, 1)
        bench.log.reopen(NOW_MS)
        bench.lead(1)
        await bench.until(lambda: code_of(bench) is ErrorCode.NONE)
        assert len(bench.shards) == 2
        assert [entry[2] for entry in bench.shard.replayed] == [0]

    run(scenario())


@pytest.mark.parametrize("successor", [True, False])
def test_when_leadership_goes_everybody_who_waits_is_sent_away(tmp_path: Path, successor: bool) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.lead(1)
        old = bench.shard
        joining, committing = FakeTicket(), FakeTicket()
        bench.write(committing, "t")
        old.waiting += [joining, committing]
        slot = bench.runtime.slot(0)
        bench.runtime.run(slot, lambda shard, now_ms: Effects(timers=[(("session", "g"), now_ms + 10)]))
        if successor:
            bench.resign()
        else:
            bench.lead(2)  # the same broker, in a new epoch: nothing of the old one holds
        assert joining.answers == [ErrorCode.NOT_COORDINATOR]
        assert committing.answers == [ErrorCode.NOT_COORDINATOR]
        assert slot.phase is Phase.CLOSED
        bench.sync()
        await asyncio.sleep(0.03)
        assert old.committed == []
        assert old.fired == []
        if successor:
            assert code_of(bench) is ErrorCode.NOT_COORDINATOR
        else:
            await bench.until(lambda: code_of(bench) is ErrorCode.NONE)
            assert bench.shard is not old

    run(scenario())


def test_between_the_end_of_an_epoch_and_the_news_of_it_nothing_is_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.lead(1)
        slot = bench.runtime.slot(0)
        bench.partition.resign(1, 2)
        assert code_of(bench) is ErrorCode.NOT_COORDINATOR
        bench.runtime.run(slot, lambda shard, now_ms: Effects(records=[(b"k", b"v")], token="late"))
        assert bench.shard.failed == [("late", ErrorCode.NOT_LEADER_OR_FOLLOWER)]
        assert bench.log.end_offset == 0

    run(scenario())


def test_timers_fire_by_the_monotonic_clock_and_never_before_their_deadline(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.lead(1)
        key = ("session", "g", "m")
        bench.runtime.run(
            bench.runtime.slot(0),
            lambda shard, now_ms: Effects(timers=[(key, now_ms + 20), (("other",), now_ms + 1)]),
        )
        bench.runtime.run(bench.runtime.slot(0), lambda shard, now_ms: Effects(timers=[(("other",), None)]))
        bench.clock.jump_wall(-3_600_000)
        await bench.until(lambda: bool(bench.shard.fired))
        assert bench.shard.fired == [(key, NOW_MS + 20)]

    run(scenario())


def test_a_commit_that_takes_too_long_is_answered_and_stays_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.lead(1)
        ticket = FakeTicket()
        bench.write(ticket, "t")
        bench.runtime.expire()
        assert ticket.answers == []
        loop = asyncio.get_running_loop()
        start = loop.time()
        monkeypatch.setattr(loop, "time", lambda: start + 6)
        bench.runtime.expire()
        monkeypatch.undo()
        assert ticket.answers == [ErrorCode.COORDINATOR_NOT_AVAILABLE]
        bench.sync()
        await bench.settle()
        assert bench.shard.committed == ["t"]

    run(scenario())


# -- loading --------------------------------------------------------------------------------------------------------


def test_a_shard_is_loaded_to_the_end_of_the_log_before_it_serves(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.fill(1000)
        bench.lead(1)
        assert code_of(bench) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        with pytest.raises(KafkaError) as refusal:
            list(bench.runtime.led_slots())
        assert refusal.value.code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        assert bench.runtime.active_slots() == []
        await bench.until(lambda: code_of(bench) is ErrorCode.NONE)
        assert [offset for _, _, offset in bench.shard.replayed] == list(range(1000))
        assert bench.active == [0]

    run(scenario())


def test_loading_leaves_turns_to_everybody_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.fill(20_000, batch_size=2000)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while code_of(bench) is not ErrorCode.NONE:
                turns += 1
                await asyncio.sleep(0)

        bench.lead(1)
        await others()
        assert len(bench.shard.replayed) == 20_000
        assert turns > 10
        assert gc.isenabled()

    run(scenario())


def test_it_waits_until_what_it_read_is_committed(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.fill(10)
        bench.append(build_batch(records(3), base_offset=10, leader_epoch=0))  # not synced yet
        bench.lead(1)
        await bench.until(lambda: len(bench.shard.replayed) == 13)
        await bench.settle()
        assert code_of(bench) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        bench.sync()
        await bench.settle()
        assert code_of(bench) is ErrorCode.NONE
        assert bench.partition.fetch_waiters == {}

    run(scenario())


def test_a_resignation_ends_the_loading(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.fill(5000)
        bench.lead(1)
        await asyncio.sleep(0)
        bench.resign()
        assert code_of(bench) is ErrorCode.NOT_COORDINATOR
        lead_alone(bench.partition, 3)
        bench.runtime.reconcile()
        await bench.until(lambda: code_of(bench) is ErrorCode.NONE)
        assert len(bench.shards) == 2
        assert len(bench.shard.replayed) == 5000
        assert bench.active == [0]

    run(scenario())


def test_ends_of_transactions_are_replayed_and_other_markers_passed_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.fill(1)
        bench.append(
            build_end_txn_marker(
                commit=True,
                producer_id=7,
                producer_epoch=0,
                coordinator_epoch=0,
                timestamp=NOW_MS,
                base_offset=1,
                leader_epoch=0,
            )
        )
        bench.sync()
        bench.lead(1)
        await bench.until(lambda: code_of(bench) is ErrorCode.NONE)
        assert bench.shard.ended == [(7, True)]
        assert len(bench.shard.replayed) == 1

    run(scenario())


def test_gaps_that_compaction_left_are_passed_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.append(build_batch(records(2), base_offset=0, last_offset=9, leader_epoch=0))
        bench.append(build_batch([], base_offset=10, last_offset=19, leader_epoch=0))
        bench.append(build_batch(records(1), base_offset=50, leader_epoch=0))
        bench.sync()
        bench.lead(1)
        await bench.until(lambda: code_of(bench) is ErrorCode.NONE)
        assert [offset for _, _, offset in bench.shard.replayed] == [0, 1, 50]

    run(scenario())


def test_a_log_that_cannot_be_replayed_is_not_served_and_tried_again_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.append(build_batch(records(1, key=b"bad"), base_offset=0, leader_epoch=0))
        bench.sync()
        with caplog.at_level(logging.CRITICAL, "strandline_broker"):
            bench.lead(1)
            await bench.until(lambda: code_of(bench) is ErrorCode.NOT_COORDINATOR)
        bench.runtime.reconcile()
        assert len(bench.shards) == 1, "not at once"
        bench.runtime._slots[0].retry_at = asyncio.get_running_loop().time()
        monkeypatch.setattr("tests.unit.coordinator.support.FakeShard.replay", lambda *_, **__: None)
        bench.runtime.reconcile()
        await bench.until(lambda: code_of(bench) is ErrorCode.NONE)
        assert len(bench.shards) == 2

    run(scenario())


def test_closing_sends_everybody_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.lead(1)
        ticket = FakeTicket()
        bench.shard.waiting.append(ticket)
        await bench.runtime.close()
        assert ticket.answers == [ErrorCode.NOT_COORDINATOR]
        bench.runtime.reconcile()
        assert code_of(bench) is ErrorCode.NOT_COORDINATOR

    run(scenario())


def records(count: int, *, key: bytes = b"k") -> list[Record]:
    return [Record(timestamp=NOW_MS, key=key, value=b"v") for _ in range(count)]


def test_after_the_warm_up_the_first_shard_loads_nothing() -> None:
    code = """
import random, sys
import strandline_broker.server.run
from strandline_broker.coordinator import groups
from strandline_broker.group.config import GroupConfig
groups.warm_up()
loaded = set(sys.modules)
groups._new_shard(GroupConfig(), random.Random(0))
print(*(set(sys.modules) - loaded))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
