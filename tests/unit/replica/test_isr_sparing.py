"""The keeper of a leader's ISRs, over a real store and view: what it writes, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

from tests.unit.cluster.support import TOPIC_ID, partition, partition_set, rng, run

from strandline_broker.cluster.model import LEASE, PARTITION_SET, BrokerLease, BrokerPhase, ReplicaRef
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.view import ClusterView
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.replica.attempts import PartitionKey
from strandline_broker.replica.isr_keeper import IsrKeeper
from strandline_broker.replica.partition import FlushMode, Partition
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.sim_disk import SimDisk

LAG_MAX_S = 30.0
NOW_MS = 1_700_000_000_000
KEY = (TOPIC_ID, 0)


class Leader:
    """Broker 1 leading one partition of brokers 1, 2 and 3, with its keeper."""

    def __init__(self, *, min_isr: int) -> None:
        self.store = SqliteStore(":memory:")
        self.view = ClusterView(self.store, "dev", rng=rng())
        self.min_isr = min_isr
        log = Log.open(SimDisk(), "orders-0", LogConfig(), now_ms=NOW_MS, clean=False)
        self.partition = Partition("orders", TOPIC_ID.bytes, 0, log, FlushMode.REPLICATED, 0)
        self.keeper = IsrKeeper(
            store=self.store,
            view=self.view,
            clock=ManualClock(),
            rng=rng(),
            lag_max_s=lambda: LAG_MAX_S,
            led=self._led,
            persist=lambda image: None,
            run_blocking=_inline,
        )

    def _led(self) -> Iterator[tuple[PartitionKey, Partition]]:
        yield KEY, self.partition

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        slice_ = partition_set(partition(1, 2, 3), config={"min.insync.replicas": str(self.min_isr)})
        await self.store.create(PARTITION_SET, slice_.to_object())
        for broker_id in (1, 2, 3):
            lease = BrokerLease(
                broker_id, f"start-{broker_id}", 1, {}, cluster="dev", state=BrokerPhase.RUNNING
            )
            await self.store.create(LEASE, lease.to_object())
        tasks = [asyncio.create_task(self.view.run())]
        stop = self.view.on_change(lambda change: self._take_over())
        try:
            await self.view.wait_fresh()
            self._take_over()
            for broker_id in (2, 3):
                self.partition.follower_fetched(broker_id, 1, 0, 0, 0.0)
            tasks.append(asyncio.create_task(self.keeper.run()))
            yield
        finally:
            stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.store.close()

    def _take_over(self) -> None:
        topic = self.view.topic_by_id(TOPIC_ID)
        state = topic.partition(0) if topic is not None else None
        if state is not None:
            self.partition.lead(ReplicaRef(1, 1), state, self.min_isr, 0.0)
            self.keeper.wake()

    async def drain(self, broker_id: int) -> None:
        lease = next(lease for lease in self.view.leases.values() if lease.broker_id == broker_id)
        annotations = replace(lease, state=BrokerPhase.DRAINING).annotations_object()
        change = {"op": "replace", "path": "/metadata/annotations", "value": annotations}
        await self.store.patch_if(LEASE, lease.name, uid=lease.uid, tests=[], operations=[change])

    def isr(self) -> tuple[int, ...]:
        topic = self.view.topic_by_id(TOPIC_ID)
        assert topic is not None
        state = topic.partition(0)
        assert state is not None
        return state.isr_ids


async def _inline(work: Callable[[], object]) -> object:
    return work()


def test_a_follower_about_to_stop_leaves_the_isr_and_does_not_come_back() -> None:
    async def scenario() -> None:
        leader = Leader(min_isr=2)
        async with leader.running():
            await leader.drain(3)
            await leader.view.wait_until(lambda view: leader.isr() == (1, 2), 10)
            assert leader.partition.follower_fetched(3, 1, 0, 0, 0.0), "it has everything"
            leader.keeper.wake()
            await leader.drain(2)
            await leader.view.wait_until(lambda view: view.leases[2].state is BrokerPhase.DRAINING, 10)
            assert leader.isr() == (1, 2), "without broker 2 the minimum would be missed"
            assert leader.keeper.shrinks == 1
            assert leader.keeper.expansions == 0

    run(scenario())
