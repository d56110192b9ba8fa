"""No producer id is given out twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.cluster.support import rng, run

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.cluster.model import CLUSTER_STATE, ClusterState
from strandline_broker.cluster.producer_ids import BLOCK_SIZE, allocate_block, next_block
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import NotFound


def test_blocks_follow_each_other() -> None:
    assert next_block(ClusterState("dev")) == range(1000)
    assert next_block(ClusterState("dev", next_producer_id_block=7)) == range(7000, 8000)


def test_ids_end_with_int64() -> None:
    last = (2**63) // BLOCK_SIZE - 1
    assert next_block(ClusterState("dev", next_producer_id_block=last))[-1] < 2**63
    with pytest.raises(OverflowError):
        next_block(ClusterState("dev", next_producer_id_block=last + 1))


def test_concurrent_allocations_get_different_blocks(tmp_path: Path) -> None:
    async def body() -> None:
        stores = [SqliteStore(tmp_path / "cluster.db") for _ in range(4)]
        await stores[0].create(CLUSTER_STATE, ClusterState("dev").to_object())
        blocks = await asyncio.gather(
            *(allocate_block(store, "dev", rng=rng()) for store in stores for _ in range(5))
        )
        assert sorted(block.start for block in blocks) == [BLOCK_SIZE * n for n in range(20)]
        for store in stores:
            await store.close()

    run(body())


def test_a_missing_cluster_state_is_not_made_up() -> None:
    async def body() -> None:
        store = SqliteStore(":memory:")
        with pytest.raises(NotFound):
            await allocate_block(store, "dev")
        await store.close()

    run(body())


def test_delays_double_up_to_the_cap_and_start_over() -> None:
    backoff = Backoff(rng(), first_s=1, cap_s=4)
    for expected in (1, 2, 4, 4):
        assert expected / 2 <= backoff.next_s() <= expected
    backoff.reset()
    assert backoff.next_s() <= 1
