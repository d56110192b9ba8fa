"""When a leader changes its ISR in the store, and what it believes while it does not know the outcome."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

from tests.unit.replica.support import state_of
from tests.unit.replica.tiered_support import Waiter

from strandline_broker.cluster.model import (
    LEASE,
    PARTITION_SET,
    BrokerLease,
    BrokerPhase,
    PartitionSet,
    PartitionState,
    ReplicaRef,
    new_partition_set,
)
from strandline_broker.cluster.patches import patch_partitions
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import Unavailable
from strandline_broker.cluster.view import ClusterView
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.replica.attempts import PartitionKey, decode_attempts
from strandline_broker.replica.isr_keeper import IsrKeeper
from strandline_broker.replica.partition import FlushMode, Partition
from strandline_broker.replica.recovery import Recovery
from strandline_broker.replica.tier import PartitionTier, Renewal
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.wire.batch import Record, build_batch

TOPIC_ID = UUID(int=5)
KEY: PartitionKey = (TOPIC_ID, 0)
NOW_MS = 1_700_000_000_000
OWN = ReplicaRef(0, 1)


class Store(SqliteStore):
    """May lose the answer to a write, or the write itself."""

    lose_answer = False
    lose_write = False
    writes = 0

    async def patch_if(self, *arguments: Any, **keywords: Any) -> Any:
        self.writes += 1
        if self.lose_write:
            raise Unavailable("the test lost the write")
        stored = await super().patch_if(*arguments, **keywords)
        if self.lose_answer:
            raise Unavailable("the test lost the answer")
        return stored


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock(wall_ms=NOW_MS)
        self.store = Store(":memory:")
        self.view = ClusterView(self.store, "test", rng=random.Random(1))
        log = Log.open(SimDisk(), "t-0", LogConfig(), now_ms=NOW_MS, clean=False)
        self.partition = Partition("t", TOPIC_ID.bytes, 0, log, FlushMode.REPLICATED, 0)
        self.recovery = Recovery.NONE
        self.disk = b""
        self.unusable: list[PartitionKey] = []
        self.keeper = IsrKeeper(
            store=self.store,
            view=self.view,
            clock=self.clock,
            rng=random.Random(2),
            lag_max_s=lambda: 10.0,
            led=self._led,
            unusable=lambda: self.unusable,
            persist=self._persist,
            run_blocking=_blocking,
        )
        self.partition.on_recovered = self.keeper.wake

    def _led(self) -> Iterator[tuple[PartitionKey, Partition]]:
        yield KEY, self.partition

    def _persist(self, image: bytes) -> None:
        self.disk = image

    async def begin(self, state: PartitionState) -> None:
        made = new_partition_set(
            cluster="test", topic_id=TOPIC_ID, topic_name="t", slice_index=0,
            config={"min.insync.replicas": "2"}, partitions=(state,),
        )  # fmt: skip
        await self.store.create(PARTITION_SET, made.to_object())
        for broker_id in state.replicas:
            lease = BrokerLease(broker_id, f"i{broker_id}", 1, {}, state=BrokerPhase.RUNNING, cluster="test")
            await self.store.create(LEASE, lease.to_object())
        await self.see()

    async def see(self) -> None:
        """Let the view and the partition learn what the store has now."""
        for kind in (LEASE, PARTITION_SET):
            objects, _ = await self.store.list(kind)
            self.view.replace(kind, objects)
        state = self.view.partition("t", 0)
        assert state is not None
        self.partition.lead(OWN, state, 2, self.clock.monotonic(), recovery=self.recovery)

    async def stored(self) -> PartitionState:
        (obj,), _ = await self.store.list(PARTITION_SET)
        return PartitionSet.from_object(obj).partitions[0]

    def fetched(self, broker_id: int) -> None:
        end = self.partition.log.end_offset
        self.partition.follower_fetched(broker_id, 1, end, 0, self.clock.monotonic())

    @property
    def leadership(self) -> Any:
        assert self.partition.leadership is not None
        return self.partition.leadership


async def _blocking(work: Callable[[], object]) -> object:
    return work()


def scenario(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        bench = Bench()
        try:
            async with asyncio.timeout(10):
                await test(bench)
        finally:
            await bench.store.close()

    asyncio.run(main())


def test_who_has_caught_up_joins_and_was_on_disk_before() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1), replicas=(0, 1, 2)))
        bench.fetched(2)
        assert await bench.keeper._round()
        assert (await bench.stored()).isr_ids == (0, 1, 2)
        ((key, (attempt,)),) = decode_attempts(bench.disk).items()
        assert (key, attempt.isr_ids) == (KEY, (0, 1, 2))
        assert bench.leadership.counts(2), "until the view confirms it"
        assert await bench.keeper._round()
        assert bench.store.writes == 1, "what was stored is not sent again while the view is behind"
        await bench.see()
        assert bench.leadership.attempts == []
        assert bench.keeper.expansions == 1

    scenario(test)


def test_who_lags_leaves() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1), (2, 1)))
        bench.fetched(1)
        bench.clock.advance(11)
        bench.fetched(1)
        assert await bench.keeper._round()
        assert (await bench.stored()).isr_ids == (0, 1)
        assert bench.disk == b"", "whoever is named in a shrunken ISR is named in the confirmed one"

    scenario(test)


def test_a_lost_answer_leaves_the_attempt_counting_even_when_the_retry_is_refused() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1), replicas=(0, 1, 2)))
        bench.fetched(2)
        bench.store.lose_answer = True
        assert not await bench.keeper._round()
        bench.store.lose_answer = False
        assert await bench.keeper._round(), "the retry is refused: the first one is there"
        assert bench.store.writes == 2
        assert bench.leadership.counts(2)
        await bench.see()
        assert bench.leadership.state.isr_ids == (0, 1, 2)

    scenario(test)


def test_a_lost_answer_is_not_forgotten_over_that_of_another_change() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1), replicas=(0, 1, 2, 3)))
        bench.fetched(2)
        bench.store.lose_answer = True
        assert not await bench.keeper._round()
        assert (await bench.stored()).isr_ids == (0, 1, 2)
        bench.store.lose_answer, bench.store.lose_write = False, True
        bench.clock.advance(3)
        bench.fetched(3)  # 2 is silent for so long that it does not join, and a second change is tried
        assert not await bench.keeper._round()
        assert bench.leadership.counts(3)
        bench.store.lose_write = False
        bench.clock.advance(3)
        bench.fetched(2)  # and now the first one again
        assert await bench.keeper._round(), "it is refused, since it is there"
        assert bench.store.writes == 3
        assert bench.leadership.counts(2)
        await bench.see()
        assert bench.leadership.state.isr_ids == (0, 1, 2)

    scenario(test)


def test_a_lost_write_is_sent_again() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1), replicas=(0, 1, 2)))
        bench.fetched(2)
        bench.store.lose_write = True
        assert not await bench.keeper._round()
        assert bench.leadership.counts(2), "it may still land"
        bench.store.lose_write = False
        assert await bench.keeper._round()
        assert (await bench.stored()).isr_ids == (0, 1, 2)

    scenario(test)


def test_a_disk_or_store_that_fails_is_not_asked_with_every_fetch() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1), replicas=(0, 1, 2)))
        bench.fetched(2)
        bench.store.lose_write = True
        keeping = asyncio.create_task(bench.keeper.run())
        while bench.store.writes == 0:
            await asyncio.sleep(0)
        fetches = 0
        while bench.store.writes < 3:  # so that the waiting gets longer
            bench.fetched(2)
            bench.keeper.wake()
            fetches += 1
            await asyncio.sleep(0)
        assert fetches > 20
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    scenario(test)


def test_a_refused_change_is_given_up() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1), replicas=(0, 1, 2)))
        bench.fetched(2)
        (obj,), _ = await bench.store.list(PARTITION_SET)
        await SqliteStore.patch_if(
            bench.store, PARTITION_SET, obj["metadata"]["name"], uid=obj["metadata"]["uid"], tests=[],
            operations=[{"op": "replace", "path": "/spec/partitions/0/partitionEpoch", "value": 9}],
        )  # fmt: skip
        assert await bench.keeper._round()
        assert not bench.leadership.counts(2)
        assert (await bench.stored()).isr_ids == (0, 1)

    scenario(test)


def test_a_leader_whose_log_failed_steps_down() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1)))
        bench.partition.unfit_epoch = 1
        bench.partition.resign(-1, 1)
        assert await bench.keeper._round()
        state = await bench.stored()
        assert (state.leader, state.leader_epoch, state.isr_ids) == (-1, 2, (0, 1))

    scenario(test)


def test_a_leader_whose_log_stays_failed_leaves_the_isr_while_another_member_lives() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1)))
        bench.partition.unfit_epoch = 1
        bench.partition.resign(-1, 1)
        bench.partition.log.fail("test")
        assert await bench.keeper._round()
        state = await bench.stored()
        assert (state.leader, state.leader_epoch, state.isr_ids) == (-1, 2, (1,))

    scenario(test)


def test_stepping_down_needs_no_record_on_a_disk_that_fails() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1), replicas=(0, 1, 2)))
        bench.fetched(2)
        bench.store.lose_write = True
        assert not await bench.keeper._round()
        assert bench.disk, "an attempt to grow is on disk"
        bench.store.lose_write = False

        def fail(image: bytes) -> None:
            raise OSError("the test broke the disk")

        bench.keeper._persist = fail
        bench.partition.unfit_epoch = 1
        bench.partition.resign(-1, 1)
        bench.partition.log.fail("test")
        assert await bench.keeper._round()
        assert (await bench.stored()).leader == -1

    scenario(test)


def test_what_cannot_be_opened_is_given_up_only_if_another_member_could_lead() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), replicas=(0, 1)))
        bench.partition.resign(-1, 1)
        bench.unusable = [KEY]
        assert await bench.keeper._round()
        assert bench.store.writes == 0, "it would be elected again, for ever"

    scenario(test)

    async def with_another(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1)))
        bench.partition.resign(-1, 1)
        bench.unusable = [KEY]
        assert await bench.keeper._round()
        assert (await bench.stored()).isr_ids == (1,)

    scenario(with_another)


# -- recoveries --


def test_the_store_is_told_what_has_recovered_and_not_before() -> None:
    async def test(bench: Bench) -> None:
        bench.recovery = Recovery.LOG
        await bench.begin(state_of((0, 1), (1, 1), recovering=True))
        bench.fetched(1)
        assert await bench.keeper._round()
        assert (await bench.stored()).recovering
        bench.partition.recovered()
        assert bench.keeper._wake.is_set()
        assert await bench.keeper._round()
        stored = await bench.stored()
        assert (stored.recovering, stored.isr_ids, stored.partition_epoch) == (False, (0, 1), 1)
        await bench.see()
        assert bench.leadership.attempts == []
        assert await bench.keeper._round()
        assert await bench.stored() == stored

    scenario(test)


def test_it_is_not_told_while_somebody_in_sync_lacks_what_was_recovered() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1), recovering=True))
        assert await bench.keeper._round()
        assert (await bench.stored()).recovering, "broker 1 has not been heard of"
        bench.fetched(1)
        assert bench.keeper._wake.is_set()
        assert await bench.keeper._round()
        assert not (await bench.stored()).recovering

    scenario(test)


def test_it_is_not_told_while_somebody_is_eligible_who_left_without_what_was_recovered() -> None:
    async def test(bench: Bench) -> None:
        bench.recovery = Recovery.OFFSETS
        await bench.begin(state_of((0, 1), (1, 1), recovering=True))
        bench.fetched(1)
        batch = bytearray(build_batch([Record(value=b"an offset out of the snapshot")]))
        bench.partition.stage(cast("Any", Waiter()), [0, 0, -1, -1, -1], memoryview(batch), NOW_MS)
        bench.partition.commit()
        bench.partition.recovered()
        bench.clock.advance(11.0)
        assert await bench.keeper._round()
        await bench.see()
        stored = await bench.stored()
        assert (stored.isr_ids, [ref.broker_id for ref in stored.elr]) == ((0,), [1])
        assert await bench.keeper._round()
        assert (await bench.stored()).recovering, "broker 1 would lead cleanly, without the offset"
        bench.keeper._wake.clear()
        bench.fetched(1)
        assert await bench.keeper._round()
        await bench.see()
        assert (await bench.stored()).isr_ids == (0, 1)
        assert bench.partition.high_watermark == 1
        assert bench.keeper._wake.is_set()
        assert await bench.keeper._round()
        assert not (await bench.stored()).recovering

    scenario(test)


def test_a_recovery_of_unknown_outcome_is_told_again() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1), recovering=True))
        bench.fetched(1)
        bench.store.lose_write = True
        assert not await bench.keeper._round()
        bench.store.lose_write = False
        assert await bench.keeper._round()
        assert not (await bench.stored()).recovering

    scenario(test)


def renewal_of(tier: PartitionTier) -> Renewal | None:
    return tier.renewal


def test_the_store_is_asked_for_the_epoch_that_a_leader_needs_unless_another_one_leads() -> None:
    async def test(bench: Bench) -> None:
        await bench.begin(state_of((0, 1), (1, 1)))
        tier = bench.partition.start_tiering()
        tier.renewal = Renewal(6, recovering=True)
        assert await bench.keeper._round()
        stored = await bench.stored()
        assert (stored.leader, stored.leader_epoch, stored.recovering) == (0, 7, True)
        assert await bench.keeper._round()
        assert await bench.stored() == stored, "once"
        await bench.see()
        assert bench.partition.leader_epoch == 7
        assert renewal_of(tier) is None
        # An election of which this broker does not know yet comes first.
        tier.renewal = Renewal(7, recovering=True)
        (obj,), _ = await bench.store.list(PARTITION_SET)
        made = PartitionSet.from_object(obj)
        other = replace(stored, leader=1, leader_epoch=8, partition_epoch=stored.partition_epoch + 1)
        patch = patch_partitions(made, {0: other})
        await bench.store.patch_if(
            PARTITION_SET, made.name, uid=made.uid, tests=patch.tests, operations=patch.operations
        )
        assert await bench.keeper._round()
        assert await bench.stored() == other
        assert bench.leadership.attempts == []

    scenario(test)
