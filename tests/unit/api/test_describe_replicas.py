"""DescribeLogDirs, AlterReplicaLogDirs, DescribeProducers and ListConfigResources."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.api.support import (
    FakeBroker,
    FakePartition,
    add_topic,
    broker,
    lease,
    led,
    partition_set,
    run,
)

from strandline_broker.api.context import LogDir, LogDirReplica
from strandline_broker.cluster.model import CLUSTER_STATE, LEASE, BrokerPhase
from strandline_broker.errors import ErrorCode
from strandline_broker.log.producer_state import ProducerBatch, ProducerEntry
from strandline_broker.wire.api_keys import ApiKey

DIRECTORY = LogDir(
    "/data/logs",
    ErrorCode.NONE,
    1 << 40,
    1 << 30,
    (LogDirReplica("a", 0, 100, 0), LogDirReplica("a", 1, 5_000_000_000, 0), LogDirReplica("b", 0, 7, -1)),
)


async def log_dirs(fake: FakeBroker, version: int, topics: dict[str, tuple[int, ...]] | None = None) -> Any:
    asked = None
    if topics is not None:
        asked = tuple({"topic": name, "partitions": numbers} for name, numbers in topics.items())
    return await fake.call(ApiKey.DESCRIBE_LOG_DIRS, version, {"topics": asked})


def sizes(result: Any) -> dict[tuple[str, int], tuple[int, int, bool]]:
    return {
        (topic.name, part.partition_index): (part.partition_size, part.offset_lag, part.is_future_key)
        for topic in result.topics
        for part in topic.partitions
    }


@pytest.mark.parametrize("version", range(1, 5))
def test_log_dirs(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.log_dirs = [DIRECTORY]
            answer = await log_dirs(fake, version)
            (result,) = answer.results
            assert (result.error_code, result.log_dir) == (ErrorCode.NONE, "/data/logs")
            assert sizes(result) == {
                ("a", 0): (100, 0, False),
                ("a", 1): (5_000_000_000, 0, False),
                ("b", 0): (7, -1, False),
            }
            if version >= 3:
                assert answer.error_code is ErrorCode.NONE
            if version >= 4:
                assert (result.total_bytes, result.usable_bytes) == (1 << 40, 1 << 30)
            (result,) = (await log_dirs(fake, version, {"a": (1, 9), "missing": (0,)})).results
            assert sizes(result).keys() == {("a", 1)}
            (result,) = (await log_dirs(fake, version, {})).results
            assert result.topics == ()

    run(main())


def test_a_directory_that_fails() -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.log_dirs = [LogDir("/data/logs", ErrorCode.KAFKA_STORAGE_ERROR, -1, -1, ())]
            (result,) = (await log_dirs(fake, 4)).results
            assert result.error_code is ErrorCode.KAFKA_STORAGE_ERROR
            assert (result.total_bytes, result.usable_bytes) == (-1, -1)

    run(main())


async def moved(fake: FakeBroker, version: int, *asked: tuple[str, str, tuple[int, ...]]) -> Any:
    dirs = tuple(
        {"path": path, "topics": ({"name": name, "partitions": numbers},)} for path, name, numbers in asked
    )
    answer = await fake.call(ApiKey.ALTER_REPLICA_LOG_DIRS, version, {"dirs": dirs})
    return {
        (topic.topic_name, part.partition_index): part.error_code
        for topic in answer.results
        for part in topic.partitions
    }


@pytest.mark.parametrize("version", [1, 2])
def test_a_replica_moves_to_where_it_lies_and_nowhere_else(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.log_dirs = [DIRECTORY]
            assert await moved(fake, version, ("/data/logs", "a", (0, 1, 9)), ("/data/more", "b", (0,))) == {
                ("a", 0): ErrorCode.NONE,
                ("a", 1): ErrorCode.NONE,
                ("a", 9): ErrorCode.REPLICA_NOT_AVAILABLE,
                ("b", 0): ErrorCode.LOG_DIR_NOT_FOUND,
            }
            assert await moved(fake, version) == {}

    run(main())


def test_no_replica_moves_in_a_directory_that_fails() -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.log_dirs = [LogDir("/data/logs", ErrorCode.KAFKA_STORAGE_ERROR, -1, -1, ())]
            assert await moved(fake, 2, ("/data/logs", "a", (0,))) == {
                ("a", 0): ErrorCode.KAFKA_STORAGE_ERROR
            }

    run(main())


async def producers(fake: FakeBroker, topic: str, index: int) -> Any:
    body = {"topics": ({"name": topic, "partition_indexes": (index,)},)}
    ((answer,),) = [t.partitions for t in (await fake.call(ApiKey.DESCRIBE_PRODUCERS, 0, body)).topics]
    assert answer.partition_index == index
    return answer


def test_producers() -> None:
    async def main() -> None:
        async with broker() as fake:
            idle = ProducerEntry(8)
            active = ProducerEntry(
                9,
                3,
                (ProducerBatch(11, 20, 1, 5),),
                last_timestamp=77,
                coordinator_epoch=2,
                txn_first_offset=15,
            )
            fake.partitions["t", 1] = FakePartition(producers=[idle, active])
            answer = await producers(fake, "t", 1)
            assert (answer.error_code, answer.error_message) == (ErrorCode.NONE, None)
            assert [
                (
                    p.producer_id,
                    p.producer_epoch,
                    p.last_sequence,
                    p.last_timestamp,
                    p.coordinator_epoch,
                    p.current_txn_start_offset,
                )
                for p in answer.active_producers
            ] == [(8, -1, -1, -1, -1, -1), (9, 3, 11, 77, 2, 15)]
            assert (await producers(fake, "t", 0)).error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            assert (await producers(fake, "a b", 0)).error_code is ErrorCode.INVALID_TOPIC_EXCEPTION

    run(main())


def test_config_resources() -> None:
    async def main() -> None:
        async with broker() as fake:
            await add_topic(fake, partition_set("t", [led(0)]))
            await fake.store.create(LEASE, lease(1, state=BrokerPhase.STARTING))
            (obj,), _ = await fake.store.list(CLUSTER_STATE)
            operation = {"op": "add", "path": "/spec/groupConfigs/g", "value": {"share.isolation.level": "x"}}
            name, uid = obj["metadata"]["name"], obj["metadata"]["uid"]
            await fake.store.patch_if(CLUSTER_STATE, name, uid=uid, tests=[], operations=[operation])
            await fake.view.wait_until(
                lambda view: view.state is not None and bool(view.state.group_configs), 10
            )

            async def listed(version: int, *kinds: int) -> tuple[ErrorCode, list[Any]]:
                answer = await fake.call(ApiKey.LIST_CONFIG_RESOURCES, version, {"resource_types": kinds})
                kind_of = [getattr(found, "resource_type", 16) for found in answer.config_resources]
                names = [found.resource_name for found in answer.config_resources]
                return answer.error_code, list(zip(kind_of, names, strict=True))

            assert await listed(1) == (ErrorCode.NONE, [(2, "t"), (4, "0"), (32, "g")])
            assert await listed(1, 32, 8) == (ErrorCode.NONE, [(32, "g")])
            assert await listed(1, 99) == (ErrorCode.UNSUPPORTED_VERSION, [])
            assert await listed(0) == (ErrorCode.NONE, [])

    run(main())
