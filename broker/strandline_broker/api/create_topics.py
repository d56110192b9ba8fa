"""CreateTopics (key 19), versions 2-7.

Differences from Kafka: a topic is created by writing a Topic object; the answer comes when its partitions
have leaders, or with what the operator says against it. `Cluster.spec.kafkaAdmin: None` refuses with
POLICY_VIOLATION. A manual replica assignment goes into an annotation of the Topic; as many brokers must live
as the topic has replicas. min.insync.replicas above the replication factor is refused.

Version notes: v4 lets partitions and factor default (-1), v5 answers with the configuration, v7 with the
topic id.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.config_defaults import config_defaults
from strandline_broker.api.support.config_entries import topic_entries
from strandline_broker.api.support.topic_creation import create_topic
from strandline_broker.api.support.topic_plan import TopicPlan, plan_topic
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.CREATE_TOPICS

MAX_TOPICS = 5_000
"""Topics that one request may create; Kafka's bound (10,000 metadata records) allows about as many."""
_AT_ONCE = 16


async def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Create topics, each on its own."""
    timeout_s = min(max(request.timeout_ms, 0), broker.config.request_timeout_max_ms) / 1000
    deadline = asyncio.get_running_loop().time() + timeout_s
    if len(request.body.topics) > MAX_TOPICS:
        excess = KafkaError(
            ErrorCode.POLICY_VIOLATION, f"At most {MAX_TOPICS} topics can be created with one request."
        )
        return {"topics": [_refused(name, excess) for name in {topic.name for topic in request.body.topics}]}
    times_asked = Counter(topic.name for topic in request.body.topics)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(wish: Any) -> dict[str, Any]:
        async with gate:
            return await _create(broker, wish, deadline, validate_only=request.body.validate_only)

    once = [wish for wish in request.body.topics if times_asked[wish.name] == 1]
    rows = await asyncio.gather(*(one(wish) for wish in once))
    rows += [
        _refused(name, KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name."))
        for name, times in times_asked.items()
        if times > 1
    ]
    return {"topics": rows}


async def _create(broker: BrokerApi, wish: Any, deadline: float, *, validate_only: bool) -> dict[str, Any]:
    await asyncio.sleep(0)  # other connections get their turn between two topics
    try:
        plan = _plan(broker, wish)
        topic_id = None
        if not validate_only:
            topic_id = (await create_topic(broker, plan, deadline)).topic_id
    except KafkaError as refusal:
        return _refused(wish.name, refusal)
    return {
        "name": plan.name,
        "topic_id": topic_id,
        "error_code": ErrorCode.NONE,
        "error_message": None,
        "num_partitions": plan.partitions,
        "replication_factor": plan.replicas,
        "configs": [
            {
                "name": entry.name,
                "value": entry.value,
                "read_only": entry.read_only,
                "config_source": entry.source,
                "is_sensitive": False,
            }
            for entry in topic_entries(plan.config, config_defaults(broker.view))
        ],
    }


def _plan(broker: BrokerApi, wish: Any) -> TopicPlan:
    assignments: dict[int, tuple[int, ...]] = {}
    for assignment in wish.assignments:
        if assignment.partition_index in assignments:
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"Found multiple manual partition assignments for partition {assignment.partition_index}",
            )
        assignments[assignment.partition_index] = tuple(assignment.broker_ids)
    return plan_topic(
        broker.view,
        broker.config,
        wish.name,
        partitions=wish.num_partitions,
        replicas=wish.replication_factor,
        configs=((config.name, config.value) for config in wish.configs),
        assignments=assignments,
    )


def _refused(name: str, refusal: KafkaError) -> dict[str, Any]:
    return {
        "name": name,
        "topic_id": None,
        "error_code": refusal.code,
        "error_message": refusal.message or None,
        "configs": [],
    }
