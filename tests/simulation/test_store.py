"""The simulator's store keeps the contract of all cluster stores, and does wrong only what it is told to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.simulation.loop import Process, VirtualLoop, no_collections, simulate
from tests.simulation.network import SimNetwork
from tests.simulation.store import MAX_LATE_S, STORE_HOST, MemoryStore, StoreFaults, StorePath
from tests.simulation.store_server import StoreServer
from tests.unit.cluster.store_contract import StoreContract, collect
from tests.unit.cluster.support import topic_object

from strandline_broker.cluster.model import TOPIC
from strandline_broker.cluster.store import ClusterStore, Gone, Unavailable


class TestMemoryStore(StoreContract):
    history = 8

    async def open_store(self, place: Path, *, small_history: bool = False) -> ClusterStore:
        server = _servers.get(place)
        if server is None:
            server = _servers[place] = StoreServer(
                random.Random(1), now_ms=lambda: 0, history=self.history if small_history else 1_000
            )
        return MemoryStore(server)


_servers: dict[Path, StoreServer] = {}


def with_faults(test: Callable[[VirtualLoop, StoreServer, MemoryStore, StorePath], Awaitable[None]]) -> None:
    async def main(loop: VirtualLoop) -> None:
        server = StoreServer(random.Random(1), now_ms=lambda: 0, time=loop.time)
        network = SimNetwork(loop, random.Random(2))
        path = StorePath(loop, network.links, "broker-0", random.Random(3), StoreFaults())
        await test(loop, server, MemoryStore(server, path), path)

    with no_collections():
        simulate(main, VirtualLoop())


def test_a_store_that_is_away_writes_nothing() -> None:
    async def test(loop: VirtualLoop, server: StoreServer, store: MemoryStore, path: StorePath) -> None:
        path.faults.away = True
        with pytest.raises(Unavailable):
            await store.create(TOPIC, topic_object("a"))
        assert server.writes == 0
        path.faults.away = False
        await store.create(TOPIC, topic_object("a"))

    with_faults(test)


def test_a_lost_answer_belongs_to_a_write_that_happened() -> None:
    async def test(loop: VirtualLoop, server: StoreServer, store: MemoryStore, path: StorePath) -> None:
        path.faults.lost_answer = 1.0
        with pytest.raises(Unavailable):
            await store.create(TOPIC, topic_object("a"))
        assert server.get(TOPIC, "a")["metadata"]["name"] == "a"

    with_faults(test)


def test_a_late_write_lands_after_its_caller_gave_up_and_died() -> None:
    async def test(loop: VirtualLoop, server: StoreServer, store: MemoryStore, path: StorePath) -> None:
        path.faults.late_write = 1.0
        writer = Process(loop, "writer")
        writer.spawn(store.create(TOPIC, topic_object("a")))
        await asyncio.sleep(0.05)
        writer.kill()
        assert server.writes == 0
        await asyncio.sleep(MAX_LATE_S)
        assert server.writes == 1

    with_faults(test)


def test_behind_a_cut_requests_end_without_an_answer() -> None:
    async def test(loop: VirtualLoop, server: StoreServer, store: MemoryStore, path: StorePath) -> None:
        path.links.add_cut(STORE_HOST, path.host)
        with pytest.raises(Unavailable):
            await store.create(TOPIC, topic_object("a"))
        assert server.writes == 1
        path.links.remove_cut(STORE_HOST, path.host)
        path.links.add_cut(path.host, STORE_HOST)
        with pytest.raises(Unavailable):
            await store.get(TOPIC, "a")

    with_faults(test)


def test_a_watch_lags_and_ends_as_it_is_told() -> None:
    async def test(loop: VirtualLoop, server: StoreServer, store: MemoryStore, path: StorePath) -> None:
        _, version = await store.list(TOPIC)
        path.lag_s = 3.0
        watching = loop.create_task(collect(store.watch(TOPIC, version), 1))
        await store.create(TOPIC, topic_object("a"))
        started = loop.time()
        await watching
        assert loop.time() - started >= 2.9
        _, version = await store.list(TOPIC)
        watching = loop.create_task(collect(store.watch(TOPIC, version), 1))
        await asyncio.sleep(0.1)
        store.end_watches(Gone("compacted"))
        with pytest.raises(Gone):
            await watching

    with_faults(test)
