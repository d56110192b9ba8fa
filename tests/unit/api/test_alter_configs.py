"""AlterConfigs and IncrementalAlterConfigs: what is written where, and what is refused how."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.api.support import FakeBroker, add_topic, broker, led, partition_set, run

from strandline_broker.cluster.model import CLUSTER_STATE, PARTITION_SET, TOPIC, ClusterState, PartitionSet
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

TOPICS, BROKERS, LOGGERS, METRICS, GROUPS = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
FROM_TOPIC, FROM_BROKER, FROM_ALL, STATIC, DEFAULT, FROM_GROUP = 1, 2, 3, 4, 5, 8

Step = tuple[str, int, str | None]


def resource(kind: int, name: str, *steps: Step) -> dict[str, Any]:
    configs = tuple({"name": n, "config_operation": op, "value": value} for n, op, value in steps)
    return {"resource_type": kind, "resource_name": name, "configs": configs}


async def change(
    fake: FakeBroker, *resources: dict[str, Any], version: int = 1, validate_only: bool = False
) -> list[Any]:
    body = {"resources": resources, "validate_only": validate_only}
    answer = await fake.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, version, body)
    rows = list(answer.responses)
    assert [(row.resource_type, row.resource_name) for row in rows] == [
        (wish["resource_type"], wish["resource_name"]) for wish in resources
    ]
    return rows


async def codes(fake: FakeBroker, *resources: dict[str, Any], **options: Any) -> list[ErrorCode]:
    return [row.error_code for row in await change(fake, *resources, **options)]


async def replace(
    fake: FakeBroker, kind: int, name: str, configs: dict[str, str | None], *, version: int = 2
) -> Any:
    rows = tuple({"name": n, "value": value} for n, value in configs.items())
    wish = {"resource_type": kind, "resource_name": name, "configs": rows}
    answer = await fake.call(ApiKey.ALTER_CONFIGS, version, {"resources": (wish,), "validate_only": False})
    (row,) = answer.responses
    return row


async def shown(fake: FakeBroker, kind: int, name: str) -> dict[str, tuple[str | None, int]]:
    """What DescribeConfigs says that was set, not the defaults."""
    wish = {"resource_type": kind, "resource_name": name, "configuration_keys": None}
    body = {"resources": (wish,), "include_synonyms": True, "include_documentation": True}
    (result,) = (await fake.call(ApiKey.DESCRIBE_CONFIGS, 4, body)).results
    assert result.error_code is ErrorCode.NONE
    return {c.name: (c.value, c.config_source) for c in result.configs if c.config_source != DEFAULT}


async def make(fake: FakeBroker, name: str, **configs: str) -> None:
    """Create a topic as a client does."""
    wish = {
        "name": name,
        "num_partitions": 1,
        "replication_factor": 1,
        "assignments": (),
        "configs": tuple({"name": n.replace("_", "."), "value": v} for n, v in configs.items()),
    }
    body = {"topics": (wish,), "timeout": 10_000, "validate_only": False}
    (row,) = (await fake.call(ApiKey.CREATE_TOPICS, 7, body)).topics
    assert row.error_code is ErrorCode.NONE


async def spec_of(fake: FakeBroker, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = (await fake.store.get(TOPIC, name))["spec"]
    return spec


async def state_of(fake: FakeBroker) -> ClusterState:
    (obj,), _ = await fake.store.list(CLUSTER_STATE)
    return ClusterState.from_object(obj)


# -- topics ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(2))
def test_steps_change_what_they_name_and_nothing_else(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "t", retention_ms="5", segment_ms="6")
            wish = resource(
                TOPICS,
                "t",
                ("retention.ms", SET, " 7 "),
                ("segment.ms", DELETE, None),
                ("flush.ms", DELETE, None),
            )
            (row,) = await change(fake, wish, version=version)
            assert (row.error_code, row.error_message) == (ErrorCode.NONE, None)
            assert (await spec_of(fake, "t"))["config"] == {"retention.ms": "7"}
            # The answer came when this broker has it.
            assert await shown(fake, TOPICS, "t") == {"retention.ms": ("7", FROM_TOPIC)}

    run(main())


def test_lists_are_appended_to_and_subtracted_from() -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "t")

            async def policy(operation: int, value: str) -> str:
                wish = resource(TOPICS, "t", ("cleanup.policy", operation, value))
                assert await codes(fake, wish) == [ErrorCode.NONE]
                return (await shown(fake, TOPICS, "t")).get("cleanup.policy", ("(default)", 0))[0] or ""

            assert await policy(APPEND, "compact") == "delete,compact"  # onto the default
            assert await policy(APPEND, "compact") == "delete,compact"
            assert await policy(SUBTRACT, "delete") == "compact"
            assert await policy(SUBTRACT, "compact,delete") == ""
            assert await policy(APPEND, "delete") == "delete"

    run(main())


def test_appending_starts_from_the_clusters_default() -> None:
    async def main() -> None:
        async with broker(cluster={"config": {"cleanup.policy": "compact"}}) as fake:
            await make(fake, "t")
            wish = resource(TOPICS, "t", ("cleanup.policy", APPEND, "delete"))
            assert await codes(fake, wish) == [ErrorCode.NONE]
            assert (await spec_of(fake, "t"))["config"] == {"cleanup.policy": "compact,delete"}

    run(main())


@pytest.mark.parametrize("version", range(3))
def test_alter_configs_replaces_everything(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "t", retention_ms="5", segment_ms="6")
            row = await replace(fake, TOPICS, "t", {"flush.ms": "9"}, version=version)
            assert row.error_code is ErrorCode.NONE
            assert (await spec_of(fake, "t"))["config"] == {"flush.ms": "9"}
            row = await replace(fake, TOPICS, "t", {"flush.ms": None}, version=version)
            assert row.error_code is ErrorCode.INVALID_REQUEST
            assert (await replace(fake, TOPICS, "t", {}, version=version)).error_code is ErrorCode.NONE
            assert await shown(fake, TOPICS, "t") == {}

    run(main())


@pytest.mark.parametrize(
    ("name", "steps", "error", "text"),
    [
        ("t", [("nonsense", SET, "1")], ErrorCode.INVALID_CONFIG, "Unknown topic config name: nonsense"),
        ("t", [("retention.ms", SET, "soon")], ErrorCode.INVALID_CONFIG, "Not a number of type LONG"),
        ("t", [("min.insync.replicas", SET, "2")], ErrorCode.INVALID_CONFIG, "replication factor 1"),
        ("t", [("retention.ms", APPEND, "1")], ErrorCode.INVALID_CONFIG, "type is not LIST"),
        ("t", [("nonsense", SUBTRACT, "1")], ErrorCode.INVALID_CONFIG, "type is not LIST"),
        ("t", [("cleanup.policy", APPEND, "x")], ErrorCode.INVALID_CONFIG, "String must be one of"),
        ("t", [("retention.ms", SET, None)], ErrorCode.INVALID_REQUEST, "Null value not supported"),
        ("t", [("retention.ms", 9, "1")], ErrorCode.INVALID_REQUEST, "operations type 9"),
        (
            "t",
            [("retention.ms", SET, "1"), ("retention.ms", DELETE, None)],
            ErrorCode.INVALID_REQUEST,
            "duplicate config keys",
        ),
        ("", [("retention.ms", SET, "1")], ErrorCode.INVALID_REQUEST, "Default topic resources"),
        ("a b", [("retention.ms", SET, "1")], ErrorCode.INVALID_TOPIC_EXCEPTION, "invalid"),
        ("missing", [("retention.ms", SET, "1")], ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "does not host"),
        ("missing", [("nonsense", SET, "1")], ErrorCode.INVALID_CONFIG, "Unknown topic config"),
    ],
)
def test_what_topics_refuse(name: str, steps: list[Step], error: ErrorCode, text: str) -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "t", segment_ms="6")
            for validate_only in (True, False):
                (row,) = await change(fake, resource(TOPICS, name, *steps), validate_only=validate_only)
                assert row.error_code is error
                assert text in row.error_message
            assert (await spec_of(fake, "t"))["config"] == {"segment.ms": "6"}

    run(main())


def test_one_bad_key_stops_all_of_its_resource_and_no_other() -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "a")
            await make(fake, "b")
            bad = resource(TOPICS, "a", ("retention.ms", SET, "1"), ("nonsense", SET, "1"))
            good = resource(TOPICS, "b", ("retention.ms", SET, "1"))
            assert await codes(fake, bad, good) == [ErrorCode.INVALID_CONFIG, ErrorCode.NONE]
            assert await shown(fake, TOPICS, "a") == {}
            assert await shown(fake, TOPICS, "b") == {"retention.ms": ("1", FROM_TOPIC)}

    run(main())


def test_a_resource_may_appear_once() -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "t")
            wish = resource(TOPICS, "t", ("retention.ms", SET, "1"))
            group = resource(GROUPS, "t", ("share.isolation.level", SET, "read_committed"))
            invalid = ErrorCode.INVALID_REQUEST
            assert await codes(fake, wish, group, wish) == [invalid, ErrorCode.NONE, invalid]
            assert await shown(fake, TOPICS, "t") == {}

    run(main())


def test_validation_writes_nothing() -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "t")
            wishes = [
                resource(TOPICS, "t", ("retention.ms", SET, "1")),
                resource(BROKERS, "0", ("max.connections", SET, "1")),
                resource(GROUPS, "g", ("consumer.session.timeout.ms", SET, "50000")),
            ]
            assert await codes(fake, *wishes, validate_only=True) == [ErrorCode.NONE] * 3
            assert "config" not in await spec_of(fake, "t")
            assert (await state_of(fake)).broker_configs == {}
            assert (await state_of(fake)).group_configs == {}

    run(main())


def test_a_topic_without_its_object_gets_one() -> None:
    async def main() -> None:
        async with broker(cluster={"config": {"segment.ms": "6"}}) as fake:
            own = {"segment.ms": "6", "retention.ms": "5"}
            await add_topic(fake, partition_set("t", [led(0), led(0)], config=own))
            assert await codes(fake, resource(TOPICS, "t", ("flush.ms", SET, "1"))) == [ErrorCode.NONE]
            spec = await spec_of(fake, "t")
            # What is only inherited stays inherited.
            assert spec["config"] == {"retention.ms": "5", "flush.ms": "1"}
            assert (spec["partitions"], spec["replicas"]) == (2, 1)

    run(main())


@pytest.mark.parametrize("policy", ["None", "CreatedByKafka"])
def test_the_policy_guards_topics_and_their_defaults(policy: str) -> None:
    async def main() -> None:
        async with broker(cluster={"kafkaAdmin": policy}) as fake:
            await add_topic(fake, partition_set("t", [led(0)]))
            refused = [
                resource(TOPICS, "t", ("flush.ms", SET, "1")),
                resource(BROKERS, "", ("log.flush.interval.ms", SET, "1")),
            ]
            for validate_only in (True, False):
                assert await codes(fake, *refused, validate_only=validate_only) == [
                    ErrorCode.POLICY_VIOLATION,
                    ErrorCode.POLICY_VIOLATION,
                ]
            harmless = [
                resource(TOPICS, "t", ("flush.ms", DELETE, None)),
                resource(BROKERS, "", ("max.connections", SET, "100")),
                resource(GROUPS, "g", ("share.isolation.level", SET, "read_committed")),
            ]
            assert await codes(fake, *harmless) == [ErrorCode.NONE] * 3

    run(main())


def test_topics_of_clients_may_be_changed_by_clients() -> None:
    async def main() -> None:
        async with broker(cluster={"kafkaAdmin": "CreatedByKafka"}) as fake:
            await make(fake, "t")
            assert await codes(fake, resource(TOPICS, "t", ("flush.ms", SET, "1"))) == [ErrorCode.NONE]

    run(main())


def test_internal_topics_are_left_alone() -> None:
    async def main() -> None:
        async with broker() as fake:
            name = "__consumer_offsets"
            await add_topic(fake, partition_set(name, [led(0)], config={"cleanup.policy": "compact"}))
            wish = resource(TOPICS, name, ("cleanup.policy", SET, "delete"))
            assert await codes(fake, wish) == [ErrorCode.POLICY_VIOLATION]
            # As tools do to clear what is not set.
            wish = resource(TOPICS, name, ("leader.replication.throttled.replicas", DELETE, None))
            assert await codes(fake, wish) == [ErrorCode.NONE]

    run(main())


def test_only_throttles_of_internal_topics_are_the_clients_business() -> None:
    async def main() -> None:
        async with broker() as fake:
            made = partition_set("__consumer_offsets", [led(0)], config={"cleanup.policy": "compact"})
            await add_topic(fake, made)

            async def stored() -> dict[str, str]:
                return PartitionSet.from_object(await fake.store.get(PARTITION_SET, made.name)).config

            leaders = ("leader.replication.throttled.replicas", SET, "0:0")
            wish = resource(TOPICS, made.topic_name, leaders)
            assert await codes(fake, wish, validate_only=True) == [ErrorCode.NONE]
            assert await stored() == made.config
            assert await codes(fake, wish) == [ErrorCode.NONE]
            assert await stored() == {**made.config, "leader.replication.throttled.replicas": "0:0"}
            both = resource(TOPICS, made.topic_name, (*leaders[:2], "*"), ("segment.bytes", SET, "1048576"))
            assert await codes(fake, both) == [ErrorCode.POLICY_VIOLATION]
            bad = resource(TOPICS, made.topic_name, (*leaders[:2], "everything"))
            assert await codes(fake, bad) == [ErrorCode.INVALID_CONFIG]
            wish = resource(TOPICS, made.topic_name, (leaders[0], DELETE, None))
            assert await codes(fake, wish) == [ErrorCode.NONE]
            assert await stored() == made.config
        async with broker(cluster={"kafkaAdmin": "CreatedByKafka"}) as fake:
            await add_topic(fake, partition_set("__consumer_offsets", [led(0)]))
            wish = resource(TOPICS, "__consumer_offsets", leaders)
            assert await codes(fake, wish) == [ErrorCode.POLICY_VIOLATION]

    run(main())


def test_the_operators_refusal_is_the_answer() -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "t")
            fake.controller.refuse = ("InvalidConfig", "not like this")
            (row,) = await change(fake, resource(TOPICS, "t", ("flush.ms", SET, "1")))
            assert (row.error_code, row.error_message) == (ErrorCode.INVALID_CONFIG, "not like this")

    run(main())


def test_changes_at_once_all_happen() -> None:
    async def main() -> None:
        async with broker() as fake:
            await make(fake, "t", cleanup_policy="delete")
            keys = ("retention.ms", "segment.ms", "flush.ms", "delete.retention.ms", "file.delete.delay.ms")
            wishes = [resource(TOPICS, "t", (key, SET, "77777")) for key in keys]
            wishes += [
                resource(BROKERS, "", (key, SET, "7"))
                for key in ("max.connections", "max.connections.per.ip")
            ]
            answers = await asyncio.gather(*(codes(fake, wish) for wish in wishes))
            assert answers == [[ErrorCode.NONE]] * len(wishes)
            assert (await spec_of(fake, "t"))["config"] == {
                "cleanup.policy": "delete",
                **dict.fromkeys(keys, "77777"),
            }
            assert set((await state_of(fake)).broker_configs["default"]) == {
                "max.connections",
                "max.connections.per.ip",
            }

    run(main())


# -- brokers -----------------------------------------------------------------------------------------------------------


def test_a_broker_and_all_brokers() -> None:
    async def main() -> None:
        async with broker(max_connections=50) as fake:
            one = resource(BROKERS, "0", ("max.connections", SET, "10"))
            every = resource(BROKERS, "", ("max.connections", SET, "20"), ("log.retention.ms", SET, "5"))
            assert await codes(fake, one, every) == [ErrorCode.NONE, ErrorCode.NONE]
            state = await state_of(fake)
            assert state.broker_configs == {
                "0": {"max.connections": "10"},
                "default": {"max.connections": "20", "log.retention.ms": "5"},
            }
            found = await shown(fake, BROKERS, "0")
            assert found["max.connections"] == ("10", FROM_BROKER)
            assert found["log.retention.ms"] == ("5", FROM_ALL)
            assert await shown(fake, BROKERS, "") == {
                "max.connections": ("20", FROM_ALL),
                "log.retention.ms": ("5", FROM_ALL),
            }
            assert await codes(fake, resource(BROKERS, "0", ("max.connections", DELETE, None))) == [
                ErrorCode.NONE
            ]
            assert (await shown(fake, BROKERS, "0"))["max.connections"] == ("20", FROM_ALL)
            assert "0" not in (await state_of(fake)).broker_configs
            assert (await replace(fake, BROKERS, "", {})).error_code is ErrorCode.NONE
            assert (await shown(fake, BROKERS, "0"))["max.connections"] == ("50", STATIC)

    run(main())


def test_synonyms_in_order_of_precedence() -> None:
    async def main() -> None:
        async with broker(max_connections=50, cluster={"config": {"retention.ms": "6"}}) as fake:
            await make(fake, "t", retention_ms="4")
            one = resource(BROKERS, "0", ("max.connections", SET, "10"))
            every = resource(BROKERS, "", ("max.connections", SET, "20"), ("log.retention.ms", SET, "5"))
            assert await codes(fake, one, every) == [ErrorCode.NONE, ErrorCode.NONE]

            async def synonyms(kind: int, name: str, key: str) -> list[tuple[str, str, int]]:
                wish = {"resource_type": kind, "resource_name": name, "configuration_keys": (key,)}
                body = {"resources": (wish,), "include_synonyms": True, "include_documentation": False}
                (result,) = (await fake.call(ApiKey.DESCRIBE_CONFIGS, 4, body)).results
                (config,) = result.configs
                return [(s.name, s.value, s.source) for s in config.synonyms]

            assert await synonyms(BROKERS, "0", "max.connections") == [
                ("max.connections", "10", FROM_BROKER),
                ("max.connections", "20", FROM_ALL),
                ("max.connections", "50", STATIC),
                ("max.connections", "10000", DEFAULT),
            ]
            assert await synonyms(TOPICS, "t", "retention.ms") == [
                ("retention.ms", "4", FROM_TOPIC),
                ("log.retention.ms", "5", FROM_ALL),
                ("log.retention.ms", "6", STATIC),
                ("log.retention.ms", "604800000", DEFAULT),
            ]

    run(main())


@pytest.mark.parametrize(
    ("name", "steps", "text"),
    [
        ("1", [("max.connections", SET, "1")], "Unexpected broker id, expected 0"),
        ("x", [("max.connections", SET, "1")], "must be an integer"),
        ("0", [("node.id", SET, "1")], "Cannot update these configs dynamically: node.id"),
        ("", [("nonsense", SET, "1")], "Cannot update these configs dynamically: nonsense"),
        ("0", [("max.connections", SET, "0")], "Value must be at least 1"),
        ("0", [("log.retention.ms", SET, "1")], "hold for all brokers"),
        ("", [("log.retention.ms", SET, "soon")], "log.retention.ms: Invalid value soon"),
        ("", [("log.retention.hours", SET, "1")], "Cannot update these configs dynamically"),
        (
            "",
            [
                ("log.cleaner.min.compaction.lag.ms", SET, "9"),
                ("log.cleaner.max.compaction.lag.ms", SET, "8"),
            ],
            "conflict topic config",
        ),
    ],
)
def test_what_brokers_refuse(name: str, steps: list[Step], text: str) -> None:
    async def main() -> None:
        async with broker() as fake:
            (row,) = await change(fake, resource(BROKERS, name, *steps))
            assert row.error_code is ErrorCode.INVALID_REQUEST
            assert text in row.error_message
            assert (await state_of(fake)).broker_configs == {}

    run(main())


def test_throttles_of_reassignments_come_and_go() -> None:
    async def main() -> None:
        async with broker() as fake:
            keys = ("leader.replication.throttled.rate", "follower.replication.throttled.rate")
            steps = [(key, SET, "1000") for key in keys]
            assert await codes(fake, resource(BROKERS, "0", *steps)) == [ErrorCode.NONE]
            found = await shown(fake, BROKERS, "0")
            assert [found[key] for key in keys] == [("1000", FROM_BROKER)] * 2
            gone = [(key, DELETE, None) for key in (*keys, "replica.alter.log.dirs.io.max.bytes.per.second")]
            assert await codes(fake, resource(BROKERS, "0", *gone)) == [ErrorCode.NONE]
            assert not set(keys) & (await shown(fake, BROKERS, "0")).keys()

    run(main())


# -- groups and others -------------------------------------------------------------------------------------------------


def test_groups() -> None:
    async def main() -> None:
        async with broker() as fake:
            wish = resource(
                GROUPS,
                "g/1",
                ("consumer.session.timeout.ms", SET, "50000"),
                ("share.auto.offset.reset", SET, "by_duration:PT36H"),
            )
            assert await codes(fake, wish) == [ErrorCode.NONE]
            assert await shown(fake, GROUPS, "g/1") == {
                "consumer.session.timeout.ms": ("50000", FROM_GROUP),
                "share.auto.offset.reset": ("by_duration:PT36H", FROM_GROUP),
            }
            assert await shown(fake, GROUPS, "other") == {}
            gone = resource(
                GROUPS,
                "g/1",
                ("consumer.session.timeout.ms", DELETE, None),
                ("share.auto.offset.reset", DELETE, None),
            )
            assert await codes(fake, gone) == [ErrorCode.NONE]
            assert (await state_of(fake)).group_configs == {}

    run(main())


@pytest.mark.parametrize(
    ("name", "key", "value", "error"),
    [
        ("g", "nonsense", "1", ErrorCode.INVALID_CONFIG),
        ("g", "consumer.session.timeout.ms", "5", ErrorCode.INVALID_CONFIG),
        ("g", "share.auto.offset.reset", "never", ErrorCode.INVALID_CONFIG),
        ("g", "share.auto.offset.reset", "by_duration:P", ErrorCode.INVALID_CONFIG),
        ("", "consumer.session.timeout.ms", "50000", ErrorCode.INVALID_REQUEST),
    ],
)
def test_what_groups_refuse(name: str, key: str, value: str, error: ErrorCode) -> None:
    async def main() -> None:
        async with broker() as fake:
            assert await codes(fake, resource(GROUPS, name, (key, SET, value))) == [error]

    run(main())


def test_other_resources_are_refused() -> None:
    async def main() -> None:
        async with broker() as fake:
            rows = await change(
                fake, *(resource(kind, "0", ("x", SET, "DEBUG")) for kind in (LOGGERS, METRICS, 99))
            )
            assert {row.error_code for row in rows} == {ErrorCode.INVALID_REQUEST}
            assert "Log4j" in rows[0].error_message

    run(main())


def test_a_store_that_is_away_is_said() -> None:
    async def main() -> None:
        async with broker() as fake:
            await add_topic(fake, partition_set("t", [led(0)]))
            await fake.store.close()
            wishes = [
                resource(TOPICS, "t", ("flush.ms", SET, "1")),
                resource(BROKERS, "0", ("max.connections", SET, "1")),
            ]
            assert await codes(fake, *wishes) == [ErrorCode.REQUEST_TIMED_OUT] * 2

    run(main())
