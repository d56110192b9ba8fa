from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.api.support import FakeBroker, FakePartition, broker, run

from strandline_broker.errors import ErrorCode
from strandline_broker.replica.remote import OffsetAt
from strandline_broker.wire.api_keys import ApiKey

LATEST, EARLIEST, MAX, EARLIEST_LOCAL, TIERED, PENDING = range(-1, -7, -1)


def partition() -> FakePartition:
    return FakePartition(
        leader_epoch=3,
        log_start_offset=10,
        local_log_start_offset=20,
        high_watermark=50,
        last_stable_offset=40,
        log_end_offset=60,
        records=[OffsetAt(100, 10, 1), OffsetAt(300, 30, 2), OffsetAt(200, 45, 3), OffsetAt(900, 55, 3)],
    )


async def ask(
    fake: FakeBroker,
    timestamp: int,
    *,
    version: int = 11,
    isolation_level: int = 0,
    replica_id: int = -1,
    epoch: int = -1,
    times: int = 1,
) -> Any:
    row = {"partition_index": 0, "current_leader_epoch": epoch, "timestamp": timestamp}
    body = {
        "replica_id": replica_id,
        "isolation_level": isolation_level,
        "topics": [{"name": "t", "partitions": [row] * times}],
    }
    answer = await fake.call(ApiKey.LIST_OFFSETS, version, body)
    assert answer.topics[0].name == "t"
    assert len(answer.topics[0].partitions) == times
    return answer.topics[0].partitions[0]


@pytest.mark.parametrize(
    ("timestamp", "found"),
    [
        (LATEST, (-1, 50, 3)),
        (EARLIEST, (-1, 10, 1)),
        (EARLIEST_LOCAL, (-1, 20, 1)),
        (MAX, (300, 30, 2)),
        (TIERED, (-1, -1, -1)),
        (PENDING, (-1, -1, -1)),
        (0, (100, 10, 1)),
        (101, (300, 30, 2)),
        (300, (300, 30, 2)),
        (301, (-1, -1, -1)),
    ],
)
def test_every_kind_of_timestamp(timestamp: int, found: tuple[int, int, int]) -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.partitions["t", 0] = partition()
            row = await ask(fake, timestamp)
            assert row.error_code is ErrorCode.NONE
            assert (row.timestamp, row.offset, row.leader_epoch) == found

    run(main())


def test_tiered_offsets() -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.partitions["t", 0] = handle = partition()
            handle.highest_tiered_offset = 29
            assert (await ask(fake, TIERED)).offset == 29
            assert (await ask(fake, PENDING)).offset == 30

    run(main())


def test_what_each_reader_may_learn_of_the_end() -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.partitions["t", 0] = partition()
            assert (await ask(fake, LATEST)).offset == 50
            assert (await ask(fake, LATEST, isolation_level=1)).offset == 40
            assert (await ask(fake, LATEST, replica_id=2)).offset == 60
            assert (await ask(fake, 150, isolation_level=1)).offset == 30
            assert (await ask(fake, 900)).offset == -1
            assert (await ask(fake, 900, replica_id=2)).offset == 55

    run(main())


@pytest.mark.parametrize("version", range(1, 12))
def test_every_version_answers(version: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.partitions["t", 0] = partition()
            row = await ask(fake, LATEST, version=version)
            assert (row.error_code, row.offset) == (ErrorCode.NONE, 50)

    run(main())


@pytest.mark.parametrize(
    ("timestamp", "first"), [(MAX, 7), (EARLIEST_LOCAL, 8), (TIERED, 9), (PENDING, 11), (-7, 12)]
)
def test_special_timestamps_need_their_version(timestamp: int, first: int) -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.partitions["t", 0] = partition()
            refused = await ask(fake, timestamp, version=first - 1)
            assert (refused.error_code, refused.offset) == (ErrorCode.UNSUPPORTED_VERSION, -1)
            if first <= 11:
                assert (await ask(fake, timestamp, version=first)).error_code is ErrorCode.NONE

    run(main())


def test_errors_belong_to_their_partition() -> None:
    async def main() -> None:
        async with broker() as fake:
            assert (await ask(fake, LATEST)).error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            fake.partitions["t", 0] = partition()
            assert (await ask(fake, LATEST, epoch=2)).error_code is ErrorCode.FENCED_LEADER_EPOCH
            assert (await ask(fake, LATEST, epoch=4)).error_code is ErrorCode.UNKNOWN_LEADER_EPOCH
            assert (await ask(fake, LATEST, epoch=3)).error_code is ErrorCode.NONE
            assert (await ask(fake, LATEST, times=2)).error_code is ErrorCode.INVALID_REQUEST

    run(main())


def test_a_lagging_high_watermark_names_no_end() -> None:
    async def main() -> None:
        async with broker() as fake:
            fake.partitions["t", 0] = handle = partition()
            handle.leader_epoch_start_offset = 51
            assert (await ask(fake, LATEST)).error_code is ErrorCode.OFFSET_NOT_AVAILABLE
            assert (await ask(fake, LATEST, version=4)).error_code is ErrorCode.LEADER_NOT_AVAILABLE
            assert (await ask(fake, 900)).error_code is ErrorCode.OFFSET_NOT_AVAILABLE
            assert (await ask(fake, EARLIEST)).offset == 10
            assert (await ask(fake, 100)).offset == 10

    run(main())


def test_many_lookups_by_time_leave_the_loop_to_others() -> None:
    async def main() -> None:
        async with broker() as fake:
            for index in range(50):
                fake.partitions["t", index] = partition()
            rows = [{"partition_index": i, "current_leader_epoch": -1, "timestamp": 0} for i in range(50)]
            body = {"replica_id": -1, "isolation_level": 0, "topics": [{"name": "t", "partitions": rows}]}
            asking = asyncio.create_task(fake.call(ApiKey.LIST_OFFSETS, 11, body))
            turns = 0
            while not asking.done():
                turns += 1
                await asyncio.sleep(0)
            assert [row.offset for row in asking.result().topics[0].partitions] == [10] * 50
            assert turns >= 50

    run(main())
