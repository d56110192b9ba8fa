"""A log that fails under a running broker, and what the others may still believe of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.replicated import TOPIC, Trio, trio
from tests.integration.support import run, until
from tests.unit.log.support import FailingDisk

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.identity import load
from strandline_broker.log.log import Log
from strandline_broker.replica.partition import Partition
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.server.broker import Broker
from strandline_broker.server.volume import CLEAN_STOP_FILE

LOST = (
    "the log of t-0 failed and lost records that other brokers count on: this broker ends, and comes back under a new log "
    "generation"
)
MIN_ISR_2 = {"min.insync.replicas": "2"}


async def on_failing_disk(three: Trio, broker_id: int) -> tuple[Broker, Partition, FailingDisk]:
    """Start a broker again on a disk that can be told to fail, and wait until all are in sync."""
    disk = FailingDisk(three.made.directory / f"broker-{broker_id}")
    broker = await three.start(broker_id, disk=disk)
    await three.in_sync(3)
    partition = three.partition(broker_id)
    assert partition is not None
    return broker, partition, disk


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_a_broker_whose_log_lost_what_it_vouched_for_comes_back_as_another(tmp_path: Path, role: str) -> None:
    async def scenario() -> None:
        async with trio(tmp_path, flush="Replicated") as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            leader = (await three.in_sync(3)).config.broker_id
            victim = (leader + 1) % 3
            await three.stop(victim)
            await three.in_sync(2)
            broker, partition, disk = await on_failing_disk(three, victim)
            if role == "leader":
                for other in three.brokers.keys() - {victim}:
                    await three.stop(other)
                await until(lambda: partition.is_leader)
                for other in {0, 1, 2} - {victim}:
                    await three.start(other)
                await three.in_sync(3)
            assert await three.write(b"a", b"b", b"c") == [0, 0, 0]
            generation = broker.own_ref.generation
            await until(lambda: partition.log.end_offset == 3)

            disk.fail_sync = True
            broker.syncs.request(partition)
            await until(lambda: bool(partition.log.failed))
            await broker.log_failures.retry()
            assert three.made.lost == [], "what cannot be recorded must not be forgotten by a new start"
            disk.fail_sync = False
            await broker.log_failures.retry()
            await until(lambda: bool(three.made.lost))
            assert three.made.lost == [LOST]
            recorded = load(LocalDisk(tmp_path / f"broker-{victim}"))
            assert recorded is not None
            assert recorded.generation != generation
            # Until it ends it neither serves nor copies that partition, whoever is elected.
            assert partition.log.failed
            await three.stop(victim)
            await three.in_sync(2)
            assert await three.write(b"d") == [0]

            again = await three.start(victim)
            assert again.own_ref.generation == recorded.generation
            await three.in_sync(3)
            assert three.log_ends() == {0: 4, 1: 4, 2: 4}
            leading = three.leader()
            assert leading is not None
            assert await three.read(leading) == [b"a", b"b", b"c", b"d"]

    run(scenario())


def test_a_log_that_keeps_what_was_promised_is_taken_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            victim = ((await three.in_sync(3)).config.broker_id + 1) % 3
            await three.stop(victim)
            await three.in_sync(2)
            broker, partition, disk = await on_failing_disk(three, victim)
            assert await three.write(b"a") == [0]
            await until(lambda: partition.log.synced_end == 1)
            generation = broker.own_ref.generation

            disk.fail_sync = True
            assert await three.write(b"b", acks=1) == [0]
            await until(lambda: bool(partition.log.failed))
            disk.fail_sync = False
            await broker.log_failures.retry()
            assert not partition.log.failed
            assert three.made.lost == []
            assert broker.own_ref.generation == generation
            await three.in_sync(3)
            await until(lambda: three.log_ends() == {0: 2, 1: 2, 2: 2})

    run(scenario())


def test_who_stops_before_it_stepped_down_resumes_no_epoch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            stopped = (await three.in_sync(3)).config.broker_id
            partition = three.partition(stopped)
            assert partition is not None
            await three.stop((stopped + 1) % 3)
            assert (tmp_path / f"broker-{(stopped + 1) % 3}" / CLEAN_STOP_FILE).exists()
            partition.unfit_epoch = 99  # its log failed while it led, and no later epoch has been heard of
            await three.stop(stopped)
            assert not (tmp_path / f"broker-{stopped}" / CLEAN_STOP_FILE).exists()

    run(scenario())


def test_a_leader_whose_disk_does_not_come_back_is_succeeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(log: Log, now_ms: int) -> None:
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "the test broke the disk")

    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            leader = await three.in_sync(3)
            victim = leader.config.broker_id
            assert await three.write(b"a") == [0]
            partition = three.partition(victim)
            assert partition is not None
            monkeypatch.setattr(Log, "reopen", refuse)
            partition.log.fail("the test broke the disk")
            await leader.log_failures.retry()
            await until(lambda: (found := three.leader()) is not None and found is not leader)
            await until(lambda: len(three.isr()) == 2 and victim not in three.isr())
            assert await three.write(b"b") == [0]
            assert await three.read(await three.in_sync(2)) == [b"a", b"b"]
            monkeypatch.undo()
            await leader.log_failures.retry()
            await three.in_sync(3)

    run(scenario())


def test_a_broker_that_cannot_open_a_log_leads_only_while_nobody_else_could(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            await three.in_sync(3)
            assert await three.write(b"a") == [0]
            await until(lambda: set(three.log_ends().values()) == {1})
            # All stop while nobody moves leaderships: the ISR stays.
            await three.made.stop_controller()
            victim = (await three.in_sync(3)).config.broker_id
            for broker_id in list(three.brokers):
                await three.crash(broker_id, seen=False)
            directory = tmp_path / f"broker-{victim}" / f"{TOPIC}-0"
            directory.rename(tmp_path / "elsewhere")
            directory.write_text("not a directory")
            broker = await three.start(victim)
            await three.made.start_controller()
            view = broker.view
            await until(lambda: (state := view.partition(TOPIC, 0)) is not None and state.leader == victim)

            for other in {0, 1, 2} - {victim}:
                await three.start(other)
            await until(lambda: len(three.isr()) == 2 and victim not in three.isr())
            assert await three.write(b"b") == [0]
            assert await three.read(await three.in_sync(2)) == [b"a", b"b"]

    run(scenario())
