"""DeleteTopics (key 20), versions 1-6.

Differences from Kafka: deletion is written as intent (the Topic's `deletionPolicy: Delete`, then its
deletion) and the answer comes when the topic is hidden from clients; its records go after the Topic's
`deletionGracePeriod`. Until then an operator can bring it back. Internal topics are refused, and so are
topics that `Cluster.spec.kafkaAdmin` keeps from Kafka clients (both POLICY_VIOLATION).

Version notes: v5 error messages, v6 topic ids.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.topic_deletion import delete_topic
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.DELETE_TOPICS

MAX_TOPICS = 5_000
"""Topics that one request may delete."""
_AT_ONCE = 16


class _Wish(NamedTuple):
    name: str | None
    topic_id: UUID | None


async def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Delete topics, each on its own."""
    timeout_s = min(max(request.timeout_ms, 0), broker.config.request_timeout_max_ms) / 1000
    deadline = asyncio.get_running_loop().time() + timeout_s
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(wish: _Wish) -> dict[str, Any]:
        async with gate:
            return await _delete(broker, wish, deadline)

    rows: list[dict[str, Any]] = []
    wished = _wishes(request)
    if len(wished) > MAX_TOPICS:
        excess = KafkaError(
            ErrorCode.POLICY_VIOLATION, f"At most {MAX_TOPICS} topics can be deleted with one request."
        )
        return {"responses": [_refused(wish, excess) for wish in dict.fromkeys(wished)]}
    wishes = _without_duplicates(broker, wished, rows)
    rows += await asyncio.gather(*(one(wish) for wish in wishes))
    return {"responses": rows}


def _wishes(request: Request) -> list[_Wish]:
    if request.version < 6:
        return [_Wish(name, None) for name in request.body.topic_names]
    return [_Wish(topic.name, topic.topic_id) for topic in request.body.topics]


def _without_duplicates(broker: BrokerApi, wishes: list[_Wish], rows: list[dict[str, Any]]) -> list[_Wish]:
    """Return the wishes that make sense, each once; add rows for the others."""
    times = Counter(wishes)
    kept: dict[UUID | str, _Wish] = {}
    for wish, count in times.items():
        if (wish.name is None) == (wish.topic_id is None):
            why = (
                "Neither topic name nor id were specified."
                if wish.name is None
                else "You may not specify both topic name and topic id."
            )
            rows += [_refused(wish, KafkaError(ErrorCode.INVALID_REQUEST, why))] * count
            continue
        if count > 1:
            why = "Duplicate topic name." if wish.name is not None else "Duplicate topic id."
            rows.append(_refused(wish, KafkaError(ErrorCode.INVALID_REQUEST, why)))
            continue
        topic = broker.view.topic_by_name(wish.name) if wish.name is not None else None
        key: UUID | str = wish.topic_id or (topic.topic_id if topic is not None else wish.name or "")
        if key in kept:
            why = "The provided topic name maps to an ID that was already supplied."
            rows.append(_refused(wish, KafkaError(ErrorCode.INVALID_REQUEST, why)))
            continue
        kept[key] = wish
    return list(kept.values())


async def _delete(broker: BrokerApi, wish: _Wish, deadline: float) -> dict[str, Any]:
    if wish.topic_id is not None:
        topic = broker.view.topic_by_id(wish.topic_id)
        unknown = ErrorCode.UNKNOWN_TOPIC_ID
    else:
        topic = broker.view.topic_by_name(wish.name or "")
        unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if topic is None:
        return _refused(wish, KafkaError(unknown, "This server does not host this topic."))
    found = _Wish(topic.topic_name, topic.topic_id)
    try:
        await delete_topic(broker, topic, deadline)
    except KafkaError as refusal:
        return _refused(found, refusal)
    return _refused(found, KafkaError(ErrorCode.NONE))


def _refused(wish: _Wish, refusal: KafkaError) -> dict[str, Any]:
    return {
        "name": wish.name,
        "topic_id": wish.topic_id,
        "error_code": refusal.code,
        "error_message": refusal.message or None,
    }
