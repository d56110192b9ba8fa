"""OffsetFetch (key 9), versions 1-10.

Differences from Kafka: with `require_stable`, partitions whose offsets are being written are answered
UNSTABLE_OFFSET_COMMIT, as Kafka did before 4.0 and as clients expect, instead of being waited for.

Version notes: v2 all topics (null) and an error code for the whole, v5 leader epochs, v6 flexible, v7 require stable
(KIP-447), v8 several groups, v9 member id and epoch (KIP-848), v10 topic ids instead of names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support import offset_topics
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.group.requests import FetchOffsetsRequest, TopicPartitions
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.OFFSET_FETCH

_FIRST_WITH_ERROR = 2
_FIRST_WITH_GROUPS = 8
_FIRST_WITH_TOPIC_IDS = 10

Row = dict[str, Any]


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Answer with the committed offsets of one or more groups."""
    body = request.body
    stable = getattr(body, "require_stable", False)
    if request.version >= _FIRST_WITH_GROUPS:
        return {"groups": [_group(broker, request, group, stable=stable) for group in body.groups]}
    group = _group(broker, request, body, stable=stable)
    if request.version < _FIRST_WITH_ERROR and group["error_code"] is not ErrorCode.NONE:
        code = group["error_code"]
        return {"topics": [_without_id(_refused(topic, topic.name, code)) for topic in body.topics]}
    return {"topics": [_without_id(topic) for topic in group["topics"]], "error_code": group["error_code"]}


def _without_id(topic: Row) -> Row:
    """Leave the id out: topics at the top level (before version 8) have none in any version."""
    return {"name": topic["name"], "partitions": topic["partitions"]}


def _group(broker: BrokerApi, request: Request, group: Any, *, stable: bool) -> Mapping[str, Any]:
    wanted: list[TopicPartitions] | None = None
    refused: list[Row] = []
    if group.topics is not None:
        wanted = []
        for topic in group.topics:
            name = offset_topics.name_of(broker.view, topic)
            if name is None:
                refused.append(_refused(topic, "", ErrorCode.UNKNOWN_TOPIC_ID))
            else:
                wanted.append(
                    TopicPartitions(name, tuple(topic.partition_indexes), offset_topics.id_of(topic))
                )
    fetch = FetchOffsetsRequest(
        group_id=group.group_id,
        topics=None if wanted is None else tuple(wanted),
        member_id=getattr(group, "member_id", None),
        member_epoch=getattr(group, "member_epoch", -1),
        require_stable=stable,
    )
    try:
        found = broker.groups.shard(fetch.group_id).fetch_offsets(fetch)
    except KafkaError as error:
        return {"group_id": fetch.group_id, "topics": [], "error_code": error.code}
    topics = list(found["topics"])
    if request.version >= _FIRST_WITH_TOPIC_IDS:
        topics = _with_ids(broker, topics)
    return {**found, "topics": topics + refused}


def _with_ids(broker: BrokerApi, topics: list[Row]) -> list[Row]:
    """Give ids to topics that the coordinator names; one that is gone has none and cannot be shown."""
    shown = []
    for topic in topics:
        topic_id = topic["topic_id"]
        if topic_id == offset_topics.ZERO_UUID:
            known = broker.view.topic_by_name(topic["name"])
            if known is None:
                continue
            topic_id = known.topic_id
        shown.append({**topic, "topic_id": topic_id})
    return shown


def _refused(topic: Any, name: str, code: ErrorCode) -> Row:
    rows = [
        {
            "partition_index": index,
            "committed_offset": -1,
            "committed_leader_epoch": -1,
            "metadata": "",
            "error_code": code,
        }
        for index in topic.partition_indexes
    ]
    return offset_topics.refused_topic(topic, name, rows)
