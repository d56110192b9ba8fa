"""What replication promises when replicas come late, differ, or die while somebody waits."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.replicated import TOPIC, Trio, eventually, trio
from tests.integration.support import batch, produce, run, until
from tests.integration.test_groups import commit_body
from tests.integration.test_lifecycle import AwayStore, crash
from tests.integration.test_produce_fetch import PRODUCE_V, row

from strandline_broker.cluster.internal_topics import CONSUMER_OFFSETS
from strandline_broker.errors import ErrorCode
from strandline_broker.replica.partition import Partition
from strandline_broker.server.broker import Broker
from strandline_broker.wire.api_keys import ApiKey

MIN_ISR_2 = {"min.insync.replicas": "2"}
LONG_MS = 8000
"""A follower's long poll, much longer than news may take."""
_GROUP = 0


async def all_in_sync(three: Trio) -> tuple[int, list[int]]:
    """Create the topic; return its leader and the followers once all are in sync."""
    await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
    leader = (await three.in_sync(3)).config.broker_id
    return leader, [broker_id for broker_id in three.brokers if broker_id != leader]


def on(three: Trio, broker_id: int) -> Partition:
    partition = three.partition(broker_id)
    assert partition is not None
    return partition


def log_starts(three: Trio) -> set[int]:
    return {on(three, broker_id).log.start_offset for broker_id in three.brokers}


async def delete_records(three: Trio, before: int) -> tuple[int, int]:
    """Return (error code, low watermark)."""
    leader = await eventually_leader(three)
    body = {
        "topics": [{"name": TOPIC, "partitions": [{"partition_index": 0, "offset": before}]}],
        "timeout": timedelta(seconds=8),
    }
    async with three.client(leader) as client:
        answer = await client.ask(ApiKey.DELETE_RECORDS, 2, body)
    (partition,) = answer.topics[0].partitions
    return partition.error_code, partition.low_watermark


async def eventually_leader(three: Trio) -> Broker:
    await until(lambda: three.leader() is not None)
    leader = three.leader()
    assert leader is not None
    return leader


def test_records_are_deleted_on_every_replica_in_sync_before_the_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path, replica_fetch_wait_max_ms=str(LONG_MS)) as three:
            _, (late, _) = await all_in_sync(three)
            assert await three.write(b"a", b"b", b"c") == [0, 0, 0]
            began = time.monotonic()
            assert await delete_records(three, 2) == (0, 2)
            assert log_starts(three) == {2}
            assert time.monotonic() - began < LONG_MS / 4000, (
                "followers hear of it although nothing is written"
            )

            await three.crash(late)
            await three.in_sync(2)
            assert await delete_records(three, -1) == (0, 3)
            assert log_starts(three) == {3}
            await three.start(late)
            await three.in_sync(3)
            await until(lambda: log_starts(three) == {3})
            assert await delete_records(three, 4) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)

    run(scenario())


@pytest.mark.parametrize("other_leader", [False, True])
def test_a_follower_that_ends_below_the_leaders_log_start_starts_over(
    tmp_path: Path, *, other_leader: bool
) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            leader, (late, other) = await all_in_sync(three)
            assert await three.write(b"a", b"b") == [0, 0]
            await three.crash(late)
            await three.in_sync(2)
            if other_leader:
                # So that not even the late one's epoch is known any more.
                await three.stop(leader)
                await until(lambda: on(three, other).is_leader)
                await three.start(leader)
                await three.in_sync(2)
            assert await three.write(b"c", b"d", b"e") == [0, 0, 0]
            assert await delete_records(three, 4) == (0, 4)
            await three.start(late)
            await three.in_sync(3)
            assert (on(three, late).log.start_offset, on(three, late).log.end_offset) == (4, 5)
            assert await three.write(b"f") == [0]
            assert on(three, late).log.end_offset == 6

    run(scenario())


def test_what_only_a_dead_leader_had_is_cut_when_it_returns(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            leader, followers = await all_in_sync(three)
            assert await three.write(b"a") == [0]
            for broker_id in followers:
                await three.crash(broker_id, seen=False)
            assert await three.write(b"lost", b"lost too", acks=1) == [0, 0]
            assert (on(three, leader).log.end_offset, on(three, leader).high_watermark) == (3, 1)
            await three.crash(leader)
            for broker_id in followers:
                await three.start(broker_id)
            await three.in_sync(2)
            assert await three.write(b"b") == [0]

            await three.start(leader)
            await three.in_sync(3)
            assert three.log_ends() == {0: 2, 1: 2, 2: 2}
            assert await three.write(b"c") == [0]
            ends = [on(three, broker_id).log.epochs.entries for broker_id in range(3)]
            assert ends[0] == ends[1] == ends[2]
            assert await three.read(await eventually_leader(three)) == [b"a", b"b", b"c"]

    run(scenario())


@pytest.mark.parametrize("flush", ["Fsync", "Replicated"])
def test_acks_1_and_0_wait_for_no_follower(tmp_path: Path, flush: str) -> None:
    async def scenario() -> None:
        async with trio(tmp_path, flush=flush) as three:
            leader, followers = await all_in_sync(three)
            for broker_id in followers:
                await three.crash(broker_id, seen=False)
            assert await three.write(b"a", acks=1) == [0]
            async with three.client(three.brokers[leader]) as client:
                client.send(ApiKey.PRODUCE, PRODUCE_V, produce(TOPIC, {0: batch(b"b")}, acks=0))
                # The next answer on this connection is that of the next request: acks=0 has none.
                answer = await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce(TOPIC, {0: batch(b"c")}, acks=1))
            assert (row(answer).error_code, row(answer).base_offset) == (0, 2)
            assert on(three, leader).high_watermark == 0
            for broker_id in followers:
                await three.start(broker_id)
            await three.in_sync(3)
            await until(lambda: set(three.log_ends().values()) == {3})
            assert await three.read(await eventually_leader(three)) == [b"a", b"b", b"c"]

    run(scenario())


