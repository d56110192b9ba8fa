from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from tests.unit.api.support import (
    FakeBroker,
    FakeConnection,
    add_topic,
    broker,
    call_frame,
    lease,
    led,
    partition_set,
    run,
)

from strandline_broker.api.metadata import MetadataHandler
from strandline_broker.api.support import operations
from strandline_broker.cluster.model import LEASE, TOPIC, BrokerPhase
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey


def ask(
    handler: MetadataHandler,
    topics: list[Any] | None,
    version: int = 13,
    listener: str = "PLAINTEXT",
    **flags: bool,
) -> Any:
    wanted = [
        {"name": topic, "topic_id": None} if isinstance(topic, str) else {"name": None, "topic_id": topic}
        for topic in topics or ()
    ]
    everything: list[Any] | None = [] if version == 0 else None
    body = {"topics": wanted if topics is not None else everything, **flags}
    return call_frame(handler, ApiKey.METADATA, version, body, FakeConnection(listener))


def names(answer: Any) -> list[str]:
    return [topic.name for topic in answer.topics]


@pytest.mark.parametrize("version", range(14))
def test_every_version_shows_brokers_and_topics(version: int) -> None:
    async def main() -> None:
        async with broker(brokers=2) as fake:
            made = partition_set("t", [led(0, 1, epoch=4), led(1, 0)])
            await add_topic(fake, made)
            await add_topic(fake, partition_set("__consumer_offsets", [led(0)]))
            for _ in range(2):
                answer = ask(MetadataHandler(fake), None, version)
                assert [(b.node_id, b.host, b.port) for b in answer.brokers] == [
                    (0, "b0.example", 9092),
                    (1, "b1.example", 9092),
                ]
                internal, topic = answer.topics
                assert (topic.error_code, topic.name) == (ErrorCode.NONE, "t")
                assert [p.leader_id for p in topic.partitions] == [0, 1]
                assert topic.partitions[0].replica_nodes == (0, 1)
                assert topic.partitions[0].isr_nodes == (0, 1)
                if version >= 1:
                    assert answer.controller_id == 0
                    assert (internal.is_internal, topic.is_internal) == (True, False)
                if version >= 2:
                    assert answer.cluster_id == fake.cluster_id
                if version >= 7:
                    assert topic.partitions[0].leader_epoch == 4
                if version >= 10:
                    assert topic.topic_id == made.topic_id

    run(main())


def test_each_listener_sees_its_own_addresses() -> None:
    async def main() -> None:
        async with broker(brokers=2) as fake:
            handler = MetadataHandler(fake)
            assert [b.port for b in ask(handler, None, listener="OTHER").brokers] == [1000, 1001]
            assert [b.port for b in ask(handler, None).brokers] == [9092, 9092]
            nowhere = ask(handler, None, listener="NOWHERE")
            assert (nowhere.brokers, nowhere.controller_id) == ((), -1)

    run(main())


def test_answers_follow_the_cluster_state() -> None:
    async def main() -> None:
        async with broker() as fake:
            handler = MetadataHandler(fake)
            assert names(ask(handler, None)) == []
            await add_topic(fake, partition_set("b", [led(0)]))
            await add_topic(fake, partition_set("a", [led(0)]))
            assert names(ask(handler, None)) == ["a", "b"]
            assert names(ask(handler, ["b"])) == ["b"]
            before = fake.view.version
            await fake.store.create(LEASE, lease(1, rack="r"))
            await fake.view.wait_until(lambda view: view.version > before, 10)
            assert [(b.node_id, b.rack) for b in ask(handler, None).brokers] == [(0, None), (1, "r")]

    run(main())


