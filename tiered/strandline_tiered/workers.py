"""Several workers over one supply of work, as for the parts of an upload.

Not a TaskGroup: one that fails marks the task around it as being cancelled, and before Python 3.11.3 a timeout around that
(`RetryingStore` has one) then takes the failure for a cancellation from outside, and nobody hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def run_workers(count: int, worker: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `count` workers to their end. The first that fails ends the others, and its exception is raised."""
    tasks = [asyncio.ensure_future(worker()) for _ in range(count)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def for_each(
    items: AsyncIterator[T], work: Callable[[T], Coroutine[Any, Any, None]], *, at_once: int
) -> None:
    """Do `work` on every item, on `at_once` of them at a time; no more are taken from `items` than are worked on.

    The first that fails ends the others, and its exception is raised.
    """
    taking = asyncio.Lock()

    async def worker() -> None:
        while True:
            async with taking:
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            await work(item)

    await run_workers(at_once, worker)
