"""Which brokers live, judged by Leases that change and by processes that were seen to end.

A broker is down when its Lease has not *changed* for the lease duration by this process's own monotonic clock (what the
Lease says about time is never read), when it let its Lease go, or when somebody who can know (a kubelet, the supervisor
of `strandline dev`) says that the process ended. Safety never depends on it (invariant 2): a wrong verdict costs an
election, not a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from strandline_broker.cluster.model import BrokerIdentity, BrokerLease, BrokerPhase


@dataclass(slots=True)
class _Seen:
    lease: BrokerLease
    changed_at: float
    # Time granted on top since then, because nobody looked.
    granted_s: float = 0.0


class LivenessTracker:
    """Remembers when each Lease last changed; all times are seconds of one monotonic clock."""

    __slots__ = ("_ended", "_seen")

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}
        # Incarnations known to have ended, at most one per broker.
        self._ended: dict[int, str] = {}

    def observe(self, leases: Iterable[BrokerLease], now: float) -> None:
        """Take the current Leases of the cluster, all of them; call it after every change and before every verdict."""
        current = {lease.broker_id: lease for lease in leases}
        for broker_id in self._seen.keys() - current.keys():
            del self._seen[broker_id]
            self._ended.pop(broker_id, None)
        for broker_id, lease in current.items():
            seen = self._seen.get(broker_id)
            if seen is None or (seen.lease.uid, seen.lease.resource_version) != (
                lease.uid,
                lease.resource_version,
            ):
                self._seen[broker_id] = _Seen(lease, now)
            if self._ended.get(broker_id, lease.incarnation) != lease.incarnation:
                del self._ended[broker_id]

    def process_ended(self, broker_id: int, incarnation: str | None = None) -> None:
        """Note that the process behind the broker's current Lease is gone; a new incarnation clears it.

        Who knows which `incarnation` ended says so: then nothing happens to a successor that holds the Lease already.
        """
        seen = self._seen.get(broker_id)
        if seen is None:
            if incarnation is not None:
                self._ended[broker_id] = incarnation
        elif incarnation is None or seen.lease.incarnation == incarnation:
            self._ended[broker_id] = seen.lease.incarnation

    def forget_incarnations(self, incarnations: Mapping[int, str]) -> None:
        """Note that these incarnations have ended, seen or not; others of the same brokers clear it."""
        self._ended.update(incarnations)

    def was_blind(self, now: float) -> None:
        """Start all waiting times again: for a while nobody would have noticed a renewal."""
        for seen in self._seen.values():
            seen.changed_at = now

    def did_not_look(self, gap_s: float, now: float) -> None:
        """Leave out of all waiting times a while until `now` in which this process itself did not run.

        No more than one lease duration is granted to a Lease that does not change: a process that is held up again and
        again must find out who is dead, too.
        """
        for seen in self._seen.values():
            duration_s = seen.lease.lease_duration_ms / 1000
            left_s = max(0.0, seen.changed_at + duration_s - now)
            wanted_s = max(0.0, min(now, seen.changed_at + gap_s) + duration_s - now) - left_s
            more_s = min(wanted_s, duration_s - seen.granted_s)
            if more_s > 0.0:
                seen.changed_at = now - duration_s + left_s + more_s
                seen.granted_s += more_s

    def holds(self, broker_id: int, now: float) -> bool:
        """Say whether the broker's process counts as alive, in whatever phase."""
        seen = self._seen.get(broker_id)
        return seen is not None and self._alive(seen, now)

    def live(self, now: float) -> tuple[BrokerIdentity, ...]:
        """Return the brokers that may lead and follow: alive, and past recovery."""
        return tuple(
            seen.lease.identity
            for _, seen in sorted(self._seen.items())
            if self._alive(seen, now) and seen.lease.state is not BrokerPhase.STARTING
        )

    def next_expiry(self, now: float) -> float | None:
        """Return the seconds until the next verdict may change by time alone, or None if none can."""
        remaining = [
            seen.changed_at + seen.lease.lease_duration_ms / 1000 - now
            for seen in self._seen.values()
            if self._alive(seen, now)
        ]
        return max(0.0, min(remaining)) if remaining else None

    def _alive(self, seen: _Seen, now: float) -> bool:
        lease = seen.lease
        if not lease.held or self._ended.get(lease.broker_id) == lease.incarnation:
            return False
        return now - seen.changed_at < lease.lease_duration_ms / 1000
