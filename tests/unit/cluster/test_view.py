"""The informer shows what the store says, and goes on showing it when the store is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace as with_fields
from pathlib import Path
from uuid import UUID

import pytest
from tests.simulation.loop import VirtualLoop, no_collections, simulate
from tests.unit.cluster.support import TOPIC_ID, partition, partition_set, replace, rng, run, topic_object

from strandline_broker.cluster.cache import Change, ClusterCache
from strandline_broker.cluster.model import (
    CLUSTER,
    CLUSTER_STATE,
    LEASE,
    PARTITION_SET,
    SLICE_SIZE,
    TOPIC,
    BrokerLease,
    BrokerPhase,
    Cluster,
    ClusterState,
    Endpoint,
    Object,
    PartitionSet,
    new_object,
)
from strandline_broker.cluster.patches import patch_partition
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import Event, EventType, Gone, Unavailable
from strandline_broker.cluster.transitions import shrink_isr
from strandline_broker.cluster.view import CONTROLLER_KINDS, ClusterView

LEASE_1 = BrokerLease(1, "start", 5, {"PLAIN": Endpoint("h", 9092)}, cluster="dev", renew_time="t1")


def stored(obj: Object, version: int = 1) -> Object:
    obj["metadata"].setdefault("uid", f"uid-{obj['metadata']['name']}")
    obj["metadata"]["resourceVersion"] = str(version)
    return obj


def modified(obj: Object) -> Event:
    return Event(EventType.MODIFIED, obj)


def deleted(obj: Object) -> Event:
    return Event(EventType.DELETED, obj)


def cluster_object(**spec: object) -> Object:
    return new_object(CLUSTER, "dev", {"replicas": 3, **spec})


# -- the pure half --


def test_topics_are_put_together_from_their_slices() -> None:
    cache = ClusterCache("dev")
    second = partition_set(partition(2), slice_index=1)
    assert cache.replace(PARTITION_SET, [stored(second.to_object())])
    assert cache.topic_by_name("orders") is None, "slice 0 speaks for the topic"
    assert cache.partition("orders", SLICE_SIZE) is None
    first = partition_set(*[partition(1)] * SLICE_SIZE)
    cache.apply(PARTITION_SET, Event(EventType.ADDED, stored(first.to_object())))
    topic = cache.topic_by_name("orders")
    assert topic is not None
    assert topic is cache.topic_by_id(TOPIC_ID)
    assert topic.partition_count == SLICE_SIZE + 1
    assert cache.partition("orders", SLICE_SIZE) == partition(2)
    assert cache.partition("orders", SLICE_SIZE + 1) is None
    assert cache.partition("orders", -1) is None
    assert topic.partition_set(SLICE_SIZE - 1) is topic.slices[0]
    assert [index for index, _ in topic.partitions()] == list(range(SLICE_SIZE + 1))


def test_a_topic_that_is_being_deleted_is_hidden_at_once() -> None:
    cache = ClusterCache("dev")
    part = partition_set(partition(1))
    cache.replace(PARTITION_SET, [stored(part.to_object())])
    assert list(cache.topics) == ["orders"]
    cache.apply(PARTITION_SET, modified(stored(with_fields(part, deleting=True).to_object(), 2)))
    assert cache.topic_by_name("orders") is None
    assert cache.topic_by_id(TOPIC_ID) is None
    assert [found.deleting for found in cache.partition_sets()] == [True]


def test_a_successor_of_the_same_name_is_seen_while_the_old_one_waits() -> None:
    cache = ClusterCache("dev")
    old = with_fields(partition_set(partition(1)), deleting=True)
    new_id = UUID(int=5)
    new = partition_set(partition(2), topic_id=new_id)
    cache.replace(PARTITION_SET, [stored(old.to_object()), stored(new.to_object())])
    topic = cache.topic_by_name("orders")
    assert topic is not None
    assert topic.topic_id == new_id
    cache.apply(PARTITION_SET, deleted(stored(new.to_object(), 2)))
    assert cache.topic_by_name("orders") is None
    cache.apply(PARTITION_SET, modified(stored(with_fields(old, deleting=False).to_object(), 3)))
    topic = cache.topic_by_name("orders")
    assert topic is not None
    assert topic.topic_id == TOPIC_ID


def test_of_two_topics_with_one_name_everybody_sees_the_older() -> None:
    for order in (1, -1):
        cache = ClusterCache("dev")
        objects = []
        for n in (1, 2):
            part = partition_set(partition(1), topic_id=UUID(int=n))
            objects.append(stored(with_fields(part, uid=f"u{n}", creation_timestamp=f"{9 - n}").to_object()))
        cache.replace(PARTITION_SET, objects[::order])
        topic = cache.topic_by_name("orders")
        assert topic is not None
        assert topic.topic_id == UUID(int=2)


def test_only_what_matters_raises_the_version() -> None:
    cache = ClusterCache("dev")
    cache.replace(LEASE, [stored(LEASE_1.to_object())])
    cache.replace(CLUSTER, [stored(cluster_object())])
    before = cache.version
    renewal = cache.apply(LEASE, modified(stored(with_fields(LEASE_1, renew_time="t2").to_object(), 2)))
    assert renewal is not None
    assert not renewal.substantial
    status = cache.apply(CLUSTER, modified(stored({**cluster_object(), "status": {"topics": 3}}, 2)))
    assert status is not None
    assert not status.substantial
    topic = cache.apply(TOPIC, Event(EventType.ADDED, stored(topic_object())))
    assert topic is not None
    assert topic.substantial
    assert cache.version == before
    draining = with_fields(LEASE_1, renew_time="t3", state=BrokerPhase.DRAINING)
    change = cache.apply(LEASE, modified(stored(draining.to_object(), 3)))
    assert change is not None
    assert change.substantial
    assert cache.version == before + 1
    cache.apply(PARTITION_SET, Event(EventType.ADDED, stored(partition_set(partition(1)).to_object())))
    assert cache.version == before + 2
    assert cache.leases[1].state is BrokerPhase.DRAINING


def test_a_list_is_compared_with_what_was_known() -> None:
    cache = ClusterCache("dev")
    objects = [
        stored(partition_set(partition(1), name=name, topic_id=UUID(int=n)).to_object())
        for n, name in enumerate("abc")
    ]
    cache.replace(PARTITION_SET, objects)
    changed = stored(partition_set(partition(2), name="b", topic_id=UUID(int=1)).to_object(), 2)
    changes = cache.replace(PARTITION_SET, [objects[0], changed])
    assert [(change.old is not None, change.new is not None) for change in changes] == [
        (True, True),
        (True, False),
    ]
    assert sorted(cache.topics) == ["a", "b"]
    assert cache.replace(PARTITION_SET, [objects[0], changed]) == []


def test_an_object_that_cannot_be_read_leaves_what_was_known(caplog: pytest.LogCaptureFixture) -> None:
    cache = ClusterCache("dev")
    good = stored(partition_set(partition(1)).to_object())
    cache.replace(PARTITION_SET, [good])
    broken = {**good, "spec": {**good["spec"], "partitions": "none"}}
    assert cache.apply(PARTITION_SET, modified(broken)) is None
    assert cache.replace(PARTITION_SET, [broken]) == []
    assert cache.partition("orders", 0) == partition(1)
    assert "cannot be read" in caplog.text


def test_other_clusters_objects_are_not_seen() -> None:
    cache = ClusterCache("dev")
    cache.replace(PARTITION_SET, [stored(partition_set(partition(1), cluster="other").to_object())])
    cache.replace(LEASE, [stored(with_fields(LEASE_1, cluster="other").to_object())])
    assert not cache.topics
    assert not cache.leases
    assert cache.version == 0


def test_the_copy_on_disk_brings_everything_back() -> None:
    cache = ClusterCache("dev")
    cache.replace(CLUSTER, [stored(cluster_object(flush="Replicated"))])
    cache.replace(CLUSTER_STATE, [stored(ClusterState("dev", purged_topic_ids=(TOPIC_ID,)).to_object())])
    cache.replace(LEASE, [stored(LEASE_1.to_object())])
    cache.replace(PARTITION_SET, [stored(partition_set(partition(1, 2), partition(2, 1)).to_object())])
    copy = ClusterCache("dev")
    changes = copy.from_bytes(cache.to_bytes())
    assert len(changes) == 4
    assert dict(copy.topics) == dict(cache.topics)
    assert dict(copy.leases) == dict(cache.leases)
    assert copy.state == cache.state
    assert isinstance(copy.cluster, Cluster)
    assert copy.cluster.flush_replicated
    assert copy.to_bytes() == cache.to_bytes()
    # What the store says afterwards is compared with the copy, and is no change where they agree.
    assert copy.replace(LEASE, [stored(LEASE_1.to_object())]) == []


def test_a_damaged_copy_is_refused() -> None:
    cache = ClusterCache("dev")
    cache.replace(LEASE, [stored(LEASE_1.to_object())])
    data = bytearray(cache.to_bytes())
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(ValueError, match="damaged"):
            ClusterCache("dev").from_bytes(bytes(damaged))
    for length in (0, 1, 20, len(data) - 1):
        with pytest.raises(ValueError, match="damaged"):
            ClusterCache("dev").from_bytes(bytes(data[:length]))
    with pytest.raises(ValueError, match="of dev, not of prod"):
        ClusterCache("prod").from_bytes(bytes(data))


# -- following a store --


class FlakyStore(SqliteStore):
    """A store that can be away, forgets history, and ends streams."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.away = False
        self.lists = 0
        self.on_list = asyncio.Event()
        self.disturb: Exception | None = None
        self.streams: set[asyncio.Event] = set()

    async def list(self, kind: str) -> tuple[list[Object], str]:
        if self.away:
            raise Unavailable("away")
        self.lists += 1
        self.on_list.set()
        return await super().list(kind)

    async def listed(self, times: int) -> None:
        """Return once there were that many lists."""
        while self.lists < times:
            self.on_list.clear()
            await self.on_list.wait()

    def interrupt(self, error: Exception | None) -> None:
        """End all running streams, with an error or without."""
        self.disturb = error
        for stream in self.streams:
            stream.set()

    async def watch(self, kind: str, version: str) -> AsyncGenerator[Event, None]:
        if self.away:
            raise Unavailable("away")
        interrupted = asyncio.Event()
        self.streams.add(interrupted)
        try:
            async with contextlib.aclosing(super().watch(kind, version)) as events:
                while True:
                    next_event = asyncio.ensure_future(anext(events))
                    stop = asyncio.ensure_future(interrupted.wait())
                    try:
                        await asyncio.wait({next_event, stop}, return_when=asyncio.FIRST_COMPLETED)
                        if not next_event.done():
                            if self.disturb is not None:
                                raise self.disturb
                            return
                        yield next_event.result()
                    finally:
                        next_event.cancel()
                        stop.cancel()
                        await asyncio.wait({next_event, stop})
        finally:
            self.streams.discard(interrupted)


