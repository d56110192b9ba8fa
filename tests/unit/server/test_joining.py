"""How long a start waits for the store, the Lease and its own preparation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.server.joining import STALE_AFTER_S, hear_of_cluster, take_lease, while_nobody_waits


def now() -> float:
    return round(asyncio.get_running_loop().time(), 3)


class View:
    """What a view knows, and what waits for it."""

    def __init__(self, *, fresh: bool = True) -> None:
        self.fresh_since = 0.0 if fresh else None
        self.changed = asyncio.Event()

    async def wait_fresh(self, timeout_s: float | None = None) -> None:
        async with asyncio.timeout(timeout_s):
            await self.changed.wait()

    async def wait_until(self, predicate: Callable[[Any], bool]) -> None:
        while not predicate(self):
            self.changed.clear()
            await self.changed.wait()


def test_a_known_cluster_is_served_while_the_store_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        view: Any = View()
        await hear_of_cluster(view, knows_cluster=True)
        assert now() == STALE_AFTER_S

    virtually(scenario)
    assert "serving from the last known cluster state" in caplog.text


def test_an_unknown_cluster_is_waited_for() -> None:
    async def scenario() -> None:
        view: Any = View()
        asyncio.get_running_loop().call_later(100 * STALE_AFTER_S, view.changed.set)
        await hear_of_cluster(view, knows_cluster=False)
        assert now() == 100 * STALE_AFTER_S

    virtually(scenario)


@pytest.mark.parametrize(
    ("fresh", "lease_s", "roles_s"),
    [(True, 0.5, 0.5), (True, 60.0, STALE_AFTER_S), (False, 60.0, 0.0)],
    ids=["after the Lease", "when the Lease takes long", "at once while the store is away"],
)
def test_when_roles_are_taken(*, fresh: bool, lease_s: float, roles_s: float) -> None:
    class Keeper:
        async def acquire(self) -> None:
            await asyncio.sleep(lease_s)

    async def scenario() -> None:
        taken: list[float] = []

        async def take_roles() -> None:
            taken.append(now())

        keeper: Any = Keeper()
        view: Any = View(fresh=fresh)
        await take_lease(keeper, view, take_roles)
        assert taken == [roles_s]
        assert now() == lease_s, "in the end it has the Lease"

    virtually(scenario)


def test_a_preparation_is_waited_for_until_somebody_waits_for_this_broker() -> None:
    async def scenario() -> None:
        view: Any = View()
        needed: list[str] = []
        preparing = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(while_nobody_waits(preparing, view, lambda: bool(needed)))
        view.changed.set()
        await asyncio.sleep(1.0)
        assert not waiting.done(), "a change that needs nobody"
        needed.append("t-0")
        view.changed.set()
        await waiting
        assert not preparing.done()

    virtually(scenario)


def test_a_preparation_that_fails_is_its_owners_to_hear_of() -> None:
    async def scenario() -> None:
        view: Any = View()
        preparing = asyncio.get_running_loop().create_future()
        preparing.set_exception(OSError("in use"))
        await while_nobody_waits(preparing, view, lambda: False)
        with pytest.raises(OSError, match="in use"):
            await preparing

    virtually(scenario)
