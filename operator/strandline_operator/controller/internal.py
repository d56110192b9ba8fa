"""The topics that a Cluster needs for itself: `__consumer_offsets`, made once and never taken away. Pure.

Such a PartitionSet belongs to the Cluster and to no Topic. Nothing here changes or removes one: elections treat it as any
other, and the decisions about Topics never reach it, because no Topic may have its name. Its number of partitions says
where each group is kept, so it stays what it was when it was made, whatever the Cluster's config says later.

    no slices ──brokers there──▶ all slices but 0 made ──▶ slice 0 made: served

The Cluster's status records how many partitions were made. If they vanish from the store, the brokers still have their
records: no empty topic takes their place, a person is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from strandline_broker.cluster import internal_topics
from strandline_broker.cluster.internal_topics import INTERNAL_TOPICS, InternalTopic
from strandline_broker.cluster.model import SLICE_SIZE, PartitionSet, derive_topic_id
from strandline_operator.controller.actions import Action
from strandline_operator.controller.conditions import Reason, Trouble
from strandline_operator.controller.slices import Placer, create_slice
from strandline_operator.controller.world import World

STATUS_KEY = "internalTopics"


@dataclass(frozen=True, slots=True)
class InternalOutcome:
    """What was decided: slices to make, what keeps them from being made, and the partitions of each topic so far."""

    actions: tuple[Action, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    made: Mapping[str, int] | None = None


def decide_internal(world: World, placer: Placer, served_factor: int) -> InternalOutcome:
    """Decide about `__consumer_offsets`. `served_factor` is the highest replication factor that brokers serve."""
    cluster = world.cluster
    if cluster is None:
        return InternalOutcome()
    recorded = {
        name: int(count)
        for name, count in (cluster.status.get(STATUS_KEY) or {}).items()
        if name in INTERNAL_TOPICS
    }
    try:
        wanted = internal_topics.consumer_offsets(
            cluster.config, brokers=cluster.replicas, served_factor=served_factor
        )
    except internal_topics.InvalidClusterConfig:
        return InternalOutcome(made=recorded)  # the Cluster's status names it already
    sets = world.live_sets(wanted.name)
    present = {slice_.slice_index: slice_ for slice_ in sets.slices} if sets is not None else {}
    there = sum(len(slice_.partitions) for slice_ in present.values())
    if 0 in present or recorded.get(wanted.name):
        if there < recorded.get(wanted.name, 0):
            return InternalOutcome(
                troubles=(_lost(wanted.name, recorded[wanted.name], there),), made=recorded
            )
        return InternalOutcome(made={**recorded, wanted.name: there})
    usable = [broker for broker in world.live if not broker.draining]
    if not world.settled or len(usable) < wanted.replication_factor:
        return InternalOutcome(made=recorded)
    return InternalOutcome(actions=_create(world, wanted, present, placer), made=recorded)


def _create(
    world: World, wanted: InternalTopic, present: Mapping[int, PartitionSet], placer: Placer
) -> tuple[Action, ...]:
    """Make the slices that are missing; slice 0 comes last, when all others are there."""
    assert world.cluster is not None
    topic_id = derive_topic_id(world.cluster.uid, wanted.name)
    actions: list[Action] = []
    for slice_index in reversed(range(-(-wanted.partitions // SLICE_SIZE))):
        if slice_index in present:
            continue
        if slice_index == 0 and actions:
            break
        size = min(SLICE_SIZE, wanted.partitions - slice_index * SLICE_SIZE)
        states = placer.place(size, wanted.replication_factor)
        actions.append(create_slice(world, wanted.name, topic_id, slice_index, wanted.config, states))
    return tuple(actions)


def _lost(name: str, recorded: int, there: int) -> Trouble:
    return Trouble(
        Reason.PARTITIONS_LOST,
        f"{recorded - there} of {recorded} partitions of {name} are no longer in the store; brokers keep their records. "
        "Restore the PartitionSet objects from a backup: until then consumer groups cannot be served",
        stalled=True,
    )
