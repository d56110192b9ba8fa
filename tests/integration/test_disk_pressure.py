"""Three brokers whose disks fill while the bucket is away: who is slowed down, then refused, and the way back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.integration.replicated import TOPIC, Trio, trio
from tests.integration.support import produce, run, until
from tests.integration.test_groups import commit_body
from tests.integration.test_produce_fetch import PRODUCE_V, row
from tests.integration.test_tiering import Away, read_all, stamped, started, texts

from strandline_broker.cluster.internal_topics import CONSUMER_OFFSETS
from strandline_broker.coordinator.partitioning import partition_for
from strandline_broker.errors import ErrorCode
from strandline_broker.replica import disk_pressure
from strandline_broker.replica.disk_pressure import Pressure
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.server import disk_watch, local_retention
from strandline_broker.server.broker import Broker
from strandline_broker.wire.api_keys import ApiKey
from strandline_tiered.faulty_store import FaultyStore
from strandline_tiered.memory_store import MemoryStore

CAPACITY = 100_000


class SmallDisk(LocalDisk):
    """A disk that has room for so many bytes of log, by what it says."""

    __slots__ = ("_folder",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def free_bytes(self) -> int:
        used = 0
        for path in self._folder.glob("*/*.log"):
            try:
                used += path.stat().st_size
            except FileNotFoundError:
                continue  # deleted meanwhile
        return max(CAPACITY - used, 0)

    def total_bytes(self) -> int:
        return CAPACITY


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and let so small a disk seem large."""
    for module in (disk_watch, local_retention):
        monkeypatch.setattr(module, "LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(disk_pressure, "LEAST_RATE", 2000)
    monkeypatch.setattr(disk_pressure, "BURST_S", 0.1)
    monkeypatch.setattr(disk_pressure, "MAX_PAUSE_S", 0.02)


async def with_small_disks(three: Trio, **config: str) -> None:
    await started(three, **config)
    for broker_id in range(3):
        await three.stop(broker_id)
        await three.in_sync(2)
        await three.start(broker_id, disk=SmallDisk(three.made.directory / f"broker-{broker_id}"))
        await three.in_sync(3)


async def send(three: Trio, number: int) -> tuple[int, int]:
    """Produce the record of this number to the leader; return (error code, throttle time in ms)."""
    await until(lambda: three.leader() is not None)
    broker = three.leader()
    assert broker is not None
    async with three.client(broker) as client:
        answer: Any = await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce(TOPIC, {0: stamped(number)}))
    return int(row(answer).error_code), round(answer.throttle_time.total_seconds() * 1000)


def pressures(three: Trio) -> set[Pressure]:
    return {broker.disk_watch.pressure.level for broker in three.brokers.values()}


async def commits(three: Trio, leader: Broker) -> list[int]:
    """Commit an offset at whoever coordinates; return the error codes."""
    topic = leader.view.topic_by_name(CONSUMER_OFFSETS)
    assert topic is not None
    index = partition_for("g", sum(1 for _ in topic.partitions()))
    state = topic.partition(index)
    assert state is not None
    async with three.client(three.brokers[state.leader]) as client, asyncio.timeout(10):
        while True:
            answer = await client.ask(ApiKey.OFFSET_COMMIT, 8, commit_body({0: 1}))
            codes = [int(part.error_code) for one in answer.topics for part in one.partitions]
            if not {int(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS), int(ErrorCode.NOT_COORDINATOR)} & set(codes):
                return codes


@pytest.mark.usefixtures("quick")
def test_producers_are_slowed_down_then_refused_and_go_on_when_the_bucket_is_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = FaultyStore(MemoryStore())
        async with trio(tmp_path, bucket=bucket) as three:
            await with_small_disks(three)
            bucket.plan = Away()
            count, longest_ms = 0, 0
            while True:
                code, throttle_ms = await send(three, count)
                longest_ms = max(longest_ms, throttle_ms)
                if code != ErrorCode.NONE:
                    break
                count += 1
                assert count < 400, "the disk is full by now"
            assert code == ErrorCode.KAFKA_STORAGE_ERROR
            assert longest_ms == 20, "first they were slowed down"
            leader = three.leader()
            assert leader is not None
            assert leader.disk_watch.pressure.level is Pressure.REFUSED
            assert leader.storage.health.writable, "the disk itself takes what comes"
            # Everybody goes on but producers.
            await until(lambda: set(three.log_ends().values()) == {count})
            assert len(three.isr()) == 3
            assert await read_all(three, leader) == texts(0, count)
            assert await commits(three, leader) == [ErrorCode.NONE]
            code, throttle_ms = await send(three, count)
            assert (code, throttle_ms) == (ErrorCode.KAFKA_STORAGE_ERROR, 20), "nobody retries in a loop"

            bucket.plan = None
            await until(lambda: pressures(three) == {Pressure.FREE})
            for number in range(count, count + 30):
                # On a busy machine they may be faster than uploads for a moment, and slowed down again.
                code, _ = await send(three, number)
                assert code == ErrorCode.NONE
            await until(lambda: pressures(three) == {Pressure.FREE})
            assert await send(three, count + 30) == (ErrorCode.NONE, 0)
            count += 1
            assert await read_all(three, leader) == texts(0, count + 30)

    run(scenario())


@pytest.mark.usefixtures("quick")
def test_what_is_in_the_bucket_makes_room_for_producers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_watch, "ROOM_INTERVAL_S", 0.05)

    async def scenario() -> None:
        async with trio(tmp_path, bucket=MemoryStore()) as three:
            # Volumes are to keep everything, as far as the configuration says.
            await with_small_disks(three, **{"local.retention.bytes": "-2"})
            count = 2 * CAPACITY // 300
            for number in range(count):
                # On so small a disk a moment's records are enough to be slowed down for a moment.
                assert (await send(three, number))[0] == ErrorCode.NONE
            leader = await three.in_sync(3)
            await until(lambda: pressures(three) == {Pressure.FREE})
            assert await read_all(three, leader) == texts(0, count)
            assert min(b.disk_watch.retention.freed_bytes for b in three.brokers.values()) > CAPACITY // 2

    run(scenario())
