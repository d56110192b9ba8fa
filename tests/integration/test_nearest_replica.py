"""Consumers that read from the replica in their rack (KIP-392)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import confluent_kafka
from tests.integration.replicated import TOPIC, Trio, eventually, trio
from tests.integration.support import Client, fetch, run, until
from tests.integration.test_produce_fetch import FETCH_V, row, values
from tests.integration.test_replication_throttle import limit

from strandline_broker.errors import ErrorCode
from strandline_broker.server.broker import Broker
from strandline_broker.server.config import RACK_AWARE_REPLICA_SELECTOR
from strandline_broker.wire.api_keys import ApiKey

RACKS = ("a", "b", "c")
MIN_ISR_2 = {"min.insync.replicas": "2"}
LONG_MS = 8000
"""A follower's long poll, much longer than news may take."""


def in_racks(directory: Path, *, wait_max_ms: int = 500) -> contextlib.AbstractAsyncContextManager[Trio]:
    """Three brokers in racks of their own; followers' fetches wait so long."""
    return trio(
        directory,
        RACKS,
        replica_selector_class=RACK_AWARE_REPLICA_SELECTOR,
        replica_fetch_wait_max_ms=str(wait_max_ms),
    )


async def ask(client: Client, offset: int, rack: str = "", version: int = FETCH_V, **wait: int) -> Any:
    """Fetch the partition and return it."""
    return row(
        await client.ask(ApiKey.FETCH, version, {**fetch(TOPIC, {0: offset}, **wait), "rack_id": rack})
    )


async def leader_and_follower(three: Trio) -> tuple[Broker, Broker]:
    """Return the leader, once all are in sync, and one of the others, once it copies."""
    leader = await three.in_sync(3)
    near = next(broker for broker in three.brokers.values() if broker is not leader)
    await until(
        lambda: (partition := three.partition(near.config.broker_id)) is not None and partition.lag == 0
    )
    return leader, near


async def everywhere(three: Trio, count: int) -> None:
    """Wait until every replica has so many records, and the leader knows it."""

    def known() -> bool:
        leader = three.leader()
        partition = three.partition(leader.config.broker_id) if leader is not None else None
        if partition is None or partition.leadership is None:
            return False
        ends = [follower.log_end for follower in partition.leadership.followers.values()]
        return ends == [count] * (len(three.brokers) - 1)

    await until(known)


def test_a_leader_sends_consumers_to_the_replica_in_their_rack(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with in_racks(tmp_path) as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            leader, near = await leader_and_follower(three)
            assert await three.write(b"a", b"b") == [0, 0]
            await everywhere(three, 2)
            async with three.client(leader) as at_leader, three.client(near) as at_follower:
                sent = await ask(at_leader, 0, RACKS[near.config.broker_id])
                assert (sent.preferred_read_replica, sent.error_code) == (near.config.broker_id, 0)
                assert not values(sent)
                for rack in (RACKS[leader.config.broker_id], "elsewhere", ""):
                    answer = await ask(at_leader, 0, rack)
                    assert (answer.preferred_read_replica, len(values(answer))) == (-1, 2)

                found = await eventually(
                    lambda: ask(at_follower, 0, "x"), lambda partition: partition.high_watermark == 2
                )
                assert [value for _, value in values(found)] == [b"a", b"b"]
                refused = await ask(at_follower, 0, version=10)
                assert refused.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER

    run(scenario())


def test_a_follower_shows_what_is_committed_soon_although_nothing_more_is_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with in_racks(tmp_path, wait_max_ms=LONG_MS) as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            _, near = await leader_and_follower(three)
            async with three.client(near) as client:
                for number in range(3):
                    reading = asyncio.create_task(ask(client, number, max_wait_ms=LONG_MS))
                    assert await three.write(b"%d" % number) == [0]
                    acknowledged = time.monotonic()
                    assert values(await reading) == [(number, b"%d" % number)]
                    assert time.monotonic() - acknowledged < LONG_MS / 4000

    run(scenario())


def test_a_follower_refuses_offsets_that_it_does_not_have(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with in_racks(tmp_path) as three:
            names = {**MIN_ISR_2, "leader.replication.throttled.replicas": "*"}
            await three.made.create_topic(TOPIC, config=names, replicas=3)
            leader, near = await leader_and_follower(three)
            near_id = near.config.broker_id
            assert await three.write(b"a") == [0]
            await everywhere(three, 1)
            await three.crash(near_id)
            await three.in_sync(2)
            assert await three.write(b"b") == [0]
            await limit(three, "leader", 0)
            near = await three.start(near_id)
            partition = three.partition(near_id)
            assert partition is not None
            await until(lambda: partition.lag == 1)

            async with three.client(near) as client, three.client(leader) as at_leader:
                # The leader knows the offset. Apache Kafka says OFFSET_OUT_OF_RANGE, after which clients that do not know
                # that they asked a follower, because their metadata are old, begin anew.
                assert (await ask(client, 2)).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
                assert (await ask(at_leader, 3)).error_code == ErrorCode.OFFSET_OUT_OF_RANGE
                at_end = await ask(client, 1)
                assert (at_end.error_code, values(at_end)) == (0, [])
                not_sent = await ask(at_leader, 1, RACKS[near_id])
                assert (not_sent.preferred_read_replica, values(not_sent)) == (-1, [(1, b"b")])

    run(scenario())


def test_a_consumer_reads_nearby_and_from_the_leader_when_that_one_dies(tmp_path: Path) -> None:
    def consume(consumer: Any, count: int) -> list[bytes]:
        found: list[bytes] = []
        end = time.monotonic() + 30
        while len(found) < count and time.monotonic() < end:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                found.append(message.value())
        return found

    async def scenario() -> None:
        async with in_racks(tmp_path) as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            leader, near = await leader_and_follower(three)
            sent = [b"%d" % number for number in range(20)]
            assert await three.write(*sent) == [0] * 20
            await everywhere(three, 20)
            host, port = leader.server.address("PLAINTEXT")
            consumer = confluent_kafka.Consumer(
                {
                    "bootstrap.servers": f"{host}:{port}",
                    "group.id": "g",
                    "client.rack": RACKS[near.config.broker_id],
                    "enable.auto.commit": False,
                }
            )
            try:
                consumer.assign([confluent_kafka.TopicPartition(TOPIC, 0, 0)])
                assert await asyncio.to_thread(consume, consumer, 20) == sent
                here, there = (three.partition(broker.config.broker_id) for broker in (near, leader))
                assert here is not None
                assert there is not None
                assert here.bytes_out >= here.log.size_bytes
                assert there.bytes_out == 0

                await three.crash(near.config.broker_id)
                assert await three.write(b"more") == [0]
                assert await asyncio.to_thread(consume, consumer, 1) == [b"more"]
                assert there.bytes_out > 0
            finally:
                await asyncio.to_thread(consumer.close)

    run(scenario())
