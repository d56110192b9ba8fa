"""OffsetForLeaderEpoch, DeleteRecords and InitProducerId."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.api.support import FakeBroker, FakePartition, broker, run

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey


@pytest.mark.parametrize("version", [2, 3, 4])
def test_where_an_epoch_ended(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.partitions["t", 1] = FakePartition(leader_epoch=5, epoch_ends={4: (3, 17)})
            rows = [
                {"partition": 1, "current_leader_epoch": 5, "leader_epoch": 4},
                {"partition": 1, "current_leader_epoch": -1, "leader_epoch": 5},
                # Only somebody who heard of a later leader knows of such an epoch.
                {"partition": 1, "current_leader_epoch": -1, "leader_epoch": 6},
                {"partition": 1, "current_leader_epoch": 4, "leader_epoch": 4},
                {"partition": 2, "current_leader_epoch": -1, "leader_epoch": 4},
            ]
            body = {"topics": [{"topic": "t", "partitions": rows}]}
            answer = await fake.call(ApiKey.OFFSET_FOR_LEADER_EPOCH, version, body)
            assert [
                (row.partition, row.error_code, row.leader_epoch, row.end_offset)
                for row in answer.topics[0].partitions
            ] == [
                (1, ErrorCode.NONE, 3, 17),
                (1, ErrorCode.NONE, -1, -1),
                (1, ErrorCode.UNKNOWN_LEADER_EPOCH, -1, -1),
                (1, ErrorCode.FENCED_LEADER_EPOCH, -1, -1),
                (2, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1),
            ]

    run(main())


async def delete(
    fake: FakeBroker, offset: int, *, topic: str = "t", version: int = 2, timeout_ms: int = 1000
) -> Any:
    body = {
        "topics": [{"name": topic, "partitions": [{"partition_index": 0, "offset": offset}]}],
        "timeout": timedelta(milliseconds=timeout_ms),
    }
    answer = await fake.call(ApiKey.DELETE_RECORDS, version, body)
    row = answer.topics[0].partitions[0]
    return row.error_code, row.low_watermark


@pytest.mark.parametrize("version", [0, 1, 2])
def test_delete_records(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.partitions["t", 0] = FakePartition(high_watermark=50)
            assert await delete(fake, 7, version=version) == (ErrorCode.NONE, 7)
            assert await delete(fake, -1, version=version) == (ErrorCode.NONE, 50)

    run(main())


def test_delete_records_is_refused() -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.partitions["t", 0] = FakePartition(high_watermark=50)
            fake.partitions["__consumer_offsets", 0] = FakePartition(high_watermark=50)
            assert await delete(fake, 51) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
            assert await delete(fake, -2) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
            assert await delete(fake, 1, topic="x") == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)
            assert await delete(fake, 1, topic="__consumer_offsets") == (
                ErrorCode.INVALID_TOPIC_EXCEPTION,
                -1,
            )

    run(main())


def test_delete_records_times_out_when_replicas_do_not_follow() -> None:
    async def never(_: int) -> int:
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> None:
        async with broker() as fake:
            fake.partitions["t", 0] = FakePartition(high_watermark=50, delete=never)
            assert await delete(fake, 1, timeout_ms=10) == (ErrorCode.REQUEST_TIMED_OUT, -1)

    run(main())


async def init(fake: FakeBroker, version: int = 5, **body: Any) -> Any:
    fields = {"transactional_id": None, "transaction_timeout": timedelta(seconds=1), **body}
    answer = await fake.call(ApiKey.INIT_PRODUCER_ID, version, fields)
    return answer.error_code, answer.producer_id, answer.producer_epoch


@pytest.mark.parametrize("version", range(6))
def test_idempotent_producers_get_fresh_ids(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            assert await init(fake, version) == (ErrorCode.NONE, 4001, 0)
            assert await init(fake, version) == (ErrorCode.NONE, 4002, 0)

    run(main())


def test_a_known_producer_gets_a_new_id_too() -> None:
    async def main() -> None:
        async with broker() as fake:
            assert await init(fake, producer_id=4001, producer_epoch=2) == (ErrorCode.NONE, 4001, 0)
            assert await init(fake, producer_id=4001) == (ErrorCode.INVALID_REQUEST, -1, -1)
            assert await init(fake, producer_epoch=2) == (ErrorCode.INVALID_REQUEST, -1, -1)

    run(main())


def test_transactions_are_refused() -> None:
    async def main() -> None:
        async with broker() as fake:
            assert await init(fake, transactional_id="tx") == (ErrorCode.UNSUPPORTED_VERSION, -1, -1)
            assert await init(fake, transactional_id="") == (ErrorCode.INVALID_REQUEST, -1, -1)
            assert fake.next_producer_id == 4000

    run(main())


def test_no_id_to_be_had_is_retriable() -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.producer_id_error = KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
            assert await init(fake) == (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, -1, -1)

    run(main())