@contextlib.asynccontextmanager
async def following(store: SqliteStore, **options: float) -> AsyncIterator[ClusterView]:
    view = ClusterView(store, "dev", kinds=CONTROLLER_KINDS, rng=rng(), **options)
    task = asyncio.create_task(view.run())
    try:
        yield view
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await store.close()


async def create_partition_set(store: SqliteStore, name: str) -> PartitionSet:
    part = partition_set(partition(1, 2), name=name, topic_id=UUID(int=len(name)))
    return PartitionSet.from_object(await store.create(PARTITION_SET, part.to_object()))


def test_a_view_follows_the_store() -> None:
    async def body() -> None:
        store = SqliteStore(":memory:")
        part = await create_partition_set(store, "a")
        async with following(store) as view:
            await view.wait_fresh()
            assert list(view.topics) == ["a"]
            seen: list[Change] = []
            stop = view.on_change(seen.append)
            state = shrink_isr(part.partitions[0], out_of_sync=[2], min_isr=1)
            tests, operations = patch_partition(part, 0, state)
            await store.patch_if(PARTITION_SET, part.name, uid=part.uid, tests=tests, operations=operations)
            await view.wait_until(lambda view: view.partition("a", 0) == state)
            assert [(change.kind, change.substantial) for change in seen] == [(PARTITION_SET, True)]
            stop()
            await store.delete_if(PARTITION_SET, part.name, uid=part.uid)
            await view.wait_until(lambda view: not view.topics)
            assert len(seen) == 1
            with pytest.raises(TimeoutError):
                await view.wait_until(lambda view: bool(view.topics), timeout_s=0.01)

    run(body())


