"""The tasks of one broker beside its connections: begun one by one, ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

logger = logging.getLogger(__name__)


class Tasks:
    """Keeps what runs; what died by an exception is logged, and nothing else is done about it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # In the order of their beginning: runs of the simulator must not differ in the order of their ends.
        self._running: dict[asyncio.Task[None], None] = {}

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run `work` until it ends or `cancel` is called."""
        task = self._loop.create_task(work)
        self._running[task] = None
        task.add_done_callback(self._done)

    def every(self, interval_s: float, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Run `work` again and again, `interval_s` seconds after its last end."""
        self.spawn(_repeat(interval_s, work))

    async def cancel(self) -> None:
        """End everything, and wait until it has ended."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            logger.critical("a task of the broker died", exc_info=task.exception())


async def _repeat(interval_s: float, work: Callable[[], Coroutine[object, object, None]]) -> None:
    while True:
        await asyncio.sleep(interval_s)
        try:
            await work()
        except Exception:
            # One failed round of upkeep must not end all later ones.
            logger.exception("%s failed", work.__name__)
