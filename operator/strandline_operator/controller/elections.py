"""Changes of partitions: elections, reassignments a step further, leaderships back to preferred replicas. Pure.

All of it is decided at one place, so that a PartitionSet is written once, whatever happens to however many partitions.
"""

from __future__ import annotations

from collections.abc import Iterator

from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import PARTITION_SET, PartitionSet, PartitionState
from strandline_broker.cluster.patches import patch_partitions
from strandline_operator.controller.actions import Notice, Patch, Priority
from strandline_operator.controller.reassignments import Reassigner
from strandline_operator.controller.world import TopicSets, World


def decide_elections(world: World, reassigner: Reassigner) -> Iterator[Patch]:
    """Yield one write for each PartitionSet in which something must change, whatever the number of partitions."""
    returning = world.returning
    for sets in world.sets:
        if sets.deleting or sets.topic_id in world.purged:
            continue
        for slice_ in sets.slices:
            changed: dict[int, PartitionState] = {}
            notices: list[Notice] = []
            urgent = False
            for number, state in enumerate(slice_.partitions, slice_.first_partition):
                election = _elect(world, slice_, state)
                if election.state is not state:
                    urgent = True
                    notices += _notices(slice_, number, election)
                    changed[number] = election.state
                    continue
                new = _advance(world, reassigner, sets, slice_, state)
                if new is state and returning > 0:
                    new = _return_home(world, slice_, state)
                    returning -= new is not state
                if new is not state:
                    changed[number] = new
            if changed:
                yield _patch(slice_, changed, notices, urgent=urgent)


def _patch(
    slice_: PartitionSet, changed: dict[int, PartitionState], notices: list[Notice], *, urgent: bool
) -> Patch:
    tests, operations = patch_partitions(slice_, changed)
    return Patch(
        PARTITION_SET,
        slice_.name,
        slice_.uid,
        tuple(tests),
        tuple(operations),
        priority=Priority.ELECTION if urgent else Priority.CHANGE,
        notices=tuple(notices),
    )


def _elect(world: World, slice_: PartitionSet, state: PartitionState) -> transitions.Election:
    """Do what the living brokers ask for, and nothing against those that nobody has judged yet."""
    live = world.live_by_id
    awaited = world.awaited.intersection(ref.broker_id for ref in (*state.isr, *state.elr))
    if state.leader in world.awaited or (
        awaited and not any(transitions.RULES.generation_matches(ref, live) for ref in state.isr)
    ):
        return transitions.Election(state, transitions.Outcome.UNCHANGED)
    decide = transitions.elect if awaited else transitions.react
    return decide(
        state,
        live=live,
        min_isr=slice_.min_insync_replicas,
        unclean_allowed=slice_.unclean_leader_election,
        flush_replicated=world.cluster is not None and world.cluster.flush_replicated,
    )


def _advance(
    world: World, reassigner: Reassigner, sets: TopicSets, slice_: PartitionSet, state: PartitionState
) -> PartitionState:
    if state.leader in world.awaited:
        return state
    moved = transitions.advance_reassignment(state, live=world.live_by_id, min_isr=slice_.min_insync_replicas)
    return reassigner.advance(sets, state) if moved is state else moved


def _return_home(world: World, slice_: PartitionSet, state: PartitionState) -> PartitionState:
    """Let the preferred replica lead again, if it is in sync."""
    led_elsewhere = state.leader in world.live_by_id and state.leader != state.replicas[0]
    if not led_elsewhere or transitions.is_moving(state):
        return state
    return transitions.elect(
        state, live=world.live_by_id, min_isr=slice_.min_insync_replicas, prefer_first=True
    ).state


def _notices(slice_: PartitionSet, number: int, election: transitions.Election) -> Iterator[Notice]:
    """Say what a person should know: a partition without a leader, and every election that was not a clean one."""
    partition = f"{slice_.topic_name}-{number}"
    leader = election.state.leader
    text = {
        transitions.Outcome.OFFLINE: f"{partition} has no leader: no in-sync replica lives",
        transitions.Outcome.ELIGIBLE: f"broker {leader} leads {partition}: an eligible former in-sync replica",
        transitions.Outcome.POSSIBLE_LOSS: (
            f"broker {leader} leads {partition} with a log that may have lost acknowledged records (flush Replicated, "
            "min.insync.replicas 1)"
        ),
        transitions.Outcome.UNCLEAN: (
            f"broker {leader} leads {partition} without having been in sync: acknowledged records may be lost "
            "(unclean.leader.election.enable)"
        ),
    }.get(election.outcome)
    if text is not None:
        warning = election.outcome is not transitions.Outcome.ELIGIBLE
        yield Notice(PARTITION_SET, slice_.name, f"Election{election.outcome}", text, warning=warning)
