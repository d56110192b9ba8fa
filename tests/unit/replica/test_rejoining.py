"""A follower that left the ISR joins again by a fetch, not by what it had when it left: it may be dead."""

from __future__ import annotations

from tests.unit.replica.support import state_of

from strandline_broker.cluster.model import BrokerIdentity, ReplicaRef
from strandline_broker.replica.leadership import Leadership

LIVE = {broker_id: BrokerIdentity(broker_id, 1, "i") for broker_id in range(3)}
ALL = ((0, 1), (1, 1), (2, 1))


def _leadership() -> Leadership:
    """Everybody is in sync at offset 5."""
    leadership = Leadership(ReplicaRef(0, 1), state_of(*ALL), 2, 0, now=0.0)
    for broker_id in (1, 2):
        leadership.fetched(broker_id, 1, 5, 0, 5, now=1.0)
    return leadership


def _joiners(leadership: Leadership) -> list[int]:
    return [progress.broker_id for progress in leadership.joiners(LIVE, 5, now=2.0)]


def test_one_that_was_taken_out_is_not_taken_back_before_it_fetches() -> None:
    leadership = _leadership()
    leadership.confirm(state_of((0, 1), (1, 1), partition_epoch=1, replicas=(0, 1, 2)), 2)
    assert _joiners(leadership) == []
    leadership.confirm(state_of((0, 1), (1, 1), partition_epoch=2, replicas=(0, 1, 2)), 2)
    assert _joiners(leadership) == [], "another change of the partition is no fetch"
    leadership.fetched(2, 1, 5, 0, 5, now=2.0)
    assert _joiners(leadership) == [2]


def test_what_it_had_is_remembered_for_the_low_watermark() -> None:
    leadership = _leadership()
    leadership.fetched(2, 1, 5, 3, 5, now=1.0)
    leadership.confirm(state_of((0, 1), (1, 1), partition_epoch=1, replicas=(0, 1, 2)), 2)
    assert leadership.low_watermark(4, LIVE) == 0
    leadership.fetched(1, 1, 5, 4, 5, now=2.0)
    assert leadership.low_watermark(4, LIVE) == 3


def test_one_that_catches_up_for_the_first_time_joins_at_once() -> None:
    leadership = Leadership(ReplicaRef(0, 1), state_of((0, 1), (1, 1), replicas=(0, 1, 2)), 2, 0, now=0.0)
    assert _joiners(leadership) == []
    leadership.fetched(2, 1, 5, 0, 5, now=1.0)
    assert _joiners(leadership) == [2]
