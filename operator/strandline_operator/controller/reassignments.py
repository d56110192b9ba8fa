"""Which partitions begin to move, and how far those that move have come. Pure.

A partition moves because a Kafka client set a target, or because its topic is to have another number of replicas. Both wait
until there is room: `reassignment.max.partitions` are copied at once, over the whole Cluster. What a client asked for is
kept in the partition (`target`) meanwhile; the other needs no record, it shows in the difference to `spec.replicas`.

Dropping replicas copies nothing and does not wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from strandline_broker.cluster import transitions
from strandline_broker.cluster.cluster_settings import REASSIGNMENT_MAX_PARTITIONS, setting_or_default
from strandline_broker.cluster.model import NO_LEADER, PartitionState
from strandline_operator.controller.conditions import Reason, Trouble
from strandline_operator.controller.slices import Placer
from strandline_operator.controller.world import TopicSets, World


class Reassigner:
    """Begins reassignments while there is room, over all decisions of one pass.

    `factors` has the number of replicas that topics are to have, by id; topics that are not in it stay as they are.
    """

    __slots__ = ("_counted", "_factors", "_placer", "_room", "_world")

    def __init__(self, world: World, placer: Placer, factors: Mapping[UUID, int]) -> None:
        self._world = world
        self._placer = placer
        self._factors = factors
        self._room = 0
        self._counted = False

    def advance(self, sets: TopicSets, state: PartitionState) -> PartitionState:
        """Return the partition with its reassignment begun or redirected, if that can be now; else the very same."""
        factor = self._factors.get(sets.topic_id)
        if not transitions.is_reassigning(state) and (factor is None or factor == len(state.replicas)):
            return state
        goal = transitions.target_of(state)
        factor = factor if factor is not None else len(goal)
        if (factor == len(goal) and not state.target) or state.leader == NO_LEADER:
            return state
        copies = factor > len(goal) or not set(goal).issubset(state.replicas)
        if copies and not self._has_room():
            return state
        try:
            target = goal if factor == len(goal) else self._placer.change_factor(state, factor)
        except transitions.NotEnoughBrokers:
            return state  # the topic's status says so
        added = set(target).difference(state.replicas)
        if not added.issubset(broker.broker_id for broker in self._world.usable):
            return state
        if added:
            self._room -= 1
        return transitions.start_reassignment(state, target)

    def _has_room(self) -> bool:
        if not self._counted:
            self._counted = True
            self._room = max_moving(self._world) - sum(
                _is_copied(state, self._world)
                for sets in self._world.sets
                for slice_ in sets.slices
                for state in slice_.partitions
            )
        return self._room > 0


def max_moving(world: World) -> int:
    """Return how many partitions are copied at once."""
    config = world.cluster.config if world.cluster is not None else {}
    return setting_or_default(config, REASSIGNMENT_MAX_PARTITIONS)


def _is_copied(state: PartitionState, world: World) -> bool:
    """Say whether a partition uses room: one that waits for a dead broker does not, or twenty could stop all."""
    missing = set(state.adding).difference(state.isr_ids)
    return bool(missing) and missing.issubset(world.live_by_id)


def progress(world: World, sets: TopicSets, factor: int | None) -> Trouble:
    """Say how far the partitions of a topic are that are not where they should be, and what they wait for.

    `factor`: the number of replicas that the topic is to have; None where nothing is asked for.
    """
    moving = waiting = 0
    has_factor = True
    blockers = []
    for slice_ in sets.slices:
        for number, state in enumerate(slice_.partitions, slice_.first_partition):
            has_factor &= factor is None or len(state.replicas) - len(state.adding) == factor
            if state.adding or state.removing:
                moving += 1
            elif state.target or (factor is not None and len(state.replicas) != factor):
                waiting += 1
            else:
                continue
            blockers.append(_blocker(world, f"{sets.topic_name}-{number}", state))
    message = f"moving {moving} of {sets.partition_count} partitions"
    if waiting:
        message += f", {waiting} wait for their turn (at most {max_moving(world)} at once)"
    # What is down comes first: it needs somebody's attention.
    _, blocker = min(blockers, key=lambda found: found[0], default=(2, ""))
    if blocker:
        message += f"; waiting for {blocker}"
    return Trouble(Reason.REASSIGNING, message, ready=has_factor)


def _blocker(world: World, partition: str, state: PartitionState) -> tuple[int, str]:
    """Return what a partition waits for, and how much that matters: 0 for what is down, 2 for its turn."""
    if state.leader not in world.live_by_id:
        return 0, f"a leader of {partition}"
    missing = [broker_id for broker_id in state.adding if broker_id not in state.isr_ids]
    missing += [broker_id for broker_id in state.target if broker_id not in state.replicas]
    for broker_id in missing:
        if broker_id not in world.live_by_id:
            return 0, f"broker {broker_id}, which is down, on {partition}"
    if not transitions.is_moving(state):
        return 2, ""
    return 1, f"broker {missing[0]} on {partition}" if missing else f"enough in-sync replicas of {partition}"
