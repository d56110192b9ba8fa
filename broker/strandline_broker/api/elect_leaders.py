"""ElectLeaders (key 43), versions 0-2.

Differences from Kafka: an unclean election is a topic's setting (`unclean.leader.election.enable`), not a
request: with it the operator holds the election by itself, and this request waits for it; without it the
answer is ELIGIBLE_LEADERS_NOT_AVAILABLE.

Version notes: v1 election type (KIP-460), v2 flexible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.brokers import is_live
from strandline_broker.api.support.partition_change import change_partitions
from strandline_broker.cluster import transitions
from strandline_broker.cluster.model import NO_LEADER, PartitionSet, PartitionState
from strandline_broker.cluster.view import TopicView
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.ELECT_LEADERS

_PATIENCE_S = 5.0
"""Longest time that an unclean election is waited for."""


class ElectionType(IntEnum):
    """Kinds of elections, numbered as on the wire."""

    PREFERRED = 0
    UNCLEAN = 1


async def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Elect leaders for the named partitions, or for all that need one."""
    body = request.body
    wanted = getattr(body, "election_type", ElectionType.PREFERRED)
    everything = body.topic_partitions is None
    named: dict[str, list[int]] = {}
    if everything:
        for topic in broker.view.topics.values():
            named[topic.topic_name] = list(range(topic.partition_count))
    else:
        for entry in body.topic_partitions:
            named.setdefault(entry.topic, []).extend(entry.partitions)
    if wanted not in tuple(ElectionType):
        refusal = KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown election type {wanted}")
        rows = [_row(name, dict.fromkeys(numbers, refusal)) for name, numbers in named.items()]
        return {"error_code": refusal.code, "replica_election_results": rows}
    timeout_s = min(max(request.timeout_ms, 0) / 1000, _PATIENCE_S)
    rows = []
    for name, numbers in named.items():
        await asyncio.sleep(0)  # other connections get their turn between two topics
        results = await _elect(broker, name, numbers, ElectionType(wanted), timeout_s)
        if everything:
            results = {n: refusal for n, refusal in results.items() if not _is_needless(refusal)}
        if results or not everything:
            rows.append(_row(name, results))
    return {"error_code": ErrorCode.NONE, "replica_election_results": rows}


def _is_needless(refusal: KafkaError | None) -> bool:
    return refusal is not None and refusal.code is ErrorCode.ELECTION_NOT_NEEDED


async def _elect(
    broker: BrokerApi, name: str, numbers: Iterable[int], wanted: ElectionType, timeout_s: float
) -> dict[int, KafkaError | None]:
    topic = broker.view.topic_by_name(name)
    if topic is None:
        unknown = KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such topic as {name}")
        return dict.fromkeys(numbers, unknown)
    results: dict[int, KafkaError | None] = {}
    by_slice: dict[int, list[int]] = {}
    for number in numbers:
        state = topic.partition(number)
        if state is None:
            results[number] = KafkaError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such partition as {name}-{number}"
            )
        elif _is_settled(state, wanted):
            results[number] = KafkaError(
                ErrorCode.ELECTION_NOT_NEEDED, "Leader election not needed for topic partition."
            )
        else:
            part = topic.partition_set(number)
            assert part is not None, "it has the partition"
            by_slice.setdefault(part.slice_index, []).append(number)
    for slice_index, open_numbers in by_slice.items():
        part = topic.slices[slice_index]
        if wanted is ElectionType.PREFERRED:
            results |= await change_partitions(
                broker, part, dict.fromkeys(open_numbers, _preferred(broker)), guarded=False
            )
        else:
            results |= await _wait_for_unclean(broker, topic, part, open_numbers, timeout_s)
    return results


def _is_settled(state: PartitionState, wanted: ElectionType) -> bool:
    if wanted is ElectionType.PREFERRED:
        return state.leader == state.replicas[0]
    return state.leader != NO_LEADER


def _preferred(broker: BrokerApi) -> Any:
    live = {broker_id: lease.identity for broker_id, lease in broker.view.leases.items() if is_live(lease)}

    def decide(part: PartitionSet, number: int) -> PartitionState:
        state = part.partition(number)
        preferred = state.replicas[0]
        if state.leader == preferred:
            return state
        may_lead = any(
            ref.broker_id == preferred and transitions.RULES.generation_matches(ref, live)
            for ref in state.isr
        )
        if not may_lead or live[preferred].draining:
            raise KafkaError(
                ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE,
                f"Broker {preferred} is not in sync, or not up.",
            )
        election = transitions.elect(state, live=live, min_isr=part.min_insync_replicas, prefer_first=True)
        assert election.state.leader == preferred, "it is the first of the candidates"
        return election.state

    return decide


async def _wait_for_unclean(
    broker: BrokerApi, topic: TopicView, part: PartitionSet, numbers: list[int], timeout_s: float
) -> dict[int, KafkaError | None]:
    """Wait for the operator's elections, where the topic allows them."""

    def led(number: int) -> bool:
        state = broker.view.partition(topic.topic_name, number)
        return state is not None and state.leader != NO_LEADER

    message = "No replica of the partition lives."
    if not part.unclean_leader_election:
        message = (
            "No in-sync replica lives. Set unclean.leader.election.enable=true on the topic to accept the loss of "
            "records, or bring a replica's broker back."
        )
    else:
        try:
            await broker.view.wait_until(lambda _: all(map(led, numbers)), timeout_s)
        except TimeoutError:
            pass
    refusal = KafkaError(ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, message)
    return {number: None if led(number) else refusal for number in numbers}


def _row(topic: str, results: Mapping[int, KafkaError | None]) -> dict[str, Any]:
    return {
        "topic": topic,
        "partition_result": [
            {
                "partition_id": number,
                "error_code": refusal.code if refusal is not None else ErrorCode.NONE,
                "error_message": refusal.message or None if refusal is not None else None,
            }
            for number, refusal in sorted(results.items())
        ],
    }
