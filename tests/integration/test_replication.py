"""Replication between real brokers: copying, acknowledgement, failover, rejoining, handing over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integration.replicated import TOPIC, trio
from tests.integration.support import run, until

from strandline_broker.errors import ErrorCode

MIN_ISR_2 = {"min.insync.replicas": "2"}


@pytest.mark.parametrize("flush", ["Fsync", "Replicated"])
def test_what_is_acknowledged_is_on_every_replica(tmp_path: Path, flush: str) -> None:
    async def scenario() -> None:
        async with trio(tmp_path, flush=flush) as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            await three.in_sync(3)
            assert await three.write(b"a", b"b", b"c") == [0, 0, 0]
            assert set(three.log_ends().values()) == {3}
            await until(
                lambda: {p.high_watermark for i in range(3) if (p := three.partition(i)) is not None} == {3}
            )

    run(scenario())


def test_the_death_of_a_leader_loses_nothing_and_the_dead_one_joins_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            first = await three.in_sync(3)
            assert await three.write(b"a", b"b") == [0, 0]
            await three.crash(first.config.broker_id)
            second = await three.in_sync(2)
            assert await three.write(b"c") == [0]
            assert await three.read(second) == [b"a", b"b", b"c"]
            await three.start(first.config.broker_id)
            await three.in_sync(3)
            await until(lambda: three.log_ends()[first.config.broker_id] == 3)

    run(scenario())


def test_a_lone_leader_refuses_what_two_must_have(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            leader = await three.in_sync(3)
            for broker_id in list(three.brokers):
                if broker_id != leader.config.broker_id:
                    await three.crash(broker_id)
            await three.in_sync(1)
            assert await three.write(b"a") == [int(ErrorCode.NOT_ENOUGH_REPLICAS)]
            assert await three.write(b"b", acks=1) == [0]
            partition = three.partition(leader.config.broker_id)
            assert partition is not None
            assert (partition.log.end_offset, partition.high_watermark) == (1, 0)

    run(scenario())


def test_a_stopping_leader_hands_over_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, partitions=3, config=MIN_ISR_2, replicas=3)
            leader = await three.in_sync(3)
            assert await three.write(b"a") == [0]
            partition = three.partition(leader.config.broker_id)
            assert partition is not None
            await three.stop(leader.config.broker_id)
            assert not partition.is_leader
            await three.in_sync(2)
            assert await three.write(b"b") == [0]

    run(scenario())


def test_a_broker_that_nobody_waits_for_prepares_before_it_joins(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            await three.in_sync(3)
            await three.stop(2)
            leader = await three.in_sync(2)
            assert await three.write(b"a") == [0]
            broker = three.prepare(2)
            prepared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            starting = asyncio.create_task(broker.start(lambda: prepared))
            await until(lambda: hasattr(broker, "replicas"))
            three.brokers[2] = broker
            await until(lambda: three.log_ends().get(2) == 1)
            assert not starting.done()
            assert 2 not in three.isr()
            # Somebody needs it before it is prepared: then it does not wait.
            await three.crash(next(i for i in (0, 1) if i != leader.config.broker_id))
            await starting
            assert not prepared.done()
            await three.in_sync(2)
            assert await three.write(b"b") == [0]
            prepared.set_result(None)

    run(scenario())


def test_a_broker_that_is_waited_for_joins_before_it_prepares(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, config={"min.insync.replicas": "3"}, replicas=3)
            await three.in_sync(3)
            await three.stop(2)
            await three.in_sync(2)
            broker = three.prepare(2)
            await broker.start(lambda: pytest.fail("it prepares although a partition cannot be written to"))
            three.brokers[2] = broker
            await three.in_sync(3)
            assert await three.write(b"a") == [0]

    run(scenario())
