"""Back-pressure of a disk that fills with records that may not be deleted yet (design section 7.4). Pure.

While the bucket is away, or slower than producers, everything that is not in it has to stay. So that the disk does not run
full, producers are slowed down from one mark on, and refused from another:

    FREE ──used ≥ throttle──▶ THROTTLED ──used ≥ refuse──▶ REFUSED
      ◀──used < throttle - HYSTERESIS──    ◀──used < refuse - HYSTERESIS──

Throttled producers may write what would fill the disk up to the second mark in `HORIZON_S`. That is measured anew every
second, so the rate falls as the room does, and whoever writes less than that notices nothing. Above the second mark the
cluster goes on alone: followers copy, coordinators commit, consumers read, until the disk is really full (ADR 0010).

A producer is throttled as by Kafka's quotas (KIP-219): its request is served, the answer says for how long nothing more is
read from its connection, and nothing is. It is refused with KAFKA_STORAGE_ERROR, what a full disk answers as well: nothing
was written, the Java client, librdkafka, franz-go and kafkajs all send the same batch again until its delivery timeout,
in order and under the same sequence, and look for another leader meanwhile. THROTTLING_QUOTA_EXCEEDED would be final for
librdkafka, NOT_ENOUGH_REPLICAS would send whoever reads it to look for brokers.

Times are arguments, in seconds of one monotonic clock. Who uses it: `api.produce` asks, `server.disk_watch` measures.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from strandline_broker.errors import ErrorCode, KafkaError

HYSTERESIS: Final = 0.02
"""So much of the disk has to be freed below a mark before it counts as passed downwards."""
HORIZON_S: Final = 300.0
"""What producers may write would use up what is left below the second mark in this time."""
LEAST_RATE: Final = 64 << 10
"""Bytes per second that are let through as long as nobody is refused."""
BURST_S: Final = 1.0
"""Whoever was below the rate for so long may catch up."""
MAX_PAUSE_S: Final = 1.0
"""Longest pause of a connection: clients wait for answers to what they have under way, each behind the pause before it."""
MAX_DEBT_S: Final = 10.0
"""What many connections wrote beyond the rate, a request each in every `MAX_PAUSE_S`, is remembered for no longer."""
NEVER: Final = 100
"""A mark, in percent, that no disk passes."""


class Pressure(StrEnum):
    """What a full disk means for producers. The values are shown."""

    FREE = "free"
    THROTTLED = "throttled"
    REFUSED = "refused"


class DiskPressure:
    """See the module. Marks are percent of the disk; `NEVER` switches one off."""

    __slots__ = (
        "_paid_at",
        "_rate",
        "_refuse",
        "_throttle",
        "free_bytes",
        "level",
        "refused",
        "refuses",
        "throttled",
        "total_bytes",
    )

    def __init__(self, throttle_percent: int = NEVER, refuse_percent: int = NEVER) -> None:
        self._throttle = throttle_percent / 100 if throttle_percent < NEVER else 2.0
        self._refuse = refuse_percent / 100 if refuse_percent < NEVER else 2.0
        self._rate = 0.0
        # When what was written so far would have been written at the rate; monotonic seconds.
        self._paid_at = 0.0
        self.level = Pressure.FREE
        self.refuses = False
        """Whether the level is REFUSED; apart, because every batch asks."""
        self.free_bytes = -1
        self.total_bytes = -1
        """As measured last; -1 for not yet."""
        self.throttled = 0
        """Requests that were followed by a pause, for metrics."""
        self.refused = 0
        """Batches that were refused, for metrics."""

    @property
    def used_ratio(self) -> float:
        """Share of the disk that is used, 0 to 1; 0 before it was measured."""
        return 1 - self.free_bytes / self.total_bytes if self.total_bytes > 0 else 0.0

    @property
    def wanted_bytes(self) -> int:
        """What to give up of what is in the bucket, so that producers need not be slowed down; 0 for nothing.

        It begins `HYSTERESIS` below the first mark, and goes on to twice that.
        """
        mark = min(self._throttle, self._refuse) - HYSTERESIS
        if self.used_ratio < mark:
            return 0
        return round((self.used_ratio - mark + HYSTERESIS) * self.total_bytes)

    @property
    def rate(self) -> float | None:
        """Bytes per second that producers may write now, None for any number."""
        return self._rate if self.level is Pressure.THROTTLED else None

    def measured(self, free_bytes: int, total_bytes: int) -> bool:
        """Take note of what is free; return whether the level changed."""
        self.free_bytes, self.total_bytes = free_bytes, total_bytes
        former = self.level
        self.level = self._next_level(self.used_ratio)
        self.refuses = self.level is Pressure.REFUSED
        room = free_bytes - max(1 - self._refuse, 0.0) * total_bytes
        self._rate = max(room / HORIZON_S, float(LEAST_RATE))
        return self.level is not former

    def _next_level(self, used: float) -> Pressure:
        held = self.level
        if used >= self._refuse - (HYSTERESIS if held is Pressure.REFUSED else 0.0):
            return Pressure.REFUSED
        if used >= self._throttle - (HYSTERESIS if held is not Pressure.FREE else 0.0):
            return Pressure.THROTTLED
        return Pressure.FREE

    def pause_s(self, byte_count: int, now: float) -> float:
        """Take note of requests of so many bytes from one connection; return how long it is to pause, in seconds.

        Who is refused, and so wrote nothing, pauses for the longest time: it would send the same again at once.
        """
        if self.level is Pressure.FREE:
            return 0.0
        if self.refuses:
            return MAX_PAUSE_S
        paid_at = max(now, self._paid_at) + byte_count / self._rate
        self._paid_at = min(paid_at, now + MAX_DEBT_S)
        pause_s = min(max(self._paid_at - now - BURST_S, 0.0), MAX_PAUSE_S)
        if pause_s > 0:
            self.throttled += 1
        return pause_s

    def refusal(self) -> KafkaError:
        """Return what a producer is told whose batch is not taken."""
        self.refused += 1
        return KafkaError(
            ErrorCode.KAFKA_STORAGE_ERROR,
            f"{self.used_ratio:.0%} of this broker's disk is used, by records that are not in the bucket yet",
        )