def test_only_brokers_that_serve_are_named_and_always_the_one_that_answers() -> None:
    async def main() -> None:
        async with broker(brokers=0) as fake:
            await fake.store.create(LEASE, lease(0, state=BrokerPhase.STARTING))
            await fake.store.create(LEASE, lease(1, state=BrokerPhase.STARTING))
            await fake.store.create(LEASE, lease(2, held=False))
            await fake.store.create(LEASE, lease(3, state=BrokerPhase.DRAINING))
            await fake.view.wait_until(lambda view: len(view.leases) == 4, 10)
            answer = ask(MetadataHandler(fake), None)
            assert [b.node_id for b in answer.brokers] == [0, 3]
            assert answer.controller_id == 0

    run(main())


def one(fake: FakeBroker, version: int, listener: str = "PLAINTEXT") -> Any:
    return ask(MetadataHandler(fake), ["t"], version, listener).topics[0].partitions[0]


def test_partitions_without_a_reachable_leader() -> None:
    async def main() -> None:
        async with broker(brokers=2) as fake:
            await add_topic(fake, partition_set("t", [led(0, leader=-1, epoch=5)]))
            row = one(fake, 13)
            assert (row.error_code, row.leader_id, row.leader_epoch) == (
                ErrorCode.LEADER_NOT_AVAILABLE,
                -1,
                5,
            )
            await add_topic(fake, partition_set("u", [led(7, 0, isr=(7,))]))
            row = ask(MetadataHandler(fake), ["u"]).topics[0].partitions[0]
            assert (row.error_code, row.leader_id) == (ErrorCode.LEADER_NOT_AVAILABLE, -1)
            assert (row.replica_nodes, row.offline_replicas) == ((7, 0), (7,))
            await add_topic(fake, partition_set("v", [led(0)]))
            for version, error in ((5, ErrorCode.LEADER_NOT_AVAILABLE), (6, ErrorCode.LISTENER_NOT_FOUND)):
                row = ask(MetadataHandler(fake), ["v"], version, "NOWHERE").topics[0].partitions[0]
                assert row.error_code is error

    run(main())


def test_version_0_hides_dead_replicas() -> None:
    async def main() -> None:
        async with broker(brokers=1) as fake:
            await add_topic(fake, partition_set("t", [led(0, 7)]))
            row = one(fake, 0)
            assert (row.error_code, row.leader_id) == (ErrorCode.REPLICA_NOT_AVAILABLE, 0)
            assert (row.replica_nodes, row.isr_nodes) == ((0,), (0,))
            assert one(fake, 1).replica_nodes == (0, 7)

    run(main())


def test_topics_by_id() -> None:
    async def main() -> None:
        async with broker() as fake:
            made = partition_set("t", [led(0)])
            await add_topic(fake, made)
            handler = MetadataHandler(fake)
            unknown = uuid4()
            found, missing = ask(handler, [made.topic_id, unknown], 12).topics
            assert (found.name, found.error_code) == ("t", ErrorCode.NONE)
            assert (missing.name, missing.topic_id, missing.error_code) == (
                None,
                unknown,
                ErrorCode.UNKNOWN_TOPIC_ID,
            )
            refused = ask(handler, [made.topic_id], 11).topics[0]
            assert refused.error_code is ErrorCode.INVALID_REQUEST
            mixed = ask(handler, [made.topic_id, "x"], 13)
            assert names(mixed) == ["t"]

    run(main())


def test_authorized_operations_when_asked() -> None:
    async def main() -> None:
        async with broker() as fake:
            await add_topic(fake, partition_set("t", [led(0)]))
            handler = MetadataHandler(fake)
            plain = ask(handler, None, 8)
            assert plain.cluster_authorized_operations == operations.NOT_REQUESTED
            assert plain.topics[0].topic_authorized_operations == operations.NOT_REQUESTED
            asked = ask(
                handler,
                None,
                8,
                include_cluster_authorized_operations=True,
                include_topic_authorized_operations=True,
            )
            assert asked.cluster_authorized_operations == operations.CLUSTER
            assert asked.topics[0].topic_authorized_operations == operations.TOPIC

    run(main())


