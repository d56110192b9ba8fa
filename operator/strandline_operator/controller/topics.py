"""From a Topic to its PartitionSets: created, configured, grown, deleted, brought back. Pure.

    (no Topic) ──apply──▶ finalizer set ──▶ slices created ──▶ served ◀──────────────┐
                                                                 │                   │ re-applied: adopted
                        Topic deleted, policy Retain: finalizer released, slices stay┘
                        Topic deleted, policy Delete: slices `deleting`, finalizer released
                              │                       ▲
              grace period over, id recorded          └─ re-applied with strandline.io/undelete: `deleting` taken back
              in ClusterState.purgedTopicIds, slices removed

A Topic gets no PartitionSet before it has the finalizer: otherwise a deletion could pass unobserved, and with it the
policy that says what to do with the records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from strandline_broker.cluster import topic_config, transitions
from strandline_broker.cluster.model import (
    CLUSTER_STATE,
    PARTITION_SET,
    SLICE_SIZE,
    TOPIC,
    ClusterState,
    PartitionSet,
    PartitionState,
    Topic,
    derive_topic_id,
    new_partition_set,
)
from strandline_broker.cluster.patches import patch_topic_epoch
from strandline_operator.controller.actions import Action, Create, Delete, Notice, Patch, Priority
from strandline_operator.controller.conditions import Reason, Trouble
from strandline_operator.controller.durations import parse_duration_ms
from strandline_operator.controller.world import (
    ANNOTATION_GRACE_PERIOD,
    ANNOTATION_UNDELETE,
    FINALIZER,
    TopicSets,
    World,
    format_time,
)

# Brokers do not replicate yet. Everything here is written for any factor: to serve more, raise this.
MAX_SERVED_REPLICATION_FACTOR = 1
# Ids of purged topics kept for brokers that were away. A broker that was away for longer reports a stray instead.
MAX_PURGED_IDS = 10_000


class Outcome:
    """What was decided about one Topic: actions, and what keeps it from being ready."""

    __slots__ = ("actions", "troubles")

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.troubles: list[Trouble] = []


class Placer:
    """Places new partitions on the brokers with the fewest, over all decisions of one pass."""

    __slots__ = ("_brokers", "_load", "_world")

    def __init__(self, world: World) -> None:
        self._world = world
        self._brokers = [broker for broker in world.live if not broker.draining]
        self._load: transitions.Load | None = None

    def place(self, partition_count: int, factor: int) -> list[PartitionState]:
        """Return the first states of new partitions. Raises NotEnoughBrokers."""
        if self._load is None:  # counting every partition there is takes time, and most passes place nothing
            slices = (slice_ for sets in self._world.sets if not sets.deleting for slice_ in sets.slices)
            self._load = transitions.Load.of(slices)
        states = transitions.assign(partition_count, factor, self._brokers, load=self._load)
        for state in states:
            self._load.replicas.update(state.replicas)
            self._load.leaders.update(state.replicas[:1])
        return states


def decide_topic(world: World, topic: Topic, placer: Placer) -> Outcome:
    """Decide about a Topic that exists, whether it is being deleted or not."""
    outcome = Outcome()
    owner = world.owners[topic.topic_name]
    if topic.deleting:
        outcome.actions += _delete(world, topic, is_owner=owner is topic)
        outcome.troubles.append(Trouble(Reason.DELETING, "being deleted", own_condition=False))
        return outcome
    if owner is not topic:
        outcome.troubles.append(
            Trouble(
                Reason.RESOURCE_CONFLICT,
                f"the topic {topic.topic_name} belongs to the older Topic {owner.name}; delete one of the two "
                "(deleting this one changes nothing)",
                stalled=True,
            )
        )
        return outcome
    if world.cluster is None:
        return outcome
    if FINALIZER not in topic.meta.finalizers:
        outcome.actions.append(_add_finalizer(topic))
        outcome.troubles.append(_creating())
        return outcome
    sets = world.live_sets(topic.topic_name)
    factor = replication_factor(sets.head) if sets is not None else topic.replicas
    config = _effective_config(world, topic, min(factor, topic.replicas), outcome.troubles)
    if topic.replicas > MAX_SERVED_REPLICATION_FACTOR:
        outcome.troubles.append(_unserved_factor(topic))
    if sets is None:
        _make_or_bring_back(world, topic, config, outcome, placer)
    else:
        _bring_in_line(world, topic, sets, config, outcome, placer)
    return outcome


# -- existing topics ------------------------------------------------------------------------------------------------


def _bring_in_line(
    world: World,
    topic: Topic,
    sets: TopicSets,
    config: dict[str, str] | None,
    outcome: Outcome,
    placer: Placer,
) -> None:
    """Config, partitions and factor of a topic that is served."""
    factor = replication_factor(sets.head)
    if topic.replicas != factor and topic.replicas <= MAX_SERVED_REPLICATION_FACTOR:
        outcome.troubles.append(
            Trouble(
                Reason.NOT_SUPPORTED,
                f"the topic has {factor} replicas; this version cannot change that to {topic.replicas}: "
                f"set spec.replicas back to {factor}",
                stalled=True,
            )
        )
    wanted = topic.partitions
    lost = _lost_partitions(topic, sets)
    if lost:
        outcome.troubles.append(lost)
        return
    if wanted < sets.partition_count:
        outcome.troubles.append(
            Trouble(
                Reason.NOT_SUPPORTED,
                f"the topic has {sets.partition_count} partitions, which cannot become {wanted} without losing records; "
                f"set spec.partitions to {sets.partition_count}",
                stalled=True,
            )
        )
    complete = [slice_.slice_index for slice_ in sets.slices] == list(range(len(sets.slices)))
    grow = wanted > sets.partition_count or not complete
    if grow and not world.settled:
        outcome.troubles.append(_waiting_for_brokers(world))
        grow = False
    if grow and _enough_brokers(world, factor, outcome.troubles):
        present = {slice_.slice_index: slice_ for slice_ in sets.slices}
        chosen = config if config is not None else dict(sets.head.config)
        outcome.actions += _place(world, topic, sets.topic_id, present, chosen, placer)
        outcome.troubles.append(_creating())
    elif config is not None:
        outcome.actions += _reconfigure(sets, config)


def _lost_partitions(topic: Topic, sets: TopicSets | None) -> Trouble | None:
    """Say if partitions that once were complete are no longer in the store.

    They must not be made again: new ones would start empty, under ids and epochs that brokers have records for.
    """
    recorded = int(topic.status.get("partitions") or 0)
    present = sets.partition_count if sets is not None else 0
    if present >= recorded:
        return None
    return Trouble(
        Reason.PARTITIONS_LOST,
        f"{recorded - present} of {recorded} partitions are no longer in the store, though nobody deleted the topic; "
        "brokers keep their records. Restore the PartitionSet objects from a backup; or, to give the records up, set "
        "deletionPolicy Delete, delete this Topic and apply it again, which makes an empty topic",
        stalled=True,
    )


def replication_factor(slice_: PartitionSet) -> int:
    """Return the number of replicas that a topic's partitions have; those on their way out do not count."""
    first = slice_.partitions[0]
    return len(first.replicas) - len(first.removing)


