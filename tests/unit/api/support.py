"""A broker without sockets and files: a real view over a real store, a small controller, scripted partitions."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from strandline_broker.api.context import LogDir
from strandline_broker.api.handlers import FrameHandler, build_registry, cold_handler
from strandline_broker.api.request import Request
from strandline_broker.cluster.model import (
    CLUSTER,
    CLUSTER_STATE,
    LEASE,
    PARTITION_SET,
    TOPIC,
    BrokerLease,
    BrokerPhase,
    ClusterState,
    Endpoint,
    Object,
    PartitionSet,
    PartitionState,
    ReplicaRef,
    Topic,
    derive_topic_id,
    new_object,
    new_partition_set,
)
from strandline_broker.cluster.patches import patch_topic_epoch
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import ClusterStore
from strandline_broker.cluster.view import ClusterView
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.producer_state import ProducerEntry
from strandline_broker.replica.remote import OffsetAt
from strandline_broker.seams.clock import ManualClock
from strandline_broker.server.config import BrokerConfig
from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.header import decode_request_header

CLUSTER_NAME = "dev"
CLIENTS = "PLAINTEXT"


@dataclasses.dataclass
class FakeListener:
    name: str = CLIENTS
    internal: bool = False


class FakeConnection:
    """The attributes of a connection that handlers look at."""

    def __init__(self, listener: str = CLIENTS) -> None:
        self.listener = FakeListener(listener)
        self.client_software: tuple[str, str] | None = None


@dataclasses.dataclass
class FakePartition:
    """A partition handle whose answers are set by the test."""

    leader_epoch: int = 3
    leader_epoch_start_offset: int = 0
    log_start_offset: int = 0
    local_log_start_offset: int = 0
    highest_tiered_offset: int = -1
    high_watermark: int = 0
    last_stable_offset: int = 0
    log_end_offset: int = 0
    records: list[OffsetAt] = dataclasses.field(default_factory=list)
    producers: list[ProducerEntry] = dataclasses.field(default_factory=list)
    epoch_ends: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    delete: Callable[[int], Coroutine[Any, Any, int]] | None = None

    @property
    def earliest_offset(self) -> int:
        return self.log_start_offset

    @property
    def earliest_pending_upload_offset(self) -> int:
        return self.highest_tiered_offset + 1 if self.highest_tiered_offset >= 0 else -1

    def epoch_at(self, offset: int) -> int:
        return next((r.leader_epoch for r in reversed(self.records) if r.offset <= offset), -1)

    async def offset_for_timestamp(self, timestamp: int, end: int) -> OffsetAt | None:
        return next((r for r in self.records if r.timestamp >= timestamp and r.offset < end), None)

    async def max_timestamp(self, end: int) -> OffsetAt | None:
        return max((r for r in self.records if r.offset < end), key=lambda r: r.timestamp, default=None)

    def epoch_end_offset(self, epoch: int) -> tuple[int, int]:
        return self.epoch_ends.get(epoch, (-1, -1))

    async def delete_records(self, before_offset: int) -> int:
        if self.delete is not None:
            return await self.delete(before_offset)
        if before_offset > self.high_watermark:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        self.log_start_offset = max(self.log_start_offset, before_offset)
        return self.log_start_offset


class FakeBroker:
    """Implements `BrokerApi`."""

    def __init__(self, store: ClusterStore, view: ClusterView, config: BrokerConfig) -> None:
        self.store = store
        self.view = view
        self.config = config
        self.cluster_id = "5L6g3nShT-eMCtK--X86sw"
        self.clock = ManualClock()
        self.rng = random.Random(1)
        self.registry = build_registry()
        self.partitions: dict[tuple[str, int], FakePartition] = {}
        self.next_producer_id = 4000
        self.producer_id_error: KafkaError | None = None
        self.controller = Controller(store)
        self.log_dirs: list[LogDir] = []
        self.groups: Any = None  # the coordinator has tests of its own

    def partition(self, topic: str, index: int, current_leader_epoch: int = -1) -> FakePartition:
        found = self.partitions.get((topic, index))
        if found is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        if 0 <= current_leader_epoch < found.leader_epoch:
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH)
        if current_leader_epoch > found.leader_epoch:
            raise KafkaError(ErrorCode.UNKNOWN_LEADER_EPOCH)
        return found

    async def describe_log_dirs(self) -> list[LogDir]:
        return self.log_dirs

    async def allocate_producer_id(self) -> int:
        if self.producer_id_error is not None:
            raise self.producer_id_error
        self.next_producer_id += 1
        return self.next_producer_id

    async def call(
        self, key: ApiKey, version: int, body: Mapping[str, Any], connection: FakeConnection | None = None
    ) -> Any:
        """Send a request through the codec, its handler, and the codec again; return the decoded answer."""
        frame = memoryview(cold.encode_request(key, version, 7, "tester", body))[4:]
        header = decode_request_header(frame)
        decoded = cold.decode_request(key, version, frame, header.body_offset)
        origin: Any = connection or FakeConnection()
        request = Request(key, version, header.correlation_id, header.client_id, origin, decoded)
        answer = cold_handler(key)(self, request)
        if inspect.isawaitable(answer):
            answer = await answer
        assert isinstance(answer, Mapping)
        response = cold.encode_response(key, version, header.correlation_id, answer)
        correlation_id, entity = cold.decode_response(key, version, memoryview(response)[4:])
        assert correlation_id == 7
        return entity


def call_frame(
    handler: FrameHandler,
    key: ApiKey,
    version: int,
    body: Mapping[str, Any],
    connection: FakeConnection | None = None,
    correlation_id: int = 9,
) -> Any:
    """Send a request to a handler that takes frames; return the decoded answer."""
    frame = memoryview(cold.encode_request(key, version, correlation_id, "tester", body))[4:]
    origin: Any = connection or FakeConnection()
    response = handler.handle(origin, decode_request_header(frame), frame)
    assert isinstance(response, bytes)
    assert int.from_bytes(response[:4], "big") == len(response) - 4
    answered, entity = cold.decode_response(key, version, memoryview(response)[4:])
    assert answered == correlation_id
    return entity


def lease(
    broker_id: int, *, state: BrokerPhase = BrokerPhase.RUNNING, rack: str | None = None, held: bool = True
) -> Object:
    listeners = {
        CLIENTS: Endpoint(f"b{broker_id}.example", 9092),
        "OTHER": Endpoint("other.example", 1000 + broker_id),
    }
    return BrokerLease(
        broker_id,
        "incarnation" if held else "",
        7,
        listeners,
        rack=rack,
        state=state,
        cluster=CLUSTER_NAME,
    ).to_object()


def partition_set(
    name: str,
    partitions: list[PartitionState],
    *,
    config: Mapping[str, str] | None = None,
    topic_id: UUID | None = None,
) -> PartitionSet:
    return new_partition_set(
        cluster=CLUSTER_NAME,
        topic_id=topic_id or derive_topic_id("owner", name),
        topic_name=name,
        slice_index=0,
        config=dict(config or {}),
        partitions=tuple(partitions),
    )


def led(
    *replicas: int, leader: int | None = None, epoch: int = 0, isr: tuple[int, ...] | None = None
) -> PartitionState:
    return PartitionState(
        replicas=replicas,
        isr=tuple(ReplicaRef(broker, 7) for broker in (isr if isr is not None else replicas)),
        leader=replicas[0] if leader is None else leader,
        leader_epoch=epoch,
    )


class Controller:
    """What the operator does for a Topic, in a few lines: make its PartitionSet, change it, hide it at deletion."""

    def __init__(self, store: ClusterStore) -> None:
        self.store = store
        self.refuse: tuple[str, str] | None = None
        self.leader: int | None = None
        self.finished: list[Topic] = []

    async def run(self) -> None:
        objects, version = await self.store.list(TOPIC)
        for obj in objects:
            await self._reconcile(Topic.from_object(obj))
        async for event in self.store.watch(TOPIC, version):
            if event.type != "DELETED":
                await self._reconcile(Topic.from_object(event.object))

    async def _reconcile(self, topic: Topic) -> None:
        if topic.deleting:
            self.finished.append(topic)
            await self._hide(topic)
            return
        if self.refuse is not None:
            await self._refuse(topic, *self.refuse)
            return
        stored, _ = await self.store.list(PARTITION_SET)
        sets = [PartitionSet.from_object(o) for o in stored]
        served = [part for part in sets if part.topic_name == topic.topic_name and not part.deleting]
        if served:
            await self._bring_in_line(served[0], topic)
            return
        if topic.status:
            return
        states = [led(0, leader=self.leader) for _ in range(topic.partitions)]
        topic_id = derive_topic_id(topic.uid, topic.topic_name)
        made = partition_set(topic.topic_name, states, config=topic.config, topic_id=topic_id)
        await self.store.create(PARTITION_SET, made.to_object())
        await self._status(topic, {"topicId": str(topic_id)})

    async def _bring_in_line(self, part: PartitionSet, topic: Topic) -> None:
        added = [led(0, leader=self.leader) for _ in range(topic.partitions - len(part.partitions))]
        newest = dataclasses.replace(
            part,
            config=dict(topic.config),
            partitions=(*part.partitions, *added),
            topic_epoch=part.topic_epoch + 1,
        )
        if added or newest.config != part.config:
            tests, operations = patch_topic_epoch(part, newest)
            await self.store.patch_if(
                PARTITION_SET, part.name, uid=part.uid, tests=tests, operations=operations
            )

    async def _refuse(self, topic: Topic, reason: str, message: str) -> None:
        shown = topic.status.get("conditions", [{}])[0].get("observedGeneration")
        if shown == topic.meta.generation:
            return
        condition = {
            "type": "Stalled",
            "status": "True",
            "reason": reason,
            "message": message,
            "observedGeneration": topic.meta.generation,
        }
        await self._status(topic, {"conditions": [condition]})

    async def _status(self, topic: Topic, status: dict[str, Any]) -> None:
        operations = [{"op": "add", "path": "/status", "value": status}]
        await self.store.patch_if(
            TOPIC, topic.name, uid=topic.uid, tests=[], operations=operations, subresource="status"
        )

    async def _hide(self, topic: Topic) -> None:
        objects, _ = await self.store.list(PARTITION_SET)
        for obj in objects:
            if obj["spec"]["topicName"] == topic.topic_name and topic.deletion_policy == "Delete":
                name, uid = obj["metadata"]["name"], obj["metadata"]["uid"]
                operations = [{"op": "replace", "path": "/spec/deleting", "value": True}]
                await self.store.patch_if(PARTITION_SET, name, uid=uid, tests=[], operations=operations)
        operations = [{"op": "remove", "path": "/metadata/finalizers"}]
        await self.store.patch_if(TOPIC, topic.name, uid=topic.uid, tests=[], operations=operations)


@asynccontextmanager
async def broker(
    *,
    brokers: int = 1,
    controller: bool = True,
    cluster: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[FakeBroker]:
    """Run a fake broker whose view follows its store."""
    store = SqliteStore(":memory:")
    config = BrokerConfig(broker_id=0, data_dir="/data", store="sqlite::memory:", **settings)
    view = ClusterView(store, CLUSTER_NAME, rng=random.Random(2))
    fake = FakeBroker(store, view, config)
    await store.create(CLUSTER, new_object(CLUSTER, CLUSTER_NAME, dict(cluster or {})))
    await store.create(CLUSTER_STATE, ClusterState(cluster=CLUSTER_NAME).to_object())
    for broker_id in range(brokers):
        await store.create(LEASE, lease(broker_id))
    tasks = [asyncio.create_task(view.run())]
    if controller:
        tasks.append(asyncio.create_task(fake.controller.run()))
    try:
        await view.wait_fresh(10)
        yield fake
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()


async def add_topic(fake: FakeBroker, made: PartitionSet) -> None:
    await fake.store.create(PARTITION_SET, made.to_object())
    await fake.view.wait_until(lambda view: view.topic_by_name(made.topic_name) is not None, 10)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine, with a limit that only a bug reaches."""

    async def limited() -> None:
        async with asyncio.timeout(30):
            await main

    asyncio.run(limited())
