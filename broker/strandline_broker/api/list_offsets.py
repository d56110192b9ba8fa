"""ListOffsets (key 2), versions 1-11.

Differences from Kafka: the debugging replica id -2 gets no answer from followers. A lookup that would have to
read the bucket is not held back (`timeout` of v10 is not needed before tiering).

Version notes: v2 isolation level, v4 leader epochs (KIP-320), v5 OFFSET_NOT_AVAILABLE (LEADER_NOT_AVAILABLE
before), v7 max timestamp (-3, KIP-734), v8 earliest local (-4, KIP-405), v9 latest tiered (-5, KIP-1005), v10
timeout (KIP-1075), v11 earliest pending upload (-6, KIP-1023).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi, Found, PartitionHandle
from strandline_broker.api.request import Request
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.LIST_OFFSETS

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
EARLIEST_LOCAL = -4
LATEST_TIERED = -5
EARLIEST_PENDING_UPLOAD = -6

_MIN_VERSION = {
    LATEST: 1,
    EARLIEST: 1,
    MAX_TIMESTAMP: 7,
    EARLIEST_LOCAL: 8,
    LATEST_TIERED: 9,
    EARLIEST_PENDING_UPLOAD: 11,
}
_CONSUMER = -1
_READ_COMMITTED = 1
_NOT_FOUND: Found = (-1, -1, -1)

# How often a request names each partition.
_Asked = Counter[tuple[str, int]]


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any] | Awaitable[Mapping[str, Any]]:
    """Answer with one offset per partition: at once, unless records have to be read to find them."""
    topics = request.body.topics
    asked = Counter((topic.name, part.partition_index) for topic in topics for part in topic.partitions)
    if any(_reads_records(part.timestamp) for topic in topics for part in topic.partitions):
        return _read_and_answer(broker, request, asked)
    return {
        "topics": [
            {
                "name": topic.name,
                "partitions": [_row(broker, request, topic.name, part, asked) for part in topic.partitions],
            }
            for topic in topics
        ]
    }


def _reads_records(timestamp: int) -> bool:
    return timestamp >= 0 or timestamp == MAX_TIMESTAMP


async def _read_and_answer(broker: BrokerApi, request: Request, asked: _Asked) -> Mapping[str, Any]:
    """Do the same with pauses: a look-up may cost a millisecond, and a request may ask for thousands."""
    answer = []
    for topic in request.body.topics:
        rows = []
        for part in topic.partitions:
            rows.append(_row(broker, request, topic.name, part, asked))
            if _reads_records(part.timestamp):
                await asyncio.sleep(0)
        answer.append({"name": topic.name, "partitions": rows})
    return {"topics": answer}


def _row(broker: BrokerApi, request: Request, topic: str, part: Any, asked: _Asked) -> dict[str, Any]:
    found = _NOT_FOUND
    error = ErrorCode.NONE
    try:
        if asked[topic, part.partition_index] > 1:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "a partition is asked for twice")
        if part.timestamp < 0 and _MIN_VERSION.get(part.timestamp, 1 << 15) > request.version:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION, f"timestamp {part.timestamp} in v{request.version}"
            )
        partition = broker.partition(topic, part.partition_index, getattr(part, "current_leader_epoch", -1))
        found = _look_up(partition, part.timestamp, _visible_end(partition, request))
    except KafkaError as refusal:
        error = refusal.code
        if error is ErrorCode.OFFSET_NOT_AVAILABLE and request.version < 5:
            error = ErrorCode.LEADER_NOT_AVAILABLE
    return {
        "partition_index": part.partition_index,
        "error_code": error,
        "timestamp": found[0],
        "offset": found[1],
        "leader_epoch": found[2],
    }


def _visible_end(partition: PartitionHandle, request: Request) -> int:
    """Return the first offset that the asker must not learn of."""
    if request.body.replica_id != _CONSUMER:
        return partition.log_end_offset
    if getattr(request.body, "isolation_level", 0) == _READ_COMMITTED:
        return partition.last_stable_offset
    return partition.high_watermark


def _look_up(partition: PartitionHandle, timestamp: int, end: int) -> Found:
    if timestamp == LATEST:
        _check_high_watermark(partition)
        return (-1, end, partition.leader_epoch)
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        local = timestamp == EARLIEST_LOCAL
        start = partition.local_log_start_offset if local else partition.log_start_offset
        return (-1, start, partition.epoch_at(start))
    if timestamp in (LATEST_TIERED, EARLIEST_PENDING_UPLOAD):
        tiered = partition.highest_tiered_offset
        if tiered < 0:
            return _NOT_FOUND
        wanted = tiered if timestamp == LATEST_TIERED else tiered + 1
        return (-1, wanted, partition.epoch_at(wanted))
    found = (
        partition.max_timestamp(end)
        if timestamp == MAX_TIMESTAMP
        else partition.offset_for_timestamp(timestamp, end)
    )
    if found is None:
        # What is not visible yet may become so without a new record: only a settled high watermark says
        # "not found".
        _check_high_watermark(partition)
        return _NOT_FOUND
    return found


def _check_high_watermark(partition: PartitionHandle) -> None:
    """Refuse to name an end while a new leader's high watermark lags what consumers saw (KIP-207)."""
    if partition.leader_epoch_start_offset > partition.high_watermark:
        raise KafkaError(
            ErrorCode.OFFSET_NOT_AVAILABLE, "the high watermark lags the start of the leader's epoch"
        )
