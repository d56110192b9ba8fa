"""Changes of partitions: elections, reassignments a step further, leaderships back to preferred replicas. Pure.

All of it is decided at one place, so that a PartitionSet is written once, whatever happens to however many partitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import PARTITION_SET, PartitionSet, PartitionState
from strandline_broker.cluster.patches import patch_partitions
from strandline_operator.controller.actions import Notice, Patch, Priority
from strandline_operator.controller.reassignments import Reassigner
from strandline_operator.controller.world import TopicSets, World


class Elections:
    """The changes of all partitions in one pass; `returned` counts the leaderships that went home."""

    __slots__ = ("_reassigner", "_world", "returned")

    def __init__(self, world: World, reassigner: Reassigner) -> None:
        self._world = world
        self._reassigner = reassigner
        self.returned = 0

    def decide(self) -> Iterator[Patch]:
        """Yield one write for each PartitionSet in which something must change, whatever the number of partitions."""
        live = self._world.live_by_id
        for sets in self._world.sets:
            if sets.deleting or sets.topic_id in self._world.purged:
                continue
            for slice_ in sets.slices:
                changed: dict[int, PartitionState] = {}
                elections: dict[int, transitions.Election] = {}
                for number, state in enumerate(slice_.partitions, slice_.first_partition):
                    new = state
                    if not _in_order(live, state):
                        election = _elect(self._world, slice_, state)
                        new = election.state
                        if new is not state:
                            elections[number] = election
                    if new is state and state.leader in live:
                        new = self._go_on(sets, slice_, state)
                    if new is not state:
                        changed[number] = new
                if changed:
                    yield _patch(slice_, changed, elections)

    def _go_on(self, sets: TopicSets, slice_: PartitionSet, state: PartitionState) -> PartitionState:
        """Take a partition whose leader is in order a step further."""
        live = self._world.live_by_id
        minimum = slice_.min_insync_replicas
        new = state
        if transitions.is_moving(state):
            new = transitions.advance_reassignment(state, live=live, min_isr=minimum)
        if new is state:
            new = self._reassigner.advance(sets, state)
        if new is state and state.leader != state.replicas[0] and self.returned < self._world.returning:
            if not transitions.is_moving(state):
                new = transitions.elect(state, live=live, min_isr=minimum, prefer_first=True).state
            self.returned += new is not state
        return new


def _patch(
    slice_: PartitionSet,
    changed: Mapping[int, PartitionState],
    elections: Mapping[int, transitions.Election],
) -> Patch:
    tests, operations = patch_partitions(slice_, changed)
    return Patch(
        PARTITION_SET,
        slice_.name,
        slice_.uid,
        tuple(tests),
        tuple(operations),
        priority=Priority.ELECTION if elections else Priority.CHANGE,
        notices=tuple(_notices(slice_, elections)),
    )


def _in_order(live: transitions.Live, state: PartitionState) -> bool:
    """Say whether it is plain that a partition needs no election: so it is for nearly all of them, nearly always."""
    leader = live.get(state.leader)
    if leader is None or leader.incarnation != state.leader_incarnation or leader.draining or state.elr:
        return False
    for broker_id, generation in state.isr:
        member = live.get(broker_id)
        if member is None or member.generation != generation:
            return False
    return True


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
        # Also where the Cluster seems to have no bucket: brokers know better, and say at once that nothing is to be done.
        tierable=slice_.tierable,
    )


def _notices(slice_: PartitionSet, elections: Mapping[int, transitions.Election]) -> Iterator[Notice]:
    """Say what a person should know: partitions without a leader, and every election that was not a clean one.

    One notice names all partitions of a slice that went the same way: brokers lead thousands.
    """
    groups: dict[tuple[transitions.Outcome, int], list[int]] = {}
    for number, election in elections.items():
        groups.setdefault((election.outcome, election.state.leader), []).append(number)
    for (outcome, leader), numbers in groups.items():
        named = f"{slice_.topic_name}-{numbers[0]}"
        if len(numbers) > 1:
            named = f"partitions {', '.join(map(str, numbers))} of {slice_.topic_name}"
        text = {
            transitions.Outcome.OFFLINE: f"no leader for {named}: no in-sync replica lives",
            transitions.Outcome.ELIGIBLE: f"broker {leader} leads {named}: an eligible former in-sync replica",
            transitions.Outcome.POSSIBLE_LOSS: (
                f"broker {leader} leads {named} with a log that may have lost acknowledged records (flush Replicated, "
                "min.insync.replicas 1)"
            ),
            transitions.Outcome.UNCLEAN: (
                f"broker {leader} leads {named} without having been in sync: acknowledged records may be lost "
                "(unclean.leader.election.enable)"
            ),
            transitions.Outcome.RESTORED: f"broker {leader} leads {named}, whose records are in the bucket",
        }.get(outcome)
        if text is not None:
            warning = outcome not in (transitions.Outcome.ELIGIBLE, transitions.Outcome.RESTORED)
            yield Notice(PARTITION_SET, slice_.name, f"Election{outcome}", text, warning=warning)
