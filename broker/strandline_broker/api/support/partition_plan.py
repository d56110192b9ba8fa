"""Every check of CreatePartitions that needs no write, and the change that it makes. Pure.

Source: Apache Kafka 4.2, `ReplicationControlManager.createPartitions`.
"""

from __future__ import annotations

from collections.abc import Sequence

from strandline_broker.api.support import topic_names
from strandline_broker.api.support.brokers import is_live
from strandline_broker.api.support.topic_plan import (
    MAX_PARTITIONS,
    assignment_problem,
    check_lives,
    check_text,
)
from strandline_broker.cluster.cache import ClusterCache, TopicView
from strandline_broker.cluster.json_patch import pointer
from strandline_broker.cluster.model import Topic
from strandline_broker.cluster.replica_assignment import ANNOTATION_REPLICA_ASSIGNMENT, format_assignment
from strandline_broker.cluster.store import Operation
from strandline_broker.cluster.transitions import is_reassigning, target_of
from strandline_broker.errors import ErrorCode, KafkaError


def check(
    view: ClusterCache, name: str, count: int, assignments: Sequence[Sequence[int]] | None
) -> TopicView:
    """Check a wish for `count` partitions in all and return the topic. Raises KafkaError.

    `assignments` are the brokers of each new partition, or None to leave that to the cluster.
    """
    topic = view.topic_by_name(name)
    if topic is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic.")
    if topic_names.is_internal(name):
        raise KafkaError(
            ErrorCode.POLICY_VIOLATION, f"{name} is internal; the cluster decides its partitions"
        )
    if any(is_reassigning(state) for _, state in topic.partitions()):
        raise KafkaError(
            ErrorCode.REASSIGNMENT_IN_PROGRESS,
            f"A partition reassignment is in progress for the topic '{name}'; try again when it is done.",
        )
    current = topic.partition_count
    if count == current:
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, f"Topic already has {current} partition(s).")
    _check_increase(name, current, count)
    if count > MAX_PARTITIONS:
        raise KafkaError(
            ErrorCode.INVALID_PARTITIONS,
            f"A topic can have at most {MAX_PARTITIONS} partitions, not {count}.",
        )
    if assignments is not None:
        _check_assignments(view, topic, count - current, assignments)
    return topic


def operations(
    found: Topic, topic: TopicView, count: int, assignments: Sequence[Sequence[int]] | None
) -> list[Operation]:
    """Return what makes the Topic object ask for `count` partitions; nothing where it does already.

    Raises KafkaError(INVALID_PARTITIONS) where it asks for more: somebody else was quicker.
    """
    if found.partitions == count:
        return []
    _check_increase(topic.topic_name, found.partitions, count)
    wanted: list[Operation] = [{"op": "add", "path": "/spec/partitions", "value": count}]
    if assignments is not None:
        first = count - len(assignments)
        text = format_assignment(dict(enumerate(assignments, first)))
        if found.meta.annotations:
            path = pointer("metadata", "annotations", ANNOTATION_REPLICA_ASSIGNMENT)
            wanted.append({"op": "add", "path": path, "value": text})
        else:
            value = {ANNOTATION_REPLICA_ASSIGNMENT: text}
            wanted.append({"op": "add", "path": "/metadata/annotations", "value": value})
    return wanted


def _check_increase(name: str, current: int, count: int) -> None:
    if count < current:
        raise KafkaError(
            ErrorCode.INVALID_PARTITIONS,
            f"The topic {name} currently has {current} partition(s); {count} would not be an increase.",
        )


def _check_assignments(
    view: ClusterCache, topic: TopicView, additional: int, assignments: Sequence[Sequence[int]]
) -> None:
    if len(assignments) != additional:
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"Attempted to add {additional} additional partition(s), but only {len(assignments)} assignment(s) "
            "were specified.",
        )
    first = topic.partition(0)
    assert first is not None, "a topic has partitions"
    live = [broker_id for broker_id, lease in view.leases.items() if is_live(lease)]
    current = topic.partition_count
    for brokers in assignments:
        why = assignment_problem(brokers, view.leases.keys(), len(target_of(first)))
        if why:
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"The manual partition assignment includes {why}"
            )
        check_lives(current, brokers, live)
        current += 1
    check_text(dict(enumerate(assignments)))
