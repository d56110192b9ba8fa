"""A follower that left the ISR joins again by a fetch, not by what it had when it left: it may be dead."""

from __future__ import annotations

import itertools

from tests.unit.replica.support import state_of

from strandline_broker.cluster.model import BrokerIdentity, ReplicaRef
from strandline_broker.replica.leadership import REJOIN_FIRST_S, REJOIN_MAX_S, Leadership

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


def test_one_that_is_taken_out_as_often_as_it_is_taken_in_waits_longer_each_time() -> None:
    leadership = _leadership()
    epoch = 0
    taken_in: list[float] = []
    now = 2.0
    while now < 40.0:
        leadership.fetched(2, 1, 5, 0, 5, now=now)
        for isr in (((0, 1), (1, 1)), ALL):
            # Out, by whosever decision; and in again as soon as it may.
            if isr == ALL:
                if [found.broker_id for found in leadership.joiners(LIVE, 5, now)] != [2]:
                    continue
                taken_in.append(now)
            epoch += 1
            leadership.confirm(state_of(*isr, partition_epoch=epoch, replicas=(0, 1, 2)), 2)
            leadership.fetched(2, 1, 5, 0, 5, now=now)
        now += 0.25
    waits = [later - sooner for sooner, later in itertools.pairwise(taken_in)]
    assert waits == [1.0, 2.0, 4.0, REJOIN_MAX_S, REJOIN_MAX_S, REJOIN_MAX_S]


def test_one_that_stayed_in_for_long_is_taken_back_at_once() -> None:
    leadership = _leadership()
    for epoch, isr in enumerate((((0, 1), (1, 1)), ALL), 1):
        leadership.confirm(state_of(*isr, partition_epoch=epoch, replicas=(0, 1, 2)), 2)
        leadership.fetched(2, 1, 5, 0, 5, now=2.0)
        _joiners(leadership)
    later = 2.0 + 2 * REJOIN_MAX_S + 1.0
    assert leadership.joiners(LIVE, 5, later) == []  # it is in
    leadership.confirm(state_of((0, 1), (1, 1), partition_epoch=3, replicas=(0, 1, 2)), 2)
    leadership.fetched(2, 1, 5, 0, 5, now=later)
    assert [found.broker_id for found in leadership.joiners(LIVE, 5, later)] == [2]
    assert leadership.followers[2].rejoin_wait_s == REJOIN_FIRST_S
