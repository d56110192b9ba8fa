from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.api.support import CLUSTER_NAME, FakeBroker, add_topic, broker, lease, led, partition_set, run

from strandline_broker.cluster.model import LEASE, TOPIC, BrokerPhase, Topic, new_object
from strandline_broker.cluster.replica_assignment import ANNOTATION_REPLICA_ASSIGNMENT, parse_assignment
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey


def topic(name: str, partitions: int = 1, replicas: int = 1, **more: Any) -> dict[str, Any]:
    fields = {"assignments": (), "configs": (), **more}
    return {"name": name, "num_partitions": partitions, "replication_factor": replicas, **fields}


def configs(**values: str | None) -> tuple[dict[str, Any], ...]:
    return tuple({"name": name.replace("_", "."), "value": value} for name, value in values.items())


def assignments(*replicas: tuple[int, ...]) -> tuple[dict[str, Any], ...]:
    return tuple({"partition_index": index, "broker_ids": brokers} for index, brokers in enumerate(replicas))


async def create(
    fake: FakeBroker,
    *topics: dict[str, Any],
    version: int = 7,
    validate_only: bool = False,
    timeout_ms: int = 20_000,
) -> list[Any]:
    body = {"topics": topics, "timeout": timedelta(milliseconds=timeout_ms), "validate_only": validate_only}
    answer = await fake.call(ApiKey.CREATE_TOPICS, version, body)
    return list(answer.topics)


async def error_of(fake: FakeBroker, *topics: dict[str, Any], **options: Any) -> ErrorCode:
    (row,) = await create(fake, *topics, **options)
    code: ErrorCode = row.error_code
    return code


async def objects(fake: FakeBroker) -> list[dict[str, Any]]:
    return (await fake.store.list(TOPIC))[0]


