"""A coordinator whose partition is recovering serves when it has what the bucket has, and not before. Time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.coordinator.support import Bench, FakeShard
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.coordinator.recovering import BATCH_BYTES, BATCH_RECORDS, batches
from strandline_broker.coordinator.slot import Slot
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.replica.recovery import Recovery
from strandline_broker.replica.remote import RemoteUnavailable
from strandline_broker.wire.batch import iter_batches, iter_records


class Bucket:
    """What the bucket has for the shard; `away` requests fail first, and `asked` counts them."""

    def __init__(self, *keys: bytes, away: int = 0) -> None:
        self.records = [(key, b"v") for key in keys]
        self.away = away
        self.asked = 0
        self.error: Exception | None = None

    async def lacking(self, slot: Slot[FakeShard]) -> Iterable[tuple[bytes, bytes]]:
        self.asked += 1
        await asyncio.sleep(1)
        if self.error is not None:
            raise self.error
        if self.asked <= self.away:
            raise RemoteUnavailable("it is away")
        known = {key for key, _, _ in slot.machine.replayed}
        return (record for record in self.records if record[0] not in known)


def code_of(bench: Bench) -> ErrorCode:
    try:
        bench.runtime.slot(0)
    except KafkaError as error:
        return error.code
    return ErrorCode.NONE


def to_do(bench: Bench) -> Recovery:
    return bench.partition.recovery


def keys_in(bench: Bench) -> list[bytes | None]:
    part = bench.log.read(0, 1 << 20, bench.log.end_offset, min_one_batch=True)
    if part is None:
        return []
    data = memoryview(part.read())
    return [
        record.key
        for position, header in iter_batches(data)
        for record in iter_records(data[position : position + header.size])
    ]


def play(tmp_path: Path, bucket: Bucket, test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path, lacking=bucket.lacking)
        await test(bench)
        await bench.runtime.close()

    virtually(scenario)


def test_what_only_the_bucket_has_is_in_the_log_before_anybody_is_served(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.lead_recovering(3)
        await asyncio.sleep(0.5)
        assert code_of(bench) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        await asyncio.sleep(10)
        assert bench.shard.replayed == [(b"a", b"v", 0), (b"b", b"v", 1)]
        assert code_of(bench) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "it is not committed"
        assert to_do(bench) is Recovery.OFFSETS
        bench.sync()
        await bench.settle()
        assert code_of(bench) is ErrorCode.NONE
        assert bench.active == [0]
        assert to_do(bench) is Recovery.NONE
        assert keys_in(bench) == [b"a", b"b"]

    play(tmp_path, Bucket(b"a", b"b"), test)


def test_where_there_is_no_snapshot_it_serves_at_once(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.lead_recovering(3)
        await asyncio.sleep(2)
        assert (code_of(bench), bench.partition.recovery) == (ErrorCode.NONE, Recovery.NONE)
        assert bench.log.end_offset == 0

    play(tmp_path, Bucket(), test)


def test_a_bucket_that_is_away_is_waited_for(tmp_path: Path) -> None:
    bucket = Bucket(b"a", away=20)

    async def test(bench: Bench) -> None:
        bench.lead_recovering(3)
        await asyncio.sleep(300)
        assert 8 < bucket.asked < 20, "with longer and longer pauses"
        assert code_of(bench) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        await asyncio.sleep(600)
        bench.sync()
        await bench.settle()
        assert (code_of(bench), keys_in(bench)) == (ErrorCode.NONE, [b"a"])

    play(tmp_path, bucket, test)


def test_a_log_that_takes_nothing_is_waited_for(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.lead_recovering(3, min_isr=2)
        await asyncio.sleep(30)
        assert (bench.log.end_offset, code_of(bench)) == (0, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
        bench.lead_recovering(3)
        await asyncio.sleep(60)
        bench.sync()
        await bench.settle()
        assert (code_of(bench), keys_in(bench)) == (ErrorCode.NONE, [b"a"])

    play(tmp_path, Bucket(b"a"), test)


def test_who_is_deposed_meanwhile_appends_nothing(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.lead_recovering(3)
        await asyncio.sleep(0.5)
        bench.resign()
        await asyncio.sleep(10)
        assert bench.log.end_offset == 0
        bench.lead_recovering(5)
        await asyncio.sleep(10)
        assert keys_in(bench) == [b"a"]

    play(tmp_path, Bucket(b"a"), test)


def test_what_the_log_has_is_not_appended_again(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.lead_recovering(3)
        await asyncio.sleep(2)
        bench.sync()
        await bench.settle()
        # It dies before the store knows; the next leader reads the log, and looks into the bucket again.
        slot = bench.runtime.slot(0)
        bench.resign()
        assert slot.machine.replayed
        bench.lead_recovering(5)
        await bench.until(lambda: bench.shard is not slot.machine and code_of(bench) is ErrorCode.NONE)
        assert keys_in(bench) == [b"a"]

    async def scenario() -> None:
        bench = Bench(tmp_path, lacking=Bucket(b"a").lacking)
        await test(bench)
        await bench.runtime.close()

    asyncio.run(scenario())  # the log is read in a thread


def test_an_error_that_no_retry_mends_is_a_load_that_failed(tmp_path: Path) -> None:
    bucket = Bucket(b"a")
    bucket.error = ValueError("broken")

    async def test(bench: Bench) -> None:
        bench.lead_recovering(3)
        await asyncio.sleep(5)
        assert code_of(bench) is ErrorCode.NOT_COORDINATOR
        bucket.error = None
        await asyncio.sleep(40)
        bench.runtime.reconcile()
        await asyncio.sleep(5)
        bench.sync()
        await bench.settle()
        assert code_of(bench) is ErrorCode.NONE

    play(tmp_path, bucket, test)


def test_a_partition_that_is_not_recovering_asks_nobody(tmp_path: Path) -> None:
    bucket = Bucket(b"a")

    async def test(bench: Bench) -> None:
        bench.lead(3)
        await asyncio.sleep(5)
        assert (code_of(bench), bucket.asked, bench.log.end_offset) == (ErrorCode.NONE, 0, 0)

    play(tmp_path, bucket, test)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([10] * (BATCH_RECORDS + 1), [BATCH_RECORDS, 1]),
        ([BATCH_BYTES // 2] * 5, [2, 2, 1]),
        ([BATCH_BYTES * 2, 1], [1, 1]),
    ],
)
def test_records_are_appended_in_batches_of_bounded_size(sizes: list[int], expected: list[int]) -> None:
    records = [(b"", bytes(size)) for size in sizes]
    groups = list(batches(records))
    assert [len(group) for group in groups] == expected
    assert [record for group in groups for record in group] == records
