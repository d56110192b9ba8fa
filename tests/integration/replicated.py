"""Three real brokers in this process that replicate over real sockets; shared by the tests of replication."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.integration.support import TIMEOUT_S, Client, Cluster, batch, cluster, fetch, produce, until
from tests.integration.test_lifecycle import crash
from tests.integration.test_produce_fetch import FETCH_V, PRODUCE_V, row, values

from strandline_broker.cluster.cluster_settings import AUTO_LEADER_REBALANCE
from strandline_broker.cluster.store import ClusterStore
from strandline_broker.replica.partition import Partition
from strandline_broker.seams.disk import Disk
from strandline_broker.server.broker import Broker
from strandline_broker.wire.api_keys import ApiKey
from strandline_tiered.object_store import ObjectStore

TOPIC = "t"

T = TypeVar("T")


class Trio:
    """Brokers by id, those that run now."""

    def __init__(
        self, made: Cluster, token_file: Path, racks: Sequence[str], keys: Mapping[str, str]
    ) -> None:
        self.made = made
        self._racks = racks
        self._keys = keys
        self.brokers: dict[int, Broker] = {}
        self._token_file = token_file

    def prepare(
        self, broker_id: int, *, disk: Disk | None = None, store: ClusterStore | None = None, **keys: str
    ) -> Broker:
        """Return a broker that is not started, with the settings of all and these."""
        settings = {
            "listeners": "PLAINTEXT://127.0.0.1:0,INTERNAL://127.0.0.1:0",
            "listener_security_protocol_map": "INTERNAL:PLAINTEXT",
            "inter_broker_listener_name": "INTERNAL",
            "inter_broker_token_file": str(self._token_file),
            "lease_duration_ms": "3000",
            "lease_renew_ms": "500",
            **({"rack": self._racks[broker_id]} if self._racks else {}),
            **self._keys,
            **keys,
        }
        return self.made.broker(broker_id, disk=disk, store=store, **settings)

    async def start(
        self, broker_id: int, *, disk: Disk | None = None, store: ClusterStore | None = None, **keys: str
    ) -> Broker:
        """Start a broker, for the first time or again on its data."""
        broker = self.prepare(broker_id, disk=disk, store=store, **keys)
        await broker.start()
        self.brokers[broker_id] = broker
        return broker

    async def stop(self, broker_id: int) -> None:
        """Stop a broker gracefully."""
        await self.brokers.pop(broker_id).stop()

    async def crash(self, broker_id: int, *, seen: bool = True) -> None:
        """End a broker as `kill -9` does; `seen`: whoever supervises processes tells the controller."""
        await crash(self.brokers.pop(broker_id))
        if seen:
            self.made.controller.process_ended(broker_id)

    def partition(self, broker_id: int, index: int = 0) -> Partition | None:
        """Return a partition of the topic on a broker."""
        broker = self.brokers.get(broker_id)
        return broker.replicas.find(TOPIC, index) if broker is not None else None

    def leader(self, index: int = 0) -> Broker | None:
        """Return the broker that leads a partition in the newest epoch."""
        led = [
            (partition.leader_epoch, broker)
            for broker_id, broker in self.brokers.items()
            if (partition := self.partition(broker_id, index)) is not None and partition.is_leader
        ]
        return max(led, key=lambda entry: entry[0])[1] if led else None

    def isr(self, index: int = 0) -> tuple[int, ...]:
        """Return the ISR as the leader has it, in the order of the replicas; nobody without a leader."""
        broker = self.leader(index)
        partition = broker.replicas.find(TOPIC, index) if broker is not None else None
        if partition is None or partition.leadership is None:
            return ()
        return partition.leadership.state.isr_ids

    async def in_sync(self, count: int, index: int = 0) -> Broker:
        """Wait until that many replicas are in sync, and return the leader."""
        await until(lambda: len(self.isr(index)) == count)
        broker = self.leader(index)
        assert broker is not None
        return broker

    @contextlib.asynccontextmanager
    async def client(self, broker: Broker) -> AsyncIterator[Client]:
        """A connection to a broker, closed in the end."""
        client = await self.made.connect(broker)
        try:
            yield client
        finally:
            await client.close()

    async def write(self, *texts: bytes, acks: int = -1, index: int = 0) -> list[int]:
        """Produce to the leader; return the error codes."""
        await until(lambda: self.leader(index) is not None)
        broker = self.leader(index)
        assert broker is not None
        client = await self.made.connect(broker)
        codes = []
        for text in texts:
            answer = await client.ask(
                ApiKey.PRODUCE, PRODUCE_V, produce(TOPIC, {index: batch(text)}, acks=acks)
            )
            codes.append(int(row(answer).error_code))
        await client.close()
        return codes

    async def read(self, broker: Broker, index: int = 0) -> list[bytes | None]:
        """Return every value that consumers see at a broker."""
        client = await self.made.connect(broker)
        answer = await client.ask(ApiKey.FETCH, FETCH_V, fetch(TOPIC, {index: 0}))
        await client.close()
        return [value for _, value in values(row(answer))]

    def log_ends(self, index: int = 0) -> dict[int, int]:
        """Return the log end on each broker that runs."""
        found = {broker_id: self.partition(broker_id, index) for broker_id in self.brokers}
        return {broker_id: p.log.end_offset for broker_id, p in found.items() if p is not None}


@contextlib.asynccontextmanager
async def trio(
    directory: Path,
    racks: Sequence[str] = (),
    *,
    rebalance: bool = False,
    bucket: ObjectStore | None = None,
    **keys: str,
) -> AsyncIterator[Trio]:
    """Three running brokers, each in its rack if there are any, and a controller; what runs in the end is crashed.

    `rebalance`: leaderships return to preferred replicas by themselves, which most tests could not foresee. `bucket`:
    where all of them put sealed segments.
    """
    token = directory / "token"
    token.write_text("0123456789abcdef" * 4)
    config = {} if rebalance else {AUTO_LEADER_REBALANCE: "false"}
    async with cluster(directory, brokers=3, config=config) as made:
        made.bucket = bucket
        three = Trio(made, token, racks, keys)
        try:
            await asyncio.gather(*(three.start(broker_id) for broker_id in range(3)))
            yield three
        finally:
            for broker_id in list(three.brokers):
                await three.crash(broker_id, seen=False)


async def eventually(look: Callable[[], Awaitable[T]], is_it: Callable[[T], bool]) -> T:
    """Look again and again until what is seen is it, and return that."""
    async with asyncio.timeout(TIMEOUT_S):
        while not is_it(seen := await look()):
            await asyncio.sleep(0)
    return seen
