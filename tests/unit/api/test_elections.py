"""ElectLeaders, AlterPartitionReassignments and ListPartitionReassignments."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.api.support import FakeBroker, add_topic, broker, lease, led, partition_set, run

from strandline_broker.cluster.model import (
    LEASE,
    NO_LEADER,
    PARTITION_SET,
    TOPIC,
    BrokerPhase,
    PartitionSet,
    PartitionState,
    ReplicaRef,
    Topic,
)
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

PREFERRED, UNCLEAN = 0, 1
OFFLINE = PartitionState(replicas=(5,), isr=led(5).isr, leader=NO_LEADER, leader_epoch=2)

Results = dict[tuple[str, int], ErrorCode]


async def elect(
    fake: FakeBroker,
    named: dict[str, tuple[int, ...]] | None,
    *,
    kind: int = PREFERRED,
    version: int = 2,
    timeout_ms: int = 1000,
) -> tuple[ErrorCode, Results]:
    partitions = None
    if named is not None:
        partitions = tuple({"topic": topic, "partitions": numbers} for topic, numbers in named.items())
    body: dict[str, Any] = {"topic_partitions": partitions, "timeout": timeout_ms}
    if version > 0:
        body["election_type"] = kind
    answer = await fake.call(ApiKey.ELECT_LEADERS, version, body)
    results = {
        (topic.topic, part.partition_id): part.error_code
        for topic in answer.replica_election_results
        for part in topic.partition_result
    }
    return getattr(answer, "error_code", ErrorCode.NONE), results


async def stored(fake: FakeBroker, made: PartitionSet) -> PartitionSet:
    return PartitionSet.from_object(await fake.store.get(PARTITION_SET, made.name))


@pytest.mark.parametrize("version", range(3))
def test_nothing_to_elect(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            await add_topic(fake, partition_set("t", [led(0), led(0)]))
            needless = ErrorCode.ELECTION_NOT_NEEDED
            assert await elect(fake, {"t": (0, 1)}, version=version) == (
                ErrorCode.NONE,
                {("t", 0): needless, ("t", 1): needless},
            )
            assert await elect(fake, None, version=version) == (ErrorCode.NONE, {})
            if version > 0:
                _, results = await elect(fake, {"t": (1,)}, kind=UNCLEAN, version=version)
                assert results == {("t", 1): needless}

    run(main())


def test_what_is_not_there() -> None:
    async def main() -> None:
        async with broker() as fake:
            await add_topic(fake, partition_set("t", [led(0)]))
            unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            for kind in (PREFERRED, UNCLEAN):
                _, results = await elect(fake, {"t": (1,), "missing": (0, 1)}, kind=kind)
                assert results == dict.fromkeys([("t", 1), ("missing", 0), ("missing", 1)], unknown)
            error, results = await elect(fake, {"t": (0,)}, kind=7)
            assert (error, results) == (ErrorCode.INVALID_REQUEST, {("t", 0): ErrorCode.INVALID_REQUEST})

    run(main())


def test_the_preferred_replica_is_elected_when_it_is_in_sync() -> None:
    async def main() -> None:
        async with broker(brokers=2) as fake:
            made = partition_set("t", [led(0, 1, leader=1, epoch=4), led(1, 0)])
            await add_topic(fake, made)
            assert await elect(fake, None) == (ErrorCode.NONE, {("t", 0): ErrorCode.NONE})
            state = (await stored(fake, made)).partition(0)
            assert (state.leader, state.leader_epoch, state.leader_incarnation) == (0, 5, "incarnation")
            assert fake.view.partition("t", 0) == state

    run(main())


@pytest.mark.parametrize("why", ["dead", "draining", "out of sync", "another log", "offline"])
def test_a_preferred_replica_that_cannot_lead(why: str) -> None:
    async def main() -> None:
        async with broker(brokers=3) as fake:
            phase = BrokerPhase.DRAINING if why == "draining" else BrokerPhase.RUNNING
            await fake.store.create(LEASE, lease(9, state=phase, held=why != "dead"))
            await fake.view.wait_until(lambda view: 9 in view.leases, 10)
            isr = {"out of sync": (ReplicaRef(0, 7),), "another log": (ReplicaRef(9, 6), ReplicaRef(0, 7))}
            state = replace(led(9, 0, leader=0), isr=isr.get(why, led(9, 0).isr))
            if why == "offline":
                state = OFFLINE
            made = partition_set("t", [state])
            await add_topic(fake, made)
            _, results = await elect(fake, {"t": (0,)})
            assert results == {("t", 0): ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE}
            assert (await stored(fake, made)).partition(0) == state

    run(main())


def test_unclean_elections_are_the_topics_choice() -> None:
    async def main() -> None:
        async with broker() as fake:
            made = partition_set("t", [OFFLINE], config={"unclean.leader.election.enable": "true"})
            await add_topic(fake, made)
            await add_topic(fake, partition_set("safe", [OFFLINE]))
            unavailable = ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE
            _, results = await elect(fake, {"safe": (0,), "t": (0,)}, kind=UNCLEAN, timeout_ms=10)
            assert results == {("safe", 0): unavailable, ("t", 0): unavailable}

    run(main())


def test_an_unclean_election_is_waited_for() -> None:
    async def main() -> None:
        async with broker() as fake:
            made = partition_set("t", [OFFLINE], config={"unclean.leader.election.enable": "true"})
            await add_topic(fake, made)
            part = await stored(fake, made)
            value = replace(led(5, epoch=3), partition_epoch=1).to_object()
            operations = [{"op": "replace", "path": "/spec/partitions/0", "value": value}]
            waiting = asyncio.create_task(elect(fake, {"t": (0,)}, kind=UNCLEAN, timeout_ms=20_000))
            await asyncio.sleep(0)
            await fake.store.patch_if(PARTITION_SET, part.name, uid=part.uid, tests=[], operations=operations)
            assert (await waiting)[1] == {("t", 0): ErrorCode.NONE}

    run(main())


# -- reassignments -----------------------------------------------------------------------------------------------------

MOVING = replace(led(1, 0, leader=0, isr=(0,)), adding=(1,), removing=(0,))


async def reassign(
    fake: FakeBroker,
    targets: Mapping[tuple[str, int], tuple[int, ...] | None],
    *,
    version: int = 1,
    **fields: Any,
) -> dict[tuple[str, int], tuple[ErrorCode, str | None]]:
    topics: dict[str, list[dict[str, Any]]] = {}
    for (topic, number), target in targets.items():
        topics.setdefault(topic, []).append({"partition_index": number, "replicas": target})
    rows = tuple({"name": topic, "partitions": tuple(parts)} for topic, parts in topics.items())
    answer = await fake.call(
        ApiKey.ALTER_PARTITION_REASSIGNMENTS, version, {"topics": rows, "timeout": 1000, **fields}
    )
    assert (answer.error_code, answer.error_message) == (ErrorCode.NONE, None)
    return {
        (topic.name, part.partition_index): (part.error_code, part.error_message)
        for topic in answer.responses
        for part in topic.partitions
    }


async def listed(
    fake: FakeBroker, named: dict[str, tuple[int, ...]] | None = None
) -> dict[tuple[str, int], Any]:
    topics = None
    if named is not None:
        topics = tuple({"name": name, "partition_indexes": numbers} for name, numbers in named.items())
    answer = await fake.call(ApiKey.LIST_PARTITION_REASSIGNMENTS, 0, {"topics": topics, "timeout": 1000})
    assert answer.error_code is ErrorCode.NONE
    return {
        (topic.name, part.partition_index): (part.replicas, part.adding_replicas, part.removing_replicas)
        for topic in answer.topics
        for part in topic.partitions
    }


@pytest.mark.parametrize("version", range(2))
def test_a_target_that_is_reached_already(version: int) -> None:
    async def main() -> None:
        async with broker(brokers=2) as fake:
            made = partition_set("t", [led(0), led(0, 1)])
            await add_topic(fake, made)
            results = await reassign(fake, {("t", 0): (0,), ("t", 1): (1, 0)}, version=version)
            assert results == dict.fromkeys([("t", 0), ("t", 1)], (ErrorCode.NONE, None))
            after = await stored(fake, made)
            assert after.partition(0) == made.partition(0)
            # Another order of the same brokers: another preferred leader, and nothing to copy.
            assert after.partition(1).replicas == (1, 0)
            assert await listed(fake) == {}

    run(main())


@pytest.mark.parametrize(
    ("target", "may_change_factor", "error", "text"),
    [
        (
            (0, 1),
            True,
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "All 2 partitions of a topic have the same number",
        ),
        ((0, 1), False, ErrorCode.INVALID_REPLICATION_FACTOR, "changed from 1 to 2"),
        ((), True, ErrorCode.INVALID_REPLICA_ASSIGNMENT, "empty replica list"),
        ((0, 0), True, ErrorCode.INVALID_REPLICA_ASSIGNMENT, "more than once"),
        ((77,), True, ErrorCode.INVALID_REPLICA_ASSIGNMENT, "no such broker"),
        (None, True, ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "No partition reassignment is in progress."),
    ],
)
def test_targets_that_are_refused(
    target: tuple[int, ...] | None, *, may_change_factor: bool, error: ErrorCode, text: str
) -> None:
    async def main() -> None:
        async with broker(brokers=2) as fake:
            made = partition_set("t", [led(0), led(0)])
            await add_topic(fake, made)
            results = await reassign(
                fake, {("t", 0): target}, allow_replication_factor_change=may_change_factor
            )
            code, message = results["t", 0]
            assert code is error
            assert message is not None
            assert text in message
            assert (await stored(fake, made)).partition(0) == made.partition(0)

    run(main())


def test_one_answer_for_each_partition() -> None:
    async def main() -> None:
        async with broker(brokers=2) as fake:
            await add_topic(fake, partition_set("t", [led(0), led(0)]))
            results = await reassign(fake, {("t", 0): (0,), ("t", 1): (7,), ("t", 2): (0,), ("u", 0): None})
            assert {key: code for key, (code, _) in results.items()} == {
                ("t", 0): ErrorCode.NONE,
                ("t", 1): ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                ("t", 2): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                ("u", 0): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            }

    run(main())


def test_a_reassignment_is_listed_and_cancelled() -> None:
    async def main() -> None:
        async with broker(brokers=2) as fake:
            made = partition_set("t", [led(0), MOVING])
            await add_topic(fake, made)
            await add_topic(fake, partition_set("u", [led(0)]))
            moving = {("t", 1): ((1, 0), (1,), (0,))}
            assert await listed(fake) == moving
            assert await listed(fake, {"t": (0, 1, 2), "u": (0,), "missing": (0,)}) == moving
            assert await listed(fake, {"t": (0,)}) == {}
            assert await reassign(fake, {("t", 1): None}) == {("t", 1): (ErrorCode.NONE, None)}
            state = (await stored(fake, made)).partition(1)
            assert (state.replicas, state.adding, state.removing) == ((0,), (), ())
            assert await listed(fake) == {}

    run(main())


def test_a_move_waits_for_its_turn_and_is_listed_meanwhile() -> None:
    async def main() -> None:
        async with broker(brokers=3) as fake:
            made = partition_set("t", [led(0, 1), led(0, 1)])
            await add_topic(fake, made)
            results = await reassign(fake, {("t", 0): (2, 1), ("t", 1): (1, 2)})
            assert results == dict.fromkeys([("t", 0), ("t", 1)], (ErrorCode.NONE, None))
            after = await stored(fake, made)
            assert [(p.replicas, p.target, p.adding) for p in after.partitions] == [
                ((0, 1), (2, 1), ()),
                ((0, 1), (1, 2), ()),
            ]
            assert await listed(fake) == {
                ("t", 0): ((2, 1, 0), (2,), (0,)),
                ("t", 1): ((1, 2, 0), (2,), (0,)),
            }
            # Asked for again, asked for otherwise, taken back.
            assert (await reassign(fake, {("t", 0): (2, 1)}))["t", 0][0] is ErrorCode.NONE
            assert (await reassign(fake, {("t", 1): (2, 0)}))["t", 1][0] is ErrorCode.NONE
            assert await listed(fake, {"t": (1,)}) == {("t", 1): ((2, 0, 1), (2,), (1,))}
            assert (await reassign(fake, {("t", 0): None, ("t", 1): None}))["t", 1][0] is ErrorCode.NONE
            assert await listed(fake) == {}
            assert [p.replicas for p in (await stored(fake, made)).partitions] == [(0, 1), (0, 1)]

    run(main())


async def replicas_of(fake: FakeBroker, name: str) -> int:
    return Topic.from_object(await fake.store.get(TOPIC, name)).replicas


def test_another_number_of_replicas_is_the_whole_topics() -> None:
    async def main() -> None:
        async with broker(brokers=3) as fake:
            made = partition_set("t", [led(0), led(1)])
            await add_topic(fake, made)
            both = {("t", 0): (0, 1), ("t", 1): (1, 2)}
            results = await reassign(fake, both, allow_replication_factor_change=False)
            assert {code for code, _ in results.values()} == {ErrorCode.INVALID_REPLICATION_FACTOR}
            results = await reassign(fake, {("t", 0): (0, 1), ("t", 1): (2,)})
            assert results["t", 0][0] is ErrorCode.INVALID_REPLICA_ASSIGNMENT
            assert results["t", 1][0] is ErrorCode.NONE, "what changes no number goes on"
            results = await reassign(fake, both)
            assert {code for code, _ in results.values()} == {ErrorCode.NONE}
            assert await replicas_of(fake, "t") == 2
            assert [p.target for p in (await stored(fake, made)).partitions] == [(0, 1), (1, 2)]
            # Taken back for all, so is the number; for one of them it cannot be.
            results = await reassign(fake, {("t", 1): None})
            assert results["t", 1][0] is ErrorCode.INVALID_REPLICA_ASSIGNMENT
            results = await reassign(fake, dict.fromkeys(both))
            assert {code for code, _ in results.values()} == {ErrorCode.NONE}
            assert await replicas_of(fake, "t") == 1
            assert await listed(fake) == {}

    run(main())


def test_the_number_of_replicas_of_internal_topics_is_the_clusters() -> None:
    async def main() -> None:
        async with broker(brokers=3) as fake:
            await add_topic(fake, partition_set("__consumer_offsets", [led(0)]))
            results = await reassign(fake, {("__consumer_offsets", 0): (0, 1)})
            assert results["__consumer_offsets", 0][0] is ErrorCode.POLICY_VIOLATION
            assert (await fake.store.list(TOPIC))[0] == []
            # To other brokers it may move: it has no Topic that could say otherwise.
            results = await reassign(fake, {("__consumer_offsets", 0): (1,)})
            assert results["__consumer_offsets", 0][0] is ErrorCode.NONE

    run(main())


def test_the_policy_guards_reassignments() -> None:
    async def main() -> None:
        async with broker(brokers=2, cluster={"kafkaAdmin": "None"}) as fake:
            await add_topic(fake, partition_set("t", [led(0, 1), led(0)]))
            results = await reassign(fake, {("t", 0): (1, 0)})
            assert results["t", 0][0] is ErrorCode.POLICY_VIOLATION
            # What changes nothing is fine.
            assert (await reassign(fake, {("t", 1): (0,)}))["t", 1][0] is ErrorCode.NONE

    run(main())


def test_a_store_that_is_away() -> None:
    async def main() -> None:
        async with broker(brokers=2) as fake:
            await add_topic(fake, partition_set("t", [led(0, 1, leader=1)]))
            await fake.store.close()
            timed_out = ErrorCode.REQUEST_TIMED_OUT
            assert (await elect(fake, {"t": (0,)}))[1] == {("t", 0): timed_out}
            assert (await reassign(fake, {("t", 0): (1, 0)}))["t", 0][0] is timed_out

    run(main())
