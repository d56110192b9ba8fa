"""Topics and partitions of offset requests: names behind ids, and which of them exist. Pure.

Source: Apache Kafka 4.2, `KafkaApis.handleOffsetCommitRequest`, `fetchOffsetsForGroup`, `handleOffsetDeleteRequest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from strandline_broker.errors import ErrorCode

if TYPE_CHECKING:
    from strandline_broker.cluster.cache import ClusterCache

ZERO_UUID = UUID(int=0)

Row = dict[str, Any]


def name_of(view: ClusterCache, topic: Any) -> str | None:
    """Return the name of a request's topic, which may come as an id; None for an id that nobody has."""
    topic_id = getattr(topic, "topic_id", None)
    if not hasattr(topic, "topic_id"):
        name: str = topic.name
        return name
    known = view.topic_by_id(topic_id) if topic_id is not None else None
    return known.topic_name if known is not None else None


def id_of(topic: Any) -> UUID:
    """Return the topic id in a request, zero where its version has none."""
    return getattr(topic, "topic_id", None) or ZERO_UUID


def has_partition(view: ClusterCache, topic: str, index: int) -> bool:
    """Say whether clients may know of this partition."""
    known = view.topic_by_name(topic)
    return known is not None and known.partition(index) is not None


def refused_topic(topic: Any, name: str, rows: Iterable[Row]) -> Row:
    """Return the entry of a response with partitions that the coordinator is not asked for."""
    return {"name": name, "topic_id": id_of(topic), "partitions": list(rows)}


def error_row(index: int, code: ErrorCode) -> Row:
    """Return the row of one partition in the responses of OffsetCommit and OffsetDelete."""
    return {"partition_index": index, "error_code": code}


def merge_topics(refused: list[Row]) -> Callable[[Mapping[str, Any]], Mapping[str, Any]] | None:
    """Return what puts refused partitions into a coordinator's answer, which comes first; None if there are none."""
    if not refused:
        return None

    def merge(body: Mapping[str, Any]) -> Mapping[str, Any]:
        topics = [{**topic, "partitions": list(topic["partitions"])} for topic in body["topics"]]
        by_topic = {(topic["name"], topic.get("topic_id", ZERO_UUID)): topic for topic in topics}
        for entry in refused:
            known = by_topic.get((entry["name"], entry["topic_id"]))
            if known is not None:
                known["partitions"] += entry["partitions"]
            else:
                topics.append(entry)
        return {**body, "topics": topics}

    return merge
