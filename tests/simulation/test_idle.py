"""What a cluster does while nothing happens to it."""

from __future__ import annotations

from unittest import mock

from tests.simulation.schedule import Schedule, topics
from tests.simulation.simulation import run_schedule

from strandline_broker.replica.manager import ReplicaManager


def reconciliations(duration_s: float) -> int:
    """Return how often the brokers of a cluster without faults brought their partitions to their roles."""
    calls = 0
    reconcile = ReplicaManager.reconcile

    async def counted(manager: ReplicaManager) -> None:
        nonlocal calls
        calls += 1
        await reconcile(manager)

    schedule = Schedule(0, topics(), (), producers=0, consumers=0, members=0, duration_s=duration_s)
    with mock.patch.object(ReplicaManager, "reconcile", counted):
        verdict = run_schedule(schedule)
    assert verdict.ok, verdict.violations
    return calls


def test_a_renewed_lease_has_no_broker_go_through_its_partitions() -> None:
    # Three brokers renew every 1.2 s, and each hears of all renewals: 150 of them in these 20 s.
    assert reconciliations(40.0) - reconciliations(20.0) < 10
