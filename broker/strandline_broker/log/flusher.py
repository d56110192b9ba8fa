"""Group commit: one thread syncs everything that was written since it last looked, and the event loop learns of it.

Who uses it: the produce path requests a sync after a commit; the partition layer is told when one is done.
The only module of the log that knows an event loop.

While a group is being synced the next one gathers, so under load every sync serves many writes and many logs,
and an idle log is synced at once. A failed sync is never repeated as if nothing had happened: the kernel has
dropped the pages by then. The log is out of service and its callback fires instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strandline_broker.log.log import Log
    from strandline_broker.log.sync_work import SyncWork

logger = logging.getLogger(__name__)


class Flusher:
    """Syncs logs in groups. All methods and callbacks on the loop's thread.

    `on_synced(logs)` runs once per group, after `synced_end` of all of them moved; `on_failed(log)` for each
    log whose sync failed. `executor` runs one job of this flusher at a time and should have a thread to spare
    for it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        *,
        on_synced: Callable[[Sequence[Log]], None],
        on_failed: Callable[[Log], None],
    ) -> None:
        self._loop = loop
        self._executor = executor
        self._on_synced = on_synced
        self._on_failed = on_failed
        self._requested: dict[Log, None] = {}
        self._running = False
        self._idle: asyncio.Future[None] | None = None
        self.groups = 0
        """Groups synced so far, for metrics."""

    def request(self, log: Log) -> None:
        """Have everything synced that was committed to `log` so far."""
        self._requested[log] = None
        if not self._running:
            self._start()

    def forget(self, log: Log) -> None:
        """Withdraw a request: the log is closed or deleted."""
        self._requested.pop(log, None)

    def _start(self) -> None:
        """Hand what was requested to the thread."""
        requested = self._requested
        self._requested = {}
        works = [work for log in requested if (work := log.begin_sync()) is not None]
        if works:
            self._running = True
            self._executor.submit(self._run, works)

    def _run(self, works: list[SyncWork]) -> None:
        """On the thread."""
        for work in works:
            work.run()
        try:
            self._loop.call_soon_threadsafe(self._finish, works)
        except RuntimeError:
            logger.warning("the event loop is gone, %d syncs were done for nobody", len(works))

    def _finish(self, works: list[SyncWork]) -> None:
        self._running = False
        self.groups += 1
        synced: list[Log] = []
        failed: list[Log] = []
        for work in works:
            (synced if work.log.finish_sync(work) else failed).append(work.log)
        # Start the next group first: its sync and the answers of this one overlap.
        if self._requested:
            self._start()
        for log in failed:
            self._on_failed(log)
        if synced:
            self._on_synced(synced)
        if self._requested and not self._running:
            self._start()
        if not self._running and self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    async def drain(self) -> None:
        """Wait until nothing is requested or under way."""
        while self._running:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)
