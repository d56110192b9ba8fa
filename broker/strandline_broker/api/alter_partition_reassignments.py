"""AlterPartitionReassignments (key 45), versions 0-1 (KIP-455).

Differences from Kafka: brokers of this version do not copy partitions, so a target may only name brokers that
have the partition already, in any order; others are refused (INVALID_REPLICA_ASSIGNMENT), and so is another
number of replicas, which belongs to the Topic's spec. `Cluster.spec.kafkaAdmin` decides which topics clients may
change (POLICY_VIOLATION).

Version notes: v1 whether the number of replicas may change (KIP-860).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.partition_change import Decide, change_partitions
from strandline_broker.api.support.topic_plan import assignment_problem
from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import PartitionSet, PartitionState
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.ALTER_PARTITION_REASSIGNMENTS


async def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Set or cancel a target for each partition."""
    body = request.body
    may_change_factor = getattr(body, "allow_replication_factor_change", True)
    rows = []
    for topic in body.topics:
        await asyncio.sleep(0)  # other connections get their turn between two topics
        wishes = {
            wish.partition_index: _wish(broker, wish.replicas, may_change_factor=may_change_factor)
            for wish in topic.partitions
        }
        results = await _change(broker, topic.name, wishes)
        rows.append({"name": topic.name, "partitions": [_row(n, results[n]) for n in wishes]})
    return {
        "allow_replication_factor_change": may_change_factor,
        "error_code": ErrorCode.NONE,
        "error_message": None,
        "responses": rows,
    }


async def _change(broker: BrokerApi, name: str, wishes: Mapping[int, Decide]) -> dict[int, KafkaError | None]:
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    topic = broker.view.topic_by_name(name)
    if topic is None:
        return dict.fromkeys(wishes, KafkaError(unknown, f"Unable to find a topic named {name}."))
    results: dict[int, KafkaError | None] = {
        number: KafkaError(unknown, f"Unable to find partition {name}:{number}.")
        for number in wishes
        if topic.partition(number) is None
    }
    for part in topic.slices:
        inside = {n: decide for n, decide in wishes.items() if topic.partition_set(n) is part}
        if inside:
            results |= await change_partitions(broker, part, inside, guarded=True)
    return results


def _wish(broker: BrokerApi, target: Sequence[int] | None, *, may_change_factor: bool) -> Decide:
    def decide(part: PartitionSet, number: int) -> PartitionState:
        state = part.partition(number)
        if target is None:
            if not transitions.is_reassigning(state):
                raise KafkaError(
                    ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "No partition reassignment is in progress."
                )
            return transitions.cancel_reassignment(state)
        why = assignment_problem(target, broker.view.leases.keys(), 0)
        if why:
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"The manual partition assignment includes {why}"
            )
        _check_factor(state, len(target), may_change_factor=may_change_factor)
        missing = [broker_id for broker_id in target if broker_id not in state.replicas]
        if missing:
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"{part.topic_name}-{number} lives on {list(state.replicas)} and cannot move to {missing}: this "
                "version does not copy partitions between brokers.",
            )
        return transitions.start_reassignment(state, target)

    return decide


def _check_factor(state: PartitionState, wanted: int, *, may_change_factor: bool) -> None:
    factor = len(transitions.target_of(state))
    if wanted == factor:
        return
    if not may_change_factor:
        raise KafkaError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"The replication factor is changed from {factor} to {wanted}",
        )
    raise KafkaError(
        ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        f"The topic has {factor} replica(s) of each partition, not {wanted}: its Topic resource (spec.replicas) says "
        "how many.",
    )


def _row(number: int, refusal: KafkaError | None) -> dict[str, Any]:
    return {
        "partition_index": number,
        "error_code": refusal.code if refusal is not None else ErrorCode.NONE,
        "error_message": refusal.message or None if refusal is not None else None,
    }
