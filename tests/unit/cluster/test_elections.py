"""Who is elected, case by case: each rule where it holds and where it must not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.cluster.support import broker, live, offline, partition, refs

from strandline_broker.cluster.model import NO_LEADER, ReplicaRef
from strandline_broker.cluster.transitions import RULES, Outcome, elect, fence, react, recovered, renew_epoch


def test_a_healthy_leader_stays() -> None:
    state = partition(2, 1, 3)
    assert elect(state, live=live(1, 2, 3), min_isr=2).state is state


def test_the_first_living_isr_member_in_replica_order_leads() -> None:
    state = partition(1, 3, 2, isr=refs(1, 2, 3))
    election = elect(state, live=live(2, 3), min_isr=1)
    assert election.outcome is Outcome.IN_SYNC
    assert election.state.leader == 3
    assert election.state.leader_incarnation == "start-3"
    assert (election.state.leader_epoch, election.state.partition_epoch) == (4, 11)


def test_a_living_replica_outside_the_isr_does_not_lead() -> None:
    election = elect(partition(1, 2, isr=refs(1)), live=live(2), min_isr=1)
    assert election.outcome is Outcome.OFFLINE
    assert (election.state.leader, election.state.leader_incarnation) == (NO_LEADER, "")
    assert (election.state.leader_epoch, election.state.partition_epoch) == (4, 11)
    assert election.state.isr == refs(1)
    again = elect(election.state, live=live(2), min_isr=1)
    assert again.outcome is Outcome.UNCHANGED


def test_a_new_incarnation_of_the_leader_gets_a_new_epoch() -> None:
    state = partition(1)
    election = elect(state, live=live(broker(1, incarnation="again")), min_isr=1)
    assert election.state.leader == 1
    assert election.state.leader_incarnation == "again"
    assert election.state.leader_epoch == state.leader_epoch + 1
    assert election.state.isr == state.isr


@pytest.mark.parametrize("rule", ["on", "off"])
def test_a_member_with_another_generation_does_not_lead(rule: str) -> None:
    rules = (
        RULES
        if rule == "on"
        else replace(RULES, generation_matches=lambda ref, alive: ref.broker_id in alive)
    )
    election = elect(partition(1, 2), live=live(broker(2, generation=2)), min_isr=2, rules=rules)
    assert election.outcome is (Outcome.OFFLINE if rule == "on" else Outcome.IN_SYNC)


def test_a_former_member_leads_only_when_no_member_lives() -> None:
    state = partition(1, 2, 3, isr=refs(1), elr=refs(2))
    assert elect(state, live=live(1, 2), min_isr=2).state is state
    election = elect(state, live=live(2, 3), min_isr=2)
    assert election.outcome is Outcome.ELIGIBLE
    assert election.state.leader == 2
    assert election.state.isr == refs(2)
    assert election.state.elr == refs(1), "the high watermark has not moved since 1 was in sync"
    assert (election.state.leader_epoch, election.state.partition_epoch) == (4, 11)


def test_a_former_member_with_another_generation_does_not_lead() -> None:
    state = partition(1, 2, 3, isr=refs(1), elr=refs(2))
    assert elect(state, live=live(broker(2, generation=2)), min_isr=2).outcome is Outcome.OFFLINE


def test_who_lost_its_log_is_not_kept_eligible_beside_a_new_leader() -> None:
    state = partition(1, 2, 3, isr=refs(1), elr=refs(2))
    election = elect(state, live=live(broker(1, generation=2), 2), min_isr=2)
    assert election.state.leader == 2
    assert election.state.elr == ()


def test_a_sole_member_that_may_have_lost_bytes_leads_only_where_that_was_accepted() -> None:
    state = offline(1, 2, isr=refs(1))
    back = live(broker(1, generation=2))
    assert elect(state, live=back, min_isr=1).outcome is Outcome.UNCHANGED
    assert elect(state, live=back, min_isr=2, flush_replicated=True).outcome is Outcome.UNCHANGED
    two = replace(state, isr=refs(1, 2))
    assert elect(two, live=back, min_isr=1, flush_replicated=True).outcome is Outcome.UNCHANGED
    election = elect(state, live=back, min_isr=1, flush_replicated=True)
    assert election.outcome is Outcome.POSSIBLE_LOSS
    assert election.may_lose_records
    assert election.state.isr == (ReplicaRef(1, 2),)
    assert election.state.leader == 1


def test_after_a_power_cut_of_all_brokers_the_former_leader_goes_on_where_loss_was_accepted() -> None:
    state = partition(2, 1, 3)
    back = live(*(broker(b, generation=2, incarnation="again") for b in (1, 2, 3)))
    election = react(state, live=back, min_isr=1, flush_replicated=True)
    assert election.outcome is Outcome.POSSIBLE_LOSS
    assert election.state.leader == 2
    assert election.state.partition_epoch == state.partition_epoch + 1
    strict = react(state, live=back, min_isr=1, flush_replicated=False)
    assert strict.outcome is Outcome.OFFLINE
    # While the last member may still come back with its log, nobody who lost his leads in its place.
    waiting = react(state, live=live(broker(1, generation=2)), min_isr=1, flush_replicated=True)
    assert waiting.outcome is Outcome.OFFLINE
    assert waiting.state.isr == refs(2, 3)


def test_unclean_elections_happen_only_where_allowed() -> None:
    state = partition(1, 2, 3, isr=refs(1))
    assert elect(state, live=live(2, 3), min_isr=1).outcome is Outcome.OFFLINE
    election = elect(state, live=live(2, 3), min_isr=1, unclean_allowed=True)
    assert election.outcome is Outcome.UNCLEAN
    assert election.may_lose_records
    assert election.state.leader == 2
    assert election.state.isr == refs(2)
    assert election.state.elr == ()


def test_after_an_unclean_election_nobody_else_is_eligible() -> None:
    state = partition(1, 2, 3, isr=refs(1), elr=refs(3))
    election = elect(state, live=live(2), min_isr=2, unclean_allowed=True)
    assert election.outcome is Outcome.UNCLEAN
    assert (election.state.isr, election.state.elr) == (refs(2), ())


def test_an_unclean_election_prefers_an_old_log_to_a_replaced_one_and_to_none() -> None:
    state = partition(4, 1, 2, isr=refs(1), adding=(4,), leader=1, leader_incarnation="start-1")
    alive = live(4, broker(1, generation=2), 2)
    assert elect(state, live=alive, min_isr=2, unclean_allowed=True).state.leader == 2
    alive.pop(2)
    assert elect(state, live=alive, min_isr=2, unclean_allowed=True).state.leader == 1
    # Also where the fencing before the election takes away the sign of it.
    state = partition(1, 2, 3, isr=refs(3), elr=refs(1), leader=3, leader_incarnation="start-3")
    alive = live(broker(1, generation=2), 2)
    assert react(state, live=alive, min_isr=2, unclean_allowed=True).state.leader == 2


def test_a_draining_leader_hands_over_if_somebody_can_take_over() -> None:
    state = partition(1, 2, 3, isr=refs(1, 3))
    alone = live(broker(1, draining=True), 2, broker(3, draining=True))
    assert elect(state, live=alone, min_isr=1).state is state
    election = elect(state, live=live(broker(1, draining=True), 2, 3), min_isr=1)
    assert election.state.leader == 3
    assert election.state.isr == state.isr


@pytest.mark.parametrize(
    ("draining", "min_isr", "leader", "isr"),
    [
        ((1,), 2, 2, (2, 3)),
        ((1,), 3, 2, (1, 2, 3)),
        ((1, 2), 2, 3, (2, 3)),
        ((1, 2), 1, 3, (3,)),
        # Nobody stays: nobody is handed anything, and nobody leaves.
        ((1, 2, 3), 1, 1, (1, 2, 3)),
        # The leader leads on, and takes out who is about to stop itself.
        ((3,), 2, 1, (1, 2, 3)),
    ],
)
def test_a_successor_starts_without_those_about_to_stop_that_it_can_do_without(
    draining: tuple[int, ...], min_isr: int, leader: int, isr: tuple[int, ...]
) -> None:
    state = partition(1, 2, 3)
    alive = live(1, 2, 3) | live(*(broker(broker_id, draining=True) for broker_id in draining))
    election = react(state, live=alive, min_isr=min_isr)
    assert (election.state.leader, election.state.isr) == (leader, refs(*isr))
    assert election.state.elr == ()
    changed = leader != state.leader
    assert election.state.leader_epoch == state.leader_epoch + changed
    assert election.state.partition_epoch == state.partition_epoch + changed
    assert react(election.state, live=alive, min_isr=min_isr).state is election.state


def test_a_draining_member_leads_rather_than_nobody() -> None:
    assert elect(partition(1, 2), live=live(broker(2, draining=True)), min_isr=1).state.leader == 2


def test_preferred_election_moves_to_the_first_replica_only_if_it_is_in_sync() -> None:
    state = partition(1, 2, leader=2, leader_incarnation="start-2")
    assert elect(state, live=live(1, 2), min_isr=1).state is state
    assert elect(state, live=live(1, 2), min_isr=1, prefer_first=True).state.leader == 1
    lagging = replace(state, isr=refs(2))
    assert elect(lagging, live=live(1, 2), min_isr=1, prefer_first=True).state is lagging
    first = partition(1, 2)
    assert elect(first, live=live(1, 2), min_isr=1, prefer_first=True).state is first


def test_react_is_one_change() -> None:
    election = react(partition(1, 2, 3), live=live(2, 3), min_isr=3)
    assert election.state == partition(
        1,
        2,
        3,
        isr=refs(2, 3),
        elr=refs(1),
        leader=2,
        leader_incarnation="start-2",
        leader_epoch=4,
        partition_epoch=11,
    )
    fenced_only = react(partition(1, 2), live=live(1), min_isr=1)
    assert fenced_only.outcome is Outcome.UNCHANGED
    assert fenced_only.state == partition(1, 2, isr=refs(1), partition_epoch=11)
    assert fence(fenced_only.state, live=live(1), min_isr=1) is fenced_only.state


# -- elections that may lose records which the bucket has --


@pytest.mark.parametrize("tierable", [True, False])
def test_an_election_that_may_lose_tiered_records_leaves_the_partition_recovering(tierable: bool) -> None:
    unclean = elect(
        partition(1, 2, isr=refs(1)), live=live(2), min_isr=1, unclean_allowed=True, tierable=tierable
    )
    assert (unclean.outcome, unclean.state.recovering) == (Outcome.UNCLEAN, tierable)
    wiped = live(broker(1, generation=2, incarnation="again"))
    lossy = react(
        partition(1, 2, isr=refs(1)), live=wiped, min_isr=1, flush_replicated=True, tierable=tierable
    )
    assert (lossy.outcome, lossy.state.recovering) == (Outcome.POSSIBLE_LOSS, tierable)


def test_no_other_election_does() -> None:
    state = partition(1, 2, 3, isr=refs(1, 3), elr=refs(2))
    for alive in (live(1, 2, 3), live(2, 3), live(2), live(), live(broker(1, incarnation="again"))):
        assert not react(state, live=alive, min_isr=3, unclean_allowed=True, tierable=True).state.recovering


def test_later_elections_leave_it_recovering_until_a_leader_has_recovered() -> None:
    state = elect(
        partition(1, 2, isr=refs(1)), live=live(2), min_isr=1, unclean_allowed=True, tierable=True
    ).state
    again = react(state, live=live(broker(2, incarnation="again")), min_isr=1, tierable=False).state
    gone = react(again, live=live(), min_isr=1).state
    assert again.recovering
    assert (gone.leader, gone.recovering) == (NO_LEADER, True)
    settled = recovered(again, broker_id=2, leader_epoch=again.leader_epoch)
    assert settled == replace(again, recovering=False, partition_epoch=again.partition_epoch + 1)


def test_only_the_leader_of_the_epoch_says_that_a_partition_has_recovered() -> None:
    state = partition(1, 2, recovering=True)
    assert recovered(state, broker_id=2, leader_epoch=3) is state
    assert recovered(state, broker_id=1, leader_epoch=2) is state
    assert recovered(offline(1, 2, recovering=True), broker_id=1, leader_epoch=3).recovering
    intact = partition(1, 2)
    assert recovered(intact, broker_id=1, leader_epoch=3) is intact


@pytest.mark.parametrize(("above", "epoch"), [(0, 4), (3, 4), (9, 10)])
@pytest.mark.parametrize("recovering", [True, False])
def test_a_leader_gets_a_higher_epoch_where_it_can_do_nothing_more_in_its_own(
    above: int, epoch: int, recovering: bool
) -> None:
    state = partition(1, 2, isr=refs(1), elr=refs(2))
    new = renew_epoch(state, broker_id=1, leader_epoch=3, above=above, recovering=recovering)
    assert new == replace(
        state, leader_epoch=epoch, partition_epoch=state.partition_epoch + 1, recovering=recovering
    )
    still = renew_epoch(
        replace(state, recovering=True), broker_id=1, leader_epoch=3, above=0, recovering=False
    )
    assert still.recovering, "only the leader of an epoch that has recovered takes that away"
    assert react(new, live=live(1), min_isr=2).outcome is Outcome.UNCHANGED


def test_nobody_else_gets_one() -> None:
    state = partition(1, 2)
    assert renew_epoch(state, broker_id=2, leader_epoch=3, above=9, recovering=True) is state
    assert renew_epoch(state, broker_id=1, leader_epoch=2, above=9, recovering=True) is state


def test_a_restored_partition_that_nobody_was_in_sync_of_is_led_by_whoever_lives() -> None:
    restored = offline(1, 2, 3, isr=(), leader_epoch=7, recovering=True)
    assert react(restored, live=live(), min_isr=2).state is restored
    election = react(restored, live=live(2, 3), min_isr=2)
    assert (election.outcome, election.may_lose_records) == (Outcome.RESTORED, False)
    new = election.state
    assert (new.leader, new.leader_epoch, new.isr, new.elr, new.recovering) == (2, 8, refs(2), (), True)
    # From then on it is as others are: whoever took records must not be passed over.
    assert react(new, live=live(3), min_isr=2).outcome is Outcome.OFFLINE
    assert react(offline(1, 2, isr=()), live=live(1, 2), min_isr=1).outcome is Outcome.UNCHANGED