def test_who_waits_while_the_isr_falls_below_its_minimum_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path, lease_duration_ms="30000") as three:
            leader, followers = await all_in_sync(three)
            for broker_id in followers:
                await three.crash(broker_id, seen=False)
            async with three.client(three.brokers[leader]) as client:
                client.send(
                    ApiKey.PRODUCE, PRODUCE_V, produce(TOPIC, {0: batch(b"a")}, acks=-1, timeout_ms=30_000)
                )
                await until(lambda: on(three, leader).log.end_offset == 1)
                for broker_id in followers:
                    three.made.controller.process_ended(broker_id)
                answer = row(await client.receive(ApiKey.PRODUCE, PRODUCE_V))
            assert answer.error_code == ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND
            assert three.isr() == (leader,)
            assert await three.write(b"b") == [ErrorCode.NOT_ENOUGH_REPLICAS]
            # It is in the log all the same, and seen once enough have it.
            for broker_id in followers:
                await three.start(broker_id)
            await three.in_sync(3)
            assert await three.read(three.brokers[leader]) == [b"a"]

    run(scenario())


def test_committed_offsets_survive_the_death_of_their_coordinator(tmp_path: Path) -> None:
    async def coordinator(three: Trio, asked: int) -> Any:
        async with three.client(three.brokers[asked]) as client:
            body = {"key_type": _GROUP, "coordinator_keys": ["g"]}
            return (await client.ask(ApiKey.FIND_COORDINATOR, 6, body)).coordinators[0]

    async def committed(three: Trio, broker_id: int) -> Any:
        group = {"group_id": "g", "member_id": None, "member_epoch": -1, "topics": None}
        body = {"groups": [group], "require_stable": True}
        async with three.client(three.brokers[broker_id]) as client:
            return (await client.ask(ApiKey.OFFSET_FETCH, 9, body)).groups[0]

    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await all_in_sync(three)
            found = await eventually(lambda: coordinator(three, 0), lambda answer: answer.error_code == 0)
            first = found.node_id

            async def commit_once() -> int:
                async with three.client(three.brokers[first]) as client:
                    answer = await client.ask(ApiKey.OFFSET_COMMIT, 8, commit_body({0: 42}))
                return int(answer.topics[0].partitions[0].error_code)

            await eventually(commit_once, lambda code: code == 0)
            replicas = three.brokers[first].replicas.by_key[CONSUMER_OFFSETS].partitions.values()
            assert sum(partition.log.end_offset for partition in replicas) >= 1

            await three.crash(first)
            asked = next(iter(three.brokers))
            found = await eventually(
                lambda: coordinator(three, asked),
                lambda answer: answer.error_code == 0 and answer.node_id != first,
            )
            group = await eventually(
                lambda: committed(three, found.node_id), lambda answer: answer.error_code == 0
            )
            (partition,) = group.topics[0].partitions
            assert (partition.committed_offset, partition.metadata) == (42, "m")

    run(scenario())


class SwitchedStore:
    """A cluster store that goes away when the test says so."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._away = AwayStore()
        self.is_away = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._away if self.is_away else self._store, name)


async def without_control(three: Trio, broker_id: int, store: SwitchedStore) -> Broker:
    """Take the store from one broker, and the controller from all, so that nobody can move a leadership."""
    await three.made.stop_controller()
    broker = three.brokers[broker_id]
    store.is_away = True
    return broker


def listeners_of(broker: Broker) -> str:
    """Return the listeners under which followers find a broker again whose Lease nobody can write."""
    ports = {name: broker.server.address(name)[1] for name in ("PLAINTEXT", "INTERNAL")}
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


@pytest.mark.parametrize("clean", [True, False])
def test_a_leader_that_restarts_while_the_store_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, clean: bool
) -> None:
    async def scenario() -> None:
        async with trio(tmp_path, lease_duration_ms="30000") as three:
            first, followers = await all_in_sync(three)
            await three.stop(first)
            store = SwitchedStore(three.made.store)
            await three.start(first, store=store)
            await three.in_sync(3)
            for broker_id in followers:
                await three.stop(broker_id)
            await until(lambda: on(three, first).is_leader)
            for broker_id in followers:
                await three.start(broker_id)
            await three.in_sync(3)
            assert await three.write(b"a") == [0]
            epoch = on(three, first).leader_epoch

            broker = await without_control(three, first, store)
            listeners = listeners_of(broker)
            await (broker.stop() if clean else crash(broker))
            again = three.prepare(first, store=store, listeners=listeners)
            starting = asyncio.create_task(again.start())
            await until(lambda: hasattr(again, "replicas") and TOPIC in again.replicas.by_key)
            three.brokers[first] = again
            try:
                if clean:
                    await until(lambda: on(three, first).is_leader)
                    assert on(three, first).leader_epoch == epoch
                    assert await three.write(b"b") == [0]
                    assert set(three.log_ends().values()) == {2}
                    return
                async with three.client(again) as client:
                    answer = await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce(TOPIC, {0: batch(b"b")}))
                assert row(answer).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
                assert f"waits for an epoch of its own: {epoch} was given to another start" in caplog.text
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                store.is_away = False
                await crash(again)
                # With the store and the controller back there is a new epoch.
                await three.made.start_controller()
                await three.start(first, store=store)
                await three.in_sync(3)
                assert (await eventually_leader(three)).replicas.partition(TOPIC, 0).leader_epoch > epoch
                assert await three.write(b"b") == [0]
            finally:
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)

    caplog.set_level(logging.INFO)
    run(scenario())
