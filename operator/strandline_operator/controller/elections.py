"""Leaders for partitions whose leader died, started anew, or is about to stop; reassignments a step further. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import PARTITION_SET, PartitionSet, PartitionState
from strandline_broker.cluster.patches import patch_partitions
from strandline_operator.controller.actions import Notice, Patch, Priority
from strandline_operator.controller.world import World


def decide_elections(world: World) -> Iterator[Patch]:
    """Yield one write for each PartitionSet in which something must change, whatever the number of partitions."""
    live = {broker.broker_id: broker for broker in world.live}
    for sets in world.sets:
        if sets.deleting or sets.topic_id in world.purged:
            continue
        for slice_ in sets.slices:
            changed: dict[int, PartitionState] = {}
            notices: list[Notice] = []
            for number, state in enumerate(slice_.partitions, slice_.first_partition):
                if state.leader in world.awaited:
                    continue
                election = _react(world, slice_, state, live)
                if election.state is not state:
                    changed[number] = election.state
                    notices += _notices(slice_, number, election)
            if changed:
                tests, operations = patch_partitions(slice_, changed)
                yield Patch(
                    PARTITION_SET,
                    slice_.name,
                    slice_.uid,
                    tuple(tests),
                    tuple(operations),
                    priority=Priority.ELECTION,
                    notices=tuple(notices),
                )


def _react(
    world: World, slice_: PartitionSet, state: PartitionState, live: transitions.Live
) -> transitions.Election:
    election = transitions.react(
        state,
        live=live,
        min_isr=slice_.min_insync_replicas,
        unclean_allowed=slice_.unclean_leader_election,
        flush_replicated=world.cluster is not None and world.cluster.flush_replicated,
    )
    if not transitions.is_reassigning(election.state):
        return election
    moved = transitions.advance_reassignment(election.state, live=live, min_isr=slice_.min_insync_replicas)
    return transitions.Election(moved, election.outcome)


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
