"""OffsetForLeaderEpoch (key 23), versions 2-4.

Differences from Kafka: asked for an epoch above its own, a leader answers UNKNOWN_LEADER_EPOCH, also where the client names
no current epoch: it has been replaced without knowing. Kafka answers that nothing is known of the epoch, and a
consumer that had read from the successor takes its records for truncated. Consumers use this request to find out
after a change of leaders where their log ends (KIP-320); followers of this broker learn the same from Fetch.

Version notes: v3 replica id (not looked at), v4 flexible.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.OFFSET_FOR_LEADER_EPOCH


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Answer where each asked epoch ended."""
    return {
        "topics": [
            {
                "topic": topic.topic,
                "partitions": [_row(broker, topic.topic, part) for part in topic.partitions],
            }
            for topic in request.body.topics
        ]
    }


def _row(broker: BrokerApi, topic: str, part: Any) -> dict[str, Any]:
    epoch, end_offset, error = -1, -1, ErrorCode.NONE
    try:
        partition = broker.partition(topic, part.partition, part.current_leader_epoch)
        if part.leader_epoch > partition.leader_epoch:
            raise KafkaError(ErrorCode.UNKNOWN_LEADER_EPOCH)
        epoch, end_offset = partition.epoch_end_offset(part.leader_epoch)
    except KafkaError as refusal:
        error = refusal.code
    return {
        "partition": part.partition,
        "error_code": error,
        "leader_epoch": epoch,
        "end_offset": end_offset,
    }
