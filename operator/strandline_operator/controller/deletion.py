"""What becomes of a topic whose Topic object is deleted, and of its records. Pure.

Only an observed deletion deletes: the finalizer holds the Topic until what its policy says is on its way.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import CLUSTER_STATE, PARTITION_SET, TOPIC, ClusterState, Topic
from strandline_operator.controller.actions import Action, Delete, Notice, Patch, Priority
from strandline_operator.controller.durations import parse_duration_ms
from strandline_operator.controller.slices import patch_slice
from strandline_operator.controller.world import (
    ANNOTATION_GRACE_PERIOD,
    ANNOTATION_UNDELETE,
    DEFAULT_GRACE_PERIOD_MS,
    FINALIZER,
    TopicSets,
    World,
    format_time,
)

# Ids of purged topics kept for brokers that were away. A broker that was away for longer reports a stray instead.
MAX_PURGED_IDS = 10_000


def decide_deletion(world: World, topic: Topic, *, is_owner: bool) -> Iterator[Action]:
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


def release_only(topic: Topic) -> Iterator[Action]:
    """Let the object go and do nothing else, whatever its policy says."""
    if FINALIZER in topic.meta.finalizers:
        yield _release(topic, None)


def _mark_deleted(world: World, topic: Topic, sets: TopicSets) -> Iterator[Action]:
    try:
        grace_ms = parse_duration_ms(topic.deletion_grace_period)
    except ValueError:  # a store without a schema let it in
        grace_ms = DEFAULT_GRACE_PERIOD_MS
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
        yield patch_slice(slice_, new, more=(annotation,), notices=notices)


def add_finalizer(topic: Topic) -> Patch:
    """Return the write that makes sure that the Topic's deletion is observed."""
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
