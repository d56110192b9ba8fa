"""A leader that resumes its epoch counts from its first moment whom the store may have taken in before it stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast
from uuid import UUID

import pytest
from tests.unit.replica.support import state_of

from strandline_broker.cluster.model import PARTITION_SET, PartitionState, new_partition_set
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.view import ClusterView
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.log.manager import LogManager
from strandline_broker.replica.fetchers import Fetchers
from strandline_broker.replica.manager import ReplicaManager
from strandline_broker.replica.partition import FlushMode, Partition
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.wire.batch import Record, build_batch

NOW_MS = 1_700_000_000_000
TOPIC_ID = UUID(int=5)
CONFIRMED = state_of((0, 1), partition_epoch=3, replicas=(0, 1))
GROWN = state_of((0, 1), (1, 1), partition_epoch=4, replicas=(0, 1))


class NoFetchers:
    """Copies nothing."""

    def unfollow(self, partition: Partition) -> None:
        """Take note of nothing."""


async def _blocking(work: Callable[[], object]) -> object:
    return work()


def _log_with_one_record() -> Log:
    """Return a log that was stopped cleanly before its record was committed."""
    log = Log.open(SimDisk(), "t-0", LogConfig(), now_ms=NOW_MS, clean=False)
    batch = build_batch([Record(value=b"v")], producer_id=-1, producer_epoch=-1, base_sequence=-1)
    log.stage(memoryview(bytearray(batch)), 1, NOW_MS)
    log.commit()
    log.sync()
    assert log.synced_end == 1
    return log


class Logs:
    """As much of a log manager as one partition needs."""

    def __init__(self) -> None:
        self.log = _log_with_one_record()
        self.offline: dict[tuple[str, int], str] = {}

    def open_or_create(self, *_: object) -> Log:
        """Return the only log."""
        return self.log

    def high_watermark(self, topic: str, partition: int) -> int:
        """Return that nothing is committed."""
        return 0


async def _resumed(attempts: list[PartitionState]) -> Partition:
    store = SqliteStore(":memory:")
    try:
        view = ClusterView(store, "test")
        made = new_partition_set(
            cluster="test", topic_id=TOPIC_ID, topic_name="t", slice_index=0, config={}, partitions=(CONFIRMED,)
        )  # fmt: skip
        view.replace(PARTITION_SET, [made.to_object()])
        manager = ReplicaManager(
            broker_id=0,
            incarnation="new",
            resumable_incarnation=CONFIRMED.leader_incarnation,
            generation=1,
            view=view,
            logs=cast("LogManager", Logs()),
            fetchers=cast("Fetchers", NoFetchers()),
            clock=ManualClock(wall_ms=NOW_MS),
            flush=FlushMode.FSYNC,
            attempts={(TOPIC_ID, 0): attempts},
            run_blocking=_blocking,
            persist_view=lambda image: None,
        )
        await manager.reconcile()
        return manager.partition("t", 0)
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("attempts", "high_watermark"),
    [
        ([], 1),
        ([GROWN], 0),
        ([state_of((0, 1), (1, 1), partition_epoch=3, replicas=(0, 1))], 1),
        ([state_of((0, 1), (1, 1), epoch=0, partition_epoch=4, replicas=(0, 1))], 1),
    ],
    ids=["nobody else may be in sync", "one may", "one never was", "one was, in an earlier epoch"],
)
def test_the_high_watermark_waits_for_attempts_of_the_life_before(
    attempts: list[PartitionState], high_watermark: int
) -> None:
    partition = asyncio.run(_resumed(attempts))
    assert partition.is_leader
    assert partition.high_watermark == high_watermark
