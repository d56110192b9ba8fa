"""Run a scenario on virtual time: hours of retries pass at once, and the same way every time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from tests.simulation.loop import VirtualLoop, no_collections, simulate


def virtually(scenario: Callable[[], Coroutine[Any, Any, None]], *, limit_s: float = 100_000.0) -> None:
    with no_collections():
        loop = VirtualLoop(limit_s=limit_s)

        async def main(_: VirtualLoop) -> None:
            await scenario()

        simulate(main, loop)
        assert not loop.failures, loop.failures
