"""Logs that failed while the broker runs, or could not be opened: taken into service, or the end of this process.

A log that is reopened is cut at its synced end. With `flush: Fsync` nobody was told of more. With `flush: Replicated`
others may count on the rest: this broker stands for it in the ISR, and could be elected for it. It must not, under a name
that promises it, so:

    log failed ──▶ ends where it said it would ──▶ reopened, in service
              └──▶ ends below that ──▶ out of service ──▶ new log generation on disk ──▶ the process ends (exit code 1)

Its supervisor starts it again, its Lease then names the new generation, and the controller takes the old one out of every
ISR (design section 3.2). While the generation cannot be recorded the process goes on without that log: it would come back
under the old name.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.seams.clock import Clock
    from strandline_broker.server.tasks import Tasks

logger = logging.getLogger(__name__)

RETRY_INTERVAL_S = 5.0


class LogFailures:
    """See the module. `end` ends this process, and gets the reason; `renew_generation` raises DiskError.

    `before_retry` lets coordinators give up what they loaded from logs that failed, `after_retry` is told that partitions
    may be back in service.
    """

    def __init__(
        self,
        replicas: ReplicaManager,
        *,
        before_retry: Callable[[], None],
        after_retry: Callable[[], None],
        renew_generation: Callable[[], Awaitable[object]],
        end: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._replicas = replicas
        self._before_retry = before_retry
        self._after_retry = after_retry
        self._renew_generation = renew_generation
        self._end = end
        self._clock = clock
        self._ended = False
        self._retrying = asyncio.Lock()

    def start(self, tasks: Tasks) -> None:
        """Look after failed logs again and again, until `tasks` are cancelled."""
        tasks.every(RETRY_INTERVAL_S, self.retry)

    async def retry(self) -> None:
        """Look after every log that failed; what was not synced is gone from those that are taken into service again.

        Call it at once when a log has lost something, or when the disk can be written to again.
        """
        self._before_retry()
        async with self._retrying:
            try:
                await self._replicas.open_unopened()
            except OSError as error:
                logger.warning("logs that could not be opened wait for the cluster state: %s", error)
            for partition in list(self._replicas):
                if not partition.log.failed or self._ended:
                    continue
                if not await self._replicas.revive(partition, self._clock.now_ms()):
                    await self._give_up(partition.topic, partition.index)
        self._after_retry()

    async def before_stop(self) -> None:
        """Record what was lost and is not recorded yet: the next start would know nothing of it."""
        async with self._retrying:
            lost = next((p for p in self._replicas if self._replicas.has_lost(p)), None)
            if lost is not None and not self._ended:
                self._ended = await self._record(lost.topic, lost.index)

    async def _record(self, topic: str, index: int) -> bool:
        try:
            await self._renew_generation()
        except OSError as error:
            logger.critical("the loss of records of %s-%d cannot be recorded: %s", topic, index, error)
            return False
        return True

    async def _give_up(self, topic: str, index: int) -> None:
        if not await self._record(topic, index):
            return
        self._ended = True
        self._end(
            f"the log of {topic}-{index} failed and lost records that other brokers count on: this broker ends, and "
            "comes back under a new log generation"
        )
