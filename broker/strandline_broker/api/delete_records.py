"""DeleteRecords (key 21), versions 0-2.

Differences from Kafka: it answers once the new log start is durable on every live replica. Records of a tiered partition
are gone once the bucket's manifest says so; while the bucket is away the request times out.

Version notes: v2 flexible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.topic_names import is_internal
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.DELETE_RECORDS

_HIGH_WATERMARK = -1
_NO_LOW_WATERMARK = -1


async def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Raise log starts and answer with the low watermarks."""
    timeout_s = min(max(request.timeout_ms, 0), broker.config.request_timeout_max_ms) / 1000
    return {
        "topics": [
            {
                "name": topic.name,
                "partitions": await asyncio.gather(
                    *(_delete(broker, topic.name, part, timeout_s) for part in topic.partitions)
                ),
            }
            for topic in request.body.topics
        ]
    }


async def _delete(broker: BrokerApi, topic: str, part: Any, timeout_s: float) -> dict[str, Any]:
    low_watermark, error = _NO_LOW_WATERMARK, ErrorCode.NONE
    try:
        if is_internal(topic):
            raise KafkaError(
                ErrorCode.INVALID_TOPIC_EXCEPTION, f"cannot delete records of internal topic {topic}"
            )
        partition = broker.partition(topic, part.partition_index)
        offset = partition.high_watermark if part.offset == _HIGH_WATERMARK else part.offset
        if offset < 0:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"offset {offset} is not valid")
        async with asyncio.timeout(timeout_s):
            low_watermark = await partition.delete_records(offset)
    except KafkaError as refusal:
        error = refusal.code
    except TimeoutError:
        error = ErrorCode.REQUEST_TIMED_OUT
    return {"partition_index": part.partition_index, "low_watermark": low_watermark, "error_code": error}
