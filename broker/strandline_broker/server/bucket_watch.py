"""Whether this broker's bucket answers and keeps up, and how full its disk is, as far as people should learn of it.

Looked at every few seconds from what is counted anyway. The Lease says it (`cluster.model.StorageReport`) and changes only
when something flips; the controller makes conditions of the Cluster from what all brokers say (design section 7.4).

A bucket that has given no answer for a while is asked for an object that nobody has: whoever wants nothing of it for hours
must learn that it went away, and that it is back. That costs one GET per `QUIET_S` at most, some cents a month.

Made and run by `server.broker` where there is a bucket.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from strandline_broker.cluster.lease_keeper import LeaseLost, micro_time
from strandline_broker.cluster.model import StorageReport
from strandline_broker.cluster.model.storage_report import BUCKET_READY, MAX_MESSAGE
from strandline_tiered.leadership import Phase
from strandline_tiered.object_store import NoSuchObject, ObjectStoreError, Refused
from strandline_tiered.probe import PROBE_PREFIX

if TYPE_CHECKING:
    from strandline_broker.cluster.lease_keeper import LeaseKeeper
    from strandline_broker.replica.disk_pressure import DiskPressure
    from strandline_broker.seams.clock import Clock
    from strandline_broker.server.tiering import Tiering
    from strandline_tiered.probe import Capabilities

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S: Final = 5.0
QUIET_S: Final = 30.0
"""So long without an answer before the bucket is asked: a storm of 503, or an hour without work, is no outage."""
ASK_TIMEOUT_S: Final = 10.0
LATE_FACTOR: Final = 2
LATE_LEAST_MS: Final = 60_000
"""Records should be in the bucket at twice the age at which segments are sealed, or a minute after it if that is later."""
IN_TIME_AGAIN: Final = 0.75
"""Share of that age below which they are in time again."""
_ANNOUNCE_TIMEOUT_S: Final = 10.0
_NOBODYS_KEY: Final = f"{PROBE_PREFIX}/nothing"
_UNAVAILABLE: Final = "Unavailable"


class BucketFindings:
    """What was found so far. Pure: `now` is seconds of a monotonic clock, `now_ms` the wall clock."""

    __slots__ = (
        "_answered_at",
        "_answered_at_ms",
        "_answers",
        "_away_since",
        "_late_after_ms",
        "_trouble",
        "_unprotected_since",
        "stuck",
    )

    def __init__(self, max_unuploaded_age_ms: int, now: float, now_ms: int) -> None:
        self._late_after_ms = max(LATE_FACTOR * max_unuploaded_age_ms, max_unuploaded_age_ms + LATE_LEAST_MS)
        self._answers = 0
        # At first, when it could first have answered.
        self._answered_at, self._answered_at_ms = now, now_ms
        self._away_since = ""
        self._trouble = ("", "")
        self._unprotected_since = ""
        self.stuck = 0

    def answers(self, count: int, now: float, now_ms: int) -> None:
        """Take note of how many requests the bucket has answered since the start."""
        if count > self._answers:
            self._answers, self._answered_at, self._answered_at_ms = count, now, now_ms
            self._away_since, self._trouble = "", ("", "")

    def must_ask(self, now: float) -> bool:
        """Say whether nothing was heard of the bucket for so long that it should be asked."""
        return bool(self._away_since) or now - self._answered_at >= QUIET_S

    def no_answer(self, reason: str, message: str) -> None:
        """Take note that it was asked, and what came of it: one word, and a text for people."""
        if not self._away_since:
            self._away_since = _time(self._answered_at_ms)
            # As it was first: texts differ from try to try, and every other one would be news.
            self._trouble = reason, message[:MAX_MESSAGE]

    def oldest_unprotected(self, age_ms: int, now_ms: int) -> None:
        """Take note of the age of the oldest record that is led here and not in the bucket; 0 for none."""
        if not self._unprotected_since and age_ms > self._late_after_ms:
            self._unprotected_since = _time(now_ms - age_ms)
        elif age_ms <= IN_TIME_AGAIN * self._late_after_ms:
            self._unprotected_since = ""

    def report(self, capabilities: Capabilities | None, producers: str) -> StorageReport:
        """Return what the Lease should say; `capabilities` is None before the bucket was tried."""
        if self._away_since:
            reason, message = self._trouble
        elif capabilities is None:
            reason = message = ""
        elif capabilities.usable:
            reason, message = BUCKET_READY, ""
        else:
            reason, message = capabilities.reason, capabilities.trouble[:MAX_MESSAGE]
        return StorageReport(
            bucket=reason,
            message=message,
            conditional_writes=capabilities is not None and capabilities.conditional_writes,
            away_since=self._away_since,
            unprotected_since=self._unprotected_since,
            stuck=self.stuck,
            producers=producers,
        )


class BucketWatch:
    """See the module. It also has the bucket tried for what it can do, at its start."""

    def __init__(
        self,
        tiering: Tiering,
        max_unuploaded_age_ms: int,
        *,
        pressure: DiskPressure,
        lease_keeper: LeaseKeeper,
        clock: Clock,
    ) -> None:
        self._tiering = tiering
        self._pressure = pressure
        self._lease_keeper = lease_keeper
        self._clock = clock
        self.findings = BucketFindings(max_unuploaded_age_ms, clock.monotonic(), clock.now_ms())

    async def run(self) -> None:
        """Watch until cancelled."""
        await asyncio.gather(self._tiering.probe(), self._look_again_and_again())

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            await self.look()

    async def look(self) -> None:
        """Look, ask the bucket if need be, and change the Lease if somebody should learn of what was found."""
        tiering, clock = self._tiering, self._clock
        self.findings.answers(tiering.counts.answers, clock.monotonic(), clock.now_ms())
        if self.findings.must_ask(clock.monotonic()):
            await self._ask()
        self._look_at_partitions()
        report = self.findings.report(tiering.capabilities, self._pressure.level.value)
        former = self._lease_keeper.lease.storage
        if report != former:
            self._log(former, report)
            await self._announce(report)

    async def _ask(self) -> None:
        clock, tiering = self._clock, self._tiering
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await tiering.store.get(_NOBODYS_KEY, 0, 1)
        except NoSuchObject:
            pass  # an answer
        except Refused as refused:
            self.findings.no_answer(refused.reason, str(refused))
        except ObjectStoreError as error:
            self.findings.no_answer(_UNAVAILABLE, str(error))
        except TimeoutError:
            # The store tries for longer than this.
            why = tiering.counts.last_failure or f"no answer within {ASK_TIMEOUT_S:.0f} s"
            self.findings.no_answer(_UNAVAILABLE, why)
        self.findings.answers(tiering.counts.answers, clock.monotonic(), clock.now_ms())

    def _look_at_partitions(self) -> None:
        oldest_ms = stuck = 0
        for archiver in self._tiering:
            figures = self._tiering.figures(archiver.partition)
            if figures is None:
                continue
            stuck += figures.phase == Phase.STUCK.value
            if archiver.copies and figures.remote_end >= 0:
                oldest_ms = max(oldest_ms, figures.unprotected_age_ms)
        self.findings.stuck = stuck
        self.findings.oldest_unprotected(oldest_ms, self._clock.now_ms())

    def _log(self, former: StorageReport, report: StorageReport) -> None:
        if report.away_since and not former.away_since:
            logger.error("no answer from the bucket since %s: %s", report.away_since, report.message)
        elif former.away_since and not report.away_since:
            logger.warning("the bucket answers again")
        if report.unprotected_since and not former.unprotected_since:
            logger.error("records of %s should be in the bucket by now", report.unprotected_since)
        elif former.unprotected_since and not report.unprotected_since:
            logger.warning("records come into the bucket in time again")

    async def _announce(self, report: StorageReport) -> None:
        try:
            async with asyncio.timeout(_ANNOUNCE_TIMEOUT_S):
                await self._lease_keeper.update(storage=report)
        except TimeoutError:
            logger.warning("the Lease does not say yet how the bucket is; its next renewal will")
        except LeaseLost:
            pass  # this process is about to end


def _time(ms: int) -> str:
    """Return wall-clock milliseconds as RFC 3339, whole seconds: people read it."""
    return f"{micro_time(ms).partition('.')[0]}Z"