@pytest.mark.parametrize("error", [Gone("compacted"), Unavailable("reset"), None])
def test_a_view_catches_up_after_an_interrupted_watch(error: Exception | None) -> None:
    async def body() -> None:
        store = FlakyStore()
        async with following(store) as view:
            await view.wait_fresh()
            await create_partition_set(store, "a")
            await view.wait_until(lambda view: "a" in view.topics)
            lists = store.lists
            store.interrupt(error)
            await create_partition_set(store, "bb")
            await view.wait_until(lambda view: "bb" in view.topics)
            assert sorted(view.topics) == ["a", "bb"]
            assert (store.lists > lists) == (error is not None)

    run(body())


def test_a_view_keeps_what_it_knows_while_the_store_is_away() -> None:
    async def body() -> None:
        store = FlakyStore()
        await create_partition_set(store, "a")
        async with following(store) as view:
            await view.wait_fresh()
            store.away = True
            store.interrupt(Unavailable("gone for a while"))
            await view.wait_until(lambda view: view.fresh_since is None)
            assert list(view.topics) == ["a"]
            await create_partition_set(store, "bb")
            store.away = False
            await view.wait_fresh()
            assert sorted(view.topics) == ["a", "bb"]

    run(body())


def test_a_watch_is_not_trusted_for_ever() -> None:
    async def body() -> None:
        store = FlakyStore()
        async with following(store, relist_interval_s=0.02) as view:
            await view.wait_fresh()
            await store.listed(store.lists + 3 * len(CONTROLLER_KINDS))
            assert view.fresh_since is not None, "a periodic list is no failure"

    run(body())


