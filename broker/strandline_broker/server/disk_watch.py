"""What keeps this broker's disk from running full while it has a bucket: a look every second, and prompt local retention.

What is in the bucket for good goes first, before producers are slowed down.

How full the disk is decides what producers are told (`replica.disk_pressure`), and is said once when that begins or ceases
to matter. Without a bucket nothing that waits would make room, so there producers write until the disk is full (ADR 0010),
and none of this runs.

Made by `server.broker`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, cast

from strandline_broker.replica.disk_pressure import DiskPressure, Pressure
from strandline_broker.server.local_retention import LocalRetention

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from strandline_broker.log.log import Log
    from strandline_broker.seams.clock import Clock
    from strandline_broker.seams.disk import Disk
    from strandline_broker.server.config import BrokerConfig

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S: Final = 1.0
ROOM_INTERVAL_S: Final = 5.0
"""Time between two attempts to make room."""

_SAID: Final = {
    Pressure.FREE: "there is room again, producers may write as they like",
    Pressure.THROTTLED: "producers are slowed down, so that it does not run full",
    Pressure.REFUSED: "producers are refused until there is room; replication, group offsets and reads go on",
}


class DiskWatch:
    """See the module. `run_blocking` runs a function in a thread that may wait for a disk; it raises OSError."""

    def __init__(
        self,
        config: BrokerConfig,
        disk: Disk,
        logs: Iterable[Log],
        clock: Clock,
        high_watermark_of: Callable[[Log], int],
        run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
    ) -> None:
        self._disk = disk
        self._run_blocking = run_blocking
        self._failing = False
        self._clock = clock
        self._room_after = clock.monotonic()
        self.pressure = DiskPressure(config.tiering_disk_throttle_percent, config.tiering_disk_refuse_percent)
        self.retention = LocalRetention(logs, clock=clock, high_watermark_of=high_watermark_of)

    async def run(self) -> None:
        """Watch until cancelled."""
        await asyncio.gather(self.retention.run(), self._look_again_and_again())

    async def _look_again_and_again(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def look(self) -> None:
        """Measure, and say what changed. A disk that cannot be measured leaves everything as it was."""
        try:
            measured = await self._run_blocking(lambda: (self._disk.free_bytes(), self._disk.total_bytes()))
        except OSError as error:
            if not self._failing:
                logger.warning("how full the disk is cannot be told: %s", error)
            self._failing = True
            return
        self._failing = False
        pressure = self.pressure
        changed = pressure.measured(*cast("tuple[int, int]", measured))
        if changed:
            logger.log(
                logging.INFO if pressure.level is Pressure.FREE else logging.WARNING,
                "%.1f %% of the disk is used, %d bytes are free: %s",
                100 * pressure.used_ratio,
                pressure.free_bytes,
                _SAID[pressure.level],
            )
        await self._make_room()

    async def _make_room(self) -> None:
        """Give up what is in the bucket before producers are slowed down, whatever local retention would keep."""
        now = self._clock.monotonic()
        wanted = self.pressure.wanted_bytes
        if wanted > 0 and now >= self._room_after:
            # What was deleted is measured only when the files are gone, which a thread sees to.
            self._room_after = now + ROOM_INTERVAL_S
            await self.retention.make_room(wanted)
