"""Shared by the tests of the cluster contract."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import UUID

from strandline_broker.cluster.model import (
    TOPIC,
    BrokerIdentity,
    Object,
    PartitionSet,
    PartitionState,
    ReplicaRef,
    new_object,
    new_partition_set,
)

T = TypeVar("T")
TOPIC_ID = UUID("00000000-0000-4000-8000-0000000000aa")


def run(coroutine: Coroutine[Any, Any, T], *, timeout_s: float = 30.0) -> T:
    """Run a test's coroutine; a hang is a failure."""

    async def limited() -> T:
        async with asyncio.timeout(timeout_s):
            return await coroutine

    return asyncio.run(limited())


def rng() -> random.Random:
    return random.Random(7)


def broker(
    broker_id: int, generation: int = 1, incarnation: str | None = None, **more: Any
) -> BrokerIdentity:
    return BrokerIdentity(broker_id, generation, incarnation or f"start-{broker_id}", **more)


def live(*brokers: BrokerIdentity | int) -> dict[int, BrokerIdentity]:
    identities = [broker(entry) if isinstance(entry, int) else entry for entry in brokers]
    return {identity.broker_id: identity for identity in identities}


def refs(*broker_ids: int) -> tuple[ReplicaRef, ...]:
    """Return members of generation 1."""
    return tuple(ReplicaRef(broker_id, 1) for broker_id in broker_ids)


def partition(*replicas: int, **fields: Any) -> PartitionState:
    """Return a partition led by its first replica, all in sync, at epochs that are not 0."""
    defaults: dict[str, Any] = {
        "isr": refs(*replicas),
        "leader": replicas[0],
        "leader_epoch": 3,
        "leader_incarnation": f"start-{replicas[0]}",
        "partition_epoch": 10,
    }
    return PartitionState(replicas=replicas, **{**defaults, **fields})


def offline(*replicas: int, **fields: Any) -> PartitionState:
    return partition(*replicas, **{"leader": -1, "leader_incarnation": "", **fields})


def partition_set(*partitions: PartitionState, name: str = "orders", **fields: Any) -> PartitionSet:
    defaults: dict[str, Any] = {
        "cluster": "dev",
        "topic_id": TOPIC_ID,
        "topic_name": name,
        "slice_index": 0,
        "config": {},
    }
    return new_partition_set(**{**defaults, **fields}, partitions=partitions)


def topic_object(name: str = "orders", *, finalizers: tuple[str, ...] = (), **spec: Any) -> Object:
    return new_object(
        TOPIC, name, {"clusterRef": {"name": "dev"}, "partitions": 1, **spec}, finalizers=finalizers
    )


def replace(path: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": value}


def add(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}
