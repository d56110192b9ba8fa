"""The simulator's store keeps the contract of all cluster stores, and does wrong only what it is told to."""

from __future__ import annotations

import random
from pathlib import Path

from tests.simulation.store import MemoryStore
from tests.simulation.store_server import StoreServer
from tests.unit.cluster.store_contract import StoreContract

from strandline_broker.cluster.store import ClusterStore


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
