"""Which failed logs are taken back, and which end the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.log.support import NOW_MS, FailingDisk, make_batch
from tests.unit.replica.support import state_of

from strandline_broker.cluster.cache import ClusterCache
from strandline_broker.cluster.model import PARTITION_SET, PartitionState, derive_topic_id, new_partition_set
from strandline_broker.log.manager import LogManager
from strandline_broker.replica.manager import ReplicaManager
from strandline_broker.replica.partition import FlushMode, Partition
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.disk import DiskError
from strandline_broker.server.log_failures import LogFailures

LED = state_of((0, 1), (1, 1), leader=0)
FOLLOWED = state_of((0, 1), (1, 1), leader=1)
ALONE = state_of((0, 1), leader=0)


async def _at_once(work: Callable[[], object]) -> object:
    return work()


def _manager(disk: FailingDisk, flush: FlushMode, state: PartitionState) -> ReplicaManager:
    clock = ManualClock()
    logs = LogManager(disk, clock)
    logs.open()
    view: Any = ClusterCache("dev")
    topic_id = derive_topic_id("u", "t")
    made = new_partition_set(
        cluster="dev", topic_id=topic_id, topic_name="t", slice_index=0, config={}, partitions=(state,)
    )
    view.replace(PARTITION_SET, [made.to_object()])
    fetchers: Any = SimpleNamespace(follow=lambda *_: None, unfollow=lambda *_: None)
    return ReplicaManager(
        broker_id=0,
        incarnation="i",
        resumable_incarnation=None,
        generation=1,
        view=view,
        logs=logs,
        fetchers=fetchers,
        clock=clock,
        flush=flush,
        attempts={},
        run_blocking=_at_once,
        persist_view=lambda image: None,
    )


async def _with_records(manager: ReplicaManager, synced: int, unsynced: int) -> Partition:
    """Return the partition once its log holds so many records, with or without a sync."""
    await manager.reconcile()
    partition = manager.partition("t", 0)
    log = partition.log
    log.stage(memoryview(make_batch(synced)), 1, NOW_MS)
    log.commit()
    log.sync()
    if unsynced:
        log.stage(memoryview(make_batch(unsynced)), 1, NOW_MS)
        log.commit()
    assert (log.synced_end, log.end_offset) == (synced, synced + unsynced)
    return partition


@pytest.mark.parametrize(
    ("flush", "state", "unsynced", "kept"),
    [
        (FlushMode.REPLICATED, FOLLOWED, 2, False),
        (FlushMode.REPLICATED, LED, 2, False),
        (FlushMode.REPLICATED, FOLLOWED, 0, True),
        (FlushMode.REPLICATED, ALONE, 2, True),
        (FlushMode.FSYNC, FOLLOWED, 2, True),
        (FlushMode.FSYNC, LED, 2, True),
    ],
)
def test_a_log_is_taken_back_unless_others_count_on_what_is_cut(
    tmp_path: Path, flush: FlushMode, state: PartitionState, unsynced: int, *, kept: bool
) -> None:
    async def main() -> None:
        manager = _manager(FailingDisk(tmp_path), flush, state)
        partition = await _with_records(manager, 3, unsynced)
        partition.log.fail("test")
        assert manager.has_lost(partition) is not kept
        assert await manager.revive(partition, NOW_MS) is kept
        assert bool(partition.log.failed) is not kept
        if kept:
            assert partition.log.end_offset == 3
            return
        # Not even an election brings it back.
        await manager.reconcile()
        assert not partition.is_leader
        assert await manager.revive(partition, NOW_MS) is False

    asyncio.run(main())


def test_a_synced_log_that_ends_lower_when_it_is_reopened_counts_as_lost(tmp_path: Path) -> None:
    async def main() -> None:
        manager = _manager(FailingDisk(tmp_path), FlushMode.FSYNC, FOLLOWED)
        partition = await _with_records(manager, 3, 0)
        partition.log.fail("test")
        segment = tmp_path / "t-0" / f"{0:020}.log"
        segment.write_bytes(segment.read_bytes()[:-1])
        assert await manager.revive(partition, NOW_MS) is False
        assert "below 3" in partition.log.failed

    asyncio.run(main())


def test_what_was_vouched_for_is_remembered_over_attempts_that_fail(tmp_path: Path) -> None:
    async def main() -> None:
        disk = FailingDisk(tmp_path)
        manager = _manager(disk, FlushMode.FSYNC, FOLLOWED)
        partition = await _with_records(manager, 3, 0)
        partition.log.fail("test")
        segment = tmp_path / "t-0" / f"{0:020}.log"
        segment.write_bytes(segment.read_bytes()[:-1])
        disk.fail_truncate = disk.fail_sync = True
        assert await manager.revive(partition, NOW_MS) is True
        assert partition.log.failed
        disk.fail_truncate = disk.fail_sync = False
        assert await manager.revive(partition, NOW_MS) is False

    asyncio.run(main())


def _failures(
    tmp_path: Path, renew: Callable[[], Awaitable[object]]
) -> tuple[ReplicaManager, LogFailures, list[str]]:
    def nothing() -> None:
        pass

    ends: list[str] = []
    manager = _manager(FailingDisk(tmp_path), FlushMode.REPLICATED, FOLLOWED)
    return (
        manager,
        LogFailures(
            manager,
            before_retry=nothing,
            after_retry=nothing,
            renew_generation=renew,
            end=ends.append,
            clock=ManualClock(),
        ),
        ends,
    )


def test_the_process_ends_once_and_only_after_the_generation_is_on_disk(tmp_path: Path) -> None:
    renewals: list[str] = []

    async def renew() -> None:
        renewals.append("tried")
        if len(renewals) == 1:
            raise DiskError(5, "Input/output error")

    async def main() -> None:
        manager, failures, ends = _failures(tmp_path, renew)
        partition = await _with_records(manager, 1, 1)
        partition.log.fail("test")
        await failures.retry()
        assert (len(renewals), ends) == (1, [])
        await asyncio.gather(failures.retry(), failures.retry())
        assert len(renewals) == 2
        assert [reason.startswith("the log of t-0 failed and lost records") for reason in ends] == [True]

    asyncio.run(main())


def test_a_stop_records_what_was_not_yet_recorded(tmp_path: Path) -> None:
    renewals: list[str] = []

    async def renew() -> None:
        renewals.append("renewed")

    async def main() -> None:
        manager, failures, ends = _failures(tmp_path, renew)
        partition = await _with_records(manager, 1, 1)
        await failures.before_stop()
        assert renewals == [], "nothing failed"
        partition.log.fail("test")
        await failures.before_stop()
        await failures.before_stop()
        assert (len(renewals), ends) == (1, [])

    asyncio.run(main())


def test_who_stops_before_it_stepped_down_must_not_be_resumed(tmp_path: Path) -> None:
    async def main() -> None:
        manager = _manager(FailingDisk(tmp_path), FlushMode.FSYNC, LED)
        partition = await _with_records(manager, 3, 2)
        before = manager.may_be_resumed
        partition.log.fail("test")
        assert await manager.revive(partition, NOW_MS)
        assert not partition.is_leader
        stepping_down = manager.may_be_resumed
        view: Any = manager._view
        (part,) = view.partition_sets()
        elected = replace(LED, leader=1, leader_epoch=LED.leader_epoch + 1, partition_epoch=1)
        view.replace(PARTITION_SET, [replace(part, partitions=(elected,)).to_object()])
        await manager.reconcile()
        # Its next life would otherwise lead on in the epoch in which its log was cut.
        assert (before, stepping_down, manager.may_be_resumed) == (True, False, True)

    asyncio.run(main())
