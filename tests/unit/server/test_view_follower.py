"""When roles are taken as the view says, and what is left to do while that cannot be kept on this disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from tests.unit.tiered.virtual_time import virtually

from strandline_broker.seams.disk import DiskError
from strandline_broker.server.view_follower import RETRY_INTERVAL_S, ViewFollower


class Followed:
    """A view that can be changed, and all that its follower moves. It is the view, the replicas and the storage watch."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.broken = False
        self.state = None
        self.health = SimpleNamespace(writable=True)
        self._told: Callable[[Any], None] = lambda change: None
        parts: Any = self
        self.follower = ViewFollower(parts, dynamic_config=parts, replicas=parts, storage=parts)

    def on_change(self, callback: Callable[[Any], None]) -> None:
        self._told = callback

    def apply(self, state: object) -> None:
        self.did.append("settings")

    async def reconcile(self) -> None:
        if self.broken:
            raise DiskError(5, "the test broke it")
        self.did.append("roles")

    def resign_deposed(self) -> None:
        self.did.append("resigned")

    def write_failed(self, error: OSError) -> None:
        self.health.writable = False

    async def change(self, *, substantial: bool = True) -> list[str]:
        """Change the view, and return what came of it at once."""
        self._told(SimpleNamespace(substantial=substantial))
        return await self.soon()

    async def soon(self) -> list[str]:
        await asyncio.sleep(0.001)
        done, self.did = self.did, []
        return done


def followed(test: Callable[[Followed], Coroutine[Any, Any, None]]) -> None:
    async def scenario() -> None:
        made = Followed()
        task = asyncio.create_task(made.follower.run())
        await test(made)
        task.cancel()

    virtually(scenario)


def test_every_change_is_followed_that_may_mean_something() -> None:
    async def test(made: Followed) -> None:
        assert await made.soon() == []
        assert await made.change() == ["settings", "roles"]
        assert await made.change(substantial=False) == []
        assert await made.change() == ["settings", "roles"]

    followed(test)


def test_a_change_before_it_runs_is_not_missed() -> None:
    async def scenario() -> None:
        made = Followed()
        assert await made.change() == []
        task = asyncio.create_task(made.follower.run())
        assert await made.soon() == ["settings", "roles"]
        task.cancel()

    virtually(scenario)


def test_while_the_disk_takes_nothing_it_only_resigns() -> None:
    async def test(made: Followed) -> None:
        made.broken = True
        assert await made.change() == ["settings", "resigned"]
        assert await made.change() == ["resigned"]
        made.broken, made.health.writable = False, True
        made.follower.look_again()
        assert await made.soon() == ["settings", "roles"]

    followed(test)


def test_it_tries_again_unasked() -> None:
    async def test(made: Followed) -> None:
        made.broken = True
        assert await made.change() == ["settings", "resigned"]
        made.broken = False
        await asyncio.sleep(RETRY_INTERVAL_S - 0.1)
        assert await made.soon() == []
        await asyncio.sleep(0.1)
        assert await made.soon() == ["settings", "roles"]

    followed(test)
