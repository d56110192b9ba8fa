"""Creates a planned topic: writes the Topic object, waits until its partitions have leaders.

CreateTopics and auto-creation use it.
"""

from __future__ import annotations

import asyncio
import contextlib

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.support.topic_objects import new_topic_object, object_names, read_topic
from strandline_broker.api.support.topic_plan import TopicPlan
from strandline_broker.cluster.model import NO_LEADER, TOPIC, Object, Topic
from strandline_broker.cluster.store import (
    AlreadyExists,
    Conflict,
    Invalid,
    NotFound,
    StoreError,
    Unavailable,
)
from strandline_broker.cluster.view import TopicView
from strandline_broker.errors import ErrorCode, KafkaError

# Conditions by which the operator says that a Topic will not come to be.
_REFUSALS = {
    "ResourceConflict": ErrorCode.TOPIC_ALREADY_EXISTS,
    "InvalidConfig": ErrorCode.INVALID_CONFIG,
    "NotEnoughBrokers": ErrorCode.INVALID_REPLICATION_FACTOR,
    "NotSupported": ErrorCode.POLICY_VIOLATION,
}
_FIRST_LOOK_S = 0.1
_LONGEST_LOOK_S = 1.0


async def create_topic(broker: BrokerApi, plan: TopicPlan, deadline: float) -> TopicView:
    """Create a topic and return it once every partition has a leader; `deadline` is in loop time.

    Raises KafkaError: the operator's refusal, TOPIC_ALREADY_EXISTS, or REQUEST_TIMED_OUT, after which the
    topic may still come to be.
    """
    try:
        obj = await _write(broker, plan, deadline)
        return await _wait_until_led(broker, plan, obj, deadline)
    except Invalid as error:
        code = ErrorCode.INVALID_CONFIG if "config" in str(error) else ErrorCode.INVALID_REQUEST
        raise KafkaError(code, str(error)) from error
    except Unavailable as error:
        raise KafkaError(
            ErrorCode.REQUEST_TIMED_OUT, f"the cluster's control plane cannot be reached: {error}"
        ) from error


async def _write(broker: BrokerApi, plan: TopicPlan, deadline: float) -> Object:
    cluster = broker.view.cluster_name
    for object_name in object_names(cluster, plan.name):
        wanted = new_topic_object(
            cluster,
            object_name,
            plan.name,
            partitions=plan.partitions,
            replicas=plan.replicas,
            config=plan.config,
            assignment=plan.assignment,
        )
        pause_s = 0.01
        while True:
            try:
                return await broker.store.create(TOPIC, wanted)
            except AlreadyExists:
                existing = await _get(broker, object_name)
            if existing is None:
                continue  # it went away in this moment
            if (existing.cluster, existing.topic_name) != (cluster, plan.name):
                break  # the name is another topic's: take the next one
            if not existing.deleting or asyncio.get_running_loop().time() >= deadline:
                raise KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{plan.name}' already exists.")
            # The predecessor was deleted and its object waits for the operator: soon the name is free.
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.5)
    raise KafkaError(
        ErrorCode.TOPIC_ALREADY_EXISTS, f"No name is free for the Topic object of '{plan.name}'."
    )


async def _get(broker: BrokerApi, object_name: str) -> Topic | None:
    try:
        return read_topic(await broker.store.get(TOPIC, object_name))
    except NotFound:
        return None


def led_topic(broker: BrokerApi, plan: TopicPlan) -> TopicView | None:
    """Return the topic if all its partitions exist and have leaders."""
    topic = broker.view.topic_by_name(plan.name)
    if topic is None or topic.partition_count < plan.partitions:
        return None
    if any(state.leader == NO_LEADER for _, state in topic.partitions()):
        return None
    return topic


async def _wait_until_led(broker: BrokerApi, plan: TopicPlan, obj: Object, deadline: float) -> TopicView:
    loop = asyncio.get_running_loop()
    look_s = _FIRST_LOOK_S
    while True:
        topic = led_topic(broker, plan)
        if topic is not None:
            return topic
        left_s = deadline - loop.time()
        if left_s <= 0:
            raise KafkaError(
                ErrorCode.REQUEST_TIMED_OUT,
                f"Topic '{plan.name}' is being created: not every partition has a leader yet.",
            )
        with contextlib.suppress(TimeoutError):
            await broker.view.wait_until(lambda _: led_topic(broker, plan) is not None, min(look_s, left_s))
            continue
        # Nothing came for a while: perhaps the operator refused. Brokers do not follow Topic objects, so
        # look.
        await _raise_refusal(broker, obj)
        look_s = min(look_s * 2, _LONGEST_LOOK_S)


async def _raise_refusal(broker: BrokerApi, obj: Object) -> None:
    name, uid = obj["metadata"]["name"], obj["metadata"]["uid"]
    topic = await _get(broker, name)
    if topic is None or topic.uid != uid:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Topic object {name} was deleted meanwhile.")
    refusal = refusal_of(topic)
    if refusal is None:
        return
    with contextlib.suppress(StoreError, NotFound, Conflict):
        # Leave nothing behind that could come to life later.
        await broker.store.delete_if(TOPIC, name, uid=uid)
    raise refusal


def refusal_of(topic: Topic) -> KafkaError | None:
    """Return the operator's refusal of a Topic as a Kafka error, if its conditions hold one."""
    for condition in topic.status.get("conditions") or ():
        if condition.get("type") != "Stalled" or condition.get("status") != "True":
            continue
        if condition.get("observedGeneration", 0) < topic.meta.generation:
            continue
        code = _REFUSALS.get(condition.get("reason", ""), ErrorCode.INVALID_REQUEST)
        return KafkaError(code, condition.get("message") or condition.get("reason", ""))
    return None
