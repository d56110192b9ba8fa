"""No broker is judged dead by time alone: a late watch and a store that stood still look like brokers that are silent.

On virtual time: brokers that are only Leases, renewed every 3 s, and a controller over the simulator's store.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from tests.simulation.loop import VirtualLoop, no_collections, simulate
from tests.simulation.network import SimNetwork
from tests.simulation.store import MemoryStore, StoreFaults, StorePath, T
from tests.simulation.store_server import StoreServer

from strandline_broker.cluster.lease_keeper import LeaseKeeper
from strandline_broker.cluster.model import CLUSTER, LEASE, BrokerLease, BrokerPhase, Object, new_object
from strandline_broker.cluster.store import Unavailable
from strandline_operator.controller.loop import Controller

DURATION_S = 10.0


class StandingStore(MemoryStore):
    """A client of a store that may stand still: nothing is refused, nothing is answered, and nothing happens.

    A client with a `patience_s` gives a request up after so long, and tries again after a pause of its own.
    """

    def __init__(
        self,
        server: StoreServer,
        path: StorePath | None,
        moves: asyncio.Event,
        patience_s: float | None = None,
    ) -> None:
        super().__init__(server, path)
        self.moves = moves
        self.patience_s = patience_s
        self.lease_lists = 0

    async def list(self, kind: str) -> tuple[list[Object], str]:
        self.lease_lists += kind == LEASE
        return await super().list(kind)

    async def _call(self, operation: Callable[[], T], *, writes: bool = False) -> T:
        try:
            async with asyncio.timeout(self.patience_s):
                await self.moves.wait()
        except TimeoutError:
            raise Unavailable("no answer") from None
        return await super()._call(operation, writes=writes)


class Stage:
    """A store, some brokers, and the controller, which remembers who was ever missing."""

    def __init__(self, loop: VirtualLoop, brokers: int) -> None:
        self.loop = loop
        self.moves = asyncio.Event()
        self.moves.set()
        server = StoreServer(random.Random(1), now_ms=lambda: 0, time=loop.time)
        network = SimNetwork(loop, random.Random(2))
        self.path = StorePath(loop, network.links, "controller-0", random.Random(3), StoreFaults())
        self.store = StandingStore(server, self.path, self.moves)
        self.nearby = StandingStore(server, None, self.moves, patience_s=1.0)
        self.controller = Controller(
            self.store,
            "demo",
            monotonic=loop.time,
            now_ms=lambda: round(loop.time() * 1000),
            notify=lambda _: None,
            rng=random.Random(4),
        )
        self.brokers = brokers
        self.renewing: dict[int, asyncio.Task[None]] = {}
        self.running: list[asyncio.Task[None]] = []
        self.dead_at: dict[int, float] = {}

    async def start(self) -> None:
        await self.nearby.create(CLUSTER, new_object(CLUSTER, "demo", {"replicas": self.brokers}))
        for broker_id in range(self.brokers):
            lease = BrokerLease(broker_id, f"{broker_id}-a", 1, {}, state=BrokerPhase.RUNNING, cluster="demo")
            keeper = LeaseKeeper(self.nearby, lease, on_lost=lambda _: None, rng=random.Random(broker_id))
            await keeper.acquire()
            self.renewing[broker_id] = self.loop.create_task(keeper.run())
        self.running.append(self.loop.create_task(self.controller.run()))
        await self.controller.view.wait_until(lambda view: len(view.leases) == self.brokers)
        await asyncio.sleep(1.0)
        assert self.live() == set(range(self.brokers))
        self.running.append(self.loop.create_task(self._look_on()))

    async def stop(self) -> None:
        tasks = [*self.running, *self.renewing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _look_on(self) -> None:
        while True:
            for broker_id in set(range(self.brokers)) - self.live():
                self.dead_at.setdefault(broker_id, self.loop.time())
            await asyncio.sleep(0.1)

    def live(self) -> set[int]:
        return set(self.controller.live())

    async def die(self, broker_id: int) -> float:
        """Let a broker be silent from now on, just after a renewal; return the time."""
        before = self.controller.view.leases[broker_id].resource_version
        await self.controller.view.wait_until(
            lambda view: view.leases[broker_id].resource_version != before, 60.0
        )
        self.renewing[broker_id].cancel()
        return self.loop.time()

    async def stand_still(self, duration_s: float) -> None:
        self.moves.clear()
        await asyncio.sleep(duration_s)
        self.moves.set()


def on_stage(brokers: int, act: Callable[[Stage], Awaitable[None]]) -> None:
    async def main(loop: VirtualLoop) -> None:
        stage = Stage(loop, brokers)
        await stage.start()
        try:
            await act(stage)
        finally:
            await stage.stop()

    with no_collections():
        simulate(main, VirtualLoop(rng=random.Random(5)))


def test_a_healthy_cluster_costs_no_lists() -> None:
    async def act(stage: Stage) -> None:
        before = stage.store.lease_lists
        await asyncio.sleep(120.0)
        assert stage.store.lease_lists == before
        assert not stage.dead_at

    on_stage(3, act)


def test_a_silent_broker_is_dead_after_its_lease_duration_and_one_list() -> None:
    async def act(stage: Stage) -> None:
        died_at = await stage.die(1)
        before = stage.store.lease_lists
        await asyncio.sleep(60.0)
        assert stage.dead_at.keys() == {1}
        assert DURATION_S <= stage.dead_at[1] - died_at < DURATION_S + 0.5
        assert stage.store.lease_lists == before + 1

    on_stage(3, act)


def test_the_only_broker_is_found_dead_as_soon() -> None:
    async def act(stage: Stage) -> None:
        died_at = await stage.die(0)
        await asyncio.sleep(60.0)
        assert DURATION_S <= stage.dead_at[0] - died_at < DURATION_S + 0.5
        lists = stage.store.lease_lists
        await asyncio.sleep(60.0)
        assert stage.store.lease_lists == lists, "about the dead nothing is asked"

    on_stage(1, act)


@pytest.mark.parametrize("brokers", [1, 3])
def test_late_watches_make_nobody_dead(brokers: int) -> None:
    async def act(stage: Stage) -> None:
        stage.path.lag_s = 25.0
        await asyncio.sleep(90.0)
        assert not stage.dead_at

    on_stage(brokers, act)


def test_late_watches_hide_no_dead_broker() -> None:
    async def act(stage: Stage) -> None:
        died_at = await stage.die(2)
        stage.path.lag_s = 25.0
        await asyncio.sleep(60.0)
        assert stage.dead_at.keys() == {2}
        assert stage.dead_at[2] - died_at < DURATION_S + 1.0

    on_stage(3, act)


@pytest.mark.parametrize("brokers", [1, 3])
@pytest.mark.parametrize("stands_s", [3.0, 6.0, 9.0, 9.9, 11.0, 15.0, 90.0])
def test_a_store_that_stood_still_makes_nobody_dead(stands_s: float, brokers: int) -> None:
    async def act(stage: Stage) -> None:
        for _ in range(5):  # at various times after the last renewals
            await stage.stand_still(stands_s)
            await asyncio.sleep(20.7)
        assert not stage.dead_at

    on_stage(brokers, act)


def test_who_died_while_the_store_stood_still_is_found_out() -> None:
    async def act(stage: Stage) -> None:
        await stage.die(0)
        await stage.stand_still(30.0)
        back_at = stage.loop.time()
        await asyncio.sleep(60.0)
        assert stage.dead_at.keys() == {0}
        assert stage.dead_at[0] - back_at <= DURATION_S + 0.5

    on_stage(3, act)