def _place(
    world: World,
    topic: Topic,
    topic_id: UUID,
    present: Mapping[int, PartitionSet],
    config: dict[str, str],
    placer: Placer,
) -> Iterator[Action]:
    """Make the slices that are missing and fill those that are not full, up to what the Topic asks for.

    Slice 0 comes last, when all others are there: with it the topic appears to clients, and should appear whole. A new
    config waits for the next decision: each write changes one thing.
    """
    there = max((slice_.first_partition + len(slice_.partitions) for slice_ in present.values()), default=0)
    wanted = max(topic.partitions, there)
    factor = replication_factor(next(iter(present.values()))) if present else topic.replicas
    actions: list[Action] = []
    for slice_index in reversed(range(-(-wanted // SLICE_SIZE))):
        size = min(SLICE_SIZE, wanted - slice_index * SLICE_SIZE)
        existing = present.get(slice_index)
        if existing is not None and len(existing.partitions) >= size:
            continue
        if slice_index == 0 and existing is None and actions:
            break
        states = placer.place(size - (len(existing.partitions) if existing is not None else 0), factor)
        if existing is None:
            actions.append(_create_slice(world, topic.topic_name, topic_id, slice_index, config, states))
        else:
            actions.append(_patch_slice(existing, transitions.add_partitions(existing, states)))
    yield from actions


def _reconfigure(sets: TopicSets, config: dict[str, str]) -> Iterator[Action]:
    for slice_ in sets.slices:
        if slice_.config != config:
            yield _patch_slice(slice_, transitions.change_config(slice_, config))


def _patch_slice(
    old: PartitionSet,
    new: PartitionSet,
    *,
    more: tuple[dict[str, Any], ...] = (),
    notices: tuple[Notice, ...] = (),
) -> Patch:
    tests, operations = patch_topic_epoch(old, new)
    return Patch(PARTITION_SET, old.name, old.uid, tuple(tests), (*operations, *more), notices=notices)


# -- new topics -----------------------------------------------------------------------------------------------------


def _make_or_bring_back(
    world: World, topic: Topic, config: dict[str, str] | None, outcome: Outcome, placer: Placer
) -> None:
    waiting = world.waiting_sets(topic.topic_name)
    if waiting is not None and ANNOTATION_UNDELETE in topic.meta.annotations:
        notice = Notice(
            TOPIC, topic.name, "Undeleted", f"topic {topic.topic_name} is back with its id and records"
        )
        for slice_ in waiting.slices:
            if not slice_.deleting:
                continue
            notices = (notice,) if slice_ is waiting.head else ()
            outcome.actions.append(_patch_slice(slice_, transitions.unmark_deleting(slice_), notices=notices))
        outcome.troubles.append(_creating())
        return
    if config is None or topic.replicas > MAX_SERVED_REPLICATION_FACTOR:
        return
    if not world.settled:
        outcome.troubles.append(_waiting_for_brokers(world))
        return
    if not _enough_brokers(world, topic.replicas, outcome.troubles):
        return
    topic_id = derive_topic_id(topic.uid, topic.topic_name)
    lost = _lost_partitions(topic, None)
    if lost:
        outcome.troubles.append(lost)
        return
    outcome.actions += _place(world, topic, topic_id, {}, config, placer)
    outcome.troubles.append(_creating())


def _create_slice(
    world: World,
    topic_name: str,
    topic_id: UUID,
    slice_index: int,
    config: dict[str, str],
    states: Sequence[PartitionState],
) -> Create:
    assert world.cluster is not None
    new = new_partition_set(
        cluster=world.cluster_name,
        topic_id=topic_id,
        topic_name=topic_name,
        slice_index=slice_index,
        config=config,
        partitions=tuple(states),
    )
    return Create(
        PARTITION_SET, new.to_object(owner=cluster_object(world)), needs_fresh_list=slice_index == 0
    )


def cluster_object(world: World) -> dict[str, Any]:
    """Return as much of the Cluster object as an ownerReference needs."""
    assert world.cluster is not None
    metadata = {"name": world.cluster.name, "uid": world.cluster.uid}
    return {"apiVersion": "strandline.io/v1alpha1", "kind": "Cluster", "metadata": metadata}


# -- deletion -------------------------------------------------------------------------------------------------------


def _delete(world: World, topic: Topic, *, is_owner: bool) -> Iterator[Action]:
    """Do what the policy says, then let the object go. Every step is decided from what is there."""
    if FINALIZER not in topic.meta.finalizers:
        return
    sets = world.live_sets(topic.topic_name)
    if world.cluster is None:
        message = (
            f"its Cluster {topic.cluster} is gone; nothing was done to the records of {topic.topic_name}"
        )
        yield _release(topic, Notice(TOPIC, topic.name, "Released", message))
    elif not is_owner or sets is None:
        yield _release(topic, None)
    elif topic.deletion_policy == "Delete":
        yield from _mark_deleted(world, topic, sets)
    else:
        message = (
            f"topic {topic.topic_name} stays, with its records (deletionPolicy Retain); re-apply the Topic to manage it "
            "again, or re-apply it with deletionPolicy Delete and delete it to erase it"
        )
        yield _release(topic, Notice(TOPIC, topic.name, "Retained", message))


def _mark_deleted(world: World, topic: Topic, sets: TopicSets) -> Iterator[Action]:
    grace_ms = parse_duration_ms(topic.deletion_grace_period)
    annotation = {
        "op": "add",
        "path": "/metadata/annotations",
        "value": {ANNOTATION_GRACE_PERIOD: topic.deletion_grace_period},
    }
    until = format_time(world.now_ms + grace_ms)
    message = (
        f"topic {topic.topic_name} is hidden now and erased after {until}; until then, re-apply the Topic with the "
        f"annotation {ANNOTATION_UNDELETE} to bring it back"
    )
    for slice_ in sets.slices:
        if slice_.deleting:
            continue
        new = transitions.mark_deleting(slice_, format_time(world.now_ms))
        notices = (Notice(TOPIC, topic.name, "Deleted", message),) if slice_ is sets.head else ()
        yield _patch_slice(slice_, new, more=(annotation,), notices=notices)


def _add_finalizer(topic: Topic) -> Patch:
    current = list(topic.meta.finalizers)
    return Patch(
        TOPIC,
        topic.name,
        topic.uid,
        (("/metadata/finalizers", current or None), ("/metadata/deletionTimestamp", None)),
        ({"op": "add", "path": "/metadata/finalizers", "value": [*current, FINALIZER]},),
    )


def _release(topic: Topic, notice: Notice | None) -> Patch:
    current = list(topic.meta.finalizers)
    remaining = [name for name in current if name != FINALIZER]
    return Patch(
        TOPIC,
        topic.name,
        topic.uid,
        (("/metadata/finalizers", current),),
        ({"op": "replace", "path": "/metadata/finalizers", "value": remaining},),
        priority=Priority.REMOVE,
        notices=(notice,) if notice else (),
    )


def decide_purges(world: World) -> list[Action]:
    """Record the ids of topics whose grace period is over; remove the slices of those that are recorded."""
    actions: list[Action] = []
    for sets in world.sets:
        if sets.topic_id in world.purged:
            for slice_ in sets.slices:
                message = f"topic {sets.topic_name} ({sets.topic_id}) is erased"
                notices = (
                    (Notice(PARTITION_SET, slice_.name, "Purged", message),) if slice_ is sets.head else ()
                )
                actions.append(Delete(PARTITION_SET, slice_.name, slice_.uid, notices=notices))
    due = [
        sets.topic_id
        for sets in world.sets
        if sets.deleting and sets.topic_id not in world.purged and sets.purge_at_ms <= world.now_ms
    ]
    if due and world.state is not None:
        actions.append(_record_purged(world.state, due))
    return actions


def _record_purged(state: ClusterState, due: list[UUID]) -> Patch:
    before = [str(topic_id) for topic_id in state.purged_topic_ids]
    after = [*before, *map(str, due)][-MAX_PURGED_IDS:]
    path = "/spec/purgedTopicIds"
    return Patch(
        CLUSTER_STATE,
        state.name,
        state.uid,
        ((path, before),),
        ({"op": "replace", "path": path, "value": after},),
        priority=Priority.RECORD_PURGE,
    )


# -- checks ---------------------------------------------------------------------------------------------------------


def _effective_config(
    world: World, topic: Topic, factor: int, troubles: list[Trouble]
) -> dict[str, str] | None:
    """Return the Cluster's defaults under the Topic's own config, or None with the reason added to `troubles`."""
    assert world.cluster is not None
    tiering = bool(world.cluster.spec.get("tiering"))
    try:
        defaults = topic_config.validate(world.cluster.config, tiering=tiering)
    except topic_config.InvalidTopicConfig as error:
        troubles.append(
            Trouble(
                Reason.INVALID_CONFIG, f"spec.config of Cluster {world.cluster_name}: {error}", stalled=True
            )
        )
        return None
    try:
        own = topic_config.validate(topic.config, defaults=topic_config.effective(defaults), tiering=tiering)
    except topic_config.InvalidTopicConfig as error:
        troubles.append(Trouble(Reason.INVALID_CONFIG, f"spec.config: {error}", stalled=True))
        return None
    # A Cluster-wide default above the factor is fine: what applies never exceeds the number of replicas.
    needed = int(own.get("min.insync.replicas", "1"))
    if needed > factor:
        troubles.append(
            Trouble(
                Reason.INVALID_CONFIG,
                f"spec.config: min.insync.replicas is {needed}, and there are {factor} replicas; lower it to that",
                stalled=True,
            )
        )
        return None
    return {**defaults, **own}


def _enough_brokers(world: World, factor: int, troubles: list[Trouble]) -> bool:
    usable = [broker for broker in world.live if not broker.draining]
    if len(usable) >= factor:
        return True
    configured = world.cluster.replicas if world.cluster else 0
    if factor > configured:
        message = (
            f"spec.replicas is {factor}, and the Cluster has {configured} brokers; lower it or add brokers"
        )
        troubles.append(Trouble(Reason.NOT_ENOUGH_BROKERS, message, stalled=True))
    else:
        message = f"{factor} brokers are needed for new partitions, and {len(usable)} of {configured} run"
        troubles.append(Trouble(Reason.NOT_ENOUGH_BROKERS, message))
    return False


def _unserved_factor(topic: Topic) -> Trouble:
    return Trouble(
        Reason.NOT_SUPPORTED,
        f"this version serves replication factor {MAX_SERVED_REPLICATION_FACTOR} only, and spec.replicas is "
        f"{topic.replicas}; set spec.replicas to {MAX_SERVED_REPLICATION_FACTOR}",
        stalled=True,
    )


def _creating() -> Trouble:
    return Trouble(Reason.CREATING, "partitions are being made", own_condition=False)


def _waiting_for_brokers(world: World) -> Trouble:
    expected = world.cluster.replicas if world.cluster else 0
    return Trouble(
        Reason.WAITING_FOR_BROKERS,
        f"{len(world.live)} of {expected} brokers run; new partitions are placed when all do, or shortly after",
        own_condition=False,
    )
