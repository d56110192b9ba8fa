"""Local disks that stay at their bound: what is in the bucket for good goes soon after it was released.

The round of `log.retention.check.interval.ms` (five minutes, as in Kafka) looks at every log for every reason. Under load a
broker writes gigabytes in that time, so tiered logs are also looked at once a second, and those are taken of which more was
released (`tieredThrough` moved, which a leader decides and followers learn), or whose released segments are old enough.

Each log that gives something up writes its new start durably, on the event loop. So the time that goes into it is bounded:
after each a pause follows that is `PAUSE_FACTOR` times as long as it took.

Made and run by `server.disk_watch`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from strandline_broker.errors import KafkaError
from strandline_broker.log.retention import give_up, may_take_released, plan_room, take_released

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from strandline_broker.log.log import Log
    from strandline_broker.seams.clock import Clock

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S: Final = 1.0
PAUSE_FACTOR: Final = 9.0
RETRY_MS: Final = 10_000
"""Time until a log is tried again whose start could not be written."""


class LocalRetention:
    """See the module. `high_watermark_of` bounds what may go of a log, besides the bucket."""

    def __init__(self, logs: Iterable[Log], *, clock: Clock, high_watermark_of: Callable[[Log], int]) -> None:
        self._logs = logs
        self._clock = clock
        self._high_watermark_of = high_watermark_of
        self.freed_bytes = 0
        """What was deleted here because it is in the bucket, for metrics; what rounds of retention took is not in it."""

    async def run(self) -> None:
        """Look after all logs until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            await self.look()

    async def look(self) -> None:
        """Take what was released since the last look."""
        now_ms = self._clock.now_ms()
        for log in [log for log in self._logs if may_take_released(log, now_ms)]:
            # Others may have closed it, or looked at it, while this waited.
            if not may_take_released(log, now_ms):
                continue
            began = self._clock.monotonic()
            if self._take(log):
                await asyncio.sleep((self._clock.monotonic() - began) * PAUSE_FACTOR)

    async def make_room(self, wanted_bytes: int) -> int:
        """Delete so much of what is in the bucket, whatever `local.retention.*` would keep; return the bytes freed."""
        freed = 0
        chosen = plan_room(self._logs, wanted_bytes, self._high_watermark_of)
        for log, count in chosen.items():
            began = self._clock.monotonic()
            # Others may have closed it, or taken some of these, while this waited.
            count = min(count, plan_room([log], wanted_bytes, self._high_watermark_of).get(log, 0))
            if count:
                try:
                    freed += give_up(log, count)
                except KafkaError as error:
                    logger.error("making room by %s: %s", log.directory, error)
                await asyncio.sleep((self._clock.monotonic() - began) * PAUSE_FACTOR)
        self.freed_bytes += freed
        return freed

    def _take(self, log: Log) -> int:
        try:
            freed = take_released(log, self._clock.now_ms(), self._high_watermark_of(log))
        except KafkaError as error:
            logger.error("local retention of %s: %s", log.directory, error)
            assert log.tier is not None, "it was looked at because it is tiered"
            log.tier.swept_through = log.tier.deletable_end
            log.tier.sweep_at_ms = self._clock.now_ms() + RETRY_MS
            return 0
        self.freed_bytes += freed
        return freed
