"""Throttles of the topics that the cluster makes for itself: the one thing about them that Kafka clients change.

`kafka-reassign-partitions --throttle` sets them on whatever it moves, and clears them afterwards. These topics have no
Topic object, so the change goes into their PartitionSets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.support import admin_policy
from strandline_broker.api.support.topic_change import unreachable
from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import PARTITION_SET, PartitionSet
from strandline_broker.cluster.patches import patch_topic_epoch
from strandline_broker.cluster.store import Conflict, NotFound, Unavailable
from strandline_broker.cluster.view import TopicView
from strandline_broker.errors import ErrorCode, KafkaError

_ATTEMPTS = 10
_THROTTLES = frozenset(("follower.replication.throttled.replicas", "leader.replication.throttled.replicas"))

# From the configuration that a topic has to the one that is asked for. Raises KafkaError.
Decide = Callable[[Mapping[str, str]], dict[str, str]]


async def change_internal_topic(
    broker: BrokerApi, topic: TopicView, decide: Decide, *, validate_only: bool
) -> None:
    """Change what may be changed of an internal topic's configuration; what changes nothing is fine.

    Raises KafkaError: what `decide` raises, POLICY_VIOLATION, UNKNOWN_TOPIC_OR_PARTITION, REQUEST_TIMED_OUT.
    """
    for part in topic.slices:
        if _check(part, decide(part.config)):
            admin_policy.check_defaults(broker.view)
            if not validate_only:
                await _change(broker, part, decide)


def _check(part: PartitionSet, new: Mapping[str, str]) -> bool:
    """Say whether there is something to change. Raises KafkaError."""
    changed = {name for name in part.config.keys() | new.keys() if part.config.get(name) != new.get(name)}
    if not changed <= _THROTTLES:
        raise KafkaError(
            ErrorCode.POLICY_VIOLATION, f"{part.topic_name} is internal; the cluster configures it"
        )
    return bool(changed)


async def _change(broker: BrokerApi, part: PartitionSet, decide: Decide) -> None:
    for _ in range(_ATTEMPTS):
        try:
            stored = PartitionSet.from_object(await broker.store.get(PARTITION_SET, part.name))
            new = decide(stored.config)
            if not _check(stored, new):
                return
            tests, operations = patch_topic_epoch(stored, transitions.change_config(stored, new))
            await broker.store.patch_if(
                PARTITION_SET, stored.name, uid=stored.uid, tests=tests, operations=operations
            )
        except Conflict:
            continue  # an election or the operator was quicker: look again and decide again
        except NotFound as error:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION) from error
        except Unavailable as error:
            raise unreachable(error) from error
        return
    raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, f"{part.topic_name} is being changed by others.")