@pytest.mark.parametrize("version", range(2, 8))
def test_every_version_creates_and_waits_for_leaders(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            (row,) = await create(fake, topic("orders", 3), version=version)
            assert (row.name, row.error_code, row.error_message) == ("orders", ErrorCode.NONE, None)
            view = fake.view.topic_by_name("orders")
            assert view is not None
            assert view.partition_count == 3
            if version >= 5:
                assert (row.num_partitions, row.replication_factor) == (3, 1)
                values = {config.name: (config.value, config.config_source) for config in row.configs}
                assert values["retention.ms"] == ("604800000", 5)
            if version >= 7:
                assert row.topic_id == view.topic_id
            (obj,) = await objects(fake)
            assert obj["metadata"]["name"] == "orders"
            assert obj["metadata"]["labels"]["strandline.io/created-by"] == "kafka-admin"
            assert obj["spec"] == {"clusterRef": {"name": CLUSTER_NAME}, "partitions": 3, "replicas": 1}

    run(main())


def test_names_that_kubernetes_does_not_allow_get_an_object_name_of_their_own() -> None:
    async def main() -> None:
        async with broker() as fake:
            assert await error_of(fake, topic("My_Topic")) is ErrorCode.NONE
            (obj,) = await objects(fake)
            assert obj["metadata"]["name"].startswith("my-topic-")
            assert obj["spec"]["topicName"] == "My_Topic"

    run(main())


def test_an_object_name_that_another_topic_has_is_passed_over() -> None:
    async def main() -> None:
        async with broker(controller=False) as fake:
            taken = {"clusterRef": {"name": CLUSTER_NAME}, "topicName": "Other"}
            await fake.store.create(TOPIC, new_object(TOPIC, "orders", taken))
            assert await error_of(fake, topic("orders"), timeout_ms=0) is ErrorCode.REQUEST_TIMED_OUT
            made = [Topic.from_object(obj) for obj in await objects(fake)]
            assert [t.topic_name for t in made if t.name.startswith("orders-")] == ["orders"]

    run(main())


def test_configuration_is_kept_and_shown() -> None:
    async def main() -> None:
        async with broker(cluster={"config": {"retention.ms": "5", "segment.ms": "6"}}) as fake:
            (row,) = await create(
                fake, topic("t", configs=configs(retention_ms=" 7 ", cleanup_policy="compact"))
            )
            (obj,) = await objects(fake)
            assert obj["spec"]["config"] == {"retention.ms": "7", "cleanup.policy": "compact"}
            shown = {config.name: (config.value, config.config_source) for config in row.configs}
            assert shown["retention.ms"] == ("7", 1)
            assert shown["segment.ms"] == ("6", 4)
            assert shown["segment.bytes"] == ("1073741824", 5)

    run(main())


def test_defaults_come_from_the_broker() -> None:
    async def main() -> None:
        async with broker(num_partitions=4) as fake:
            (row,) = await create(fake, topic("t", -1, -1))
            assert (row.num_partitions, row.replication_factor) == (4, 1)

    run(main())


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        (topic("a b"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (topic(""), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (topic(".."), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (topic("x" * 250), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (topic("old_one"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (topic("old.one"), ErrorCode.TOPIC_ALREADY_EXISTS),
        (topic("__consumer_offsets"), ErrorCode.INVALID_REQUEST),
        (topic("t", 0), ErrorCode.INVALID_PARTITIONS),
        (topic("t", -2), ErrorCode.INVALID_PARTITIONS),
        (topic("t", 10_001), ErrorCode.INVALID_PARTITIONS),
        (topic("t", 1, 0), ErrorCode.INVALID_REPLICATION_FACTOR),
        (topic("t", 1, -2), ErrorCode.INVALID_REPLICATION_FACTOR),
        (topic("t", 1, 2), ErrorCode.INVALID_REPLICATION_FACTOR),
        (topic("t", configs=configs(nonsense="1")), ErrorCode.INVALID_CONFIG),
        (topic("t", configs=configs(retention_ms="soon")), ErrorCode.INVALID_CONFIG),
        (topic("t", configs=configs(retention_ms=None)), ErrorCode.INVALID_CONFIG),
        (topic("t", configs=configs(min_insync_replicas="2")), ErrorCode.INVALID_CONFIG),
        (topic("t", configs=configs(remote_storage_enable="true")), ErrorCode.INVALID_CONFIG),
        (topic("t", 1, -1, assignments=assignments((0,))), ErrorCode.INVALID_REQUEST),
        (topic("t", -1, 1, assignments=assignments((0,))), ErrorCode.INVALID_REQUEST),
        (topic("t", -1, -1, assignments=assignments(())), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (topic("t", -1, -1, assignments=assignments((0, 0))), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (topic("t", -1, -1, assignments=assignments((9,))), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (topic("t", -1, -1, assignments=assignments((0,)) * 2), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (topic("t", -1, -1, assignments=assignments((0,), (0,))[1:]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
    ],
)
@pytest.mark.parametrize("validate_only", [False, True])
def test_refused(wish: dict[str, Any], error: ErrorCode, validate_only: bool) -> None:
    async def main() -> None:
        async with broker(controller=False) as fake:
            await add_topic(fake, partition_set("old.one", [led(0)]))
            (row,) = await create(fake, wish, validate_only=validate_only)
            assert row.error_code is error
            assert row.error_message
            assert await objects(fake) == []

    run(main())


def test_the_broker_that_answers_counts_although_its_lease_is_still_shown_at_its_start() -> None:
    async def main() -> None:
        async with broker(brokers=0, controller=False) as fake:
            for broker_id in (0, 1):
                await fake.store.create(LEASE, lease(broker_id, state=BrokerPhase.STARTING))
            await fake.view.wait_until(lambda view: len(view.leases) == 2, 10)
            one, two = topic("one", 1, 1), topic("two", 1, 2)
            assert await error_of(fake, one, validate_only=True) is ErrorCode.NONE
            assert await error_of(fake, two, validate_only=True) is ErrorCode.INVALID_REPLICATION_FACTOR

    run(main())


def test_manual_assignments_go_into_the_topic() -> None:
    wish = topic("t", -1, -1, assignments=assignments((0, 1), (1, 0)))

    async def main() -> None:
        async with broker(brokers=2) as fake:
            (row,) = await create(fake, wish)
            assert (row.error_code, row.num_partitions, row.replication_factor) == (ErrorCode.NONE, 2, 2)
            (obj,) = await objects(fake)
            assert parse_assignment(obj["metadata"]["annotations"][ANNOTATION_REPLICA_ASSIGNMENT]) == {
                0: (0, 1),
                1: (1, 0),
            }
            await fake.store.create(LEASE, lease(9, held=False))
            await fake.view.wait_until(lambda view: 9 in view.leases, 10)
            nobody = topic("u", -1, -1, assignments=assignments((9,)))
            (row,) = await create(fake, nobody)
            assert row.error_code is ErrorCode.INVALID_REPLICA_ASSIGNMENT
            assert "for partition 0 are fenced" in row.error_message
            large = topic("v", -1, -1, assignments=assignments(*((0, 1) for _ in range(20_000))))
            (row,) = await create(fake, large)
            assert row.error_code is ErrorCode.INVALID_REPLICA_ASSIGNMENT

    run(main())


def test_duplicates_are_refused_once_and_others_are_created() -> None:
    async def main() -> None:
        async with broker() as fake:
            rows = await create(fake, topic("a"), topic("b"), topic("a"))
            assert {row.name: row.error_code for row in rows} == {
                "a": ErrorCode.INVALID_REQUEST,
                "b": ErrorCode.NONE,
            }
            assert fake.view.topic_by_name("a") is None

    run(main())


def test_validate_only_creates_nothing() -> None:
    async def main() -> None:
        async with broker() as fake:
            (row,) = await create(fake, topic("t", 2), validate_only=True)
            assert (row.error_code, row.num_partitions, row.topic_id) == (ErrorCode.NONE, 2, None)
            assert len(row.configs) > 20
            assert await objects(fake) == []

    run(main())


def test_policies() -> None:
    async def main() -> None:
        async with broker(cluster={"kafkaAdmin": "None"}) as fake:
            assert await error_of(fake, topic("t")) is ErrorCode.POLICY_VIOLATION
            assert await objects(fake) == []
        async with broker(cluster={"kafkaAdmin": "CreatedByKafka"}) as fake:
            assert await error_of(fake, topic("t")) is ErrorCode.NONE

    run(main())


def test_tiering_is_allowed_where_there_is_a_bucket() -> None:
    async def main() -> None:
        async with broker(cluster={"tiering": {"bucket": "b"}}) as fake:
            wish = topic("t", configs=configs(remote_storage_enable="true"))
            assert await error_of(fake, wish) is ErrorCode.NONE

    run(main())


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("ResourceConflict", ErrorCode.TOPIC_ALREADY_EXISTS),
        ("InvalidConfig", ErrorCode.INVALID_CONFIG),
        ("NotEnoughBrokers", ErrorCode.INVALID_REPLICATION_FACTOR),
        ("SomethingNew", ErrorCode.INVALID_REQUEST),
    ],
)
def test_a_refusal_by_the_operator_reaches_the_client_and_leaves_nothing(
    reason: str, error: ErrorCode
) -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.controller.refuse = (reason, "because")
            (row,) = await create(fake, topic("t"))
            assert (row.error_code, row.error_message) == (error, "because")
            assert await objects(fake) == []

    run(main())


def test_no_leader_in_time() -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.controller.leader = -1
            assert await error_of(fake, topic("t"), timeout_ms=50) is ErrorCode.REQUEST_TIMED_OUT
            assert len(await objects(fake)) == 1

    run(main())


def test_two_clients_at_once_make_one_topic() -> None:
    async def main() -> None:
        async with broker(controller=False) as fake:
            assert await error_of(fake, topic("t"), timeout_ms=0) is ErrorCode.REQUEST_TIMED_OUT
            assert await error_of(fake, topic("t"), timeout_ms=0) is ErrorCode.TOPIC_ALREADY_EXISTS
            assert len(await objects(fake)) == 1

    run(main())


def test_one_request_cannot_create_without_limit() -> None:
    async def main() -> None:
        async with broker(controller=False) as fake:
            rows = await create(fake, *(topic(f"t{number}") for number in range(5_001)))
            assert {row.error_code for row in rows} == {ErrorCode.POLICY_VIOLATION}
            assert await objects(fake) == []

    run(main())
