"""Limits of replication (KIP-73): bytes per second of the replicas that a topic's configuration names. Pure.

One `ReplicationThrottle` for each direction: what this broker sends as a leader, and what it copies as a follower. As in
Apache Kafka the topic says which replicas, the broker says how fast, and nothing is held back but what is throttled and
not in sync: a follower in the ISR never waits, though its bytes count. A rate below what producers write to the throttled
partitions therefore never lets the others catch up.

Times are arguments, in seconds of one monotonic clock. Source: Apache Kafka, `ReplicationQuotaManager`,
`ReplicaManager.shouldLeaderThrottle`; there a rate is measured over 11 windows of a second, here it is a token bucket.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

LEADER_REPLICAS = "leader.replication.throttled.replicas"
FOLLOWER_REPLICAS = "follower.replication.throttled.replicas"
LEADER_RATE = "leader.replication.throttled.rate"
FOLLOWER_RATE = "follower.replication.throttled.rate"

BURST_S = 1.0
"""What was not used is kept for so long."""
MAX_WAIT_S = 1.0
"""Whoever is held back asks again after this: the rate may have been raised."""
_PARSED_LISTS = 1024
_EVERY = "*"


class TokenBucket:
    """Bytes that may pass now, refilled at `rate` (bytes per second; None: no limit).

    What passes is known only afterwards, so the bucket may go into debt; nothing passes before that is paid.
    """

    __slots__ = ("_rate", "_refilled_at", "_tokens")

    def __init__(self) -> None:
        self._rate: float | None = None
        self._tokens = 0.0
        self._refilled_at = 0.0

    @property
    def rate(self) -> float | None:
        """Bytes per second, None for no limit."""
        return self._rate

    def set_rate(self, rate: float | None, now: float) -> None:
        """Change the limit. One that is new starts with a full bucket; a debt stays, and is paid at the new rate."""
        if rate == self._rate:
            return
        if self._rate is None or rate is None:
            self._tokens = BURST_S * (rate or 0.0)
        else:
            self._refill(now)
            self._tokens = min(self._tokens, BURST_S * rate)
        self._rate = rate
        self._refilled_at = now

    def _refill(self, now: float) -> None:
        assert self._rate is not None
        self._tokens = min(BURST_S * self._rate, self._tokens + (now - self._refilled_at) * self._rate)
        self._refilled_at = now

    def wait_s(self, now: float) -> float:
        """Return after how many seconds something may pass: 0 for now, at most `MAX_WAIT_S`."""
        if self._rate is None:
            return 0.0
        self._refill(now)
        if self._tokens > 0:
            return 0.0
        if self._rate == 0:
            return MAX_WAIT_S
        # One byte more than the debt: at zero nothing passes yet.
        return min(MAX_WAIT_S, (1.0 - self._tokens) / self._rate)

    def spend(self, byte_count: int, now: float) -> None:
        """Take note of bytes that passed."""
        if self._rate is not None:
            self._refill(now)
            self._tokens -= byte_count


class Replica(NamedTuple):
    """One partition on one broker."""

    partition: int
    broker_id: int


class ThrottledReplicas(NamedTuple):
    """What one of the two topic configurations says: all replicas of the topic, or these."""

    every: bool
    named: frozenset[Replica]

    def has(self, partition: int, broker_id: int) -> bool:
        """Say whether the replica of `partition` on that broker is named."""
        return self.every or (partition, broker_id) in self.named


@lru_cache(maxsize=_PARSED_LISTS)
def parse_throttled_replicas(text: str) -> ThrottledReplicas:
    """Return what `*` or `partition:broker,...` names; what the store holds around the admin API's checks names nobody."""
    named = set()
    for item in text.split(","):
        index, _, broker_id = item.strip().partition(":")
        if index.isdecimal() and broker_id.isdecimal():
            named.add(Replica(int(index), int(broker_id)))
    return ThrottledReplicas(text.strip() == _EVERY, frozenset(named))


class ReplicationThrottle:
    """One direction of one broker. `replicas_of` returns the topic configuration that names the throttled replicas."""

    __slots__ = ("_broker_id", "_bucket", "_replicas_of", "held_back", "passed_bytes")

    def __init__(self, broker_id: int, replicas_of: Callable[[str], str]) -> None:
        self._broker_id = broker_id
        self._replicas_of = replicas_of
        self._bucket = TokenBucket()
        self.passed_bytes = 0
        self.held_back = 0
        """Bytes of throttled replicas that passed, and times that one had to wait, for metrics."""

    @property
    def rate(self) -> float | None:
        """Bytes per second, None for no limit."""
        return self._bucket.rate

    def set_rate(self, rate: float | None, now: float) -> None:
        """Change the limit."""
        self._bucket.set_rate(rate, now)

    def names(self, topic: str, partition: int) -> bool:
        """Whether this broker's replica of a partition is throttled."""
        if self._bucket.rate is None:
            return False
        text = self._replicas_of(topic)
        return bool(text) and parse_throttled_replicas(text).has(partition, self._broker_id)

    def wait_s(self, topic: str, partition: int, now: float) -> float:
        """Return for how many seconds a replica that is not in sync has to wait; 0 for not at all."""
        if not self.names(topic, partition):
            return 0.0
        wait_s = self._bucket.wait_s(now)
        if wait_s > 0:
            self.held_back += 1
        return wait_s

    def passed(self, topic: str, partition: int, byte_count: int, now: float) -> None:
        """Count bytes that were copied, whether the replica is in sync or not."""
        if self.names(topic, partition):
            self.passed_bytes += byte_count
            self._bucket.spend(byte_count, now)
