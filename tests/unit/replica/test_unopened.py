"""Logs that cannot be opened when the broker starts: tried again, and judged when they can be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from tests.unit.log.support import NOW_MS, append, make_batch
from tests.unit.replica.support import state_of

from strandline_broker.cluster.cache import ClusterCache
from strandline_broker.cluster.model import PARTITION_SET, PartitionState, derive_topic_id, new_partition_set
from strandline_broker.errors import ErrorCode
from strandline_broker.log.config import LogConfig
from strandline_broker.log.manager import LogManager
from strandline_broker.replica.manager import ReplicaManager
from strandline_broker.replica.partition import FlushMode
from strandline_broker.replica.unopened import RETRY_FIRST_S, RETRY_MAX_S, UnopenedLogs
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.local_disk import LocalDisk

KEY = (UUID(int=1), 0)
TOPIC_ID = derive_topic_id("u", "t")
FOLLOWED = state_of((0, 1), (1, 1), leader=1)
ALONE = state_of((0, 1), leader=0)
SEGMENT = f"{0:020}.log"


def test_attempts_come_later_and_later() -> None:
    logs, now = UnopenedLogs(), 100.0
    delays = []
    for attempt in range(9):
        assert not logs.waits(KEY, now)
        assert logs.any_due(now) is (attempt > 0)
        delays.append(logs.failed(KEY, f"reason {attempt}", now))
        assert logs.waits(KEY, now + delays[-1] - 0.1)
        assert not logs.any_due(now + delays[-1] - 0.1)
        now += delays[-1]
    assert delays == [min(RETRY_FIRST_S * 2**n, RETRY_MAX_S) for n in range(9)]
    assert logs.reason(KEY) == "reason 8"
    assert list(logs) == [KEY]
    assert logs.opened(KEY)
    assert not logs.opened(KEY)
    assert KEY not in logs
    assert logs.failed(KEY, "anew", now) == RETRY_FIRST_S
    logs.keep_only(set())
    assert KEY not in logs


class Start:
    """A broker's logs as one start finds them; the log of t-0 is broken, and can be mended."""

    def __init__(self, directory: Path, state: PartitionState = FOLLOWED) -> None:
        self.home = directory / "t-0"
        self.aside = directory.with_name("aside")
        disk = LocalDisk(directory)
        self._write(disk)
        self.home.rename(self.aside)
        self.home.write_text("not a directory")
        self.clock = ManualClock()
        self.logs = LogManager(disk, self.clock)
        self.logs.open()
        self.replicas = self._manager(state)

    def _write(self, disk: LocalDisk) -> None:
        logs = LogManager(disk, ManualClock())
        logs.open()
        log = logs.open_or_create("t", 0, TOPIC_ID, LogConfig())
        append(log, make_batch(3))
        log.sync()
        logs.checkpoint({("t", 0): 3}).write()

    def _manager(self, state: PartitionState) -> ReplicaManager:
        view: Any = ClusterCache("dev")
        made = new_partition_set(
            cluster="dev", topic_id=TOPIC_ID, topic_name="t", slice_index=0, config={}, partitions=(state,)
        )
        view.replace(PARTITION_SET, [made.to_object()])
        fetchers: Any = SimpleNamespace(follow=lambda *_: None, unfollow=lambda *_: None)

        async def at_once(work: Callable[[], object]) -> object:
            return work()

        return ReplicaManager(
            broker_id=0,
            incarnation="i",
            resumable_incarnation=None,
            generation=1,
            view=view,
            logs=self.logs,
            fetchers=fetchers,
            clock=self.clock,
            flush=FlushMode.FSYNC,
            attempts={},
            run_blocking=at_once,
            persist_view=lambda image: None,
        )

    def mend(self) -> None:
        self.home.unlink()
        self.aside.rename(self.home)


def test_a_log_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        start = Start(tmp_path / "data")
        await start.replicas.reconcile()
        ((topic, index, reason),) = start.replicas.unopened()
        assert (topic, index) == ("t", 0)
        assert "t-0" in reason
        assert start.replicas.why_absent("t", 0).code is ErrorCode.KAFKA_STORAGE_ERROR
        start.clock.advance(RETRY_FIRST_S)
        await start.replicas.open_unopened()
        start.mend()
        start.clock.advance(2 * RETRY_FIRST_S - 0.1)
        await start.replicas.open_unopened()
        assert start.replicas.find("t", 0) is None, "the second attempt failed, the third comes later"
        start.clock.advance(0.1)
        await start.replicas.open_unopened()
        partition = start.replicas.partition("t", 0)
        assert (partition.log.end_offset, partition.high_watermark) == (3, 3)
        assert partition.leader_id == 1
        assert list(start.replicas.unopened()) == []
        assert start.logs.close()

    asyncio.run(main())


def test_a_stop_without_that_log_is_not_clean(tmp_path: Path) -> None:
    async def main() -> None:
        start = Start(tmp_path / "data")
        await start.replicas.reconcile()
        assert not start.logs.close()

    asyncio.run(main())


@pytest.mark.parametrize(("state", "kept"), [(FOLLOWED, False), (ALONE, True)])
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_a_log_that_lost_records_meanwhile_is_not_served_to_those_who_count_on_them(
    tmp_path: Path, state: PartitionState, *, kept: bool, at_once: bool
) -> None:
    async def main() -> None:
        start = Start(tmp_path / "data", state)
        segment = start.aside / SEGMENT
        segment.write_bytes(segment.read_bytes()[:-1])
        if not at_once:
            await start.replicas.reconcile()
            # What was durable is still known after others were written down.
            start.logs.checkpoint().write()
        start.mend()
        start.clock.advance(RETRY_FIRST_S)
        await start.replicas.reconcile()
        partition = start.replicas.partition("t", 0)
        assert partition.is_leader is kept
        assert bool(partition.log.failed) is not kept
        assert await start.replicas.revive(partition, NOW_MS) is kept

    asyncio.run(main())


def test_checkpoints_remember_logs_that_are_not_open(tmp_path: Path) -> None:
    start = Start(tmp_path / "data")
    start.logs.checkpoint().write()
    start.mend()
    segment = start.home / SEGMENT
    segment.write_bytes(segment.read_bytes()[:-1])
    again = LogManager(LocalDisk(tmp_path / "data"), ManualClock())
    again.open()
    assert [log.directory for log in again.lost_synced] == ["t-0"]
