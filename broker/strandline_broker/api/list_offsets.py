"""ListOffsets (key 2), versions 1-11.

Differences from Kafka: the debugging replica id -2 gets no answer from followers. A leader of a tiered partition that
has not loaded the manifest yet answers LEADER_NOT_AVAILABLE where it would need it; a bucket that cannot be read makes
KAFKA_STORAGE_ERROR of a look-up by timestamp, one that is too slow REQUEST_TIMED_OUT. Clients retry on all of them.

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
_DEFAULT_TIMEOUT_MS = 30_000
"""Time for look-ups in the bucket where the request names none (Kafka's `remote.list.offsets.request.timeout.ms`)."""
_LOOKUPS_IN_BUCKET = 16
"""Look-ups of one request that wait for the bucket at once."""
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
    """Do the same with pauses: a look-up may cost a millisecond, and a request may ask for thousands.

    Those that wait for the bucket wait beside each other.
    """
    timeout_ms = request.milliseconds("timeout", _DEFAULT_TIMEOUT_MS)
    timeout_s = min(max(timeout_ms, 0), broker.config.request_timeout_max_ms) / 1000
    in_bucket = asyncio.Semaphore(_LOOKUPS_IN_BUCKET)
    answer = []
    async with asyncio.TaskGroup() as group:
        for topic in request.body.topics:
            tasks = []
            for part in topic.partitions:
                row = _row_read(broker, request, topic.name, part, asked, in_bucket, timeout_s)
                tasks.append(group.create_task(row))
                await asyncio.sleep(0)
            answer.append((topic.name, tasks))
    return {
        "topics": [{"name": name, "partitions": [task.result() for task in tasks]} for name, tasks in answer]
    }


async def _row_read(
    broker: BrokerApi,
    request: Request,
    topic: str,
    part: Any,
    asked: _Asked,
    in_bucket: asyncio.Semaphore,
    timeout_s: float,
) -> dict[str, Any]:
    if not _reads_records(part.timestamp):
        return _row(broker, request, topic, part, asked)
    found, error = _NOT_FOUND, ErrorCode.NONE
    try:
        partition = _partition(broker, request, topic, part, asked)
        end = _visible_end(partition, request)
        async with asyncio.timeout(timeout_s), in_bucket:
            at = (
                await partition.max_timestamp(end)
                if part.timestamp == MAX_TIMESTAMP
                else await partition.offset_for_timestamp(part.timestamp, end)
            )
        if at is None:
            # What is not visible yet may become so without a new record: only a settled high watermark says
            # "not found".
            _check_high_watermark(partition)
        else:
            found = at
    except KafkaError as refusal:
        error = refusal.code
    except TimeoutError:
        error = ErrorCode.REQUEST_TIMED_OUT
    return _answer(request, part, found, error)


def _row(broker: BrokerApi, request: Request, topic: str, part: Any, asked: _Asked) -> dict[str, Any]:
    found, error = _NOT_FOUND, ErrorCode.NONE
    try:
        partition = _partition(broker, request, topic, part, asked)
        found = _look_up(partition, part.timestamp, _visible_end(partition, request))
    except KafkaError as refusal:
        error = refusal.code
    return _answer(request, part, found, error)


def _partition(broker: BrokerApi, request: Request, topic: str, part: Any, asked: _Asked) -> PartitionHandle:
    """Return the partition that a row asks for, if what it asks makes sense. Raises KafkaError."""
    if asked[topic, part.partition_index] > 1:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "a partition is asked for twice")
    if part.timestamp < 0 and _MIN_VERSION.get(part.timestamp, 1 << 15) > request.version:
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, f"timestamp {part.timestamp} in v{request.version}")
    return broker.partition(topic, part.partition_index, getattr(part, "current_leader_epoch", -1))


def _answer(request: Request, part: Any, found: Found, error: ErrorCode) -> dict[str, Any]:
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
    if timestamp == EARLIEST:
        offset = partition.earliest_offset
    elif timestamp == EARLIEST_LOCAL:
        offset = partition.local_log_start_offset
    elif timestamp == LATEST_TIERED:
        offset = partition.highest_tiered_offset
    else:
        assert timestamp == EARLIEST_PENDING_UPLOAD, "no other is without a look at records"
        offset = partition.earliest_pending_upload_offset
    return (-1, offset, partition.epoch_at(offset)) if offset >= 0 else _NOT_FOUND


def _check_high_watermark(partition: PartitionHandle) -> None:
    """Refuse to name an end while a new leader's high watermark lags what consumers saw (KIP-207)."""
    if partition.leader_epoch_start_offset > partition.high_watermark:
        raise KafkaError(
            ErrorCode.OFFSET_NOT_AVAILABLE, "the high watermark lags the start of the leader's epoch"
        )
