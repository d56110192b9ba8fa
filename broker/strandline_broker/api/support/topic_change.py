"""Changes a topic on behalf of a Kafka client: its Topic object is patched, the operator carries it out.

CreatePartitions and the altering of topic configurations use it. A topic without a Topic object (it was lost,
or removed with the policy Retain) gets one first: intent has one place only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.support import admin_policy
from strandline_broker.api.support.config_defaults import config_defaults
from strandline_broker.api.support.topic_creation import refusal_of
from strandline_broker.api.support.topic_objects import (
    FINALIZER,
    find_topic,
    new_topic_object,
    object_names,
    read_topic,
)
from strandline_broker.cluster.model import TOPIC, Topic
from strandline_broker.cluster.store import (
    AlreadyExists,
    Conflict,
    Invalid,
    NotFound,
    Operation,
    StoreError,
    Unavailable,
)
from strandline_broker.cluster.transitions import target_of
from strandline_broker.cluster.view import TopicView
from strandline_broker.errors import ErrorCode, KafkaError

_ATTEMPTS = 10
_FIRST_LOOK_S = 0.1
_LONGEST_LOOK_S = 1.0

# From the Topic as it is to the patch; no operations where nothing is to change. Raises KafkaError.
Decide = Callable[[Topic], list[Operation]]


class Written(NamedTuple):
    """A Topic object as a change left it. `changed`: whether anything was written."""

    topic: Topic
    changed: bool


async def write_topic(broker: BrokerApi, topic: TopicView, decide: Decide) -> Written:
    """Patch the Topic object behind `topic` with what `decide` makes of its newest state.

    `decide` may be called again after somebody else's change. Raises KafkaError: what `decide` raises,
    POLICY_VIOLATION where clients may not change this topic, INVALID_REQUEST or INVALID_CONFIG where the
    schema refuses, REQUEST_TIMED_OUT when the store is away.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await _write_once(broker, topic, decide)
        except (NotFound, Conflict, AlreadyExists):
            continue  # somebody changed it: look again and decide again
        except Invalid as error:
            code = ErrorCode.INVALID_CONFIG if "config" in str(error) else ErrorCode.INVALID_REQUEST
            raise KafkaError(code, str(error)) from error
        except Unavailable as error:
            raise unreachable(error) from error
    raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, f"Topic '{topic.topic_name}' is being changed by others.")


async def check_topic(broker: BrokerApi, topic: TopicView, decide: Decide) -> None:
    """Do every check of `write_topic` and write nothing. Raises KafkaError."""
    try:
        found = await find_topic(broker.store, broker.view.cluster_name, topic.topic_name)
    except Unavailable as error:
        raise unreachable(error) from error
    operations = decide(found if found is not None else adopted(broker, topic))
    if operations:
        admin_policy.check_change(broker.view, found)


async def _write_once(broker: BrokerApi, topic: TopicView, decide: Decide) -> Written:
    found = await find_topic(broker.store, broker.view.cluster_name, topic.topic_name)
    if found is not None and found.deleting:
        raise KafkaError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Topic '{topic.topic_name}' is being deleted."
        )
    operations = decide(found if found is not None else adopted(broker, topic))
    if not operations:
        return Written(found if found is not None else adopted(broker, topic), changed=False)
    admin_policy.check_change(broker.view, found)
    if found is None:
        found = await adopt(broker, topic)
    # The generation stands for all of the spec that the decision was made from; a status may change meanwhile.
    tests = [("/metadata/generation", found.meta.generation)]
    stored = await broker.store.patch_if(TOPIC, found.name, uid=found.uid, tests=tests, operations=operations)
    written = read_topic(stored)
    assert written is not None, "it was one before"
    return Written(written, changed=True)


def adopted(broker: BrokerApi, topic: TopicView) -> Topic:
    """Return the Topic that would stand for a topic without one; it is not stored."""
    name = next(object_names(broker.view.cluster_name, topic.topic_name))
    return Topic.from_object(_object_for(broker, topic, name))


async def adopt(broker: BrokerApi, topic: TopicView) -> Topic:
    """Make a Topic object for a topic that has none and return it as stored.

    Raises AlreadyExists where every name is taken at the moment, StoreError.
    """
    for object_name in object_names(broker.view.cluster_name, topic.topic_name):
        with contextlib.suppress(AlreadyExists):
            stored = read_topic(await broker.store.create(TOPIC, _object_for(broker, topic, object_name)))
            assert stored is not None, "we wrote it"
            return stored
    raise AlreadyExists(f"no name is free for the Topic object of '{topic.topic_name}'")


def _object_for(broker: BrokerApi, topic: TopicView, object_name: str) -> dict[str, object]:
    inherited = config_defaults(broker.view).merged
    return new_topic_object(
        broker.view.cluster_name,
        object_name,
        topic.topic_name,
        partitions=topic.partition_count,
        replicas=max(len(target_of(state)) for _, state in topic.partitions()),
        # What the topic only inherits must go on following the cluster.
        config={name: text for name, text in topic.config.items() if inherited.get(name) != text},
        finalizers=(FINALIZER,),
    )


async def wait_until_done(
    broker: BrokerApi, written: Topic, done: Callable[[], bool], deadline: float, unfinished: str
) -> None:
    """Return once `done` holds in this broker's view; `deadline` is in loop time.

    Raises KafkaError: what the operator says against the Topic as it was written, or REQUEST_TIMED_OUT with
    the text `unfinished`, after which the change may still come.
    """
    loop = asyncio.get_running_loop()
    look_s = _FIRST_LOOK_S
    while not done():
        left_s = deadline - loop.time()
        if left_s <= 0:
            raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, unfinished)
        with contextlib.suppress(TimeoutError):
            await broker.view.wait_until(lambda _: done(), min(look_s, left_s))
            continue
        # Nothing came for a while: perhaps the operator refused. Brokers do not follow Topic objects, so look.
        await _raise_refusal(broker, written)
        look_s = min(look_s * 2, _LONGEST_LOOK_S)


async def _raise_refusal(broker: BrokerApi, written: Topic) -> None:
    try:
        topic = read_topic(await broker.store.get(TOPIC, written.name))
    except NotFound:
        topic = None
    except StoreError:
        return  # the deadline ends this
    if topic is None or topic.uid != written.uid:
        raise KafkaError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Topic object {written.name} was deleted meanwhile."
        )
    refusal = refusal_of(topic)
    if refusal is not None:
        raise refusal


def unreachable(error: Unavailable) -> KafkaError:
    """Return what clients are told while the cluster store is away; they may try again."""
    return KafkaError(ErrorCode.REQUEST_TIMED_OUT, f"the cluster's control plane cannot be reached: {error}")
