"""Deletes a topic: its Topic object goes, with `deletionPolicy: Delete`, and clients no longer see it.

The operator carries the deletion out; the finalizer keeps the object until it has. A topic without a Topic
object (it was lost or removed with the policy Retain) gets one first, so that its deletion is on record like
any other.
"""

from __future__ import annotations

import asyncio
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.support import admin_policy, topic_names
from strandline_broker.api.support.topic_change import adopt, unreachable
from strandline_broker.api.support.topic_objects import FINALIZER, find_topic
from strandline_broker.cluster.model import TOPIC, Topic
from strandline_broker.cluster.store import AlreadyExists, Conflict, Invalid, NotFound, Unavailable
from strandline_broker.cluster.view import TopicView
from strandline_broker.errors import ErrorCode, KafkaError

_ATTEMPTS = 10


async def delete_topic(broker: BrokerApi, topic: TopicView, deadline: float) -> None:
    """Delete a topic; return once it is hidden from clients. `deadline` is in loop time.

    Raises KafkaError POLICY_VIOLATION, or REQUEST_TIMED_OUT, after which the topic may still go away.
    """
    if topic_names.is_internal(topic.topic_name):
        raise KafkaError(
            ErrorCode.POLICY_VIOLATION, f"{topic.topic_name} is internal and stays with its cluster"
        )
    try:
        await _write(broker, topic)
    except Invalid as error:
        raise KafkaError(ErrorCode.INVALID_REQUEST, str(error)) from error
    except Unavailable as error:
        raise unreachable(error) from error
    left_s = max(deadline - asyncio.get_running_loop().time(), 0)
    try:
        await broker.view.wait_until(lambda view: view.topic_by_id(topic.topic_id) is None, left_s)
    except TimeoutError as error:
        raise KafkaError(
            ErrorCode.REQUEST_TIMED_OUT, f"Topic '{topic.topic_name}' is marked for deletion."
        ) from error


async def _write(broker: BrokerApi, topic: TopicView) -> None:
    """Delete the Topic object, with everything that its deletion needs written into it first."""
    for _ in range(_ATTEMPTS):
        found = await find_topic(broker.store, broker.view.cluster_name, topic.topic_name)
        admin_policy.check_change(broker.view, found)
        try:
            if found is None:
                found = await adopt(broker, topic)
            if not found.deleting:
                await broker.store.patch_if(TOPIC, found.name, uid=found.uid, **_intent(found))
                await broker.store.delete_if(TOPIC, found.name, uid=found.uid)
        except (NotFound, Conflict, AlreadyExists):
            continue  # somebody changed it: look again and decide again
        return
    raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, f"Topic '{topic.topic_name}' is being changed by others.")


def _intent(topic: Topic) -> dict[str, Any]:
    """Return the patch that makes deleting the object delete the topic.

    The finalizer goes in with it: without one the object would vanish before the operator saw its policy.
    """
    finalizers = list(topic.meta.finalizers)
    operations: list[dict[str, Any]] = [{"op": "add", "path": "/spec/deletionPolicy", "value": "Delete"}]
    if FINALIZER not in finalizers:
        operations.append({"op": "add", "path": "/metadata/finalizers", "value": [*finalizers, FINALIZER]})
    tests = [("/metadata/finalizers", finalizers or None)]
    return {"tests": tests, "operations": operations}
