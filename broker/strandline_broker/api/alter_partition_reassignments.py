"""AlterPartitionReassignments (key 45), versions 0-1 (KIP-455).

Differences from Kafka: the operator copies a bounded number of partitions at once (`reassignment.max.partitions`); the rest
is listed as in progress and begins later. All partitions of a topic have the same number of replicas: another one is taken
for all of them in one request, and goes into the Topic's spec (INVALID_REPLICA_ASSIGNMENT otherwise; POLICY_VIOLATION for
internal topics, whose number is the Cluster's). `Cluster.spec.kafkaAdmin` decides which topics clients may change
(POLICY_VIOLATION).

Version notes: v1 whether the number of replicas may change (KIP-860).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support import topic_names
from strandline_broker.api.support.partition_change import Decide, change_partitions
from strandline_broker.api.support.topic_change import write_topic
from strandline_broker.api.support.topic_plan import assignment_problem
from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import PartitionSet, PartitionState, Topic
from strandline_broker.cluster.store import Operation
from strandline_broker.cluster.view import TopicView
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

# The replicas that a client asks for, by partition; None takes a reassignment back.
Wishes = Mapping[int, Sequence[int] | None]
Results = dict[int, KafkaError | None]

KEY = ApiKey.ALTER_PARTITION_REASSIGNMENTS


async def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Set or cancel a target for each partition."""
    body = request.body
    may_change_factor = getattr(body, "allow_replication_factor_change", True)
    rows = []
    for topic in body.topics:
        await asyncio.sleep(0)  # other connections get their turn between two topics
        wishes = {wish.partition_index: wish.replicas for wish in topic.partitions}
        results = await _change(broker, topic.name, wishes, may_change_factor=may_change_factor)
        rows.append({"name": topic.name, "partitions": [_row(n, results[n]) for n in wishes]})
    return {
        "allow_replication_factor_change": may_change_factor,
        "error_code": ErrorCode.NONE,
        "error_message": None,
        "responses": rows,
    }


async def _change(broker: BrokerApi, name: str, wishes: Wishes, *, may_change_factor: bool) -> Results:
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    topic = broker.view.topic_by_name(name)
    if topic is None:
        return dict.fromkeys(wishes, KafkaError(unknown, f"Unable to find a topic named {name}."))
    results = {number: _refusal(broker, topic, number, target) for number, target in wishes.items()}
    accepted = {number: target for number, target in wishes.items() if results[number] is None}
    try:
        results |= await _change_factor(broker, topic, accepted, may_change=may_change_factor)
    except KafkaError as refusal:
        return results | dict.fromkeys(accepted, refusal)
    for part in topic.slices:
        inside = {
            number: _decide(target)
            for number, target in accepted.items()
            if topic.partition_set(number) is part and results[number] is None
        }
        if inside:
            results |= await change_partitions(broker, part, inside, guarded=True)
    return results


def _refusal(
    broker: BrokerApi, topic: TopicView, number: int, target: Sequence[int] | None
) -> KafkaError | None:
    """Return what is wrong with one wish whatever else is asked for."""
    state = topic.partition(number)
    if state is None:
        message = f"Unable to find partition {topic.topic_name}:{number}."
        return KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, message)
    if target is None:
        return None if transitions.is_reassigning(state) else _not_in_progress()
    why = assignment_problem(target, broker.view.leases.keys(), 0)
    if why:
        return KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"The manual partition assignment includes {why}"
        )
    return None


def _not_in_progress() -> KafkaError:
    return KafkaError(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "No partition reassignment is in progress.")


def _decide(target: Sequence[int] | None) -> Decide:
    def decide(part: PartitionSet, number: int) -> PartitionState:
        state = part.partition(number)
        if target is not None:
            return transitions.request_reassignment(state, target)
        if not transitions.is_reassigning(state):
            raise _not_in_progress()
        return transitions.cancel_reassignment(state)

    return decide


async def _change_factor(broker: BrokerApi, topic: TopicView, wishes: Wishes, *, may_change: bool) -> Results:
    """Write another number of replicas into the Topic's spec, if that is asked for; return what is refused.

    Raises KafkaError where the Topic cannot be changed.
    """
    before = {number: len(transitions.target_of(state)) for number, state in topic.partitions()}
    after = dict(before)
    for number, target in wishes.items():
        state = topic.partition(number)
        assert state is not None, "it was found before"
        after[number] = len(
            transitions.target_of(transitions.cancel_reassignment(state)) if target is None else target
        )
    changed = [number for number in wishes if after[number] != before[number]]
    if not changed:
        return {}
    if not may_change:
        return {
            number: KafkaError(
                ErrorCode.INVALID_REPLICATION_FACTOR,
                f"The replication factor is changed from {before[number]} to {after[number]}",
            )
            for number in changed
        }
    if topic_names.is_internal(topic.topic_name):
        raise KafkaError(
            ErrorCode.POLICY_VIOLATION,
            f"The number of replicas of {topic.topic_name} is the Cluster's (offsets.topic.replication.factor).",
        )
    if len(set(after.values())) > 1:
        refusal = KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"All {len(after)} partitions of a topic have the same number of replicas: change it for all of them in one "
            "request, or in the Topic resource (spec.replicas).",
        )
        return dict.fromkeys(changed, refusal)
    factor = after[changed[0]]

    def decide(found: Topic) -> list[Operation]:
        if found.replicas == factor:
            return []
        return [{"op": "add", "path": "/spec/replicas", "value": factor}]

    await write_topic(broker, topic, decide)
    return {}


def _row(number: int, refusal: KafkaError | None) -> dict[str, Any]:
    return {
        "partition_index": number,
        "error_code": refusal.code if refusal is not None else ErrorCode.NONE,
        "error_message": refusal.message or None if refusal is not None else None,
    }
