"""Whether this broker can write to its disk, and what follows: the others are to do without it while it cannot (ADR 0010).

    writable ──a write failed──▶ not writable ──there is space, a trial write lasts, it has been long enough──▶ writable

While it is not writable the Lease says so. The controller then moves its leaderships and leaders take it out of their ISRs,
as if it were about to stop; nothing else changes, and what nobody else can lead it leads on. A disk that fills again soon
after it was writable is believed later each time, up to `HOLD_MAX_S`: leaderships must not go to and fro.

Source: Kafka takes a log directory offline at the first failed write, until the broker starts again (KIP-112).
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from strandline_broker.seams.clock import Clock
    from strandline_broker.seams.disk import Disk

logger = logging.getLogger(__name__)

TRIAL_FILE: Final = "write-trial.tmp"
TRIAL_INTERVAL_S: Final = 1.0
HOLD_FIRST_S: Final = 1.0
HOLD_MAX_S: Final = 30.0
# A failure so soon after the last one ended doubles the time that the disk is not believed.
RELAPSE_S: Final = 30.0
# So much must be free again, or a hundredth of a disk where that is less.
FREE_BYTES: Final = 16 << 20

_TRIAL_BYTES = 4096
_ANNOUNCE_TIMEOUT_S = 10.0
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class StorageHealth:
    """The state of one disk and when to believe it. Pure: `now` is seconds of a monotonic clock."""

    __slots__ = ("_hold_s", "_not_before", "_returned_at", "failures", "writable")

    def __init__(self) -> None:
        self.writable = True
        self.failures = 0
        """How often the disk stopped being writable."""
        self._hold_s = 0.0
        self._not_before = 0.0
        self._returned_at = float("-inf")

    def failed(self, now: float) -> bool:
        """Take note of a write that failed; return whether that is news."""
        if not self.writable:
            return False
        relapsed = self.failures > 0 and now - self._returned_at < RELAPSE_S
        self._hold_s = min(2 * self._hold_s, HOLD_MAX_S) if relapsed else HOLD_FIRST_S
        self._not_before = now + self._hold_s
        self.writable = False
        self.failures += 1
        return True

    def next_trial_s(self, now: float) -> float:
        """Return the seconds until a trial may show that the disk is writable again."""
        return max(TRIAL_INTERVAL_S, self._not_before - now)

    def succeeded(self, now: float) -> None:
        """Take note of a trial that `next_trial_s` had asked for, and that the disk passed."""
        self.writable = True
        self._returned_at = now


class StorageWatch:
    """Keeps a `StorageHealth` and the Lease in line with the disk.

    `announce` stores in the Lease whether the disk is writable; it may take long while the store is away, and is
    cancelled then: it must leave the news to the next renewal.
    """

    def __init__(
        self,
        disk: Disk,
        *,
        clock: Clock,
        run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
        announce: Callable[[bool], Awaitable[None]],
    ) -> None:
        self.health = StorageHealth()
        self._disk = disk
        self._clock = clock
        self._run_blocking = run_blocking
        self._announce = announce
        self._not_writable = asyncio.Event()

    def write_failed(self, error: OSError) -> None:
        """Take note of a write that failed, whatever it was for. Call it on the event loop's thread."""
        if self.health.failed(self._clock.monotonic()):
            logger.error("this broker cannot write, others are asked to do without it: %s", error)
            self._not_writable.set()

    def out_of_space(self, error: OSError) -> None:
        """Take note of a failure that may be one of reading, if it is plainly one of writing."""
        if error.errno in _NO_SPACE:
            self.write_failed(error)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._not_writable.wait()
            await self._tell(writable=False)
            while not self.health.writable:
                await asyncio.sleep(self.health.next_trial_s(self._clock.monotonic()))
                try:
                    await self._run_blocking(self._try_to_write)
                except OSError as error:
                    logger.info("the disk is not writable yet: %s", error)
                else:
                    self.health.succeeded(self._clock.monotonic())
            logger.warning("this broker can write again")
            self._not_writable.clear()
            await self._tell(writable=True)

    async def _tell(self, *, writable: bool) -> None:
        try:
            async with asyncio.timeout(_ANNOUNCE_TIMEOUT_S):
                await self._announce(writable)
        except TimeoutError:
            logger.warning(
                "the Lease does not say yet that the disk is %swritable", "" if writable else "not "
            )

    def _try_to_write(self) -> None:
        """Write a little as logs do, and take it away again. Raises DiskError, also while too little space is free."""
        free = self._disk.free_bytes()
        wanted = min(FREE_BYTES, self._disk.total_bytes() // 100)
        if free < wanted:
            raise OSError(errno.ENOSPC, f"{free} bytes are free, {wanted} are wanted")
        file = self._disk.open(TRIAL_FILE, create=True)
        try:
            file.append([bytes(_TRIAL_BYTES)])
            file.datasync()
        finally:
            file.close()
            self._disk.remove(TRIAL_FILE)
