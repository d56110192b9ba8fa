"""DescribeProducers (key 61), version 0 (KIP-664).

Differences from Kafka: only the leader of a partition answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support import topic_names
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.DESCRIBE_PRODUCERS


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Show what each partition remembers of its idempotent and transactional producers."""
    return {
        "topics": [
            {
                "name": topic.name,
                "partitions": [_describe(broker, topic.name, index) for index in topic.partition_indexes],
            }
            for topic in request.body.topics
        ]
    }


def _describe(broker: BrokerApi, topic: str, index: int) -> dict[str, Any]:
    error, message = ErrorCode.NONE, None
    producers: list[dict[str, Any]] = []
    try:
        topic_names.check(topic)
        producers = [
            {
                "producer_id": producer.producer_id,
                "producer_epoch": producer.epoch,
                "last_sequence": producer.last_sequence,
                "last_timestamp": producer.last_timestamp,
                "coordinator_epoch": producer.coordinator_epoch,
                "current_txn_start_offset": producer.txn_first_offset,
            }
            for producer in broker.partition(topic, index).producers
        ]
    except KafkaError as refusal:
        error, message = refusal.code, refusal.message or None
    return {
        "partition_index": index,
        "error_code": error,
        "error_message": message,
        "active_producers": producers,
    }
