"""The small pieces of the controller: liveness, pacing, conditions, durations, names of taken topics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from strandline_broker.cluster.model import BrokerIdentity, BrokerLease, BrokerPhase
from strandline_operator.controller.balance import PAUSE_S, LeaderBalance
from strandline_operator.controller.conditions import Reason, Trouble, conditions, flipped
from strandline_operator.controller.durations import parse_duration_ms
from strandline_operator.controller.liveness import LivenessTracker
from strandline_operator.controller.pacing import STATUS_INTERVAL_S, StatusPacer
from strandline_operator.controller.world import format_time, parse_time_ms

RUNNING = BrokerLease(0, "a", 5, {}, state=BrokerPhase.RUNNING, cluster="demo", uid="u", resource_version="1")


def ids(tracker: LivenessTracker, now: float) -> list[int]:
    """The brokers that live when a list of the Leases at `now` says what is known already."""
    tracker.asks(now)
    tracker.answered(now)
    return [broker.broker_id for broker in tracker.live()]


def test_a_broker_is_down_when_its_lease_did_not_change_for_its_duration() -> None:
    tracker = LivenessTracker()
    tracker.observe([RUNNING], 0.0)
    tracker.observe([RUNNING], 9.0)  # seen again, not changed
    assert ids(tracker, 9.9) == [0]
    assert tracker.list_due_s(9.9) == pytest.approx(0.1)
    assert ids(tracker, 10.0) == []
    assert tracker.list_due_s(10.0) is None
    tracker.observe([replace(RUNNING, resource_version="2")], 12.0)
    assert ids(tracker, 21.9) == [0]


def test_no_verdict_without_a_list_that_was_asked_for_when_the_time_was_over() -> None:
    tracker = LivenessTracker()
    tracker.observe([RUNNING], 0.0)
    tracker.asks(9.8)
    tracker.answered(10.3)
    assert tracker.live(), "the list may have been made before the time was over"
    assert tracker.list_due_s(10.3) == 0.0
    tracker.asks(10.3)
    assert tracker.live()
    tracker.unanswered()
    assert tracker.live(), "a store that does not answer says nothing about brokers"
    assert ids(tracker, 10.4) == []


def test_a_list_that_shows_a_renewal_saves_a_broker_whose_watch_is_late() -> None:
    tracker = LivenessTracker()
    tracker.observe([RUNNING], 0.0)
    tracker.asks(10.0)
    tracker.observe([replace(RUNNING, resource_version="2")], 10.1)
    tracker.answered(10.1)
    assert tracker.live()
    assert ids(tracker, 20.0) == [0]
    assert ids(tracker, 20.1) == []


def test_when_no_lease_changes_the_store_is_asked_whether_it_stands_still() -> None:
    tracker = LivenessTracker()
    other = replace(RUNNING, broker_id=1)
    tracker.observe([RUNNING, other], 0.0)
    assert tracker.list_due_s(1.0) == 2.5
    tracker.observe([RUNNING, replace(other, resource_version="2")], 3.0)
    assert tracker.list_due_s(3.0) == 3.5
    assert ids(tracker, 6.5) == [0, 1]
    assert tracker.list_due_s(6.5) == 3.5


def test_the_time_in_which_a_store_stood_still_counts_against_nobody() -> None:
    tracker = LivenessTracker()
    tracker.observe([RUNNING], 0.0)
    tracker.asks(3.5)
    tracker.answered(9.5)  # nothing is new: the broker could not renew either
    assert ids(tracker, 10.0) == [0]
    assert ids(tracker, 19.4) == [0]
    assert ids(tracker, 19.5) == []


def test_a_renewal_may_be_the_first_word_of_a_store_that_stood_still() -> None:
    tracker = LivenessTracker()
    other = replace(RUNNING, broker_id=1)
    tracker.observe([RUNNING, other], 0.0)
    tracker.asks(3.5)
    tracker.observe([RUNNING, replace(other, resource_version="2")], 12.0)
    tracker.answered(12.0)
    assert ids(tracker, 21.9) == [0, 1]
    assert ids(tracker, 22.0) == []


def test_a_store_that_is_always_slow_hides_no_dead_broker() -> None:
    tracker = LivenessTracker()
    tracker.observe([RUNNING], 0.0)
    now = 0.0
    while tracker.live():
        tracker.asks(now)
        now += 2.0
        tracker.answered(now)
        assert now < 30.0
    assert now > 10.0


def test_what_the_lease_says_about_time_is_never_read() -> None:
    tracker = LivenessTracker()
    tracker.observe([replace(RUNNING, renew_time="1999-01-01T00:00:00.000000Z")], 0.0)
    assert ids(tracker, 5.0) == [0]


def test_who_knows_which_life_ended_harms_no_successor() -> None:
    tracker = LivenessTracker()
    tracker.process_ended(0, "a")  # before its Lease was seen
    tracker.observe([RUNNING], 0.0)
    assert ids(tracker, 0.0) == []
    successor = replace(RUNNING, incarnation="b", resource_version="2")
    tracker.observe([successor], 1.0)
    tracker.process_ended(0, "a")  # the kubelet tells late
    assert ids(tracker, 1.0) == [0]
    tracker.process_ended(0, "b")
    assert ids(tracker, 1.0) == []


def test_after_being_blind_a_full_duration_passes_before_a_verdict() -> None:
    tracker = LivenessTracker()
    tracker.observe([RUNNING], 0.0)
    tracker.was_blind(9.0)
    assert ids(tracker, 18.9) == [0]
    assert ids(tracker, 19.0) == []
    tracker.was_blind(20.0)
    assert ids(tracker, 20.0) == [], "a verdict stands until the Lease changes"


def test_time_in_which_nobody_looked_counts_against_nobody() -> None:
    tracker = LivenessTracker()
    tracker.observe([RUNNING], 0.0)
    tracker.did_not_look(4.0, 9.0)
    assert ids(tracker, 13.9) == [0]
    assert ids(tracker, 14.0) == []
    tracker.observe([replace(RUNNING, resource_version="2")], 20.0)
    tracker.did_not_look(59.0, 80.0)
    assert ids(tracker, 88.9) == [0]
    assert ids(tracker, 89.0) == []


def test_a_process_that_is_held_up_again_and_again_finds_out_who_is_dead() -> None:
    tracker = LivenessTracker()
    tracker.observe([RUNNING], 0.0)
    now = 0.0
    while ids(tracker, now):
        now += 1.5
        tracker.did_not_look(1.5, now)
        assert now <= 21.0
    assert now > 19.0
    tracker.observe([replace(RUNNING, resource_version="2")], now)
    assert ids(tracker, now + 9.0) == [0]
    tracker.did_not_look(1.5, now + 9.0)
    assert ids(tracker, now + 11.0) == [0], "a renewal begins anew"


def test_an_ended_process_is_down_at_once_until_another_incarnation_shows() -> None:
    tracker = LivenessTracker()
    tracker.observe([RUNNING], 0.0)
    tracker.process_ended(0)
    assert ids(tracker, 0.1) == []
    tracker.observe([replace(RUNNING, resource_version="2")], 0.2)  # a renewal that was on its way
    assert ids(tracker, 0.2) == []
    tracker.observe([replace(RUNNING, incarnation="b", resource_version="3")], 0.3)
    assert ids(tracker, 0.3) == [0]


def test_a_former_incarnation_is_down_before_it_is_even_seen() -> None:
    tracker = LivenessTracker()
    tracker.forget_incarnations({0: "a"})
    tracker.observe([RUNNING], 0.0)
    assert ids(tracker, 0.0) == []
    tracker.observe([replace(RUNNING, incarnation="b", resource_version="2")], 0.1)
    assert ids(tracker, 0.1) == [0]


@pytest.mark.parametrize(
    ("change", "live"),
    [
        ({"state": BrokerPhase.STARTING}, []),
        ({"incarnation": ""}, []),
        ({"state": BrokerPhase.DRAINING}, [0]),
    ],
)
def test_who_may_lead(change: dict[str, Any], live: list[int]) -> None:
    tracker = LivenessTracker()
    tracker.observe([replace(RUNNING, **change)], 0.0)
    assert ids(tracker, 0.0) == live


def test_leaderships_return_when_all_was_calm_for_a_while() -> None:
    balance = LeaderBalance()
    zero, one = BrokerIdentity(0, 1, "a"), BrokerIdentity(1, 1, "a")
    balance.observe([zero], 2, 0.0)
    assert balance.wait_s(100.0, 10.0) is None, "a broker is missing"
    balance.observe([zero, one], 2, 100.0)
    balance.observe([zero, one], 2, 105.0)
    assert balance.wait_s(105.0, 10.0) == 5.0
    assert balance.wait_s(110.0, 10.0) == 0.0
    balance.returned(110.0)
    assert balance.wait_s(110.0, 10.0) == PAUSE_S
    balance.observe([zero, one._replace(draining=True)], 2, 111.0)
    assert balance.wait_s(200.0, 10.0) is None, "a broker is about to stop"
    balance.observe([zero, one._replace(incarnation="b")], 2, 200.0)
    assert balance.wait_s(205.0, 10.0) == 5.0
    balance.observe([zero, one._replace(incarnation="c")], 2, 206.0)  # a restart that nobody saw otherwise
    assert balance.wait_s(210.0, 10.0) == 6.0
    balance.observe([zero, one._replace(incarnation="c")], 3, 220.0)
    assert balance.wait_s(300.0, 10.0) is None, "the Cluster grew, and the new broker does not run"


def test_statuses_are_paced_unless_a_condition_flips() -> None:
    pacer = StatusPacer()
    key = ("Topic", "orders")
    assert pacer.wait_s(key, 0.0, flips=False) == 0.0
    pacer.written(key, 0.0)
    assert pacer.wait_s(key, 5.0, flips=False) == STATUS_INTERVAL_S - 5.0
    assert pacer.wait_s(key, 5.0, flips=True) == 0.0
    assert pacer.wait_s(key, STATUS_INTERVAL_S, flips=False) == 0.0
    assert pacer.wait_s(("Topic", "other"), 5.0, flips=False) == 0.0


def test_the_pacer_forgets_what_holds_nothing_back() -> None:
    pacer = StatusPacer()
    for number in range(5_000):
        pacer.written(("Topic", str(number)), number * 1.0)
    assert len(pacer._written_at) < 1_100


def make(troubles: list[Trouble], previous: list[dict[str, Any]], now_ms: int) -> dict[str, dict[str, Any]]:
    found = conditions(troubles, ready_message="fine", generation=3, previous=previous, now_ms=now_ms)
    return {condition["type"]: condition for condition in found}


def test_the_transition_time_moves_only_when_the_status_does() -> None:
    first = make([Trouble(Reason.CREATING, "a", own_condition=False)], [], 1_000_000)
    same = make([Trouble(Reason.PARTITIONS_OFFLINE, "b")], list(first.values()), 2_000_000)
    other = make([], list(same.values()), 3_000_000)
    assert (
        first["Ready"]["lastTransitionTime"] == same["Ready"]["lastTransitionTime"] == format_time(1_000_000)
    )
    assert other["Ready"]["lastTransitionTime"] == format_time(3_000_000)
    assert (other["Ready"]["status"], other["Reconciling"]["status"], other["Stalled"]["status"]) == (
        "True",
        "False",
        "False",
    )
    assert "PartitionsOffline" in same
    assert "PartitionsOffline" not in other


def test_stalled_wins_over_reconciling() -> None:
    both = make([Trouble(Reason.CREATING, "a"), Trouble(Reason.INVALID_CONFIG, "b", stalled=True)], [], 0)
    assert (both["Stalled"]["status"], both["Reconciling"]["status"]) == ("True", "False")
    assert both["Ready"]["reason"] == "InvalidConfig"


def test_what_counts_as_a_flip() -> None:
    ready = {
        "observedGeneration": 1,
        "offline": 0,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}],
    }
    assert not flipped(ready, {**ready, "offline": 3})
    assert flipped(ready, {**ready, "observedGeneration": 2})
    assert flipped(ready, {**ready, "conditions": [{"type": "Ready", "status": "False", "reason": "X"}]})


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("24h", 86_400_000),
        ("90m", 5_400_000),
        ("1h30m", 5_400_000),
        ("7d", 604_800_000),
        ("0s", 0),
        ("5ms", 5),
    ],
)
def test_durations(text: str, ms: int) -> None:
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "24", "h", "1 h", "-1h", "1h ", "1.5h", "1w"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration_ms(text)


def test_times_round_trip() -> None:
    assert parse_time_ms(format_time(1_700_000_000_000)) == 1_700_000_000_000