class QuietStore(SqliteStore):
    """A store in which nothing happens, and which ends every watch after `lasts_s` seconds, as API servers do."""

    def __init__(self, lasts_s: float) -> None:
        super().__init__(":memory:")
        self.lasts_s = lasts_s
        self.pauses: list[float] = []
        self._ended_at = 0.0

    async def list(self, kind: str) -> tuple[list[Object], str]:
        return [], "1"

    async def watch(self, kind: str, version: str) -> AsyncGenerator[Event, None]:
        loop = asyncio.get_running_loop()
        self.pauses.append(loop.time() - self._ended_at)
        await asyncio.sleep(self.lasts_s)
        self._ended_at = loop.time()
        nothing: list[Event] = []
        for event in nothing:
            yield event


@pytest.mark.parametrize(("lasts_s", "blind"), [(300.0, False), (0.0, True)])
def test_a_quiet_watch_is_resumed_at_once_and_one_that_does_not_last_with_pauses(
    lasts_s: float, *, blind: bool
) -> None:
    store = QuietStore(lasts_s)

    async def main(loop: VirtualLoop) -> None:
        view = ClusterView(store, "dev", kinds=[PARTITION_SET], rng=rng(), relist_interval_s=10_000.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3_000):
                await view.run()

    with no_collections():
        simulate(main, VirtualLoop(limit_s=3_600))
    assert len(store.pauses) > 8
    assert (max(store.pauses) > 2.0) == blind
    assert len(store.pauses) < 2_000, "a busy loop"


def test_a_lease_that_stands_still_is_silent_and_one_that_is_renewed_is_not() -> None:
    async def body() -> None:
        store = FlakyStore()
        for broker_id, holder in ((1, "start"), (2, "start"), (3, "")):
            lease = with_fields(LEASE_1, broker_id=broker_id, incarnation=holder, lease_duration_ms=1000)
            await store.create(LEASE, lease.to_object())
        loop = asyncio.get_running_loop()
        real_time, ahead_s = loop.time, 0.0

        async def renew(broker_id: int, time: str) -> None:
            lease = view.leases[broker_id]
            await store.patch_if(
                LEASE, lease.name, uid=lease.uid, tests=[], operations=[replace("/spec/renewTime", time)]
            )
            await view.wait_until(lambda view: view.leases[broker_id].renew_time == time)

        async with following(store) as view:
            await view.wait_fresh()
            loop.time = lambda: real_time() + ahead_s  # type: ignore[method-assign]
            assert view.silent_brokers() == frozenset()
            ahead_s = 0.7
            await renew(1, "t2")
            ahead_s = 1.4
            assert view.silent_brokers() == {2}
            await renew(2, "t2")
            assert view.silent_brokers() == frozenset()
            ahead_s = 10.0
            assert view.silent_brokers() == {1, 2}
            store.away = True
            store.interrupt(Unavailable("gone for a while"))
            await view.wait_until(lambda view: view.fresh_since is None)
            assert view.silent_brokers() == frozenset(), "nobody would have seen a renewal"
            store.away = False
            await view.wait_fresh()
            assert view.silent_brokers() == frozenset(), "not watched for so long"
            loop.time = real_time  # type: ignore[method-assign]

    run(body())


