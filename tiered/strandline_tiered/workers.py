"""Several workers over one supply of work, as for the parts of an upload.

Not a TaskGroup: one that fails marks the task around it as being cancelled, and before Python 3.11.3 a timeout around that
(`RetryingStore` has one) then takes the failure for a cancellation from outside, and nobody hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


async def run_workers(count: int, worker: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `count` workers to their end. The first that fails ends the others, and its exception is raised."""
    tasks = [asyncio.ensure_future(worker()) for _ in range(count)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
