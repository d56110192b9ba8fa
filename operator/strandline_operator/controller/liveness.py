"""Which brokers live, judged by Leases that change and by processes that were seen to end.

A broker is down when its Lease has not *changed* for the lease duration by this process's own monotonic clock (what the
Lease says about time is never read), when it let its Lease go, or when somebody who can know (a kubelet, the supervisor
of `strandline dev`) says that the process ended. Safety never depends on it (invariant 2): a wrong verdict costs an
election, not a record.

Time alone judges nobody: a store that stands still, or whose watches are late, looks as if no broker renewed. The verdict
needs a consistent list of the Leases that was asked for after the duration was over (design section 3.5). And while no
Lease changes at all, a list now and then tells a store that stands still from brokers that do: what it takes the store
to answer counts against nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from strandline_broker.cluster.model import BrokerIdentity, BrokerLease, BrokerPhase

# Shares of a lease duration. Leases are renewed every 0.3 of it: when none has changed for longer than this, look.
_QUIET_SHARE: Final = 0.35
# A store that takes longer than this for a list stood still meanwhile.
_SLOW_SHARE: Final = 0.1


@dataclass(slots=True)
class _Seen:
    lease: BrokerLease
    changed_at: float
    # Time granted on top since then, because nobody looked.
    granted_s: float = 0.0
    # A list has confirmed that the duration is over; only a change of the Lease takes it back.
    expired: bool = False

    @property
    def duration_s(self) -> float:
        return self.lease.lease_duration_ms / 1000


class LivenessTracker:
    """Remembers when each Lease last changed; all times are seconds of one monotonic clock."""

    __slots__ = ("_asked_at", "_ended", "_heard_at", "_seen")

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}
        # When the store last said something about Leases, and since when it owes an answer.
        self._heard_at = 0.0
        self._asked_at: float | None = None
        # Incarnations known to have ended, at most one per broker.
        self._ended: dict[int, str] = {}

    def observe(self, leases: Iterable[BrokerLease], now: float) -> None:
        """Take the current Leases of the cluster, all of them; call it after every change and before every verdict."""
        current = {lease.broker_id: lease for lease in leases}
        changed = [lease for lease in current.values() if self._is_news(lease)]
        if changed:
            self._hear(now)
        for broker_id in self._seen.keys() - current.keys():
            del self._seen[broker_id]
            self._ended.pop(broker_id, None)
        for lease in changed:
            self._seen[lease.broker_id] = _Seen(lease, now)
        for broker_id, lease in current.items():
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

    def asks(self, now: float) -> None:
        """Note that a consistent list of the Leases is asked for; `answered` or `unanswered` says how that ended."""
        self._asked_at = now

    def answered(self, now: float) -> None:
        """Judge, after `observe` got the list that was asked for."""
        asked_at = self._asked_at
        assert asked_at is not None, "nobody asked"
        self._hear(now)
        self._asked_at = None
        for seen in self._seen.values():
            seen.expired |= asked_at >= seen.changed_at + seen.duration_s

    def unanswered(self) -> None:
        """Note that the store failed to answer; `was_blind` follows when it is back."""
        self._asked_at = None

    def was_blind(self, now: float) -> None:
        """Start all waiting times again: for a while nobody would have noticed a renewal."""
        self._heard_at = now
        for seen in self._seen.values():
            seen.changed_at = now

    def did_not_look(self, gap_s: float, now: float) -> None:
        """Leave out of all waiting times a while until `now` in which this process itself did not run.

        No more than one lease duration is granted to a Lease that does not change: a process that is held up again and
        again must find out who is dead, too.
        """
        self._heard_at = min(now, self._heard_at + gap_s)
        for seen in self._seen.values():
            duration_s = seen.duration_s
            left_s = max(0.0, seen.changed_at + duration_s - now)
            wanted_s = max(0.0, min(now, seen.changed_at + gap_s) + duration_s - now) - left_s
            more_s = min(wanted_s, duration_s - seen.granted_s)
            if more_s > 0.0:
                seen.changed_at = now - duration_s + left_s + more_s
                seen.granted_s += more_s

    def holds(self, broker_id: int) -> bool:
        """Say whether the broker's process counts as alive, in whatever phase."""
        seen = self._seen.get(broker_id)
        return seen is not None and self._alive(seen)

    def live(self) -> tuple[BrokerIdentity, ...]:
        """Return the brokers that may lead and follow: alive, and past recovery."""
        return tuple(
            seen.lease.identity
            for _, seen in sorted(self._seen.items())
            if self._alive(seen) and seen.lease.state is not BrokerPhase.STARTING
        )

    def list_due_s(self, now: float) -> float | None:
        """Return the seconds until the Leases should be listed, because a duration is over or no Lease changes at all.

        None while nobody is alive about whom it could say something.
        """
        due = [
            min(seen.changed_at + seen.duration_s, self._heard_at + _QUIET_SHARE * seen.duration_s)
            for seen in self._seen.values()
            if self._alive(seen)
        ]
        return max(0.0, min(due) - now) if due else None

    def _is_news(self, lease: BrokerLease) -> bool:
        seen = self._seen.get(lease.broker_id)
        return seen is None or (seen.lease.uid, seen.lease.resource_version) != (
            lease.uid,
            lease.resource_version,
        )

    def _hear(self, now: float) -> None:
        """Note that the store speaks. If it owed an answer for long, no renewal could be stored since it spoke last."""
        asked_at, heard_at = self._asked_at, self._heard_at
        if asked_at is not None and self._seen:
            shortest_s = min(seen.duration_s for seen in self._seen.values())
            if now - max(asked_at, heard_at) > _SLOW_SHARE * shortest_s:
                self.did_not_look(now - heard_at, now)
        self._heard_at = now

    def _alive(self, seen: _Seen) -> bool:
        lease = seen.lease
        return lease.held and self._ended.get(lease.broker_id) != lease.incarnation and not seen.expired
