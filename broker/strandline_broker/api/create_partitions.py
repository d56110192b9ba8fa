"""CreatePartitions (key 37), versions 0-3.

Differences from Kafka: the wish is written into the Topic object; the answer comes when the new partitions
have leaders, or with what the operator says against it. `Cluster.spec.kafkaAdmin` decides which topics
clients may change (POLICY_VIOLATION); internal topics are refused likewise. A manual assignment goes into an
annotation of the Topic. A topic that is being reassigned waits (REASSIGNMENT_IN_PROGRESS, as Kafka did before
KRaft).

Version notes: v2 flexible, v3 as v2.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support import partition_plan
from strandline_broker.api.support.topic_change import check_topic, wait_until_done, write_topic
from strandline_broker.cluster.model import NO_LEADER, Topic
from strandline_broker.cluster.store import Operation
from strandline_broker.cluster.view import TopicView
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.CREATE_PARTITIONS

MAX_TOPICS = 5_000
"""Topics that one request may grow."""
_AT_ONCE = 16


async def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Grow topics, each on its own."""
    body = request.body
    timeout_s = min(max(request.timeout_ms, 0), broker.config.request_timeout_max_ms) / 1000
    deadline = asyncio.get_running_loop().time() + timeout_s
    times_asked = Counter(wish.name for wish in body.topics)
    if len(body.topics) > MAX_TOPICS:
        excess = KafkaError(
            ErrorCode.POLICY_VIOLATION, f"At most {MAX_TOPICS} topics can be changed with one request."
        )
        return {"results": [_result(name, excess) for name in times_asked]}
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(wish: Any) -> dict[str, Any]:
        async with gate:
            await asyncio.sleep(0)  # other connections get their turn between two topics
            try:
                await _grow(broker, wish, deadline, validate_only=body.validate_only)
            except KafkaError as refusal:
                return _result(wish.name, refusal)
            return _result(wish.name, KafkaError(ErrorCode.NONE))

    duplicate = KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
    rows = [_result(name, duplicate) for name, times in times_asked.items() if times > 1]
    rows += await asyncio.gather(*(one(wish) for wish in body.topics if times_asked[wish.name] == 1))
    return {"results": rows}


async def _grow(broker: BrokerApi, wish: Any, deadline: float, *, validate_only: bool) -> None:
    assignments = None
    if wish.assignments is not None:
        assignments = [tuple(assignment.broker_ids) for assignment in wish.assignments]
    topic = partition_plan.check(broker.view, wish.name, wish.count, assignments)

    def decide(found: Topic) -> list[Operation]:
        return partition_plan.operations(found, topic, wish.count, assignments)

    if validate_only:
        await check_topic(broker, topic, decide)
        return
    written = await write_topic(broker, topic, decide)
    await wait_until_done(
        broker,
        written.topic,
        lambda: _are_led(broker.view.topic_by_id(topic.topic_id), range(topic.partition_count, wish.count)),
        deadline,
        f"Topic '{wish.name}' is growing: not every partition has a leader yet.",
    )


def _are_led(topic: TopicView | None, numbers: range) -> bool:
    if topic is None or topic.partition_count < numbers.stop:
        return False
    states = (topic.partition(number) for number in numbers)
    return all(state is not None and state.leader != NO_LEADER for state in states)


def _result(name: str, refusal: KafkaError) -> dict[str, Any]:
    return {"name": name, "error_code": refusal.code, "error_message": refusal.message or None}
