"""Two controllers at once over one store, and everything that happens to brokers in random order.

Safety comes from the tests in each write, not from being alone (invariant 2): whatever the two decide from whatever they
have seen so far, each version of each partition that reaches the store follows lawfully from the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import (
    CLUSTER,
    LEASE,
    NO_LEADER,
    PARTITION_SET,
    TOPIC,
    BrokerIdentity,
    BrokerLease,
    BrokerPhase,
    Object,
    PartitionSet,
    PartitionState,
    new_object,
)
from strandline_broker.cluster.patches import patch_partitions
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import Conflict, NotFound, Operation, Subresource, Test
from strandline_operator.controller.loop import Controller

BROKERS = 4
PARTITIONS = 6
STEPS = 60
DEADLINE_S = 30.0
ACTIONS = (
    "start", "wipe", "stop", "drain", "starting", "ended", "silence", "grow", "grow", "grow", "shrink", "reassign",
    "factor",
)  # fmt: skip
Decide = Callable[[PartitionSet, PartitionState], PartitionState]


class RecordingStore(SqliteStore):
    """Keeps every version of every PartitionSet that a write made."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.versions: list[PartitionSet] = []

    async def create(self, kind: str, obj: Object) -> Object:
        return self._note(kind, await super().create(kind, obj))

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
        stored = await super().patch_if(
            kind, name, uid=uid, tests=tests, operations=operations, subresource=subresource
        )
        return self._note(kind, stored)

    def _note(self, kind: str, stored: Object) -> Object:
        if kind == PARTITION_SET:
            self.versions.append(PartitionSet.from_object(stored))
        return stored


