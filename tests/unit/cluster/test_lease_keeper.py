"""A broker keeps its Lease, and notices when somebody else took it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.unit.cluster.support import replace, rng, run

from strandline_broker.cluster.lease_keeper import LeaseKeeper, LeaseLost
from strandline_broker.cluster.model import LEASE, BrokerLease, BrokerPhase, Endpoint, Object
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import Operation, Subresource, Test, Unavailable

NAME = "dev-broker-1"


class Broker:
    """A keeper with its callback and a clock that always moves."""

    def __init__(self, store: SqliteStore, incarnation: str, generation: int = 5, **more: Any) -> None:
        self.lost: list[BrokerLease | None] = []
        ticks = itertools.count(1)
        lease = BrokerLease(1, incarnation, generation, {"PLAIN": Endpoint("h", 9092)}, cluster="dev", **more)
        self.keeper = LeaseKeeper(
            store,
            lease,
            renew_interval_ms=5,
            on_lost=self.lost.append,
            rng=rng(),
            now=lambda: f"{incarnation}-{next(ticks)}",
        )


async def read(store: SqliteStore) -> BrokerLease:
    return BrokerLease.from_object(await store.get(LEASE, NAME))


async def until(store: SqliteStore, predicate: Callable[[BrokerLease], bool]) -> BrokerLease:
    """Return the lease as soon as it is as wanted."""
    objects, version = await store.list(LEASE)
    lease = BrokerLease.from_object(objects[0])
    async with contextlib.aclosing(store.watch(LEASE, version)) as events:
        while not predicate(lease):
            lease = BrokerLease.from_object((await anext(events)).object)
    return lease


async def changed(store: SqliteStore, before: str) -> BrokerLease:
    return await until(store, lambda lease: lease.renew_time != before)


@contextlib.asynccontextmanager
async def running(keeper: LeaseKeeper) -> Any:
    task = asyncio.create_task(keeper.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_a_lease_is_created_renewed_and_released() -> None:
    async def body() -> None:
        store = SqliteStore(":memory:")
        broker = Broker(store, "one", rack="r1", http=Endpoint("h", 8080))
        held = await broker.keeper.acquire()
        assert held == await read(store)
        assert (held.incarnation, held.state, held.rack, held.transitions) == (
            "one",
            BrokerPhase.STARTING,
            "r1",
            0,
        )
        async with running(broker.keeper):
            renewed = await changed(store, held.renew_time)
            assert renewed.acquire_time == held.acquire_time
            await broker.keeper.set_state(BrokerPhase.RUNNING)
            assert (await read(store)).state is BrokerPhase.RUNNING
            await broker.keeper.update(listeners={"PLAIN": Endpoint("other", 1)}, rack=None)
            assert (await read(store)).listeners == {"PLAIN": Endpoint("other", 1)}
            assert (await read(store)).rack is None
        await broker.keeper.release()
        released = await read(store)
        assert not released.held
        assert released.generation == 5
        assert broker.lost == []
        await store.close()

    run(body())


def test_a_new_start_takes_over_and_the_old_one_notices() -> None:
    async def body() -> None:
        store = SqliteStore(":memory:")
        old = Broker(store, "old", rack="r1", http=Endpoint("h", 1))
        await old.keeper.acquire()
        new = Broker(store, "new", generation=6)
        held = await new.keeper.acquire()
        assert held == await read(store)
        assert (held.incarnation, held.generation, held.transitions) == ("new", 6, 1)
        assert held.rack is None, "nothing of the old start stays"
        async with running(old.keeper) as task:
            await task
        assert [lease.incarnation if lease else None for lease in old.lost] == ["new"]
        assert old.keeper.lost
        with pytest.raises(LeaseLost):
            await old.keeper.set_state(BrokerPhase.RUNNING)
        await old.keeper.release()
        assert await read(store) == held, "who lost a lease does not touch it"
        assert len(old.lost) == 1
        async with running(new.keeper):
            await changed(store, held.renew_time)
        await store.close()

    run(body())


class Overtaken(SqliteStore):
    """Lets somebody else act between a read and the write that follows from it."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.meanwhile: LeaseKeeper | None = None

    async def get(self, kind: str, name: str) -> Object:
        result = await super().get(kind, name)
        if self.meanwhile is not None:
            keeper, self.meanwhile = self.meanwhile, None
            await keeper.acquire()
        return result


