"""CreatePartitions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.api.support import FakeBroker, add_topic, broker, lease, led, partition_set, run

from strandline_broker.cluster.model import LEASE, NO_LEADER, TOPIC, PartitionState
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey


def wish(name: str, count: int, *assignments: tuple[int, ...]) -> dict[str, Any]:
    rows = tuple({"broker_ids": brokers} for brokers in assignments)
    return {"name": name, "count": count, "assignments": rows or None}


async def grow(
    fake: FakeBroker,
    *topics: dict[str, Any],
    version: int = 3,
    timeout_ms: int = 10_000,
    validate_only: bool = False,
) -> dict[str, Any]:
    body = {"topics": topics, "timeout": timeout_ms, "validate_only": validate_only}
    answer = await fake.call(ApiKey.CREATE_PARTITIONS, version, body)
    return {row.name: row for row in answer.results}


async def make(fake: FakeBroker, name: str, count: int = 2) -> None:
    topic = {"name": name, "num_partitions": count, "replication_factor": 1, "assignments": (), "configs": ()}
    body = {"topics": (topic,), "timeout": 10_000, "validate_only": False}
    (row,) = (await fake.call(ApiKey.CREATE_TOPICS, 7, body)).topics
    assert row.error_code is ErrorCode.NONE


def count_of(fake: FakeBroker, name: str) -> int:
    topic = fake.view.topic_by_name(name)
    assert topic is not None
    return topic.partition_count


@pytest.mark.parametrize("version", range(4))
def test_a_topic_grows_and_its_new_partitions_are_led(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "t")
            rows = await grow(fake, wish("t", 5), version=version)
            assert (rows["t"].error_code, rows["t"].error_message) == (ErrorCode.NONE, None)
            assert count_of(fake, "t") == 5
            assert (await fake.store.get(TOPIC, "t"))["spec"]["partitions"] == 5

    run(main())


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        (wish("t", 2), ErrorCode.INVALID_PARTITIONS, "already has 2 partition(s)"),
        (wish("t", 1), ErrorCode.INVALID_PARTITIONS, "would not be an increase"),
        (wish("t", -1), ErrorCode.INVALID_PARTITIONS, "would not be an increase"),
        (wish("t", 10_001), ErrorCode.INVALID_PARTITIONS, "at most 10000"),
        (wish("missing", 3), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "does not host"),
        (wish("__consumer_offsets", 3), ErrorCode.POLICY_VIOLATION, "internal"),
        (wish("t", 4, (0,)), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "only 1 assignment(s)"),
        (wish("t", 3, ()), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "empty replica list"),
        (wish("t", 3, (7,)), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "no such broker"),
        (wish("t", 3, (0, 0)), ErrorCode.INVALID_REPLICA_ASSIGNMENT, "more than once"),
        (wish("moving", 3), ErrorCode.REASSIGNMENT_IN_PROGRESS, "in progress"),
    ],
)
def test_refusals(request_: dict[str, Any], error: ErrorCode, text: str) -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "t")
            await add_topic(fake, partition_set("__consumer_offsets", [led(0)]))
            await add_topic(fake, partition_set("moving", [replace(led(1, 0), removing=(0,))]))
            for validate_only in (True, False):
                rows = await grow(fake, request_, validate_only=validate_only)
                row = rows[request_["name"]]
                assert row.error_code is error
                assert text in row.error_message
            assert count_of(fake, "t") == 2

    run(main())


def test_duplicates_and_others() -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "a")
            await make(fake, "b")
            rows = await grow(fake, wish("a", 3), wish("b", 3), wish("a", 4))
            assert rows["a"].error_code is ErrorCode.INVALID_REQUEST
            assert rows["b"].error_code is ErrorCode.NONE
            assert (count_of(fake, "a"), count_of(fake, "b")) == (2, 3)

    run(main())


def test_validation_changes_nothing() -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "t")
            rows = await grow(fake, wish("t", 3), validate_only=True)
            assert rows["t"].error_code is ErrorCode.NONE
            assert (await fake.store.get(TOPIC, "t"))["spec"]["partitions"] == 2

    run(main())


def test_manual_assignments_go_into_the_topic() -> None:
    async def main() -> None:
        async with broker(brokers=2) as fake:
            await make(fake, "t")
            assert (await grow(fake, wish("t", 3, (1,))))["t"].error_code is ErrorCode.NONE
            assert (await grow(fake, wish("t", 4, (0,))))["t"].error_code is ErrorCode.NONE
            metadata = (await fake.store.get(TOPIC, "t"))["metadata"]
            assert metadata["annotations"] == {"strandline.io/replica-assignment": '{"3":[0]}'}
            rows = await grow(fake, wish("t", 5, (1, 0)))
            assert "not consistent" in rows["t"].error_message
            await fake.store.create(LEASE, lease(9, held=False))
            await fake.view.wait_until(lambda view: 9 in view.leases, 10)
            rows = await grow(fake, wish("t", 5, (9,)))
            assert "for partition 4 are fenced" in rows["t"].error_message

    run(main())


def test_a_topic_without_its_object_gets_one_that_asks_for_more() -> None:
    async def main() -> None:
        async with broker() as fake:
            await add_topic(fake, partition_set("t", [led(0)], config={"segment.ms": "5"}))
            assert (await grow(fake, wish("t", 2)))["t"].error_code is ErrorCode.NONE
            spec = (await fake.store.get(TOPIC, "t"))["spec"]
            assert (spec["partitions"], spec["config"]) == (2, {"segment.ms": "5"})

    run(main())


def test_who_repeats_a_request_waits_for_the_same_growth() -> None:
    async def main() -> None:
        async with broker(controller=False) as fake:
            await add_topic(fake, partition_set("t", [led(0)]))
            for _ in range(2):
                rows = await grow(fake, wish("t", 3), timeout_ms=0)
                assert rows["t"].error_code is ErrorCode.REQUEST_TIMED_OUT
            # Somebody who asks for less now is too late.
            rows = await grow(fake, wish("t", 2), timeout_ms=0)
            assert rows["t"].error_code is ErrorCode.INVALID_PARTITIONS

    run(main())


def test_old_partitions_without_a_leader_do_not_matter() -> None:
    async def main() -> None:
        async with broker() as fake:
            offline = PartitionState(replicas=(3,), isr=led(3).isr, leader=NO_LEADER)
            await add_topic(fake, partition_set("t", [offline]))
            assert (await grow(fake, wish("t", 2)))["t"].error_code is ErrorCode.NONE
            fake.controller.leader = NO_LEADER
            rows = await grow(fake, wish("t", 3), timeout_ms=200)
            assert rows["t"].error_code is ErrorCode.REQUEST_TIMED_OUT

    run(main())


def test_the_policy_and_the_operator_may_refuse() -> None:
    async def main() -> None:
        async with broker(cluster={"kafkaAdmin": "CreatedByKafka"}) as fake:
            await add_topic(fake, partition_set("gits", [led(0)]))
            for validate_only in (True, False):
                rows = await grow(fake, wish("gits", 2), validate_only=validate_only)
                assert rows["gits"].error_code is ErrorCode.POLICY_VIOLATION
            await make(fake, "ours")
            fake.controller.refuse = ("NotEnoughBrokers", "too few")
            row = (await grow(fake, wish("ours", 3)))["ours"]
            assert (row.error_code, row.error_message) == (ErrorCode.INVALID_REPLICATION_FACTOR, "too few")

    run(main())
