"""OffsetDelete (key 47), version 0 (KIP-496).

Differences from Kafka: none known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support import offset_topics
from strandline_broker.api.support.tickets import Ticket
from strandline_broker.errors import ErrorCode
from strandline_broker.group import replies
from strandline_broker.group.requests import DeleteOffsetsRequest, TopicPartitions
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.OFFSET_DELETE


def handle(broker: BrokerApi, request: Request) -> Ticket:
    """Forget offsets of a group, but of no topic that a member reads."""
    wanted: list[TopicPartitions] = []
    refused: list[offset_topics.Row] = []
    for topic in request.body.topics:
        indexes = [part.partition_index for part in topic.partitions]
        known = [index for index in indexes if offset_topics.has_partition(broker.view, topic.name, index)]
        missing = [index for index in indexes if index not in known]
        if known:
            wanted.append(TopicPartitions(topic.name, tuple(known)))
        if missing:
            rows = [offset_topics.error_row(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION) for index in missing]
            refused.append(offset_topics.refused_topic(topic, topic.name, rows))
    merge = offset_topics.merge_topics(refused)

    def finish(body: Mapping[str, Any]) -> Mapping[str, Any]:
        # An error of the whole stands alone, as in Kafka.
        whole = body["error_code"] is not ErrorCode.NONE
        merged = body if whole or merge is None else merge(body)
        topics = [{"name": topic["name"], "partitions": topic["partitions"]} for topic in merged["topics"]]
        return {**merged, "topics": topics}

    ticket = Ticket(request, replies.delete_offsets_error, finish)
    delete = DeleteOffsetsRequest(request.body.group_id, tuple(wanted))
    broker.groups.run(
        delete.group_id, ticket, lambda shard, now_ms: shard.delete_offsets(ticket, delete, now_ms)
    )
    return ticket
