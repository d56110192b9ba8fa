"""Which partitions get a part in the bucket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.replica.support import state_of

from strandline_broker.cluster.cache import ClusterCache
from strandline_broker.cluster.model import PARTITION_SET, derive_topic_id, new_partition_set
from strandline_broker.log.manager import LogManager
from strandline_broker.replica.manager import ReplicaManager
from strandline_broker.replica.partition import FlushMode
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.local_disk import LocalDisk

STATE = state_of((0, 1))


async def _at_once(work: Callable[[], object]) -> object:
    return work()


def _manager(path: Path, config: dict[str, str], *, has_bucket: bool) -> ReplicaManager:
    clock = ManualClock()
    logs = LogManager(LocalDisk(path), clock)
    logs.open()
    view: Any = ClusterCache("dev")
    made = new_partition_set(
        cluster="dev",
        topic_id=derive_topic_id("u", "t"),
        topic_name="t",
        slice_index=0,
        config=config,
        partitions=(STATE,),
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
        flush=FlushMode.REPLICATED,
        attempts={},
        run_blocking=_at_once,
        persist_view=lambda image: None,
        has_bucket=has_bucket,
    )


@pytest.mark.parametrize(
    ("config", "has_bucket", "tiered"),
    [
        ({}, True, True),
        ({"remote.storage.enable": "true"}, True, True),
        ({"remote.storage.enable": "false"}, True, False),
        ({"cleanup.policy": "compact"}, True, False),
        ({"cleanup.policy": "compact,delete"}, True, False),
        ({}, False, False),
    ],
)
def test_unset_means_on_where_there_is_a_bucket(
    tmp_path: Path, config: dict[str, str], has_bucket: bool, tiered: bool
) -> None:
    async def scenario() -> None:
        manager = _manager(tmp_path, config, has_bucket=has_bucket)
        await manager.reconcile()
        assert (manager.partition("t", 0).tier is not None) is tiered

    asyncio.run(scenario())


def test_what_was_tiered_stays_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = _manager(tmp_path, {}, has_bucket=True)
        await first.reconcile()
        again = _manager(tmp_path, {"remote.storage.enable": "false"}, has_bucket=False)
        await again.reconcile()
        partition = again.partition("t", 0)
        assert partition.tier is not None
        partition.log.fail("broken by the test")
        assert await again.revive(partition, 0)
        assert partition.tier.log_start == 0

    asyncio.run(scenario())
