"""What a broker says in its Lease, how long its last words may take, and that a successor silences it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from tests.unit.replica.tiered_support import LoopClock
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.cluster.model import BrokerLease, BrokerPhase, Endpoint, Object
from strandline_broker.cluster.store import NotFound, Unavailable
from strandline_broker.server.config import load
from strandline_broker.server.endpoints import Advertised
from strandline_broker.server.registration import LAST_WORDS_S, Registration

HERE = Advertised({"CLIENTS": Endpoint("here", 9092)}, "a")
THERE = Advertised({"CLIENTS": Endpoint("there", 9092)}, "b")


class OneLease:
    """A store that takes the first Lease, and then fails as it is told."""

    def __init__(self) -> None:
        self.stored: Object = {}
        self.failure: Exception | None = None
        self.holder = ""

    async def get(self, kind: str, name: str) -> Object:
        if not self.stored:
            raise NotFound(name)
        return {**self.stored, "spec": {**self.stored["spec"], "holderIdentity": self.holder}}

    async def create(self, kind: str, lease: Object) -> Object:
        self.stored = {**lease, "metadata": {**lease["metadata"], "uid": "u", "resourceVersion": "1"}}
        return self.stored

    async def patch_if(self, *arguments: object, **more: object) -> Object:
        if self.failure is not None:
            raise self.failure
        return self.stored


class Registered:
    """A registration whose Lease is taken."""

    def __init__(self) -> None:
        self.store = OneLease()
        self.lost: list[str] = []
        store: Any = self.store
        volume: Any = SimpleNamespace(incarnation="first", identity=SimpleNamespace(generation=5))
        self.registration = Registration(
            load(None, ["broker_id=3", "data_dir=/d", "store=sqlite:/s"], {}),
            volume,
            HERE,
            store=store,
            clock=LoopClock(),
            rng=random.Random(1),
            on_lost=self.lost.append,
        )

    @property
    def lease(self) -> BrokerLease:
        return self.registration.keeper.lease


def registered(test: Callable[[Registered], Coroutine[Any, Any, None]]) -> None:
    async def scenario() -> None:
        made = Registered()
        await made.registration.keeper.acquire()
        await test(made)

    virtually(scenario)


def test_it_says_what_the_broker_is_and_what_its_parts_announce() -> None:
    async def test(made: Registered) -> None:
        lease = made.lease
        assert (lease.broker_id, lease.incarnation, lease.generation) == (3, "first", 5)
        assert (lease.listeners, lease.rack, lease.state) == (HERE.listeners, "a", BrokerPhase.STARTING)
        await made.registration.announce_endpoints(THERE)
        await made.registration.announce_storage(False)
        await made.registration.announce_http("there", 80)
        await made.registration.drain()
        lease = made.lease
        assert (lease.listeners, lease.rack, lease.state) == (THERE.listeners, "b", BrokerPhase.DRAINING)
        assert (lease.writable, lease.http) == (False, Endpoint("there", 80))

    registered(test)


def test_a_stop_does_not_wait_for_a_store_that_is_away() -> None:
    async def test(made: Registered) -> None:
        made.store.failure = Unavailable("the test says so")
        began = asyncio.get_running_loop().time()
        await made.registration.drain()
        assert round(asyncio.get_running_loop().time() - began, 3) == LAST_WORDS_S
        await made.registration.release()
        assert round(asyncio.get_running_loop().time() - began, 3) <= 2 * LAST_WORDS_S
        assert made.lost == []

    registered(test)


def test_who_has_a_successor_says_nothing_more() -> None:
    async def test(made: Registered) -> None:
        made.store.failure = NotFound("as it was")
        made.store.holder = "second"
        await made.registration.announce_endpoints(THERE)
        await made.registration.announce_storage(False)
        await made.registration.drain()
        await made.registration.release()
        assert made.lost == ["another process runs as broker 3 (incarnation second)"]

    registered(test)
