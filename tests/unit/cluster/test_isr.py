"""ISR and ELR, case by case, and that switching a rule off makes a difference."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.cluster.support import broker, live, offline, partition, partition_set, refs

from strandline_broker.cluster.model import BrokerIdentity, PartitionState, ReplicaRef
from strandline_broker.cluster.transitions import (
    RULES,
    FollowerProgress,
    change_config,
    does_without,
    effective_min_isr,
    fence,
    grow_isr,
    high_watermark_replicas,
    may_advance_high_watermark,
    shrink_isr,
    spared,
    step_down,
)


def test_dead_members_leave_and_stay_eligible_only_below_the_minimum() -> None:
    state = partition(1, 2, 3)
    assert fence(state, live=live(1, 2), min_isr=2).isr == refs(1, 2)
    assert fence(state, live=live(1, 2), min_isr=2).elr == ()
    below = fence(state, live=live(1), min_isr=2)
    assert (below.isr, below.elr) == (refs(1), refs(2, 3))
    assert below.partition_epoch == 11
    assert below.leader_epoch == 3


def test_without_the_rule_nobody_stays_eligible() -> None:
    rules = replace(RULES, keeps_former_members=lambda size, minimum: False)
    assert fence(partition(1, 2, 3), live=live(1), min_isr=2, rules=rules).elr == ()


def test_while_nobody_lives_nobody_leaves() -> None:
    state = partition(1, 2)
    assert fence(state, live={}, min_isr=1) is state


def test_the_last_member_stays_even_when_its_log_was_replaced() -> None:
    state = offline(1, 2, isr=refs(1))
    assert fence(state, live=live(broker(1, generation=2), 2), min_isr=1) is state


def test_a_replaced_log_leaves_and_is_eligible_for_nothing() -> None:
    state = partition(1, 2, 3, isr=refs(1, 2), elr=refs(3))
    fenced = fence(state, live=live(1, broker(2, generation=2), broker(3, generation=2)), min_isr=3)
    assert (fenced.isr, fenced.elr) == (refs(1), ())


def test_a_member_counts_again_with_its_new_generation_only_after_it_caught_up() -> None:
    state = partition(1, 2, isr=refs(1))
    alive = live(1, broker(2, generation=7))
    grown = grow_isr(
        state, FollowerProgress(2, 7, 3, 100), live=alive, high_watermark=90, epoch_start=100, min_isr=2
    )
    assert grown.isr == (ReplicaRef(1, 1), ReplicaRef(2, 7))


def test_a_leader_that_steps_down_leaves_the_isr_to_those_that_live() -> None:
    state = partition(1, 2, 3)
    down = step_down(state, live=live(1, 2), min_isr=2)
    assert (down.leader, down.isr, down.elr) == (-1, refs(2, 3), ())
    assert (down.leader_epoch, down.partition_epoch) == (state.leader_epoch + 1, state.partition_epoch + 1)
    below = step_down(partition(1, 2), live=live(1, 2), min_isr=2)
    assert (below.isr, below.elr) == (refs(2), refs(1))


@pytest.mark.parametrize("alive", [live(1), live(1, broker(2, generation=2)), {}])
def test_a_leader_that_steps_down_stays_in_the_isr_while_no_other_member_lives(
    alive: dict[int, BrokerIdentity],
) -> None:
    state = partition(1, 2)
    down = step_down(state, live=alive, min_isr=1)
    assert (down.leader, down.isr, down.elr) == (-1, refs(1, 2), ())
    assert (down.leader_epoch, down.partition_epoch) == (state.leader_epoch + 1, state.partition_epoch + 1)


def test_the_leader_never_shrinks_itself_away() -> None:
    state = partition(1, 2)
    assert shrink_isr(state, out_of_sync=[1, 2], min_isr=1).isr == refs(1)
    leaderless = offline(1, 2)
    assert shrink_isr(leaderless, out_of_sync=[1, 2], min_isr=1) is leaderless


def test_back_at_the_minimum_former_members_are_forgotten() -> None:
    state = partition(1, 2, 3, isr=refs(1), elr=refs(2))
    grown = grow_isr(
        state, FollowerProgress(3, 1, 3, 50), live=live(1, 3), high_watermark=50, epoch_start=0, min_isr=2
    )
    assert (grown.isr, grown.elr) == (refs(1, 3), ())


GOOD = FollowerProgress(2, 1, 3, 100)


@pytest.mark.parametrize(
    ("follower", "switched_off"),
    [
        (GOOD._replace(fetched_epoch=2), {"fetched_in_epoch": lambda follower, epoch: True}),
        (GOOD._replace(generation=9), {"generation_is_current": lambda follower, alive: True}),
        (GOOD._replace(log_end=99), {"has_caught_up": lambda follower, watermark, start: True}),
        (
            GOOD._replace(log_end=89),
            {"has_caught_up": lambda follower, watermark, start: follower.log_end >= 89},
        ),
    ],
)
def test_each_rule_of_growing_is_needed(follower: FollowerProgress, switched_off: dict[str, object]) -> None:
    state = partition(1, 2, isr=refs(1))

    def grow(who: FollowerProgress, rules: object = RULES) -> PartitionState:
        return grow_isr(
            state, who, live=live(1, 2), high_watermark=90, epoch_start=100, min_isr=1, rules=rules,  # type: ignore[arg-type]
        )  # fmt: skip

    assert grow(GOOD).isr_ids == (1, 2)
    assert grow(follower) is state
    assert grow(follower, replace(RULES, **switched_off)).isr_ids == (1, 2)  # type: ignore[arg-type]


def test_the_high_watermark_counts_too_when_the_epoch_started_below_it() -> None:
    state = partition(1, 2, isr=refs(1))
    behind = FollowerProgress(2, 1, 3, 89)
    assert grow_isr(state, behind, live=live(1, 2), high_watermark=90, epoch_start=0, min_isr=1) is state


@pytest.mark.parametrize("alive", [live(1), live(1, broker(2, draining=True))])
def test_dead_and_draining_brokers_do_not_join(alive: dict[int, object]) -> None:
    state = partition(1, 2, isr=refs(1))
    assert grow_isr(state, GOOD, live=alive, high_watermark=0, epoch_start=0, min_isr=1) is state  # type: ignore[arg-type]


def test_a_broker_without_a_replica_does_not_join() -> None:
    state = partition(1, 3, isr=refs(1))
    assert grow_isr(state, GOOD, live=live(1, 2), high_watermark=0, epoch_start=0, min_isr=1) is state


def test_the_high_watermark_waits_for_every_possible_isr() -> None:
    confirmed = refs(1, 2)
    assert high_watermark_replicas(confirmed, []) == set(refs(1, 2))
    assert high_watermark_replicas(confirmed, [refs(1), refs(1, 2, 3)]) == set(refs(1, 2, 3))
    assert may_advance_high_watermark(refs(1, 2), 2)
    assert not may_advance_high_watermark(refs(1), 2)


def test_the_minimum_never_exceeds_the_replicas_and_additions_do_not_raise_it() -> None:
    assert effective_min_isr(2, partition(1, 2, 3)) == 2
    assert effective_min_isr(2, partition(1)) == 1
    assert effective_min_isr(2, partition(2, 1, adding=(2,), removing=(1,), isr=refs(1), leader=1)) == 1


def test_lowering_the_minimum_forgets_former_members_in_the_same_write() -> None:
    part = partition_set(
        partition(1, 2, 3, isr=refs(1), elr=refs(2)), partition(1, 2, 3), config={"min.insync.replicas": "2"}
    )
    changed = change_config(part, {})
    assert changed.topic_epoch == part.topic_epoch + 1
    assert changed.partitions[0].elr == ()
    assert changed.partitions[0].partition_epoch == 11
    assert changed.partitions[1] is part.partitions[1]


def test_raising_the_minimum_makes_nobody_eligible() -> None:
    part = partition_set(partition(1, 2, 3, isr=refs(1)), config={"min.insync.replicas": "1"})
    changed = change_config(part, {"min.insync.replicas": "2"})
    assert changed.partitions == part.partitions
    assert change_config(changed, {"min.insync.replicas": "2"}) is changed


@pytest.mark.parametrize(
    ("state", "draining", "min_isr", "expected"),
    [
        (partition(1, 2, 3), (3,), 2, (3,)),
        (partition(1, 2, 3), (2, 3), 2, (2,)),
        (partition(1, 2, 3), (2, 3), 1, (2, 3)),
        (partition(1, 2, 3), (3,), 3, ()),
        (partition(1, 2, 3, isr=refs(1, 3)), (3,), 2, ()),
        (partition(1, 2, 3, isr=refs(1, 2)), (3,), 1, ()),
        (partition(1, 2), (2,), 5, ()),
        (partition(1), (), 1, ()),
    ],
)
def test_who_is_about_to_stop_is_spared_as_long_as_the_minimum_stays(
    state: PartitionState, draining: tuple[int, ...], min_isr: int, expected: tuple[int, ...]
) -> None:
    alive = live(1, 2, 3) | live(*(broker(broker_id, draining=True) for broker_id in draining))
    assert spared(state, live=alive, min_isr=min_isr) == expected


@pytest.mark.parametrize(
    "alive", [live(2, broker(3, draining=True)), live(broker(1, draining=True), 2, broker(3, draining=True))]
)
def test_without_a_leader_that_stays_nobody_is_spared(alive: dict[int, BrokerIdentity]) -> None:
    assert spared(partition(1, 2, 3), live=alive, min_isr=1) == ()


@pytest.mark.parametrize(
    ("state", "alive", "min_isr", "expected"),
    [
        (partition(1, 2, 3, isr=refs(1, 2)), live(1, 2), 2, True),
        (partition(1, 2, 3), live(1, 2), 2, True),
        # Its own place in the ISR does not count.
        (partition(1, 2, 3, isr=refs(1, 3)), live(1, 2), 2, False),
        (partition(1, 3), live(1), 5, False),
        (partition(1, 2, 3, isr=refs(1)), live(1), 1, True),
        # Led by itself, by nobody, by one that is not there.
        (partition(3, 1, 2), live(1, 2, 3), 1, False),
        (offline(1, 2, 3), live(1, 2), 1, False),
        (partition(1, 2, 3), live(2), 1, False),
    ],
)
def test_a_partition_does_without_a_broker_if_it_is_led_and_writable_without(
    state: PartitionState, alive: dict[int, BrokerIdentity], min_isr: int, expected: bool
) -> None:
    assert does_without(state, 3, live=alive, min_isr=min_isr) is expected
