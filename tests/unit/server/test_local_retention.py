"""How soon a local disk is rid of what is in the bucket: after the release, by age, a little at a time."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.unit.replica.tiered_support import NOW_MS, LoopClock, append, led
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.replica.partition import Partition
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.server.local_retention import LOOK_INTERVAL_S, PAUSE_FACTOR, RETRY_MS, LocalRetention

SOON_S = LOOK_INTERVAL_S + 0.1
BOUND = 3000
SMALL = LogConfig(segment_bytes=1000, retention_ms=-1, local_retention_bytes=BOUND)


class Broker:
    """Replicas of tiered partitions, and what keeps their disk at its bound."""

    def __init__(self, *partitions: Partition, config: LogConfig = SMALL) -> None:
        self.partitions = partitions
        for partition in partitions:
            partition.start_tiering()
            partition.log.config = config
        self.high_watermarks = {partition.log: partition.high_watermark for partition in partitions}
        self.retention = LocalRetention(
            [partition.log for partition in partitions],
            clock=LoopClock(),
            high_watermark_of=self.high_watermarks.__getitem__,
        )
        self._task = asyncio.get_running_loop().create_task(self.retention.run())

    @property
    def log(self) -> Log:
        return self.partitions[0].log

    def release(self, offset: int, partition: int = 0) -> None:
        """Say that everything below is in the bucket for good."""
        tier = self.partitions[partition].log.tier
        assert tier is not None
        tier.raise_tiered_through(offset)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    virtually(test)


def test_what_was_released_goes_within_a_second_down_to_the_bound() -> None:
    async def test() -> None:
        broker = Broker(led())
        log = broker.log
        await asyncio.sleep(60)
        assert log.start_offset == 0, "nothing was released"
        third = log.segments[3].base_offset
        broker.release(third)
        await asyncio.sleep(SOON_S)
        assert log.start_offset == third, "above it nothing may go, whatever the bound says"
        broker.release(log.active.base_offset)
        await asyncio.sleep(SOON_S)
        assert BOUND <= log.size_bytes < BOUND + log.segments[0].size
        assert broker.retention.freed_bytes > 0
        await broker.close()

    run(test)


def test_under_load_the_disk_stays_at_its_bound() -> None:
    async def test() -> None:
        broker = Broker(led(0))
        partition, log = broker.partitions[0], broker.log
        for second in range(60):
            append(partition, 5 * second, 5)
            broker.high_watermarks[log] = partition.high_watermark
            broker.release(log.active.base_offset)
            await asyncio.sleep(SOON_S)
            assert log.size_bytes < BOUND + 2 * 1000 + 500
        assert log.start_offset > 0
        await broker.close()

    run(test)


def test_a_released_segment_goes_when_it_is_old_enough() -> None:
    async def test() -> None:
        # The record at offset n is of second n, and the clock stands at NOW_MS when the loop begins.
        config = LogConfig(segment_bytes=1000, retention_ms=-1, local_retention_ms=300_000)
        broker = Broker(led(), config=config)
        log = broker.log
        first = log.segments[0]
        broker.release(log.active.base_offset)
        due_s = (first.age_timestamp + 300_000 - NOW_MS) / 1000
        await asyncio.sleep(due_s - 1)
        assert log.segments[0] is first
        await asyncio.sleep(1 + 2 * LOOK_INTERVAL_S)
        assert log.segments[0] is not first
        assert log.segments[0].base_offset == log.start_offset > 0
        await asyncio.sleep(600)
        assert log.start_offset == log.active.base_offset
        await broker.close()

    run(test)


def test_a_disk_that_fills_gets_the_oldest_of_what_is_in_the_bucket() -> None:
    async def test() -> None:
        config = LogConfig(segment_bytes=1000, retention_ms=-1)
        broker = Broker(led(), led(), config=config)
        old, new = (partition.log for partition in broker.partitions)
        assert await broker.retention.make_room(1) == 0, "nothing was released"
        third = old.segments[3].base_offset
        broker.release(third)
        broker.release(new.active.base_offset, 1)
        size = old.segments[0].size
        # The records of both are as old: by turns.
        assert await broker.retention.make_room(3 * size) == 3 * size
        assert len(new.segments) - len(old.segments) == 1
        await broker.retention.make_room(10**9)
        assert old.start_offset == third, "above it nothing may go"
        assert new.start_offset == new.active.base_offset
        broker.release(old.active.base_offset)
        broker.high_watermarks[old] = old.segments[1].base_offset
        await broker.retention.make_room(10**9)
        assert old.start_offset == broker.high_watermarks[old], "nor what is not committed here"
        assert broker.retention.freed_bytes > 0
        await broker.close()

    run(test)


def test_one_log_that_cannot_make_room_keeps_no_other_from_it() -> None:
    async def test() -> None:
        broker = Broker(led(), led(), config=LogConfig(segment_bytes=1000, retention_ms=-1))
        disk = broker.log.disk
        assert isinstance(disk, SimDisk)
        disk.fail_next("append", errno.ENOSPC, path_part="log-start-offset")
        for number, partition in enumerate(broker.partitions):
            broker.release(partition.log.active.base_offset, number)
        await broker.retention.make_room(10**9)
        assert broker.log.start_offset == 0
        assert broker.partitions[1].log.start_offset > 0
        await broker.close()

    run(test)


def test_what_is_not_committed_here_stays_until_it_is() -> None:
    async def test() -> None:
        broker = Broker(led())
        log = broker.log
        second, end = log.segments[1].base_offset, log.active.base_offset
        # A follower learns what was released before it learns that it is committed.
        broker.high_watermarks[log] = second
        broker.release(end)
        await asyncio.sleep(10)
        assert log.start_offset == second
        broker.high_watermarks[log] = end
        await asyncio.sleep(SOON_S)
        assert log.start_offset > second
        await broker.close()

    run(test)


def test_a_start_that_cannot_be_written_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        broker = Broker(led(), led())
        log, other = (partition.log for partition in broker.partitions)
        disk = log.disk
        assert isinstance(disk, SimDisk)
        disk.fail_next("append", errno.ENOSPC, path_part="log-start-offset")
        for partition, released in enumerate((log, other)):
            broker.release(released.active.base_offset, partition)
        await asyncio.sleep(SOON_S)
        assert (log.start_offset, other.start_offset > 0) == (0, True), "one that fails keeps no other"
        await asyncio.sleep(RETRY_MS / 1000 - 2 * LOOK_INTERVAL_S)
        assert log.start_offset == 0
        await asyncio.sleep(2 * LOOK_INTERVAL_S)
        assert log.start_offset > 0
        assert sum("local retention of" in record.message for record in caplog.records) == 1
        await broker.close()

    run(test)


def test_it_takes_no_more_than_its_share_of_the_time() -> None:
    async def test() -> None:
        broker = Broker(*[led() for _ in range(4)])
        broker.retention._clock = Slow()
        for number, partition in enumerate(broker.partitions):
            broker.release(partition.log.active.base_offset, number)
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(SOON_S)
        done = [partition.log.start_offset > 0 for partition in broker.partitions]
        assert done == [True, False, False, False]
        while broker.partitions[-1].log.start_offset == 0:
            await asyncio.sleep(0.01)
        took = asyncio.get_running_loop().time() - began - SOON_S
        assert took >= 3 * Slow.STEP_S * PAUSE_FACTOR
        await broker.close()

    run(test)


class Slow(LoopClock):
    """A clock by which every piece of work takes a moment."""

    STEP_S = 0.02

    def __init__(self) -> None:
        self._lost = 0.0

    def monotonic(self) -> float:
        self._lost += self.STEP_S
        return super().monotonic() + self._lost


def test_a_log_that_failed_or_was_closed_meanwhile_is_left_alone() -> None:
    async def test() -> None:
        broker = Broker(led(), led())
        first, second = (partition.log for partition in broker.partitions)
        first.fail("the test broke it")
        for number, log in enumerate((first, second)):
            broker.release(log.active.base_offset, number)
        await asyncio.sleep(SOON_S)
        assert first.start_offset == 0
        assert second.start_offset > 0
        await broker.close()

    run(test)