def test_a_takeover_decided_on_an_old_read_is_decided_again() -> None:
    async def body() -> None:
        store = Overtaken()
        await Broker(store, "first").keeper.acquire()
        store.meanwhile = Broker(store, "second").keeper
        held = await Broker(store, "third").keeper.acquire()
        assert (held.incarnation, held.transitions) == ("third", 2)
        assert held == await read(store)
        await store.close()

    run(body())


def test_a_released_lease_is_free_to_take() -> None:
    async def body() -> None:
        store = SqliteStore(":memory:")
        first = Broker(store, "first")
        await first.keeper.acquire()
        await first.keeper.release()
        second = Broker(store, "second")
        assert (await second.keeper.acquire()).transitions == 1
        await store.close()

    run(body())


def test_a_lease_that_was_deleted_or_emptied_is_made_again() -> None:
    async def body() -> None:
        store = SqliteStore(":memory:")
        broker = Broker(store, "one")
        first = await broker.keeper.acquire()
        await broker.keeper.set_state(BrokerPhase.RUNNING)
        await store.delete_if(LEASE, NAME, uid=first.uid)
        await broker.keeper.set_state(BrokerPhase.DRAINING)
        again = await read(store)
        assert again.uid != first.uid
        assert (again.incarnation, again.state) == ("one", BrokerPhase.DRAINING)
        await store.patch_if(
            LEASE, NAME, uid=again.uid, tests=[], operations=[replace("/spec/holderIdentity", "")]
        )
        await broker.keeper.set_state(BrokerPhase.RUNNING)
        assert (await read(store)).incarnation == "one"
        assert broker.lost == []
        await store.close()

    run(body())


def test_a_lease_that_names_nothing_of_ours_is_reported_too(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        store = SqliteStore(":memory:")
        broker = Broker(store, "one")
        held = await broker.keeper.acquire()
        await store.patch_if(
            LEASE,
            NAME,
            uid=held.uid,
            tests=[],
            operations=[
                replace("/spec/holderIdentity", "somebody"),
                {"op": "remove", "path": "/metadata/annotations"},
            ],
        )
        with pytest.raises(LeaseLost):
            await broker.keeper.set_state(BrokerPhase.RUNNING)
        assert broker.lost == [None]
        await store.close()

    run(body())
    assert "no broker" in caplog.text


def test_a_lease_made_by_hand_is_taken_over() -> None:
    async def body() -> None:
        store = SqliteStore(":memory:")
        await store.create(
            LEASE, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME}}
        )
        broker = Broker(store, "one")
        assert await broker.keeper.acquire() == await read(store)
        await store.close()

    run(body())


class Unreliable(SqliteStore):
    """Reports failure, before or after having done what was asked."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.fail_before = 0
        self.fail_after = 0

    def _fail(self, counter: str) -> None:
        if getattr(self, counter) > 0:
            setattr(self, counter, getattr(self, counter) - 1)
            raise Unavailable(counter)

    async def create(self, kind: str, obj: Object) -> Object:
        self._fail("fail_before")
        result = await super().create(kind, obj)
        self._fail("fail_after")
        return result

    async def patch_if(
        self,
        kind: str,
        name: str,
        *,
        uid: str,
        tests: Sequence[Test],
        operations: Sequence[Operation],
        subresource: Subresource | None = None,
    ) -> Object:
        self._fail("fail_before")
        result = await super().patch_if(
            kind, name, uid=uid, tests=tests, operations=operations, subresource=subresource
        )
        self._fail("fail_after")
        return result


@pytest.mark.parametrize("when", ["fail_before", "fail_after"])
def test_failures_of_the_store_are_waited_out(when: str) -> None:
    async def body() -> None:
        store = Unreliable()
        setattr(store, when, 3)
        broker = Broker(store, "one")
        held = await broker.keeper.acquire()
        assert await read(store) == held
        setattr(store, when, 3)
        async with running(broker.keeper):
            await broker.keeper.set_state(BrokerPhase.RUNNING)
            assert (await read(store)).state is BrokerPhase.RUNNING
            setattr(store, when, 2)
            await until(store, lambda lease: getattr(store, when) == 0)
            await changed(store, (await read(store)).renew_time)
        assert broker.lost == []
        await store.close()

    run(body())


def test_an_interrupted_update_goes_out_with_the_next_renewal() -> None:
    async def body() -> None:
        store = Unreliable()
        broker = Broker(store, "one")
        await broker.keeper.acquire()
        store.fail_before = 1_000
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await broker.keeper.set_state(BrokerPhase.DRAINING)
        store.fail_before = 0
        async with running(broker.keeper):
            await until(store, lambda lease: lease.state is BrokerPhase.DRAINING)
        await store.close()

    run(body())
