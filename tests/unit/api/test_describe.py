"""DescribeConfigs and DescribeCluster."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.api.support import (
    FakeBroker,
    FakeConnection,
    add_topic,
    broker,
    lease,
    led,
    partition_set,
    run,
)

from strandline_broker.api.support import operations
from strandline_broker.cluster.model import LEASE, BrokerPhase
from strandline_broker.cluster.topic_config import ConfigType
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
FROM_TOPIC, STATIC, DEFAULT = 1, 4, 5


async def describe(
    fake: FakeBroker,
    kind: int,
    name: str,
    *,
    version: int = 4,
    keys: tuple[str, ...] | None = None,
    synonyms: bool = True,
    documentation: bool = True,
) -> Any:
    resource = {"resource_type": kind, "resource_name": name, "configuration_keys": keys}
    body = {"resources": (resource,), "include_synonyms": synonyms, "include_documentation": documentation}
    answer = await fake.call(ApiKey.DESCRIBE_CONFIGS, version, body)
    (result,) = answer.results
    assert (result.resource_type, result.resource_name) == (kind, name)
    return result


def by_name(result: Any) -> dict[str, Any]:
    return {config.name: config for config in result.configs}


@pytest.mark.parametrize("version", range(1, 5))
def test_topic_configs_say_where_they_come_from(version: int) -> None:
    async def main() -> None:
        async with broker(cluster={"config": {"retention.ms": "5", "segment.ms": "6"}}) as fake:
            own = {"retention.ms": "7", "segment.ms": "6", "cleanup.policy": "compact"}
            await add_topic(fake, partition_set("t", [led(0)], config=own))
            result = await describe(fake, TOPIC, "t", version=version)
            assert result.error_code is ErrorCode.NONE
            found = by_name(result)
            values = {
                name: (c.value, c.config_source, c.read_only, c.is_sensitive) for name, c in found.items()
            }
            assert values["retention.ms"] == ("7", FROM_TOPIC, False, False)
            assert values["cleanup.policy"] == ("compact", FROM_TOPIC, False, False)
            assert values["segment.ms"] == ("6", STATIC, False, False)
            assert values["segment.bytes"] == ("1073741824", DEFAULT, False, False)
            assert values["remote.storage.enable"] == ("false", DEFAULT, False, False)
            assert "internal.segment.bytes" not in values
            assert [(s.name, s.value, s.source) for s in found["retention.ms"].synonyms] == [
                ("retention.ms", "7", FROM_TOPIC),
                ("log.retention.ms", "5", STATIC),
                ("log.retention.ms", "604800000", DEFAULT),
            ]
            if version >= 3:
                assert found["retention.ms"].config_type == ConfigType.LONG
                assert found["cleanup.policy"].config_type == ConfigType.LIST
                assert "deleted" in found["retention.ms"].documentation

    run(main())


def test_many_topics_in_one_request() -> None:
    async def main() -> None:
        async with broker(cluster={"config": {"retention.ms": "5"}}) as fake:
            names = [f"t{number}" for number in range(15)]
            for number, name in enumerate(names):
                own = {"retention.ms": "5", "segment.ms": str(number)} if number % 2 else {}
                await add_topic(fake, partition_set(name, [led(0)], config=own))
            wishes = tuple(
                {"resource_type": TOPIC, "resource_name": name, "configuration_keys": None}
                for name in (*names, "missing")
            )
            body = {"resources": wishes, "include_synonyms": True, "include_documentation": False}
            answer = await fake.call(ApiKey.DESCRIBE_CONFIGS, 4, body)
            assert [result.resource_name for result in answer.results] == [*names, "missing"]
            *found, missing = answer.results
            assert missing.error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            for number, result in enumerate(found):
                set_here = [c.name for c in result.configs if c.config_source == FROM_TOPIC]
                assert set_here == (["segment.ms"] if number % 2 else [])
                assert by_name(result)["retention.ms"].value == "5"
                assert len(result.configs) == len(found[0].configs)

    run(main())


def test_only_what_was_asked_for() -> None:
    async def main() -> None:
        async with broker() as fake:
            await add_topic(fake, partition_set("t", [led(0)]))
            result = await describe(
                fake, TOPIC, "t", keys=("retention.ms", "nonsense"), synonyms=False, documentation=False
            )
            (config,) = result.configs
            assert (config.name, config.synonyms, config.documentation) == ("retention.ms", (), None)
            assert len((await describe(fake, TOPIC, "t", keys=())).configs) > 20

    run(main())


def test_broker_configs() -> None:
    async def main() -> None:
        async with broker(cluster={"config": {"min.insync.replicas": "2"}}, num_partitions=3) as fake:
            found = by_name(await describe(fake, BROKER, "0"))
            values = {name: (c.value, c.config_source, c.read_only) for name, c in found.items()}
            assert values["num.partitions"] == ("3", STATIC, True)
            assert values["auto.create.topics.enable"] == ("true", DEFAULT, True)
            assert values["strandline.flush"] == ("Fsync", DEFAULT, True)
            assert values["min.insync.replicas"] == ("2", STATIC, True)
            assert values["log.retention.ms"] == ("604800000", DEFAULT, True)
            assert found["auto.create.topics.enable"].config_type == ConfigType.BOOLEAN
            assert [(s.name, s.value, s.source) for s in found["num.partitions"].synonyms] == [
                ("num.partitions", "3", STATIC),
                ("num.partitions", "1", DEFAULT),
            ]
            assert (await describe(fake, BROKER, "")).configs == ()

    run(main())


def test_groups_and_client_metrics() -> None:
    async def main() -> None:
        async with broker() as fake:
            found = by_name(await describe(fake, GROUP, "any"))
            timeout = found["consumer.session.timeout.ms"]
            assert (timeout.value, timeout.config_source, timeout.read_only) == ("45000", DEFAULT, False)
            assert timeout.config_type == ConfigType.INT
            assert "member" in timeout.documentation
            assert [(s.name, s.value, s.source) for s in timeout.synonyms] == [
                ("consumer.session.timeout.ms", "45000", DEFAULT)
            ]
            result = await describe(fake, CLIENT_METRICS, "any")
            assert (result.error_code, result.configs) == (ErrorCode.NONE, ())

    run(main())


@pytest.mark.parametrize(
    ("kind", "name", "error"),
    [
        (TOPIC, "missing", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (BROKER, "1", ErrorCode.INVALID_REQUEST),
        (BROKER, "x", ErrorCode.INVALID_REQUEST),
        (BROKER_LOGGER, "0", ErrorCode.INVALID_REQUEST),
        (GROUP, "", ErrorCode.INVALID_REQUEST),
        (CLIENT_METRICS, "", ErrorCode.INVALID_REQUEST),
        (99, "x", ErrorCode.INVALID_REQUEST),
    ],
)
def test_what_cannot_be_described(kind: int, name: str, error: ErrorCode) -> None:
    async def main() -> None:
        async with broker() as fake:
            result = await describe(fake, kind, name)
            assert (result.error_code, result.configs) == (error, ())

    run(main())


async def cluster(fake: FakeBroker, version: int = 2, listener: str = "PLAINTEXT", **fields: Any) -> Any:
    body = {"include_cluster_authorized_operations": False, **fields}
    return await fake.call(ApiKey.DESCRIBE_CLUSTER, version, body, FakeConnection(listener))


@pytest.mark.parametrize("version", range(3))
def test_describe_cluster(version: int) -> None:
    async def main() -> None:
        async with broker(brokers=2) as fake:
            answer = await cluster(fake, version)
            assert (answer.error_code, answer.cluster_id, answer.controller_id) == (
                ErrorCode.NONE,
                fake.cluster_id,
                0,
            )
            assert [(b.broker_id, b.host, b.port) for b in answer.brokers] == [
                (0, "b0.example", 9092),
                (1, "b1.example", 9092),
            ]
            assert answer.cluster_authorized_operations == operations.NOT_REQUESTED
            other = await cluster(fake, version, "OTHER", include_cluster_authorized_operations=True)
            assert [b.port for b in other.brokers] == [1000, 1001]
            assert other.cluster_authorized_operations == operations.CLUSTER

    run(main())


def test_fenced_brokers_are_shown_when_asked_for() -> None:
    async def main() -> None:
        async with broker() as fake:
            await fake.store.create(LEASE, lease(1, state=BrokerPhase.STARTING, rack="r"))
            await fake.view.wait_until(lambda view: len(view.leases) == 2, 10)
            assert [b.broker_id for b in (await cluster(fake)).brokers] == [0]
            shown = (await cluster(fake, include_fenced_brokers=True)).brokers
            assert [(b.broker_id, b.is_fenced, b.rack) for b in shown] == [(0, False, None), (1, True, "r")]

    run(main())


@pytest.mark.parametrize(
    ("endpoint", "error"),
    [(2, ErrorCode.MISMATCHED_ENDPOINT_TYPE), (9, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE)],
)
def test_only_brokers_can_be_asked_about(endpoint: int, error: ErrorCode) -> None:
    async def main() -> None:
        async with broker() as fake:
            answer = await cluster(fake, endpoint_type=endpoint)
            assert (answer.error_code, answer.brokers) == (error, ())
            assert answer.error_message

    run(main())
