"""The controller over a real store: it follows, decides, applies, and stays quiet when there is nothing to do."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from strandline_broker.cluster.internal_topics import CONSUMER_OFFSETS, INTERNAL_TOPICS
from strandline_broker.cluster.model import (
    CLUSTER,
    CLUSTER_STATE,
    LEASE,
    PARTITION_SET,
    TOPIC,
    BrokerIdentity,
    BrokerLease,
    BrokerPhase,
    ClusterState,
    PartitionSet,
    PartitionState,
    new_object,
)
from strandline_broker.cluster.patches import patch_partitions
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.transitions import FollowerProgress, grow_isr
from strandline_broker.cluster.view import ClusterView
from strandline_operator.controller.actions import Notice
from strandline_operator.controller.balance import RETURNING
from strandline_operator.controller.conditions import Reason, Trouble
from strandline_operator.controller.loop import Controller

DEADLINE_S = 10.0


class Bench:
    """A store with a Cluster, a controller over it, and a clock that only the test moves."""

    def __init__(self) -> None:
        self.store = SqliteStore(":memory:")
        self.now = 100.0
        self.notices: list[Notice] = []
        self.controller = Controller(
            self.store,
            "demo",
            monotonic=lambda: self.now,
            now_ms=lambda: 1_700_000_000_000 + round(self.now * 1000),
            notify=self.notices.append,
            rng=random.Random(7),
        )

    async def lease(self, broker_id: int, incarnation: str, state: BrokerPhase = BrokerPhase.RUNNING) -> None:
        lease = BrokerLease(
            broker_id, incarnation, 5, {}, state=state, cluster="demo", renew_time=str(self.now)
        )
        try:
            old = await self.store.get(LEASE, lease.name)
        except Exception:  # noqa: BLE001 - NotFound; a test helper may be short
            await self.store.create(LEASE, lease.to_object())
            return
        new = replace(lease, uid="").to_object()
        await self.store.patch_if(
            LEASE,
            lease.name,
            uid=old["metadata"]["uid"],
            tests=[],
            operations=[
                {"op": "replace", "path": "/spec", "value": new["spec"]},
                {"op": "replace", "path": "/metadata/annotations", "value": new["metadata"]["annotations"]},
            ],
        )

    async def topic(self, name: str, **spec: Any) -> None:
        await self.store.create(TOPIC, new_object(TOPIC, name, {"clusterRef": {"name": "demo"}, **spec}))

    async def sets(self) -> list[PartitionSet]:
        found = [PartitionSet.from_object(obj) for obj in (await self.store.list(PARTITION_SET))[0]]
        return [part for part in found if part.topic_name not in INTERNAL_TOPICS]

    async def until(self, condition: Callable[[list[PartitionSet]], bool]) -> list[PartitionSet]:
        """Wait until the PartitionSets are as `condition` wants them."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                sets = await self.sets()
                if condition(sets):
                    return sets
                await asyncio.sleep(0.005)

    async def quiet(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.controller.quiet.wait()


@contextlib.asynccontextmanager
async def bench(replicas: int = 1) -> AsyncIterator[Bench]:
    running = Bench()
    await running.store.create(CLUSTER, new_object(CLUSTER, "demo", {"replicas": replicas}))
    task = asyncio.create_task(running.controller.run())
    try:
        yield running
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await running.store.close()


def test_a_topic_is_served_as_soon_as_its_broker_runs() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.topic("orders", partitions=2)
            await b.lease(0, "a", BrokerPhase.STARTING)
            await b.lease(0, "a")
            (orders,) = await b.until(bool)
            assert [state.leader for state in orders.partitions] == [0, 0]
            assert orders.partitions[0].isr[0].generation == 5
            await b.quiet()
            status = (await b.store.get(TOPIC, "orders"))["status"]
            assert status["conditions"][0]["status"] == "True"

    asyncio.run(scenario())


def test_the_internal_topic_is_made_once_all_else_is_quiet() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.lease(0, "a")
            await b.controller.view.wait_until(
                lambda view: view.topic_by_name(CONSUMER_OFFSETS) is not None, 10
            )
            made = b.controller.view.topic_by_name(CONSUMER_OFFSETS)
            assert made is not None
            assert made.partition_count == 50
            assert {state.leader for _, state in made.partitions()} == {0}
            assert made.config["cleanup.policy"] == "compact"
            await b.quiet()

    asyncio.run(scenario())


def test_an_ended_process_costs_no_lease_duration() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.lease(0, "a")
            await b.topic("orders")
            await b.until(bool)
            b.controller.process_ended(0)
            await b.until(lambda sets: sets[0].partitions[0].leader == -1)
            await b.lease(0, "b")
            (orders,) = await b.until(lambda sets: sets[0].partitions[0].leader == 0)
            assert orders.partitions[0].leader_incarnation == "b"
            assert orders.partitions[0].leader_epoch == 2
            assert "ElectionOffline" in [notice.reason for notice in b.notices]

    asyncio.run(scenario())


def test_a_renewal_brings_back_a_broker_that_was_held_for_dead() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.lease(0, "a")
            await b.topic("orders")
            await b.until(bool)
            await b.quiet()
            b.now += 10.5
            b.controller._poke()
            await b.until(lambda sets: sets[0].partitions[0].leader == -1)
            await b.quiet()  # it waits for nothing but news now
            await b.lease(0, "a")  # nothing but the time of its renewal is new
            await b.until(lambda sets: sets[0].partitions[0].leader == 0)

    asyncio.run(scenario())


def test_a_lease_that_does_not_change_for_its_duration_ends_a_leadership() -> None:
    async def scenario() -> None:
        async with bench(replicas=2) as b:
            await b.lease(0, "a")
            await b.lease(1, "a")
            await b.topic("orders", partitions=2)
            await b.until(bool)
            await b.quiet()
            b.now += 9.0
            await b.lease(1, "a")  # renewed; broker 0 is not heard of any more
            renewed = str(b.now)
            # The controller judges by when it saw the renewal: let it see before time goes on.
            await b.controller.view.wait_until(lambda view: view.leases[1].renew_time == renewed, DEADLINE_S)
            b.now += 1.5
            await b.topic("wake-up")
            sets = await b.until(lambda sets: any(p.leader == -1 for s in sets for p in s.partitions))
            leaders = {
                p.replicas[0]: p.leader for s in sets for p in s.partitions if s.topic_name == "orders"
            }
            assert leaders == {0: -1, 1: 1}

    asyncio.run(scenario())


async def as_leader(b: Bench, change: Callable[[PartitionState], PartitionState]) -> None:
    """Change every partition of the one topic as its leader would."""
    (part,) = await b.sets()
    states = {number: change(state) for number, state in enumerate(part.partitions)}
    states = {number: state for number, state in states.items() if state != part.partition(number)}
    tests, operations = patch_partitions(part, states)
    await b.store.patch_if(PARTITION_SET, part.name, uid=part.uid, tests=tests, operations=operations)


def test_leaderships_return_a_while_after_a_restart() -> None:
    async def scenario() -> None:
        async with bench(replicas=2) as b:
            await b.lease(0, "a")
            await b.lease(1, "a")
            await b.topic("orders", partitions=50, replicas=2)
            await b.until(lambda sets: bool(sets) and len(sets[0].partitions) == 50)
            b.controller.process_ended(1)
            (orders,) = await b.until(lambda sets: all(p.leader == 0 for p in sets[0].partitions))
            await b.lease(1, "b")
            await b.quiet()
            live = {n: BrokerIdentity(n, 5, "b" if n else "a") for n in (0, 1)}

            def grow(state: PartitionState) -> PartitionState:
                follower = FollowerProgress(1, 5, state.leader_epoch, 9)
                return grow_isr(state, follower, live=live, high_watermark=9, epoch_start=9, min_isr=1)

            await as_leader(b, grow)
            await b.quiet()
            (orders,) = await b.sets()
            assert all(p.leader == 0 and len(p.isr) == 2 for p in orders.partitions), (
                "not before all was calm"
            )

            def at_home(sets: list[PartitionSet]) -> int:
                return sum(p.leader == p.replicas[0] for p in sets[0].partitions)

            before = at_home([orders])
            # Time passes, and Leases are renewed meanwhile.
            for _ in range(2):
                b.now += 6.0
                await b.lease(0, "a")
                await b.lease(1, "b")
            await b.topic("wake-up")
            await b.until(lambda sets: at_home(sets) >= before + RETURNING)
            assert at_home(await b.sets()) == before + RETURNING, "a few at a time"
            b.now += 1.1
            await b.topic("wake-up-again")
            (orders, *_) = await b.until(lambda sets: at_home(sets) == 50)
            assert {p.leader_incarnation for p in orders.partitions if p.leader == 1} == {"b"}

    asyncio.run(scenario())


def test_a_controller_that_was_held_up_judges_nobody_for_it() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.lease(0, "a")
            await b.topic("orders")
            await b.until(bool)
            await b.quiet()
            loop = asyncio.get_running_loop()
            real, held_up_s = loop.time, 0.0
            loop.time = lambda: real() + held_up_s  # type: ignore[method-assign]
            # As after SIGSTOP: all clocks jump, and the first thing that runs is a pass.
            held_up_s = 60.0
            b.now += 60.0
            await b.topic("wake-up")
            sets = await b.until(lambda sets: len(sets) == 2)
            assert all(state.leader == 0 for part in sets for state in part.partitions)
            # The same time with the controller looking on is a verdict.
            b.now += 60.0
            await b.topic("again")
            await b.until(lambda sets: any(part.partitions[0].leader == -1 for part in sets))

    asyncio.run(scenario())


def test_the_controller_writes_nothing_when_nothing_changes() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.lease(0, "a")
            await b.topic("orders")
            await b.until(bool)
            await b.quiet()
            before = [(await b.store.list(kind))[0] for kind in (TOPIC, CLUSTER, PARTITION_SET)]
            for _ in range(20):
                b.now += 1.0
                await b.lease(0, "a")
            await b.quiet()
            assert [(await b.store.list(kind))[0] for kind in (TOPIC, CLUSTER, PARTITION_SET)] == before

    asyncio.run(scenario())


def test_two_controllers_at_once_make_one_topic() -> None:
    async def scenario() -> None:
        async with bench() as b:
            second = Controller(
                b.store,
                "demo",
                monotonic=lambda: b.now,
                now_ms=lambda: 1_700_000_000_000,
                notify=b.notices.append,
            )
            task = asyncio.create_task(second.run())
            await b.lease(0, "a")
            for number in range(10):
                await b.topic(f"topic-{number}", partitions=3)
            await b.until(lambda sets: len(sets) >= 10)
            await b.quiet()
            async with asyncio.timeout(DEADLINE_S):
                await second.quiet.wait()
            sets = await b.sets()
            assert len(sets) == len({s.topic_name for s in sets}) == 10
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(scenario())


def test_a_deleted_topic_is_erased_when_its_grace_period_is_over() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.lease(0, "a")
            await b.topic("orders", deletionPolicy="Delete", deletionGracePeriod="1s")
            await b.until(bool)
            obj = await b.store.get(TOPIC, "orders")
            await b.store.delete_if(TOPIC, "orders", uid=obj["metadata"]["uid"])
            (orders,) = await b.until(lambda sets: sets[0].deleting)
            b.now += 1.1
            await b.until(lambda sets: not sets)
            state = (await b.store.list("ClusterState"))[0][0]
            assert state["spec"]["purgedTopicIds"] == [str(orders.topic_id)]
            assert not (await b.store.list(TOPIC))[0]

    asyncio.run(scenario())


def test_what_belongs_to_a_cluster_has_no_owner_that_would_take_it_along() -> None:
    # Kubernetes removes what a deleted object owns: partitions would not survive `deletionPolicy: Retain`.
    async def scenario() -> None:
        async with bench() as b:
            await b.lease(0, "a")
            await b.topic("orders")
            await b.until(lambda sets: len(sets) == 1)
            objects = [*(await b.store.list(PARTITION_SET))[0], *(await b.store.list(CLUSTER_STATE))[0]]
            assert len(objects) >= 2
            assert not [obj for obj in objects if "ownerReferences" in obj["metadata"]]

    asyncio.run(scenario())


def test_a_cluster_that_is_applied_again_keeps_its_id() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.lease(0, "a")

            async def shown(uid: str) -> str:
                def shows(view: ClusterView) -> bool:
                    cluster = view.cluster
                    return cluster is not None and cluster.uid == uid and "clusterId" in cluster.status

                await b.controller.view.wait_until(shows, DEADLINE_S)
                assert b.controller.view.cluster is not None
                return str(b.controller.view.cluster.status["clusterId"])

            first = str((await b.store.get(CLUSTER, "demo"))["metadata"]["uid"])
            assert await shown(first) == first
            await b.store.delete_if(CLUSTER, "demo", uid=first)
            again = await b.store.create(CLUSTER, new_object(CLUSTER, "demo", {"replicas": 1}))
            second = str(again["metadata"]["uid"])
            assert second != first
            assert await shown(second) == first
            (state,) = (await b.store.list(CLUSTER_STATE))[0]
            assert state["spec"]["clusterId"] == first

    asyncio.run(scenario())


def test_a_cluster_state_without_an_id_gets_the_one_that_was_shown() -> None:
    async def scenario() -> None:
        b = Bench()
        cluster = await b.store.create(CLUSTER, new_object(CLUSTER, "demo", {"replicas": 1}))
        await b.store.patch_if(
            CLUSTER,
            "demo",
            uid=cluster["metadata"]["uid"],
            tests=[],
            operations=[{"op": "add", "path": "/status", "value": {"clusterId": "once"}}],
            subresource="status",
        )
        await b.store.create(CLUSTER_STATE, ClusterState("demo").to_object())
        task = asyncio.create_task(b.controller.run())
        await b.controller.view.wait_until(
            lambda view: view.state is not None and view.state.cluster_id == "once", DEADLINE_S
        )
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await b.store.close()

    asyncio.run(scenario())


def test_surroundings_are_part_of_the_clusters_status() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.lease(0, "a")
            trouble = Trouble(Reason.SCALE_DOWN_REFUSED, "three brokers run", stalled=True)
            listeners = ({"name": "PLAIN", "type": "ClusterIP"},)
            b.controller.surroundings("demo-bootstrap.shop.svc:9092", (trouble,), listeners)

            def stalled(_: object) -> bool:
                cluster = b.controller.view.cluster
                found = cluster.status.get("conditions", ()) if cluster is not None else ()
                return ("Stalled", "True", "ScaleDownRefused") in {
                    (c["type"], c["status"], c["reason"]) for c in found
                }

            await b.controller.view.wait_until(stalled, DEADLINE_S)
            assert b.controller.view.cluster is not None
            assert b.controller.view.cluster.status["bootstrap"] == "demo-bootstrap.shop.svc:9092"
            assert b.controller.view.cluster.status["listeners"] == list(listeners)
            # As after a restart of the operator, before it has looked around.
            b.controller.surroundings("", ())
            await b.controller.view.wait_until(lambda view: not stalled(view), DEADLINE_S)
            assert b.controller.view.cluster.status["bootstrap"] == "demo-bootstrap.shop.svc:9092"
            assert b.controller.view.cluster.status["listeners"] == list(listeners)

    asyncio.run(scenario())
