"""Reassignment goes add, wait, hand over, drop; it can be resumed, redirected and cancelled."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from tests.unit.cluster.support import broker, live, partition, refs

from strandline_broker.cluster.model import ReplicaRef
from strandline_broker.cluster.transitions import (
    Load,
    NotEnoughBrokers,
    advance_reassignment,
    assign,
    assign_replicas,
    begin_reassignment,
    cancel_reassignment,
    is_moving,
    is_reassigning,
    request_reassignment,
    start_reassignment,
    target_of,
    with_factor,
)


def test_a_whole_move_step_by_step() -> None:
    alive = live(1, 2, 3, 4)
    state = start_reassignment(partition(1, 2), [3, 4])
    assert (state.replicas, state.adding, state.removing) == ((3, 4, 1, 2), (3, 4), (1, 2))
    assert state.leader == 1
    assert advance_reassignment(state, live=alive, min_isr=1) is state
    state = replace(state, isr=refs(3, 1, 2))
    assert advance_reassignment(state, live=alive, min_isr=1) is state, "4 is still missing"
    state = replace(state, isr=refs(3, 4, 1, 2))
    handed_over = advance_reassignment(state, live=alive, min_isr=1)
    assert (handed_over.leader, handed_over.leader_epoch) == (3, state.leader_epoch + 1)
    assert handed_over.replicas == state.replicas
    done = advance_reassignment(handed_over, live=alive, min_isr=1)
    assert (done.replicas, done.adding, done.removing) == ((3, 4), (), ())
    assert done.isr == refs(3, 4)
    assert done.partition_epoch == handed_over.partition_epoch + 1
    assert advance_reassignment(done, live=alive, min_isr=1) is done
    assert not is_reassigning(done)


def test_old_replicas_stay_while_the_target_is_below_the_minimum() -> None:
    state = replace(start_reassignment(partition(1, 2, 3), [1, 2, 4]), isr=refs(1, 4, 3))
    assert advance_reassignment(state, live=live(1, 2, 3, 4), min_isr=3) is state
    assert advance_reassignment(state, live=live(1, 2, 3, 4), min_isr=2).replicas == (1, 2, 4)


def test_a_new_replica_that_lost_its_log_does_not_count() -> None:
    state = replace(start_reassignment(partition(1), [2]), isr=refs(2, 1))
    assert advance_reassignment(state, live=live(1, broker(2, generation=2)), min_isr=1) is state


def test_a_reassignment_waits_while_the_partition_has_no_leader() -> None:
    state = replace(start_reassignment(partition(1), [2]), isr=refs(2, 1), leader=-1, leader_incarnation="")
    assert advance_reassignment(state, live=live(1, 2), min_isr=1) is state


def test_a_dead_leader_in_the_target_is_not_left_alone() -> None:
    state = replace(start_reassignment(partition(1, 2), [1, 3]), isr=refs(1, 3, 2))
    assert advance_reassignment(state, live=live(2, 3), min_isr=1) is state


def test_changing_only_the_order_takes_effect_at_the_first_step() -> None:
    state = start_reassignment(partition(1, 2), [2, 1])
    assert (state.replicas, state.adding, state.removing) == ((2, 1), (), ())
    assert state.partition_epoch == 11
    assert start_reassignment(state, [2, 1]) is state


def test_cancelling_before_anything_was_copied_leaves_no_trace() -> None:
    before = partition(1, 2)
    state = cancel_reassignment(start_reassignment(before, [3, 4]))
    assert state == replace(before, partition_epoch=12)


def test_cancelling_with_a_new_replica_in_sync_drops_it_through_the_same_steps() -> None:
    started = replace(
        start_reassignment(partition(1), [2]), isr=refs(2, 1), leader=2, leader_incarnation="start-2"
    )
    state = cancel_reassignment(started)
    assert (state.replicas, state.adding, state.removing) == ((1, 2), (), (2,))
    back = advance_reassignment(state, live=live(1, 2), min_isr=1)
    assert back.leader == 1
    assert advance_reassignment(back, live=live(1, 2), min_isr=1).replicas == (1,)


def test_redirecting_keeps_what_was_added_for_both() -> None:
    state = start_reassignment(start_reassignment(partition(1), [2, 3]), [3, 4])
    assert (state.replicas, state.adding, state.removing) == ((3, 4, 1), (3, 4), (1,))


def test_what_must_be_copied_waits_for_its_turn() -> None:
    before = partition(1, 2)
    waiting = request_reassignment(before, [3, 1])
    assert (waiting.replicas, waiting.adding, waiting.removing) == ((1, 2), (), ())
    assert (waiting.target, target_of(waiting), target_of(before)) == ((3, 1), (3, 1), (1, 2))
    assert is_reassigning(waiting)
    assert not is_moving(waiting)
    assert request_reassignment(waiting, [3, 1]) is waiting
    assert advance_reassignment(waiting, live=live(1, 2, 3), min_isr=1) is waiting
    begun = begin_reassignment(waiting)
    assert begun == replace(start_reassignment(before, [3, 1]), partition_epoch=waiting.partition_epoch + 1)
    assert begin_reassignment(begun) is begun
    assert cancel_reassignment(waiting) == replace(before, partition_epoch=12)
    # What moves already has its turn, and what copies nothing needs none.
    assert request_reassignment(begun, [4, 1]).adding == (4,)
    assert request_reassignment(waiting, [2]).removing == (1,)
    assert request_reassignment(before, [2, 1]).replicas == (2, 1)


@pytest.mark.parametrize("target", [[], [1, 1], [1, 3, 3]])
def test_impossible_targets_are_refused(target: list[int]) -> None:
    for ask in (start_reassignment, request_reassignment):
        with pytest.raises(ValueError, match="different brokers"):
            ask(partition(1), target)


def test_a_higher_factor_moves_preferred_leaderships_to_brokers_that_have_few() -> None:
    brokers = [broker(b) for b in (0, 1, 2)]
    load = Load(Counter({0: 3}), Counter({0: 3}))
    assert with_factor((0,), 3, brokers, in_sync={0}, load=load) == (1, 0, 2)
    load = Load(Counter({0: 3, 1: 2, 2: 2}), Counter({0: 3, 1: 2, 2: 2}))
    assert with_factor((0,), 3, brokers, in_sync={0}, load=load) == (0, 1, 2)
    with pytest.raises(NotEnoughBrokers, match="replication factor 4 exceeds the 3 brokers"):
        with_factor((0,), 4, brokers, in_sync={0}, load=load)
    with pytest.raises(ValueError, match="at least 1"):
        with_factor((0,), 0, brokers, in_sync={0}, load=load)


def test_a_lower_factor_leaves_who_is_out_of_sync_then_who_shares_a_rack() -> None:
    brokers = [broker(0, rack="a"), broker(1, rack="a"), broker(2, rack="b"), broker(3, rack="c")]
    replicas, load = (0, 1, 2, 3), Load()
    assert with_factor(replicas, 3, brokers, in_sync={0, 1, 2, 3}, load=load) == (0, 2, 3)
    assert with_factor(replicas, 3, brokers, in_sync={0, 1, 3}, load=load) == (0, 1, 3)
    assert with_factor(replicas, 2, brokers, in_sync={2, 3}, load=load) == (2, 3)
    load.replicas[3] = 1
    assert with_factor((0, 2, 3), 2, brokers, in_sync={0, 2, 3}, load=load) == (0, 2)
    # The replica of a broker that is gone for good goes first.
    assert with_factor((0, 9, 2), 2, brokers, in_sync={0, 2}, load=load) == (0, 2)


def test_new_partitions_are_led_and_in_sync() -> None:
    brokers = [broker(0, 5), broker(1, 6), broker(2, 7, "")._replace(incarnation="")]
    states = assign(3, 3, brokers, first_leader_epoch=9)
    for state in states:
        assert set(state.replicas) == {0, 1, 2}
        assert set(state.isr) == {ReplicaRef(0, 5), ReplicaRef(1, 6)}, (
            "a dead broker has a replica but is not in sync"
        )
        assert state.leader in (0, 1)
        assert state.leader_incarnation == f"start-{state.leader}"
        assert (state.leader_epoch, state.partition_epoch, state.elr) == (9, 0, ())


def test_what_cannot_be_placed_is_refused() -> None:
    with pytest.raises(NotEnoughBrokers, match="replication factor 3 exceeds the 2 brokers"):
        assign_replicas(1, 3, [(0, None), (1, None)])
    with pytest.raises(ValueError, match="at least 1"):
        assign_replicas(1, 0, [(0, None)])
    with pytest.raises(NotEnoughBrokers, match="lives"):
        assign(1, 1, [broker(0)._replace(incarnation="")])


def test_what_shares_partitions_is_kept_apart() -> None:
    placed = assign_replicas(12, 2, [(b, None) for b in range(4)])
    assert len({frozenset(replicas) for replicas in placed}) == 6, "all pairs, so that failures spread"
