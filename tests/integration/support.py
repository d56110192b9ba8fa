"""A real broker in this process: real sockets, real files, the real controller, and a store in memory.

The client is raw: it sends what a test says, byte for byte what `wire.cold` makes of it, and shows what comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from strandline_broker.cluster.model import CLUSTER, TOPIC, new_object
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import AlreadyExists, ClusterStore
from strandline_broker.seams.clock import SystemClock
from strandline_broker.seams.disk import Disk
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.seams.local_network import LocalNetwork
from strandline_broker.seams.threads import SystemThreads
from strandline_broker.server.broker import Broker
from strandline_broker.server.config import load
from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.batch import Record, build_batch
from strandline_operator.controller.loop import Controller
from strandline_tiered.object_store import ObjectStore

TIMEOUT_S = 10.0


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run an asynchronous test with an upper bound on its time."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as `condition()` holds, looking at it in every turn of the loop."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0)


class Client:
    """One connection that speaks Kafka."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._correlation_id = 0

    async def ask(self, key: ApiKey, version: int, body: Mapping[str, Any]) -> Any:
        """Send one request and return the decoded response."""
        self.send(key, version, body)
        return await self.receive(key, version)

    def send(self, key: ApiKey, version: int, body: Mapping[str, Any]) -> None:
        """Send one request."""
        self._correlation_id += 1
        self._writer.write(cold.encode_request(key, version, self._correlation_id, "test", body))

    async def receive(self, key: ApiKey, version: int) -> Any:
        """Return the next response. Raises IncompleteReadError when the broker closed the connection."""
        async with asyncio.timeout(TIMEOUT_S):
            (size,) = struct.unpack(">i", await self._reader.readexactly(4))
            frame = await self._reader.readexactly(size)
        _, body = cold.decode_response(key, version, frame)
        return body

    async def closed(self) -> bool:
        """Say whether the broker closes this connection without another byte."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self._reader.read(1) == b""

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Cluster:
    """A store, the controller, and brokers that can be started, stopped and crashed."""

    def __init__(self, store: ClusterStore, directory: Path) -> None:
        self.store = store
        self.directory = directory
        self.controller = Controller(
            store,
            "test",
            monotonic=time.monotonic,
            now_ms=lambda: time.time_ns() // 1_000_000,
            notify=lambda notice: None,
            placement_patience_s=0.05,
        )
        self.lost: list[str] = []
        self.bucket: ObjectStore | None = None
        self._clients: list[Client] = []
        # Two lives of a broker must not draw the same incarnation.
        self._seeds = itertools.count(1)
        self._task: asyncio.Task[None] | None = None

    async def start_controller(self, brokers: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create the Cluster object, unless it is there, and run the controller."""
        spec: dict[str, Any] = {"replicas": brokers, "config": dict(config or {})}
        with contextlib.suppress(AlreadyExists):
            await self.store.create(CLUSTER, new_object(CLUSTER, "test", spec))
        self._task = asyncio.create_task(self.controller.run())

    async def stop_controller(self) -> None:
        """Let the control plane be away."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def broker(
        self, broker_id: int = 0, *, disk: Disk | None = None, store: ClusterStore | None = None, **keys: str
    ) -> Broker:
        """Return a broker that is not started yet."""
        data_dir = self.directory / f"broker-{broker_id}"
        settings = {
            "broker_id": str(broker_id),
            "cluster_name": "test",
            "data_dir": str(data_dir),
            "store": "sqlite::memory:",
            "listeners": "PLAINTEXT://127.0.0.1:0",
            **keys,
        }
        return Broker(
            load(None, [f"{key}={value}" for key, value in settings.items()], {}),
            clock=SystemClock(),
            rng=random.Random(next(self._seeds)),
            disk=disk if disk is not None else LocalDisk(data_dir),
            network=LocalNetwork(),
            store=store if store is not None else self.store,
            threads=SystemThreads(),
            boot_id="this boot",
            on_lost=self.lost.append,
            bucket=self.bucket,
        )

    async def connect(self, broker: Broker, listener: str = "PLAINTEXT") -> Client:
        """Open a connection to a broker; it is closed with the cluster, if the test does not come so far."""
        host, port = broker.server.address(listener)
        client = Client(*await asyncio.open_connection(host, port))
        self._clients.append(client)
        return client

    async def disconnect(self) -> None:
        """Close what `connect` opened, or what is left of it."""
        for client in self._clients:
            with contextlib.suppress(OSError):
                await client.close()

    async def create_topic(
        self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None, *, replicas: int = 1
    ) -> None:
        """Apply a Topic, as a user does."""
        spec: dict[str, Any] = {
            "clusterRef": {"name": "test"},
            "partitions": partitions,
            "replicas": replicas,
        }
        if config:
            spec["config"] = dict(config)
        await self.store.create(TOPIC, new_object(TOPIC, name, spec))


@contextlib.asynccontextmanager
async def cluster(
    directory: Path, brokers: int = 1, config: Mapping[str, str] | None = None
) -> AsyncIterator[Cluster]:
    """A cluster without brokers, that is to have so many; what a test starts, it stops."""
    store = SqliteStore(":memory:")
    made = Cluster(store, directory)
    await made.start_controller(brokers, config)
    try:
        yield made
    finally:
        await made.disconnect()
        await made.stop_controller()
        await store.close()


@contextlib.asynccontextmanager
async def running(made: Cluster, **arguments: Any) -> AsyncIterator[Broker]:
    """A started broker that is stopped gracefully."""
    broker = made.broker(**arguments)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def leads(broker: Broker, topic: str, count: int = 1) -> None:
    """Wait until a broker leads that many partitions of a topic."""

    def led() -> int:
        found = broker.replicas.by_key.get(topic)
        return sum(partition.is_leader for partition in found.partitions.values()) if found is not None else 0

    await until(lambda: led() >= count)


def batch(*values: bytes, producer_id: int = -1, producer_epoch: int = -1, base_sequence: int = -1) -> bytes:
    """Return a record batch with these values."""
    records = [Record(-1, 1_700_000_000_000, None, value, ()) for value in values]
    return bytes(
        build_batch(
            records, producer_id=producer_id, producer_epoch=producer_epoch, base_sequence=base_sequence
        )
    )


def produce(
    topic: str, records: Mapping[int, bytes], *, acks: int = -1, timeout_ms: int = 5000
) -> dict[str, Any]:
    """Return a Produce body for one topic."""
    return {
        "transactional_id": None,
        "acks": acks,
        "timeout": timeout_ms,
        "topic_data": [
            {
                "name": topic,
                "partition_data": [{"index": index, "records": data} for index, data in records.items()],
            }
        ],
    }


def fetch(
    topic: str,
    offsets: Mapping[int, int],
    *,
    max_wait_ms: int = 0,
    min_bytes: int = 1,
    session_id: int = 0,
    session_epoch: int = -1,
    replica_id: int = -1,
) -> dict[str, Any]:
    """Return a Fetch body for one topic."""
    return {
        "replica_id": replica_id,
        "max_wait": max_wait_ms,
        "min_bytes": min_bytes,
        "max_bytes": 1 << 24,
        "isolation_level": 0,
        "session_id": session_id,
        "session_epoch": session_epoch,
        "topics": [
            {
                "topic": topic,
                "partitions": [
                    {"partition": index, "fetch_offset": offset, "partition_max_bytes": 1 << 20}
                    for index, offset in offsets.items()
                ],
            }
        ],
        "forgotten_topics_data": [],
    }


Step = Callable[[], Awaitable[None]]
