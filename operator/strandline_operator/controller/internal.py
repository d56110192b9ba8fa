"""The topics that a Cluster needs for itself: `__consumer_offsets`, made once and never taken away. Pure.

Such a PartitionSet belongs to the Cluster and to no Topic: elections treat it as any other, and the decisions about Topics
never reach it, because no Topic may have its name. Its number of partitions says where each group is kept, so it stays what
it was when it was made, whatever the Cluster's config says later. Its replicas become more when the Cluster gets more
brokers, up to `offsets.topic.replication.factor`, and never fewer; `min.insync.replicas` follows the Cluster's config.

    no slices ──brokers there──▶ all slices but 0 made ──▶ slice 0 made: served

The Cluster's status records how many partitions were made. If they vanish from the store, the brokers still have their
records: no empty topic takes their place, a person is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from strandline_broker.cluster import broker_config, internal_topics, transitions
from strandline_broker.cluster.cluster_settings import InvalidClusterConfig
from strandline_broker.cluster.internal_topics import INTERNAL_TOPICS, InternalTopic
from strandline_broker.cluster.model import SLICE_SIZE, PartitionSet, derive_topic_id
from strandline_operator.controller.actions import Action
from strandline_operator.controller.conditions import Reason, Trouble
from strandline_operator.controller.slices import Placer, create_slice, patch_slice
from strandline_operator.controller.world import TopicSets, World

STATUS_KEY = "internalTopics"


@dataclass(frozen=True, slots=True)
class InternalOutcome:
    """What was decided: slices to make, what keeps them from being made, and the partitions of each topic so far.

    `factors` has the number of replicas that a topic is to have, by id.
    """

    actions: tuple[Action, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    made: Mapping[str, int] | None = None
    factors: Mapping[UUID, int] = field(default_factory=dict)


def decide_internal(world: World, placer: Placer) -> InternalOutcome:
    """Decide about `__consumer_offsets`."""
    cluster = world.cluster
    if cluster is None:
        return InternalOutcome()
    recorded = {
        name: int(count)
        for name, count in (cluster.status.get(STATUS_KEY) or {}).items()
        if name in INTERNAL_TOPICS
    }
    try:
        config = {**cluster.config, **broker_config.topic_defaults(world.state)}
        wanted = internal_topics.consumer_offsets(config, brokers=cluster.replicas)
    except InvalidClusterConfig:
        return InternalOutcome(made=recorded)  # the Cluster's status names it already
    sets = world.live_sets(wanted.name)
    present = {slice_.slice_index: slice_ for slice_ in sets.slices} if sets is not None else {}
    there = sum(len(slice_.partitions) for slice_ in present.values())
    if 0 in present or recorded.get(wanted.name):
        if there < recorded.get(wanted.name, 0):
            return InternalOutcome(
                troubles=(_lost(wanted.name, recorded[wanted.name], there),), made=recorded
            )
        made = {**recorded, wanted.name: there}
        if sets is None:
            return InternalOutcome(made=made)
        return InternalOutcome(
            tuple(_reconfigure(sets, wanted)), made=made, factors=_factors(world, sets, wanted)
        )
    if not world.settled or len(world.usable) < wanted.replication_factor:
        return InternalOutcome(made=recorded)
    return InternalOutcome(actions=_create(world, wanted, present, placer), made=recorded)


def _factors(world: World, sets: TopicSets, wanted: InternalTopic) -> Mapping[UUID, int]:
    """Return the wish for more replicas, where there are fewer than there could be."""
    factor = wanted.replication_factor
    there = [len(transitions.target_of(state)) for slice_ in sets.slices for state in slice_.partitions]
    if min(there) < factor >= max(there) and world.settled and len(world.usable) >= factor:
        return {sets.topic_id: factor}
    return {}


def _reconfigure(sets: TopicSets, wanted: InternalTopic) -> Iterator[Action]:
    min_isr = {key: text for key, text in wanted.config.items() if key == "min.insync.replicas"}
    for slice_ in sets.slices:
        config = {**slice_.config, **min_isr}
        if config != slice_.config:
            yield patch_slice(slice_, transitions.change_config(slice_, config))


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
