"""DescribeLogDirs (key 35), versions 1-4.

Differences from Kafka: a broker has one directory. Replicas that no longer belong to the broker and wait for
their deletion are not shown.

Version notes: v2 flexible, v3 error of the whole answer, v4 total and usable bytes (KIP-827).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi, LogDir
from strandline_broker.api.request import Request
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.DESCRIBE_LOG_DIRS


async def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Describe this broker's directory with the partitions that were asked for, or all."""
    topics = request.body.topics
    wanted: set[tuple[str, int]] | None = None
    if topics is not None:
        wanted = {(topic.topic, index) for topic in topics for index in topic.partitions}
    return {
        "error_code": ErrorCode.NONE,
        "results": [_row(directory, wanted) for directory in await broker.describe_log_dirs()],
    }


def _row(directory: LogDir, wanted: set[tuple[str, int]] | None) -> dict[str, Any]:
    topics: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for replica in directory.replicas:
        if wanted is None or (replica.topic, replica.partition) in wanted:
            topics[replica.topic].append(
                {
                    "partition_index": replica.partition,
                    "partition_size": replica.size_bytes,
                    "offset_lag": replica.offset_lag,
                    "is_future_key": False,
                }
            )
    return {
        "error_code": directory.error,
        "log_dir": directory.path,
        "topics": [{"name": name, "partitions": partitions} for name, partitions in topics.items()],
        "total_bytes": directory.total_bytes,
        "usable_bytes": directory.usable_bytes,
    }