def test_unknown_and_impossible_topics() -> None:
    async def main() -> None:
        async with broker(controller=False) as fake:
            handler = MetadataHandler(fake)
            answer = ask(
                handler, ["missing", "a b", "missing", "." * 250], 13, allow_auto_topic_creation=False
            )
            assert [(t.name, t.error_code) for t in answer.topics] == [
                ("missing", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
                ("a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
                ("." * 250, ErrorCode.INVALID_TOPIC_EXCEPTION),
            ]
            assert (await fake.store.list(TOPIC))[0] == []

    run(main())


@pytest.mark.parametrize("version", [0, 3, 4, 13])
def test_asking_for_a_topic_creates_it(version: int) -> None:
    async def main() -> None:
        async with broker(num_partitions=3) as fake:
            handler = MetadataHandler(fake)
            meanwhile = ask(handler, ["Fresh_one"], version, allow_auto_topic_creation=True).topics[0]
            assert (meanwhile.name, meanwhile.error_code) == ("Fresh_one", ErrorCode.LEADER_NOT_AVAILABLE)
            # Asking again while it is under way starts nothing.
            ask(handler, ["Fresh_one"], version, allow_auto_topic_creation=True)
            await fake.view.wait_until(lambda view: view.topic_by_name("Fresh_one") is not None, 10)
            created = ask(handler, ["Fresh_one"], version).topics[0]
            assert (created.error_code, len(created.partitions)) == (ErrorCode.NONE, 3)
            (obj,) = (await fake.store.list(TOPIC))[0]
            assert obj["metadata"]["labels"]["strandline.io/created-by"] == "kafka-admin"
            assert obj["spec"]["topicName"] == "Fresh_one"

    run(main())


@pytest.mark.parametrize(
    ("settings", "cluster", "flag"),
    [
        ({"auto_create_topics_enable": False}, {}, True),
        ({}, {"kafkaAdmin": "None"}, True),
        ({}, {}, False),
    ],
)
def test_nothing_is_created_where_it_may_not_be(
    settings: dict[str, Any], cluster: dict[str, Any], flag: bool
) -> None:
    async def main() -> None:
        async with broker(cluster=cluster, **settings) as fake:
            answer = ask(MetadataHandler(fake), ["t"], 13, allow_auto_topic_creation=flag)
            assert answer.topics[0].error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            assert (await fake.store.list(TOPIC))[0] == []

    run(main())


def test_asking_for_all_topics_creates_none() -> None:
    async def main() -> None:
        async with broker() as fake:
            assert ask(MetadataHandler(fake), None, 4, allow_auto_topic_creation=True).topics == ()

    run(main())


def test_why_a_topic_cannot_be_auto_created() -> None:
    async def main() -> None:
        async with broker(default_replication_factor=2) as fake:
            await add_topic(fake, partition_set("a.b", [led(0)]))
            answer = ask(
                MetadataHandler(fake), ["t", "a_b", "__consumer_offsets"], 13, allow_auto_topic_creation=True
            )
            assert [t.error_code for t in answer.topics] == [
                ErrorCode.INVALID_REPLICATION_FACTOR,
                ErrorCode.INVALID_TOPIC_EXCEPTION,
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            ]
            assert answer.topics[2].is_internal

    run(main())


def test_a_client_cannot_start_more_than_a_hundred_creations_at_once() -> None:
    async def main() -> None:
        async with broker(controller=False) as fake:
            handler = MetadataHandler(fake)
            wanted = [f"t{number}" for number in range(150)]
            answer = ask(handler, wanted, 13, allow_auto_topic_creation=True)
            assert {t.error_code for t in answer.topics} == {ErrorCode.LEADER_NOT_AVAILABLE}
            objects: list[Any] = []
            while len(objects) < 100:
                objects, _ = await fake.store.list(TOPIC)
                await asyncio.sleep(0)
            assert len(objects) == 100
            handler.close()

    run(main())
