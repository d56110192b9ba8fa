"""ListPartitionReassignments (key 46), version 0 (KIP-455).

Differences from Kafka: a reassignment that waits for its turn is listed as it will be when it begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.cluster.transitions import begin_reassignment, is_reassigning
from strandline_broker.cluster.view import TopicView
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.LIST_PARTITION_REASSIGNMENTS


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """List the partitions that are being reassigned, all or of those that are named."""
    wanted = request.body.topics
    asked: Iterable[tuple[TopicView | None, Iterable[int]]]
    if wanted is None:
        topics = sorted(broker.view.topics.values(), key=lambda topic: topic.topic_name)
        asked = ((topic, range(topic.partition_count)) for topic in topics)
    else:
        asked = ((broker.view.topic_by_name(topic.name), topic.partition_indexes) for topic in wanted)
    rows = []
    for topic, numbers in asked:
        partitions = list(_reassigning(topic, numbers)) if topic is not None else []
        if topic is not None and partitions:
            rows.append({"name": topic.topic_name, "partitions": partitions})
    return {"error_code": ErrorCode.NONE, "error_message": None, "topics": rows}


def _reassigning(topic: TopicView, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    for number in numbers:
        state = topic.partition(number)
        if state is not None and is_reassigning(state):
            begun = begin_reassignment(state)
            yield {
                "partition_index": number,
                "replicas": begun.replicas,
                "adding_replicas": begun.adding,
                "removing_replicas": begun.removing,
            }
