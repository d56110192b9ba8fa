"""When leaderships may return to their preferred replicas: while all is calm, and a few at a time. Pure.

Kafka looks every five minutes whether a broker leads a tenth less than it should, and then moves all at once. Here a return
needs `leader.imbalance.check.interval.seconds` (10) in which every broker of the Cluster ran, none was about to stop, and
none started anew; then `RETURNING` leaderships a second go home, down to the last one (ADR 0006).
"""

from __future__ import annotations

from collections.abc import Iterable

from strandline_broker.cluster.model import BrokerIdentity

# Leaderships that return at once, and the time until the next.
RETURNING = 20
PAUSE_S = 1.0


class LeaderBalance:
    """Remembers since when all is calm; times are seconds of one monotonic clock."""

    __slots__ = ("_brokers", "_calm_since", "_next_at")

    def __init__(self) -> None:
        self._brokers: tuple[BrokerIdentity, ...] = ()
        # None while a broker is missing or about to stop.
        self._calm_since: float | None = None
        self._next_at = 0.0

    def observe(self, live: Iterable[BrokerIdentity], expected: int, now: float) -> None:
        """Take the brokers that may lead now; brokers 0 to `expected` - 1 should run."""
        brokers = tuple(live)
        if not {broker.broker_id for broker in brokers}.issuperset(range(expected)) or any(
            broker.draining for broker in brokers
        ):
            self._calm_since = None
        elif self._calm_since is None or brokers != self._brokers:
            self._calm_since = now
        self._brokers = brokers

    def wait_s(self, now: float, calm_s: float) -> float | None:
        """Return the seconds until leaderships may return, 0 for now; None while only a broker can change that."""
        if self._calm_since is None:
            return None
        return max(0.0, self._calm_since + calm_s - now, self._next_at - now)

    def returned(self, now: float) -> None:
        """Note that some have returned: the next wait for a moment."""
        self._next_at = now + PAUSE_S