def test_a_failing_listener_does_not_blind_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        store = SqliteStore(":memory:")
        async with following(store) as view:
            seen: list[Change] = []

            def fail(change: Change) -> None:
                raise RuntimeError("listener")

            view.on_change(fail)
            view.on_change(seen.append)
            await create_partition_set(store, "a")
            await view.wait_until(lambda view: "a" in view.topics)
            assert len(seen) == 1

    run(body())
    assert "a listener failed" in caplog.text


def test_a_view_from_disk_is_corrected_by_the_store(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path / "cluster.db")
        await create_partition_set(store, "a")
        obj = await store.create(CLUSTER_STATE, ClusterState("dev").to_object())
        old = ClusterCache("dev")
        for kind in (PARTITION_SET, CLUSTER_STATE):
            old.replace(kind, (await store.list(kind))[0])
        await store.patch_if(
            CLUSTER_STATE,
            "dev",
            uid=obj["metadata"]["uid"],
            tests=[],
            operations=[replace("/spec/nextProducerIdBlock", 5)],
        )
        view = ClusterView(store, "dev", rng=rng())
        view.from_bytes(old.to_bytes())
        version = view.version
        assert list(view.topics) == ["a"]
        assert view.fresh_since is None
        task = asyncio.create_task(view.run())
        await view.wait_fresh()
        assert view.state is not None
        assert view.state.next_producer_id_block == 5
        assert view.version == version + 1, "only what differs counts"
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await store.close()

    run(body())


# -- listing at once --


class SlowStore(FlakyStore):
    """A store whose lists of Leases wait until they may be answered, with what was there when they were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def list(self, kind: str) -> tuple[list[Object], str]:
        answer = await super().list(kind)
        if kind == LEASE:
            await self.may_answer.wait()
        return answer


def test_a_refreshed_view_shows_a_list_that_began_afterwards() -> None:
    async def body() -> None:
        store = SlowStore()
        async with following(store) as view:
            await view.wait_fresh()
            store.may_answer.clear()
            before = store.lists
            first = asyncio.create_task(view.refresh(LEASE))
            await store.listed(before + 1)
            second = asyncio.create_task(view.refresh(LEASE))  # the list on its way is too old for this one
            await store.create(LEASE, LEASE_1.to_object())
            store.may_answer.set()
            assert await first
            assert await second
            assert store.lists == before + 2
            assert 1 in view.leases
            await store.listed(before + 2)
            stored_lease = await store.get(LEASE, LEASE_1.name)
            await store.delete_if(LEASE, LEASE_1.name, uid=stored_lease["metadata"]["uid"])
            await view.wait_until(lambda view: not view.leases, 10)  # the watch goes on

    run(body())


def test_a_view_cannot_be_refreshed_while_the_store_is_away() -> None:
    async def body() -> None:
        store = FlakyStore()
        async with following(store) as view:
            await view.wait_fresh()
            store.away = True
            assert not await view.refresh(LEASE)
            store.away = False
            await view.wait_fresh(10)
            assert await view.refresh(LEASE)

    run(body())


def test_a_refresh_does_not_wait_for_the_pause_after_a_watch_that_ended_at_once() -> None:
    store = QuietStore(0.0)

    async def main(loop: VirtualLoop) -> None:
        view = ClusterView(store, "dev", kinds=[PARTITION_SET], rng=rng())
        task = loop.create_task(view.run())
        await asyncio.sleep(60.0)  # the pauses have become long
        for _ in range(5):
            began = loop.time()
            assert await view.refresh(PARTITION_SET)
            assert loop.time() - began < 0.01
            await asyncio.sleep(1.0)
        task.cancel()

    with no_collections():
        simulate(main, VirtualLoop())
