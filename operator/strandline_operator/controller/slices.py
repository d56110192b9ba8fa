"""New slices and changed slices of a topic, and where their partitions go. Pure; used by the decisions about topics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import (
    PARTITION_SET,
    SLICE_SIZE,
    PartitionSet,
    PartitionState,
    Topic,
    new_partition_set,
)
from strandline_broker.cluster.patches import patch_topic_epoch
from strandline_operator.controller.actions import Action, Create, Notice, Patch
from strandline_operator.controller.world import World


class Placer:
    """Places replicas on the brokers with the fewest, over all decisions of one pass."""

    __slots__ = ("_load", "_world")

    def __init__(self, world: World) -> None:
        self._world = world
        self._load: transitions.Load | None = None

    @property
    def load(self) -> transitions.Load:
        """What each broker has, with what this pass has placed."""
        if self._load is None:  # counting every partition there is takes time, and most passes place nothing
            slices = (slice_ for sets in self._world.sets if not sets.deleting for slice_ in sets.slices)
            self._load = transitions.Load.of(slices)
        return self._load

    def place(self, partition_count: int, factor: int) -> list[PartitionState]:
        """Return the first states of new partitions. Raises NotEnoughBrokers."""
        states = transitions.assign(partition_count, factor, self._world.usable, load=self.load)
        for state in states:
            self.load.replicas.update(state.replicas)
            self.load.leaders.update(state.replicas[:1])
        return states

    def place_chosen(
        self, numbers: range, factor: int, chosen: Mapping[int, tuple[int, ...]]
    ) -> list[PartitionState]:
        """Return the first states of new partitions, some of them on the brokers that the user chose.

        A choice that does not fit (another number of replicas, a broker that the Cluster does not have, none that lives) is
        passed over. Raises NotEnoughBrokers.
        """
        live = self._world.live_by_id
        cluster = self._world.cluster
        known = live.keys() | set(range(cluster.replicas if cluster is not None else 0))
        fixed = {
            number: transitions.new_partition(chosen[number], dict(live))
            for number in numbers
            if len(chosen.get(number, ())) == factor
            and known.issuperset(chosen[number])
            and not live.keys().isdisjoint(chosen[number])
        }
        for state in fixed.values():
            self.load.replicas.update(state.replicas)
            self.load.leaders.update(state.replicas[:1])
        others = iter(self.place(len(numbers) - len(fixed), factor))
        return [fixed[number] if number in fixed else next(others) for number in numbers]

    def change_factor(self, state: PartitionState, factor: int) -> tuple[int, ...]:
        """Return the replicas of a partition with another factor. Raises NotEnoughBrokers."""
        before = transitions.target_of(state)
        live = self._world.live_by_id
        in_sync = {ref.broker_id for ref in state.isr if transitions.RULES.generation_matches(ref, live)}
        after = transitions.with_factor(before, factor, self._world.usable, in_sync=in_sync, load=self.load)
        self.load.replicas.subtract(before)
        self.load.replicas.update(after)
        self.load.leaders.subtract(before[:1])
        self.load.leaders.update(after[:1])
        return after


def replication_factor(slice_: PartitionSet) -> int:
    """Return the number of replicas that a topic's partitions have, or will have when what moves has moved."""
    return len(transitions.target_of(slice_.partitions[0]))


def place(
    world: World,
    topic: Topic,
    topic_id: UUID,
    present: Mapping[int, PartitionSet],
    config: dict[str, str],
    factor: int,
    placer: Placer,
    chosen: Mapping[int, tuple[int, ...]],
) -> Iterator[Action]:
    """Make the slices that are missing and fill those that are not full, up to what the Topic asks for.

    `chosen` are the replicas of partitions that the user wants on particular brokers.

    Slice 0 comes last, when all others are there: with it the topic appears to clients, and should appear whole. A new
    config waits for the next decision: each write changes one thing.
    """
    there = max((slice_.first_partition + len(slice_.partitions) for slice_ in present.values()), default=0)
    wanted = max(topic.partitions, there)
    actions: list[Action] = []
    for slice_index in reversed(range(-(-wanted // SLICE_SIZE))):
        size = min(SLICE_SIZE, wanted - slice_index * SLICE_SIZE)
        existing = present.get(slice_index)
        if existing is not None and len(existing.partitions) >= size:
            continue
        if slice_index == 0 and existing is None and actions:
            break
        first = slice_index * SLICE_SIZE + (len(existing.partitions) if existing is not None else 0)
        numbers = range(first, slice_index * SLICE_SIZE + size)
        states = placer.place_chosen(numbers, factor, chosen)
        if existing is None:
            actions.append(create_slice(world, topic.topic_name, topic_id, slice_index, config, states))
        else:
            actions.append(patch_slice(existing, transitions.add_partitions(existing, states)))
    yield from actions


def create_slice(
    world: World,
    topic_name: str,
    topic_id: UUID,
    slice_index: int,
    config: dict[str, str],
    states: Sequence[PartitionState],
) -> Create:
    """Return the creation of one slice.

    It carries the Cluster's label and no ownerReference: Kubernetes would remove it when the Cluster is deleted, whatever
    `deletionPolicy` says, and when a backup brings it back beside a Cluster with another UID.
    """
    new = new_partition_set(
        cluster=world.cluster_name,
        topic_id=topic_id,
        topic_name=topic_name,
        slice_index=slice_index,
        config=config,
        partitions=tuple(states),
    )
    return Create(PARTITION_SET, new.to_object(), needs_fresh_list=slice_index == 0)


def patch_slice(
    old: PartitionSet,
    new: PartitionSet,
    *,
    more: tuple[dict[str, Any], ...] = (),
    notices: tuple[Notice, ...] = (),
) -> Patch:
    """Return the change of one slice, with more operations on the object where given."""
    tests, operations = patch_topic_epoch(old, new)
    return Patch(PARTITION_SET, old.name, old.uid, tuple(tests), (*operations, *more), notices=notices)
