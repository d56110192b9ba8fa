"""A tiered partition at its leader: what it may say of the bucket, look-ups across both tiers, a log start for both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from tests.unit.replica.support import lead_alone

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.replica.partition import FlushMode, Partition
from strandline_broker.replica.remote import OffsetAt, RemoteUnavailable
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.wire.batch import Record, build_batch

NOW_MS = 1_700_000_000_000
COUNT = 10
LOCAL_START = 6


class Remote:
    """Has every record below 8; the one at offset n is of millisecond n, but offset 2 is of millisecond 50."""

    end_offset = 8

    def __init__(self) -> None:
        self.ends: list[int] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.away = False

    def _records(self, end: int) -> list[OffsetAt]:
        self.ends.append(end)
        self.meanwhile()
        if self.away:
            raise RemoteUnavailable("away")
        return [OffsetAt(50 if offset == 2 else offset, offset, 1) for offset in range(end)]

    async def offset_for_timestamp(self, timestamp: int, end: int) -> OffsetAt | None:
        return next((one for one in self._records(end) if one.timestamp >= timestamp), None)

    async def max_timestamp(self, end: int) -> OffsetAt | None:
        return max(self._records(end), key=lambda one: one.timestamp, default=None)


class Waiter:
    acks = 1
    patient = False

    def partition_done(self, row: list[object]) -> None:
        """Take the answer."""


def led() -> tuple[Partition, Remote]:
    log = Log.open(SimDisk(), "t-0", LogConfig(), now_ms=NOW_MS, clean=False)
    partition = Partition("t", bytes(16), 0, log, FlushMode.REPLICATED, 0)
    lead_alone(partition, 1)
    for number in range(COUNT):
        batch = build_batch([Record(value=b"v", timestamp=number)])
        partition.stage(cast("Any", Waiter()), [0] * 8, memoryview(bytearray(batch)), NOW_MS)
        partition.commit()
    tier = partition.start_tiering()
    remote = Remote()
    tier.remote = cast("Any", remote)
    tier.authorise(LOCAL_START, "key")
    partition.log.advance_start(LOCAL_START)
    return partition, remote


def run(test: Callable[[Partition, Remote], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test(*led()))


def test_offsets_of_both_tiers() -> None:
    partition, _ = led()
    assert (partition.earliest_offset, partition.local_log_start_offset) == (0, LOCAL_START)
    assert (partition.highest_tiered_offset, partition.earliest_pending_upload_offset) == (7, 8)
    assert partition.epoch_at(0) == 1


def test_without_its_manifest_a_leader_says_try_again() -> None:
    async def test(partition: Partition, remote: Remote) -> None:
        lead_alone(partition, 2)
        asks: tuple[Callable[[], object], ...] = (
            lambda: partition.earliest_offset,
            lambda: partition.highest_tiered_offset,
            lambda: partition.earliest_pending_upload_offset,
        )
        for ask in asks:
            with pytest.raises(KafkaError) as caught:
                ask()
            assert caught.value.code is ErrorCode.LEADER_NOT_AVAILABLE
        with pytest.raises(KafkaError) as caught:
            await partition.offset_for_timestamp(0, COUNT)
        assert caught.value.code is ErrorCode.LEADER_NOT_AVAILABLE
        assert partition.log_start_offset == 0, "what is known is still told"
        assert partition.tier is not None
        assert partition.tier.tiered_through == LOCAL_START, "what was authorised once stays so"

    run(test)


def test_as_long_as_everything_is_here_the_bucket_is_not_asked() -> None:
    async def test(partition: Partition, remote: Remote) -> None:
        partition.raise_log_start(LOCAL_START)
        lead_alone(partition, 2)
        assert partition.earliest_offset == LOCAL_START
        assert await partition.offset_for_timestamp(0, COUNT) == (6, 6, 1)
        assert remote.ends == []

    run(test)


@pytest.mark.parametrize(
    ("timestamp", "end", "found"),
    [(0, COUNT, 0), (2, COUNT, 2), (40, COUNT, 2), (51, COUNT, None), (7, COUNT, 2), (3, 2, None)],
)
def test_timestamps_across_tiers(timestamp: int, end: int, found: int | None) -> None:
    async def test(partition: Partition, remote: Remote) -> None:
        at = await partition.offset_for_timestamp(timestamp, end)
        assert (at.offset if at is not None else None) == found
        assert remote.ends == [min(end, LOCAL_START)]

    run(test)


def test_the_highest_timestamp_of_both_tiers() -> None:
    async def test(partition: Partition, remote: Remote) -> None:
        assert await partition.max_timestamp(COUNT) == (50, 2, 1)
        assert await partition.max_timestamp(2) == (1, 1, 1)

    run(test)


def test_what_is_deleted_here_during_a_look_up_is_looked_for_in_the_bucket() -> None:
    async def test(partition: Partition, remote: Remote) -> None:
        def local_retention() -> None:
            partition.log.advance_start(8)

        remote.meanwhile = local_retention
        partition.raise_log_start(3)
        assert await partition.offset_for_timestamp(51, COUNT) is None
        assert remote.ends == [LOCAL_START, 8]

    run(test)


def test_a_bucket_that_is_away_is_an_error_that_clients_retry() -> None:
    async def test(partition: Partition, remote: Remote) -> None:
        remote.away = True
        for ask in (partition.offset_for_timestamp(0, COUNT), partition.max_timestamp(COUNT)):
            with pytest.raises(KafkaError) as caught:
                await ask
            assert caught.value.code is ErrorCode.KAFKA_STORAGE_ERROR

    run(test)


def test_deleted_records_are_gone_when_the_bucket_says_so() -> None:
    async def test(partition: Partition, remote: Remote) -> None:
        tier = partition.tier
        assert tier is not None
        told: list[int] = []
        tier.on_wanted = lambda: told.append(tier.wanted_log_start)
        deletion = asyncio.ensure_future(partition.delete_records(4))
        await asyncio.sleep(0)
        assert (told, partition.log_start_offset) == ([4], 0), "who is deposed must not have deleted anything"
        partition.raise_log_start(3)
        await asyncio.sleep(0)
        assert not deletion.done()
        partition.raise_log_start(4)
        assert await deletion == 4
        assert (partition.log.start_offset, partition.log.epochs.entries) == (LOCAL_START, [(1, 4)])

    run(test)


def test_only_who_loaded_the_manifest_may_authorise_and_only_below_its_end() -> None:
    partition, _ = led()
    assert partition.tier is not None
    with pytest.raises(AssertionError):
        partition.tier.authorise(9, "key")
    partition.tier.forget_role()
    with pytest.raises(AssertionError):
        partition.tier.authorise(7, "key")
