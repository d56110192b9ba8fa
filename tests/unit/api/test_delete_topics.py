from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.unit.api.support import CLUSTER_NAME, FakeBroker, add_topic, broker, led, partition_set, run

from strandline_broker.cluster.model import TOPIC, Topic, new_object
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

UNKNOWN = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def create(fake: FakeBroker, name: str) -> UUID:
    wish = {"name": name, "num_partitions": 1, "replication_factor": 1, "assignments": (), "configs": ()}
    await fake.call(ApiKey.CREATE_TOPICS, 7, {"topics": (wish,), "timeout": timedelta(seconds=20)})
    topic = fake.view.topic_by_name(name)
    assert topic is not None
    return topic.topic_id


async def delete(
    fake: FakeBroker, *topics: str | UUID | None, version: int = 6, timeout_ms: int = 20_000
) -> list[Any]:
    wishes = [
        {
            "name": topic if isinstance(topic, str) else None,
            "topic_id": topic if isinstance(topic, UUID) else None,
        }
        for topic in topics
    ]
    body: dict[str, Any] = {"timeout": timedelta(milliseconds=timeout_ms)}
    body |= {"topics": wishes} if version >= 6 else {"topic_names": topics}
    answer = await fake.call(ApiKey.DELETE_TOPICS, version, body)
    return list(answer.responses)


@pytest.mark.parametrize("version", range(1, 7))
def test_every_version_deletes_by_name(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            topic_id = await create(fake, "Orders")
            rows = await delete(fake, "Orders", "missing", version=version)
            assert {row.name: row.error_code for row in rows} == {
                "Orders": ErrorCode.NONE,
                "missing": UNKNOWN,
            }
            if version >= 6:
                assert {row.name: row.topic_id for row in rows} == {"Orders": topic_id, "missing": None}
            assert fake.view.topic_by_name("Orders") is None

    run(main())


def test_deletion_is_written_as_intent() -> None:
    async def main() -> None:
        async with broker() as fake:
            topic_id = await create(fake, "t")
            (row,) = await delete(fake, topic_id)
            assert (row.name, row.topic_id, row.error_code) == ("t", topic_id, ErrorCode.NONE)
            (seen,) = fake.controller.finished
            assert seen.deletion_policy == "Delete"
            assert seen.meta.finalizers == ("strandline.io/topic",)

    run(main())


def test_a_deleted_topic_can_be_created_again_at_once() -> None:
    async def main() -> None:
        async with broker() as fake:
            first = await create(fake, "t")
            for _ in range(3):
                assert (await delete(fake, "t"))[0].error_code is ErrorCode.NONE
                second = await create(fake, "t")
                assert second != first
                first = second

    run(main())


def test_wishes_that_make_no_sense() -> None:
    async def main() -> None:
        async with broker() as fake:
            topic_id = await create(fake, "t")
            other = await create(fake, "other")
            unknown = uuid4()
            rows = await delete(fake, None, "t", topic_id, "x", "x", other, other, unknown)
            found = {(row.name, row.topic_id, row.error_code) for row in rows}
            invalid = ErrorCode.INVALID_REQUEST
            assert found >= {
                (None, None, invalid),
                ("x", None, invalid),
                (None, other, invalid),
                (None, unknown, ErrorCode.UNKNOWN_TOPIC_ID),
                (None, topic_id, invalid),
                ("t", topic_id, ErrorCode.NONE),
            }
            assert fake.view.topic_by_name("other") is not None

    run(main())


def test_topics_that_users_named_their_own_way_are_found() -> None:
    async def main() -> None:
        async with broker() as fake:
            spec = {"clusterRef": {"name": CLUSTER_NAME}, "topicName": "orders.v1", "partitions": 1}
            await fake.store.create(TOPIC, new_object(TOPIC, "my-orders", spec))
            await fake.view.wait_until(lambda view: view.topic_by_name("orders.v1") is not None, 10)
            assert (await delete(fake, "orders.v1"))[0].error_code is ErrorCode.NONE
            assert fake.controller.finished[0].name == "my-orders"

    run(main())


def test_a_topic_without_an_object_gets_one_to_be_deleted_by() -> None:
    async def main() -> None:
        async with broker() as fake:
            made = partition_set("retained", [led(0)], config={"retention.ms": "5"})
            await add_topic(fake, made)
            assert (await delete(fake, "retained"))[0].error_code is ErrorCode.NONE
            (seen,) = fake.controller.finished
            assert (seen.topic_name, seen.partitions, seen.deletion_policy) == ("retained", 1, "Delete")

    run(main())


@pytest.mark.parametrize(("policy", "by_kafka"), [("None", True), ("None", False), ("CreatedByKafka", False)])
def test_topics_that_are_not_the_clients_business(policy: str, by_kafka: bool) -> None:
    async def main() -> None:
        async with broker(cluster={"kafkaAdmin": policy}) as fake:
            labels = {"strandline.io/created-by": "kafka-admin"} if by_kafka else None
            await fake.store.create(
                TOPIC, new_object(TOPIC, "t", {"clusterRef": {"name": CLUSTER_NAME}}, labels=labels)
            )
            await fake.view.wait_until(lambda view: view.topic_by_name("t") is not None, 10)
            (row,) = await delete(fake, "t")
            assert row.error_code is ErrorCode.POLICY_VIOLATION
            assert policy in row.error_message
            topic = Topic.from_object(await fake.store.get(TOPIC, "t"))
            assert (topic.deleting, topic.deletion_policy) == (False, "Retain")

    run(main())


def test_clients_may_delete_what_they_created() -> None:
    async def main() -> None:
        async with broker(cluster={"kafkaAdmin": "CreatedByKafka"}) as fake:
            await create(fake, "t")
            assert (await delete(fake, "t"))[0].error_code is ErrorCode.NONE

    run(main())


def test_internal_topics_stay() -> None:
    async def main() -> None:
        async with broker() as fake:
            await add_topic(fake, partition_set("__consumer_offsets", [led(0)]))
            (row,) = await delete(fake, "__consumer_offsets")
            assert row.error_code is ErrorCode.POLICY_VIOLATION

    run(main())


def test_an_operator_that_is_away_means_a_time_out_with_the_intent_on_record() -> None:
    async def main() -> None:
        async with broker(controller=False) as fake:
            await add_topic(fake, partition_set("t", [led(0)]))
            await fake.store.create(TOPIC, new_object(TOPIC, "t", {"clusterRef": {"name": CLUSTER_NAME}}))
            assert (await delete(fake, "t", timeout_ms=20))[0].error_code is ErrorCode.REQUEST_TIMED_OUT
            assert (await delete(fake, "t", timeout_ms=20))[0].error_code is ErrorCode.REQUEST_TIMED_OUT
            topic = Topic.from_object(await fake.store.get(TOPIC, "t"))
            assert (topic.deleting, topic.deletion_policy) == (True, "Delete")

    run(main())


def test_one_request_cannot_delete_without_limit() -> None:
    async def main() -> None:
        async with broker() as fake:
            await create(fake, "t")
            rows = await delete(fake, "t", *(f"t{number}" for number in range(5_000)))
            assert {row.error_code for row in rows} == {ErrorCode.POLICY_VIOLATION}
            assert fake.view.topic_by_name("t") is not None

    run(main())
