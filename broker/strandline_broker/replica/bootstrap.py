"""Replicas that begin where the bucket's part ends: each waits here until it knows what came before (design section 7.3).

A leader answers OFFSET_MOVED_TO_TIERED_STORAGE (KIP-405) to a follower that is new, or that lacks what is only in the
bucket by now, and names the segment object that ends at `tieredThrough`. From its tail come the leader epochs and the
producers' state of that offset; the follower then copies only what follows.

Who uses it: `LeaderFetcher`, one `Bootstraps` each.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from strandline_broker.replica.remote import RemoteError, RemoteUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from strandline_broker.replica.remote import TailState, TierBootstrap
    from strandline_broker.wire.fetch import TierNews

logger = logging.getLogger(__name__)

CONCURRENCY = 4
"""Tails read at once for one leader; what waits is bounded by what is followed."""


class Bootstraps:
    """See the module. `source` is None where this broker has no bucket: nothing can begin in the middle then."""

    def __init__(self, source: TierBootstrap | None, loop: asyncio.AbstractEventLoop) -> None:
        self._source = source
        self._loop = loop
        self._limit = asyncio.Semaphore(CONCURRENCY)
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def begin(
        self, key: Hashable, news: TierNews, done: Callable[[TailState], None], failed: Callable[[], None]
    ) -> None:
        """Read the state at `news.tiered_through`, and call one of the two, unless cancelled. One at a time for a key."""
        self.cancel(key)
        self._tasks[key] = task = self._loop.create_task(self._read(key, news, done, failed))
        task.add_done_callback(_report)

    async def _read(
        self, key: Hashable, news: TierNews, done: Callable[[TailState], None], failed: Callable[[], None]
    ) -> None:
        try:
            if self._source is None:
                raise RemoteUnavailable("this broker has no bucket: see tiering_bucket")
            async with self._limit:
                tail = await self._source.tail_state(news.segment_key, news.tiered_through)
        except RemoteError as error:
            logger.warning(
                "a replica that is to begin at %d waits, %s: %s", news.tiered_through, news.segment_key, error
            )
            self._tasks.pop(key, None)
            failed()
        else:
            self._tasks.pop(key, None)
            done(tail)

    def cancel(self, key: Hashable) -> None:
        """Begin nothing for `key` any more."""
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """Cancel everything."""
        for key in list(self._tasks):
            self.cancel(key)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("the start of a replica died", exc_info=task.exception())
