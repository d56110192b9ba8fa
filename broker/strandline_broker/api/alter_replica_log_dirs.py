"""AlterReplicaLogDirs (key 34), versions 1-2.

Differences from Kafka: a broker has one directory, so nothing ever moves. A replica that is asked to go where it lies
already is answered with success, and any other directory is not found. The directory of a replica that has yet to come
need not be remembered either; as in Kafka the answer for it is REPLICA_NOT_AVAILABLE.

Version notes: v2 flexible.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.ALTER_REPLICA_LOG_DIRS


async def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Answer for every replica that was named; one that is named twice has the answer for the later directory."""
    directories = {directory.path: directory for directory in await broker.describe_log_dirs()}
    answers: defaultdict[str, dict[int, ErrorCode]] = defaultdict(dict)
    for wanted in request.body.dirs:
        directory = directories.get(wanted.path)
        error = ErrorCode.LOG_DIR_NOT_FOUND if directory is None else directory.error
        replicas = (
            {(replica.topic, replica.partition) for replica in directory.replicas} if directory else set()
        )
        for topic in wanted.topics:
            for index in topic.partitions:
                here = error is not ErrorCode.NONE or (topic.name, index) in replicas
                answers[topic.name][index] = error if here else ErrorCode.REPLICA_NOT_AVAILABLE
    return {"results": [_row(name, partitions) for name, partitions in answers.items()]}


def _row(name: str, partitions: Mapping[int, ErrorCode]) -> dict[str, Any]:
    rows = [{"partition_index": index, "error_code": error} for index, error in partitions.items()]
    return {"topic_name": name, "partitions": rows}
