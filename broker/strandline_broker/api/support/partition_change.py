"""Changes partitions in their PartitionSets on behalf of a Kafka client, by compare-and-swap.

ElectLeaders and AlterPartitionReassignments use it: what they ask for is no part of a Topic's spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.support import admin_policy
from strandline_broker.api.support.topic_change import unreachable
from strandline_broker.api.support.topic_objects import find_topic
from strandline_broker.cluster.model import PARTITION_SET, PartitionSet, PartitionState
from strandline_broker.cluster.patches import patch_partitions
from strandline_broker.cluster.store import Conflict, Invalid, NotFound, Unavailable
from strandline_broker.errors import ErrorCode, KafkaError

_ATTEMPTS = 10
_SEEN_S = 2.0

# From a partition as stored (with its slice) to what it should be; the very same state where nothing is to
# change. Raises KafkaError.
Decide = Callable[[PartitionSet, int], PartitionState]


async def change_partitions(
    broker: BrokerApi, part: PartitionSet, wishes: Mapping[int, Decide], *, guarded: bool
) -> dict[int, KafkaError | None]:
    """Change partitions of one slice, by number; return what was said against each, None for nothing.

    One write for all. `guarded`: only where `Cluster.spec.kafkaAdmin` lets clients change the topic.
    """
    for _ in range(_ATTEMPTS):
        try:
            stored = PartitionSet.from_object(await broker.store.get(PARTITION_SET, part.name))
            if stored.uid != part.uid or stored.deleting:
                raise NotFound(part.name)
            results, new_states = _decide(stored, wishes)
            if not new_states:
                return results
            if guarded:
                await _check_policy(broker, part.topic_name)
            tests, operations = patch_partitions(stored, new_states)
            await broker.store.patch_if(
                PARTITION_SET, stored.name, uid=stored.uid, tests=tests, operations=operations
            )
        except Conflict:
            continue  # the operator or a leader was quicker: look again and decide again
        except KafkaError as refusal:
            return dict.fromkeys(wishes, refusal)
        except NotFound:
            return _all_refused(wishes, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The topic is being deleted.")
        except Invalid as error:
            return _all_refused(wishes, ErrorCode.INVALID_REQUEST, str(error))
        except Unavailable as error:
            return dict.fromkeys(wishes, unreachable(error))
        await _wait_until_seen(broker, part.topic_name, new_states)
        return results
    return _all_refused(wishes, ErrorCode.REQUEST_TIMED_OUT, f"{part.topic_name} is being changed by others.")


def _decide(
    part: PartitionSet, wishes: Mapping[int, Decide]
) -> tuple[dict[int, KafkaError | None], dict[int, PartitionState]]:
    results: dict[int, KafkaError | None] = {}
    new_states: dict[int, PartitionState] = {}
    for number, decide in wishes.items():
        try:
            new = decide(part, number)
        except KafkaError as refusal:
            results[number] = refusal
            continue
        results[number] = None
        if new is not part.partition(number):
            new_states[number] = new
    return results, new_states


def _all_refused(wishes: Iterable[int], code: ErrorCode, message: str) -> dict[int, KafkaError | None]:
    return dict.fromkeys(wishes, KafkaError(code, message))


async def _check_policy(broker: BrokerApi, topic_name: str) -> None:
    found = await find_topic(broker.store, broker.view.cluster_name, topic_name)
    admin_policy.check_change(broker.view, found)


async def _wait_until_seen(
    broker: BrokerApi, topic_name: str, new_states: Mapping[int, PartitionState]
) -> None:
    """Wait so that the client that asks this broker next sees its change; what is stored stays stored."""

    def seen(_: object) -> bool:
        states = ((broker.view.partition(topic_name, n), new) for n, new in new_states.items())
        return all(state is None or state.partition_epoch >= new.partition_epoch for state, new in states)

    try:
        await broker.view.wait_until(seen, _SEEN_S)
    except TimeoutError:
        return