class Fleet:
    """Brokers that exist only as Leases and as writers of ISRs, and two controllers that watch them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store = RecordingStore()
        self.now = 100.0
        self.leases: dict[int, BrokerLease] = {}
        self.controllers = [
            Controller(
                self.store,
                "demo",
                monotonic=lambda: self.now,
                now_ms=lambda: 1_700_000_000_000,
                notify=lambda _: None,
                rng=random.Random(seed + index),
                placement_patience_s=0.1,
            )
            for index in range(2)
        ]

    # -- what happens --------------------------------------------------------------------------------------------------

    async def put_lease(self, broker_id: int, **changes: Any) -> None:
        old = self.leases.get(broker_id)
        fresh = BrokerLease(broker_id, "", 1, {}, cluster="demo", state=BrokerPhase.RUNNING)
        lease = dataclasses.replace(old if old is not None else fresh, **changes)
        lease = dataclasses.replace(lease, renew_time=str(self.rng.random()), uid="")
        self.leases[broker_id] = lease
        obj = lease.to_object()
        if old is None:
            await self.store.create(LEASE, obj)
            return
        stored = await self.store.get(LEASE, lease.name)
        operations = [
            {"op": "replace", "path": "/spec", "value": obj["spec"]},
            {"op": "replace", "path": "/metadata/annotations", "value": obj["metadata"]["annotations"]},
        ]
        uid = stored["metadata"]["uid"]
        await self.store.patch_if(LEASE, lease.name, uid=uid, tests=[], operations=operations)

    async def start(self, broker_id: int, *, wiped: bool = False) -> None:
        generation = self.leases[broker_id].generation + wiped if broker_id in self.leases else 1
        incarnation = f"{broker_id}-{self.rng.getrandbits(32):x}"
        await self.put_lease(
            broker_id, incarnation=incarnation, generation=generation, state=BrokerPhase.RUNNING
        )

    def live(self) -> dict[int, BrokerIdentity]:
        return {b: lease.identity for b, lease in self.leases.items() if lease.held}

    async def change(self, decide: Decide) -> None:
        """Change one partition from its newest state, as its leader or a Kafka client would; a conflict is no matter."""
        objects, _ = await self.store.list(PARTITION_SET)
        parts = [part for part in map(PartitionSet.from_object, objects) if part.topic_name == "orders"]
        if not parts:
            return
        number = self.rng.randrange(len(parts[0].partitions))
        state = parts[0].partition(number)
        new = decide(parts[0], state)
        if new is state:
            return
        for _ in range(self.rng.randrange(3)):
            await asyncio.sleep(0)
        tests, operations = patch_partitions(parts[0], {number: new})
        with contextlib.suppress(Conflict):
            await self.store.patch_if(
                PARTITION_SET, parts[0].name, uid=parts[0].uid, tests=tests, operations=operations
            )

    def grow(self, part: PartitionSet, state: PartitionState) -> PartitionState:
        live = self.live()
        if state.leader not in live or live[state.leader].incarnation != state.leader_incarnation:
            return state
        for broker_id in state.replicas:
            follower = transitions.FollowerProgress(
                broker_id, live[broker_id].generation if broker_id in live else 0, state.leader_epoch, 5
            )
            grown = transitions.grow_isr(
                state,
                follower,
                live=live,
                high_watermark=5,
                epoch_start=5,
                min_isr=part.min_insync_replicas,
            )
            if grown is not state:
                return grown
        return state

    def shrink(self, part: PartitionSet, state: PartitionState) -> PartitionState:
        if state.leader == NO_LEADER:
            return state
        out = self.rng.sample(range(BROKERS), 1)
        return transitions.shrink_isr(state, out_of_sync=out, min_isr=part.min_insync_replicas)

    def reassign(self, _: PartitionSet, state: PartitionState) -> PartitionState:
        count = len(transitions.target_of(state))
        return transitions.request_reassignment(state, self.rng.sample(range(BROKERS), count))

    async def set_replicas(self, replicas: int) -> None:
        obj = await self.store.get(TOPIC, "orders")
        operations = [{"op": "add", "path": "/spec/replicas", "value": replicas}]
        await self.store.patch_if(
            TOPIC, "orders", uid=obj["metadata"]["uid"], tests=[], operations=operations
        )

    async def step(self) -> None:
        broker_id = self.rng.randrange(BROKERS)
        action = self.rng.choice(ACTIONS)
        if action in ("start", "wipe"):
            await self.start(broker_id, wiped=action == "wipe")
        elif action == "stop":
            await self.put_lease(broker_id, incarnation="")
        elif action == "drain":
            await self.put_lease(broker_id, state=BrokerPhase.DRAINING)
        elif action == "starting":
            await self.put_lease(broker_id, state=BrokerPhase.STARTING)
        elif action == "ended":  # only one of the two is told
            self.rng.choice(self.controllers).process_ended(broker_id)
        elif action == "silence":
            # Everybody but this one renews in time.
            self.now += 6.0
            for other in list(self.leases):
                if other != broker_id:
                    await self.put_lease(other)
            self.now += 5.0
        elif action == "factor":
            await self.set_replicas(self.rng.randint(1, BROKERS))
        else:
            await self.change({"grow": self.grow, "shrink": self.shrink, "reassign": self.reassign}[action])
        for _ in range(self.rng.choice((0, 1, 5, 50))):
            await asyncio.sleep(0)

    async def calm(self) -> PartitionSet:
        """Start everybody with the log that he has and let leaders take all in, until nothing changes any more."""
        for broker_id in range(BROKERS):
            await self.start(broker_id)
        unchanged = 0
        before = None
        while unchanged < 3:
            for controller in self.controllers:
                await controller.quiet.wait()
            for _ in range(PARTITIONS * BROKERS):
                await self.change(self.grow)
            (obj,) = (
                o for o in (await self.store.list(PARTITION_SET))[0] if o["spec"]["topicName"] == "orders"
            )
            part = PartitionSet.from_object(obj)
            unchanged = unchanged + 1 if part == before else 0
            before = part
            await asyncio.sleep(0.01)
        assert before is not None
        return before


@contextlib.asynccontextmanager
async def fleet(seed: int) -> AsyncIterator[Fleet]:
    running = Fleet(seed)
    await running.store.create(CLUSTER, new_object(CLUSTER, "demo", {"replicas": BROKERS}))
    spec = {
        "clusterRef": {"name": "demo"},
        "partitions": PARTITIONS,
        "replicas": 3,
        "config": {
            "min.insync.replicas": str(running.rng.choice((1, 2))),
            "unclean.leader.election.enable": running.rng.choice(("true", "false", "false")),
        },
    }
    await running.store.create(TOPIC, new_object(TOPIC, "orders", spec))
    tasks = [asyncio.create_task(controller.run()) for controller in running.controllers]
    try:
        yield running
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await running.store.close()


def check_history(versions: Sequence[PartitionSet]) -> None:
    """Check that every partition went from version to version lawfully."""
    newest: dict[tuple[str, int], PartitionState] = {}
    led: dict[tuple[str, int, int], tuple[int, str]] = {}
    for part in sorted(versions, key=lambda part: int(part.resource_version)):
        seen = [number for name, number in newest if name == part.name]
        assert len(part.partitions) >= len(seen), "no partition is ever lost"
        for number, state in enumerate(part.partitions, part.first_partition):
            old = newest.get((part.name, number))
            assert state.isr
            assert set(state.isr_ids) <= set(state.replicas)
            assert state.leader == NO_LEADER or state.leader in state.isr_ids
            if old is not None:
                assert state.leader_epoch >= old.leader_epoch
                assert state.partition_epoch >= old.partition_epoch
                assert (state == old) == (state.partition_epoch == old.partition_epoch)
            leader = (state.leader, state.leader_incarnation)
            assert led.setdefault((part.name, number, state.leader_epoch), leader) == leader, (
                "one epoch, one start of one leader"
            )
            newest[part.name, number] = state


@pytest.mark.parametrize("seed", range(8))
def test_whatever_two_controllers_do_at_once_is_lawful(seed: int) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(DEADLINE_S), fleet(seed) as running:
            for broker_id in range(BROKERS):
                await running.start(broker_id)
            while not any(part.topic_name == "orders" for part in running.store.versions):
                await asyncio.sleep(0)
            for _ in range(STEPS):
                with contextlib.suppress(Conflict, NotFound):
                    await running.step()
            orders = await running.calm()
            check_history(running.store.versions)
            assert len(orders.partitions) == PARTITIONS
            live = running.live()
            for state in orders.partitions:
                intact = [
                    ref for ref in (*state.isr, *state.elr) if transitions.RULES.generation_matches(ref, live)
                ]
                assert (state.leader != NO_LEADER) == bool(intact), (
                    "led if anybody is left who has everything"
                )
                if state.leader != NO_LEADER:
                    assert transitions.has_valid_leader(state, live)
                    assert not transitions.is_reassigning(state), "nothing is left half done"
                    assert len(state.isr) == len(state.replicas)

    asyncio.run(scenario())


def test_the_check_finds_what_it_is_for() -> None:
    part = PartitionSet.from_object(
        {
            "metadata": {"name": "p", "uid": "u", "resourceVersion": "1"},
            "spec": {
                "topicId": "00000000-0000-4000-8000-0000000000aa",
                "topicName": "orders",
                "slice": 0,
                "topicEpoch": 0,
                "partitions": [_object(leader=0, epoch=1)],
            },
        }
    )

    def then(**changes: Any) -> PartitionSet:
        state = dataclasses.replace(part.partitions[0], **changes)
        return dataclasses.replace(part, partitions=(state,), resource_version="2")

    check_history([part, then(partition_epoch=2, leader_epoch=2, leader_incarnation="b")])
    for bad in (
        then(leader_incarnation="b", partition_epoch=2),
        then(leader_epoch=0, partition_epoch=2),
        then(isr=part.partitions[0].isr[:0], partition_epoch=2),
        then(leader=5, leader_epoch=2, partition_epoch=2),
        dataclasses.replace(part, partitions=(), resource_version="2"),
    ):
        with pytest.raises(AssertionError):
            check_history([part, bad])


def _object(*, leader: int, epoch: int) -> dict[str, Any]:
    return {
        "replicas": [0, 1],
        "leader": leader,
        "leaderEpoch": epoch,
        "leaderIncarnation": "a",
        "partitionEpoch": 1,
        "isr": [{"broker": 0, "generation": 1}],
    }
