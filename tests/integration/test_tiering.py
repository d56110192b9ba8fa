"""Tiered partitions on three real brokers that share a bucket: uploads, reads across both tiers, leaders that change."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import confluent_kafka
from tests.integration.replicated import TOPIC, Trio, trio
from tests.integration.support import fetch, produce, run, until
from tests.integration.test_produce_fetch import FETCH_V, PRODUCE_V, row, values

from strandline_broker.errors import ErrorCode
from strandline_broker.replica.tier import PartitionTier
from strandline_broker.server.broker import Broker
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.batch import Record, build_batch
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind
from strandline_tiered.keys import SegmentName, parse_key
from strandline_tiered.memory_store import MemoryStore

FIRST_MS = 1_700_000_000_000
LIST_OFFSETS_V = 9
DELETE_RECORDS_V = 2
CONFIG = {"internal.segment.bytes": "4000", "local.retention.bytes": "1", "retention.ms": "-1"}


def texts(start: int, end: int) -> list[bytes]:
    return [b"record %06d " % number + bytes([number % 251]) * 300 for number in range(start, end)]


def stamped(number: int) -> bytes:
    """Return a batch of one record, whose timestamp tells its number."""
    record = Record(-1, FIRST_MS + number, None, texts(number, number + 1)[0], ())
    return bytes(build_batch([record]))


async def write(three: Trio, start: int, end: int) -> None:
    """Produce so many records, one batch each, with timestamps that rise from record to record."""
    await until(lambda: three.leader() is not None)
    broker = three.leader()
    assert broker is not None
    async with three.client(broker) as client:
        for number in range(start, end):
            answer = await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce(TOPIC, {0: stamped(number)}))
            assert row(answer).error_code == ErrorCode.NONE


async def read_all(three: Trio, broker: Broker, start: int = 0) -> list[bytes | None]:
    """Read as a consumer does, until the high watermark."""
    found: list[bytes | None] = []
    offset = start
    async with three.client(broker) as client, asyncio.timeout(20):
        while True:
            answer = row(await client.ask(ApiKey.FETCH, FETCH_V, fetch(TOPIC, {0: offset}, max_wait_ms=200)))
            assert answer.error_code == ErrorCode.NONE
            seen = [(at, value) for at, value in values(answer) if at >= offset]
            found += [value for _, value in seen]
            if seen:
                assert seen[0][0] == offset
                offset = seen[-1][0] + 1
            elif offset >= answer.high_watermark:
                return found


def tier(three: Trio, broker_id: int) -> PartitionTier:
    partition = three.partition(broker_id)
    assert partition is not None
    assert partition.tier is not None
    return partition.tier


def local_starts(three: Trio) -> list[int]:
    return [
        partition.log.start_offset for n in three.brokers if (partition := three.partition(n)) is not None
    ]


async def tiered(three: Trio, offset: int) -> Broker:
    """Wait until all brokers have deleted what is below `offset`, and return the leader."""
    await until(lambda: len(local_starts(three)) == len(three.brokers) and min(local_starts(three)) >= offset)
    broker = three.leader()
    assert broker is not None
    return broker


async def started(three: Trio, **config: str) -> None:
    await three.made.create_topic(TOPIC, replicas=3, config={**CONFIG, **config})
    await three.in_sync(3)


def segments(bucket: MemoryStore) -> list[SegmentName]:
    parsed = [parse_key(key) for key in bucket.objects]
    return [one.name for one in parsed if one is not None and isinstance(one.name, SegmentName)]


def test_what_is_only_in_the_bucket_is_read_as_if_it_were_here(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = MemoryStore()
        async with trio(tmp_path, bucket=bucket) as three:
            await started(three)
            await write(three, 0, 100)
            leader = await tiered(three, 80)
            assert await read_all(three, leader) == texts(0, 100)
            assert await read_all(three, leader, 41) == texts(41, 100)
            assert {
                len(log.segments) <= 3
                for b in three.brokers.values()
                for log in b.logs
                if "t-0" in log.directory
            } == {True}
            assert leader.tiering is not None
            assert leader.tiering.reader.segments.counters.bytes_read > 0
            await write(three, 100, 130)
            assert await read_all(three, leader) == texts(0, 130)

    run(scenario())


def test_leaders_change_while_segments_are_uploaded(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = MemoryStore()
        async with trio(tmp_path, bucket=bucket, log_retention_check_interval_ms="100") as three:
            await started(three)
            count = 0
            for _ in range(3):
                await write(three, count, count + 40)
                count += 40
                leader = three.leader()
                assert leader is not None
                await three.crash(leader.config.broker_id)
                await until(lambda: three.leader() is not None)
                await three.start(leader.config.broker_id)
                await three.in_sync(3)
            await write(three, count, count + 40)
            count += 40
            leader = await tiered(three, count - 30)
            assert await read_all(three, leader) == texts(0, count)
            # Whoever leads next has all of it, too.
            await three.crash(leader.config.broker_id)
            await until(lambda: three.leader() is not None)
            successor = three.leader()
            assert successor is not None
            await until(lambda: tier(three, successor.config.broker_id).remote is not None)
            assert await read_all(three, successor) == texts(0, count)

    run(scenario())


def test_a_new_replica_copies_only_what_is_not_in_the_bucket(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = MemoryStore()
        async with trio(tmp_path, bucket=bucket, log_retention_check_interval_ms="100") as three:
            await three.made.create_topic(TOPIC, replicas=2, config=CONFIG)
            await three.in_sync(2)
            await write(three, 0, 100)
            await until(lambda: min(local_starts(three)) >= 80)
            leader = three.leader()
            assert leader is not None
            (new,) = [n for n in three.brokers if three.partition(n) is None]
            body = {
                "topics": (
                    {
                        "name": TOPIC,
                        "partitions": ({"partition_index": 0, "replicas": [leader.config.broker_id, new]},),
                    },
                ),
                "timeout": 5000,
            }
            async with three.client(leader) as client:
                await client.ask(ApiKey.ALTER_PARTITION_REASSIGNMENTS, 1, body)
            await until(lambda: set(three.isr()) == {leader.config.broker_id, new})
            copied = three.partition(new)
            assert copied is not None
            assert copied.log.start_offset >= 80
            assert copied.replicated_in < 30 * 400
            await three.crash(leader.config.broker_id)
            await until(lambda: three.leader() is three.brokers[new])
            await until(lambda: tier(three, new).remote is not None)
            assert await read_all(three, three.brokers[new]) == texts(0, 100)

    run(scenario())


def test_records_are_deleted_in_both_tiers(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = MemoryStore()
        async with trio(tmp_path, bucket=bucket, log_retention_check_interval_ms="100") as three:
            await started(three)
            await write(three, 0, 100)
            leader = await tiered(three, 80)
            before = segments(bucket)
            body = {
                "topics": ({"name": TOPIC, "partitions": ({"partition_index": 0, "offset": 55},)},),
                "timeout": 9000,
            }
            async with three.client(leader) as client:
                answer = await client.ask(ApiKey.DELETE_RECORDS, DELETE_RECORDS_V, body)
            assert [(p.error_code, p.low_watermark) for t in answer.topics for p in t.partitions] == [(0, 55)]
            assert await read_all(three, leader, 55) == texts(55, 100)
            async with three.client(leader) as client:
                gone = row(await client.ask(ApiKey.FETCH, FETCH_V, fetch(TOPIC, {0: 54})))
            assert gone.error_code == ErrorCode.OFFSET_OUT_OF_RANGE
            await until(lambda: len(segments(bucket)) < len(before) - 3)
            assert min(segments(bucket)).base_offset > 30

    run(scenario())


def test_retention_counts_both_tiers(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = MemoryStore()
        async with trio(tmp_path, bucket=bucket, log_retention_check_interval_ms="100") as three:
            await started(three, **{"retention.bytes": "20000"})
            await write(three, 0, 200)
            broker = three.leader()
            assert broker is not None
            partition = three.partition(broker.config.broker_id)
            assert partition is not None
            await until(lambda: partition.log_start_offset > 130)
            start = partition.log_start_offset
            assert await read_all(three, broker, start) == texts(start, 200)
            await until(lambda: all(tier(three, n).log_start == start for n in three.brokers))

    run(scenario())


async def timestamps(three: Trio, broker: Broker, timestamp: int) -> tuple[int, int]:
    body: dict[str, Any] = {
        "replica_id": -1,
        "isolation_level": 0,
        "topics": (
            {
                "name": TOPIC,
                "partitions": ({"partition_index": 0, "current_leader_epoch": -1, "timestamp": timestamp},),
            },
        ),
    }
    async with three.client(broker) as client:
        answer = await client.ask(ApiKey.LIST_OFFSETS, LIST_OFFSETS_V, body)
    found = answer.topics[0].partitions[0]
    return found.error_code, found.offset


def test_offsets_of_both_tiers_are_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path, bucket=MemoryStore(), log_retention_check_interval_ms="100") as three:
            await started(three)
            await write(three, 0, 100)
            leader = await tiered(three, 80)
            partition = three.partition(leader.config.broker_id)
            assert partition is not None
            assert await timestamps(three, leader, -2) == (0, 0)
            assert await timestamps(three, leader, -4) == (0, partition.log.start_offset)
            sealed = partition.log.segments[-1].base_offset
            await until(lambda: partition.tier is not None and partition.tier.loaded().end_offset == sealed)
            assert await timestamps(three, leader, -5) == (0, sealed - 1)
            assert await timestamps(three, leader, -3) == (0, 99)
            for wanted in (0, 1, 17, sealed - 1, sealed, 99):
                assert await timestamps(three, leader, FIRST_MS + wanted) == (0, wanted)
            assert await timestamps(three, leader, FIRST_MS + 100) == (0, -1)

    run(scenario())


class Away:
    """Nothing gets through."""

    def draw(self, operation: str, key: str) -> Fault:
        return Fault(Kind.UNAVAILABLE)


def test_a_client_never_takes_the_end_of_a_log_for_its_start(tmp_path: Path) -> None:
    def bounds(consumer: confluent_kafka.Consumer) -> tuple[int, int] | str | None:
        try:
            return consumer.get_watermark_offsets(confluent_kafka.TopicPartition(TOPIC, 0), timeout=10)
        except confluent_kafka.KafkaException as error:
            return str(error.args[0].name())

    async def scenario() -> None:
        bucket = FaultyStore(MemoryStore())
        async with trio(tmp_path, bucket=bucket, log_retention_check_interval_ms="100") as three:
            await started(three)
            await write(three, 0, 100)
            former = await tiered(three, 80)
            bucket.plan = Away()
            await three.crash(former.config.broker_id)
            await until(lambda: three.leader() is not None)
            leader = three.leader()
            assert leader is not None
            partition = three.partition(leader.config.broker_id)
            await until(lambda: partition is not None and partition.high_watermark == 100)
            host, port = leader.server.address("PLAINTEXT")
            consumer = confluent_kafka.Consumer({"bootstrap.servers": f"{host}:{port}", "group.id": "g"})
            try:
                # Nobody knows the start without the manifest; librdkafka asks for both ends at once.
                assert await asyncio.to_thread(bounds, consumer) == "LEADER_NOT_AVAILABLE"
                bucket.plan = None
                await until(lambda: tier(three, leader.config.broker_id).remote is not None)
                assert await asyncio.to_thread(bounds, consumer) == (0, 100)
            finally:
                await asyncio.to_thread(consumer.close)

    run(scenario())


def test_a_bucket_that_is_away_costs_nothing_but_its_own_reads(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = FaultyStore(MemoryStore())
        async with trio(tmp_path, bucket=bucket, log_retention_check_interval_ms="100") as three:
            await started(three)
            await write(three, 0, 100)
            leader = await tiered(three, 80)
            bucket.plan = Away()
            await write(three, 100, 200)
            start = min(local_starts(three))
            assert start < 105, "what is not in the bucket stays"
            assert await read_all(three, leader, start) == texts(start, 200)
            async with three.client(leader) as client:
                empty = row(await client.ask(ApiKey.FETCH, FETCH_V, fetch(TOPIC, {0: 0}, max_wait_ms=50)))
            assert (empty.error_code, values(empty)) == (ErrorCode.NONE, [])
            bucket.plan = None
            await tiered(three, 180)
            assert await read_all(three, leader) == texts(0, 200)

    run(scenario())
