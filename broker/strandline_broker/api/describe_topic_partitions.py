"""DescribeTopicPartitions (key 75), version 0 (KIP-966).

Differences from Kafka: eligible leader replicas are always kept, whatever the feature `eligible.leader.replicas.version`;
last known ones are not (a partition waits for its eligible replicas instead).

Answers come in pages: topics in alphabetical order, at most `MAX_PARTITIONS` partitions, and a cursor to go on from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support import operations, topic_names
from strandline_broker.api.support.brokers import live_brokers, offline_replicas
from strandline_broker.cluster.model import NO_LEADER, PartitionState
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.DESCRIBE_TOPIC_PARTITIONS

MAX_PARTITIONS = 2_000
"""Partitions in one answer (Kafka's max.request.partition.size.limit)."""


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Describe the named topics, or all."""
    body = request.body
    cursor = body.cursor
    named = {topic.name for topic in body.topics}
    if cursor is not None and (cursor.partition_index < 0 or (named and cursor.topic_name not in named)):
        # There is no error of the whole answer in this API: each topic gets it, as Kafka does.
        return {"topics": [_refused(name, ErrorCode.INVALID_REQUEST) for name in sorted(named)]}
    first_topic, first_partition = (
        (cursor.topic_name, cursor.partition_index) if cursor is not None else ("", 0)
    )
    reachable = {address.broker_id for address in live_brokers(broker.view, request.connection.listener.name)}
    silent = broker.view.silent_brokers()
    left = max(min(MAX_PARTITIONS, body.response_partition_limit), 1)
    rows: list[dict[str, Any]] = []
    for name in sorted(name for name in named or broker.view.topics if name >= first_topic):
        if left == 0:
            return {"topics": rows, "next_cursor": {"topic_name": name, "partition_index": 0}}
        topic = broker.view.topic_by_name(name)
        if topic is None:
            if named:
                rows.append(_refused(name, _why_unknown(name)))
            continue
        first = first_partition if name == first_topic else 0
        end = min(first + left, topic.partition_count)
        states = ((number, topic.partition(number)) for number in range(first, end))
        rows.append(
            {
                "error_code": ErrorCode.NONE,
                "name": name,
                "topic_id": topic.topic_id,
                "is_internal": topic_names.is_internal(name),
                "partitions": list(_partitions(states, reachable, silent)),
                "topic_authorized_operations": operations.TOPIC,
            }
        )
        if end < topic.partition_count:
            return {"topics": rows, "next_cursor": {"topic_name": name, "partition_index": end}}
        left -= max(end - first, 0)
    return {"topics": rows, "next_cursor": None}


def _partitions(
    states: Iterator[tuple[int, PartitionState | None]], reachable: set[int], silent: frozenset[int]
) -> Iterator[dict[str, Any]]:
    for number, state in states:
        assert state is not None, "the number is one of the topic's"
        yield {
            "error_code": ErrorCode.NONE,
            "partition_index": number,
            "leader_id": state.leader if state.leader in reachable else NO_LEADER,
            "leader_epoch": state.leader_epoch,
            "replica_nodes": state.replicas,
            "isr_nodes": state.isr_ids,
            "eligible_leader_replicas": [ref.broker_id for ref in state.elr],
            "last_known_elr": [],
            "offline_replicas": offline_replicas(state, reachable, silent),
        }


def _why_unknown(name: str) -> ErrorCode:
    if topic_names.is_valid(name):
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return ErrorCode.INVALID_TOPIC_EXCEPTION


def _refused(name: str, error: ErrorCode) -> dict[str, Any]:
    return {
        "error_code": error,
        "name": name,
        "topic_id": None,
        "is_internal": topic_names.is_internal(name),
        "partitions": [],
    }
