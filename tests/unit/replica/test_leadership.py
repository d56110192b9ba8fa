"""What counts as committed, who may join, who lags: the leader's bookkeeping as data."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.replica.support import state_of

from strandline_broker.cluster.model import BrokerIdentity, PartitionState, ReplicaRef
from strandline_broker.replica.leadership import JOIN_WITHIN_S, MAX_ATTEMPTS, Leadership

OWN = ReplicaRef(0, 1)
ALL = (0, 1, 2)
LIVE = {broker_id: BrokerIdentity(broker_id, 1, f"i{broker_id}") for broker_id in ALL}


def _leadership(state: PartitionState, min_isr: int = 2, epoch_start: int = 10) -> Leadership:
    return Leadership(OWN, state, min_isr, epoch_start, now=0.0)


def test_committed_is_what_every_member_has() -> None:
    leadership = _leadership(state_of((0, 1), (1, 1), (2, 1)))
    assert leadership.committed_end(20) == -1, "nobody has said anything in this epoch"
    leadership.fetched(1, 1, 15, 0, 20, now=1.0)
    assert leadership.committed_end(20) == -1
    leadership.fetched(2, 1, 17, 0, 20, now=1.0)
    assert leadership.committed_end(20) == 15
    assert leadership.committed_end(12) == 12, "what the leader has not synced itself is not committed"


def test_a_member_with_another_log_generation_does_not_count_as_that_member() -> None:
    leadership = _leadership(state_of((0, 1), (1, 1)))
    leadership.fetched(1, 7, 20, 0, 20, now=1.0)
    assert leadership.committed_end(20) == -1


def test_a_follower_may_report_less_than_before() -> None:
    leadership = _leadership(state_of((0, 1), (1, 1)))
    leadership.fetched(1, 1, 20, 0, 20, now=1.0)
    leadership.fetched(1, 1, 13, 0, 20, now=2.0)
    assert leadership.committed_end(20) == 13


def test_an_attempted_member_counts_until_it_is_known_that_it_is_none() -> None:
    state = state_of((0, 1), (1, 1), replicas=ALL)
    leadership = _leadership(state)
    leadership.fetched(1, 1, 20, 0, 20, now=1.0)
    leadership.fetched(2, 1, 12, 0, 20, now=1.0)
    grown = replace(state, isr=(*state.isr, ReplicaRef(2, 1)), partition_epoch=1)
    assert leadership.attempt(grown)
    assert leadership.committed_end(20) == 12
    leadership.confirm(replace(state, elr=(), partition_epoch=0), 2)
    assert leadership.committed_end(20) == 12, "the same partition epoch says nothing about the attempt"
    leadership.confirm(replace(state, partition_epoch=1), 2)
    assert leadership.committed_end(20) == 20, "another change took the epoch: the attempt can never hold"


def test_a_refused_attempt_counts_no_longer() -> None:
    state = state_of((0, 1), (1, 1), replicas=ALL)
    leadership = _leadership(state)
    leadership.fetched(1, 1, 20, 0, 20, now=1.0)
    grown = replace(state, isr=(*state.isr, ReplicaRef(2, 1)), partition_epoch=1)
    leadership.attempt(grown)
    leadership.give_up(grown)
    assert leadership.committed_end(20) == 20


def test_an_attempt_to_shrink_takes_nobody_out_before_it_is_confirmed() -> None:
    state = state_of((0, 1), (1, 1), (2, 1))
    leadership = _leadership(state)
    leadership.fetched(1, 1, 20, 0, 20, now=1.0)
    shrunk = replace(state, isr=state.isr[:2], partition_epoch=1)
    leadership.attempt(shrunk)
    assert leadership.committed_end(20) == -1
    leadership.confirm(shrunk, 2)
    assert leadership.committed_end(20) == 20


def test_open_attempts_are_bounded_and_the_same_one_is_counted_once() -> None:
    state = state_of((0, 1), replicas=ALL)
    leadership = _leadership(state)
    for generation in range(MAX_ATTEMPTS):
        attempt = replace(state, isr=(OWN, ReplicaRef(1, generation)), partition_epoch=1)
        assert leadership.attempt(attempt)
        assert leadership.attempt(attempt)
    assert not leadership.attempt(replace(state, isr=(OWN, ReplicaRef(2, 1)), partition_epoch=1))


def test_below_the_minimum_nothing_is_committed() -> None:
    state = state_of((0, 1), (1, 1))
    leadership = _leadership(state, min_isr=2)
    frozen = [leadership.frozen]
    leadership.confirm(replace(state, isr=state.isr[:1], partition_epoch=1), 2)
    frozen.append(leadership.frozen)
    leadership.attempt(replace(state, partition_epoch=2))
    frozen.append(leadership.frozen)
    assert frozen == [False, True, True], "an attempted member is no member yet"


def test_who_joins_has_the_high_watermark_and_the_start_of_the_epoch() -> None:
    leadership = _leadership(state_of((0, 1), (1, 1), replicas=ALL), epoch_start=10)
    for log_end, high_watermark, joins in ((9, 5, False), (10, 5, True), (10, 11, False), (11, 11, True)):
        leadership.fetched(2, 1, log_end, 0, 20, now=1.0)
        found = [progress.broker_id for progress in leadership.joiners(LIVE, high_watermark, now=1.0)]
        assert found == ([2] if joins else []), (log_end, high_watermark)


def test_who_joins_fetched_with_the_generation_in_its_lease_and_not_long_ago() -> None:
    leadership = _leadership(state_of((0, 1), (1, 1), replicas=ALL))
    leadership.fetched(2, 9, 20, 0, 20, now=1.0)
    assert leadership.joiners(LIVE, 10, now=1.0) == []
    leadership.fetched(2, 1, 20, 0, 20, now=1.0)
    assert len(leadership.joiners(LIVE, 10, now=1.0 + JOIN_WITHIN_S)) == 1
    assert leadership.joiners(LIVE, 10, now=1.1 + JOIN_WITHIN_S) == []
    draining = {**LIVE, 2: LIVE[2]._replace(draining=True)}
    assert leadership.joiners(draining, 10, now=1.0) == []


def test_a_member_lags_when_it_has_not_caught_up_for_too_long() -> None:
    leadership = _leadership(state_of((0, 1), (1, 1), (2, 1)))
    leadership.fetched(1, 1, 20, 0, 20, now=1.0)
    # Broker 2 stays behind; broker 1 has everything there was at its last fetch but one.
    leadership.fetched(2, 1, 15, 0, 20, now=1.0)
    leadership.fetched(1, 1, 30, 0, 40, now=9.0)
    leadership.fetched(2, 1, 18, 0, 40, now=9.0)
    assert leadership.lagging(40, now=10.0, lag_max_s=10.0) == []
    assert leadership.lagging(40, now=10.5, lag_max_s=10.0) == [2]
    assert leadership.lagging(40, now=30.0, lag_max_s=10.0) == [1, 2]


def test_a_silent_member_that_has_everything_does_not_lag() -> None:
    leadership = _leadership(state_of((0, 1), (1, 1)))
    leadership.fetched(1, 1, 20, 0, 20, now=1.0)
    assert leadership.lagging(20, now=1000.0, lag_max_s=10.0) == []


def test_a_member_that_was_never_heard_of_lags_after_the_time_since_the_epoch_began() -> None:
    leadership = _leadership(state_of((0, 1), (1, 1)))
    assert leadership.lagging(20, now=10.0, lag_max_s=10.0) == []
    assert leadership.lagging(20, now=10.1, lag_max_s=10.0) == [1]


def test_only_growth_has_to_survive_a_restart() -> None:
    state = state_of((0, 1), (1, 1), replicas=ALL)
    leadership = _leadership(state)
    grown = replace(state, isr=(*state.isr, ReplicaRef(2, 1)), partition_epoch=1)
    leadership.attempt(replace(state, isr=state.isr[:1], partition_epoch=1))
    leadership.attempt(grown)
    assert list(leadership.unconfirmed_growth()) == [grown]
