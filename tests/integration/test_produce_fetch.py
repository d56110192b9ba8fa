"""Produce and fetch through a whole broker: bursts, long polls, sessions, refusals."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.integration.support import batch, cluster, fetch, leads, produce, run, running

from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.batch import iter_batches, iter_records

PRODUCE_V = 9
FETCH_V = 12


def row(response: Any) -> Any:
    """Return the only partition of a response."""
    topics = response.responses
    assert len(topics) == 1
    partitions = getattr(topics[0], "partition_responses", None) or topics[0].partitions
    assert len(partitions) == 1
    return partitions[0]


def values(partition: Any) -> list[tuple[int, bytes | None]]:
    data = memoryview(bytes(partition.records or b""))
    return [
        (record.offset, record.value)
        for position, header in iter_batches(data)
        for record in iter_records(data[position : position + header.size])
    ]


@pytest.mark.parametrize("flush", ["Fsync", "Replicated"])
@pytest.mark.parametrize("acks", [1, -1])
def test_what_is_produced_is_fetched(tmp_path: Path, flush: str, acks: int) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made, flush=flush) as broker:
            await made.create_topic("t")
            await leads(broker, "t")
            client = await made.connect(broker)
            for number in range(3):
                answer = await client.ask(
                    ApiKey.PRODUCE, PRODUCE_V, produce("t", {0: batch(b"a%d" % number, b"b")}, acks=acks)
                )
                assert (row(answer).error_code, row(answer).base_offset) == (ErrorCode.NONE, 2 * number)
            answer = await client.ask(ApiKey.FETCH, FETCH_V, fetch("t", {0: 2}))
            assert row(answer).high_watermark == 6
            assert values(row(answer)) == [(2, b"a1"), (3, b"b"), (4, b"a2"), (5, b"b")]
            await client.close()

    run(scenario())


def test_pipelined_requests_of_one_burst_are_written_and_answered_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made) as broker:
            await made.create_topic("t", 2)
            await leads(broker, "t", 2)
            client = await made.connect(broker)
            for number in range(50):
                client.send(ApiKey.PRODUCE, PRODUCE_V, produce("t", {number % 2: batch(b"%d" % number)}))
            offsets = [row(await client.receive(ApiKey.PRODUCE, PRODUCE_V)).base_offset for _ in range(50)]
            assert offsets == [number // 2 for number in range(50)]
            await client.close()

    run(scenario())


def test_a_long_poll_is_answered_when_data_arrives_and_empty_when_its_time_is_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made) as broker:
            await made.create_topic("t")
            await leads(broker, "t")
            reader, writer = await made.connect(broker), await made.connect(broker)
            reader.send(ApiKey.FETCH, FETCH_V, fetch("t", {0: 0}, max_wait_ms=9_000))
            while broker.handlers.fetch.parked_count == 0:
                await asyncio.sleep(0)
            await writer.ask(ApiKey.PRODUCE, PRODUCE_V, produce("t", {0: batch(b"x")}))
            assert values(row(await reader.receive(ApiKey.FETCH, FETCH_V))) == [(0, b"x")]
            answer = await reader.ask(ApiKey.FETCH, FETCH_V, fetch("t", {0: 1}, max_wait_ms=20))
            assert values(row(answer)) == []
            assert row(answer).high_watermark == 1
            # min_bytes holds the answer back although there is data.
            reader.send(ApiKey.FETCH, FETCH_V, fetch("t", {0: 1}, max_wait_ms=9_000, min_bytes=150))
            while broker.handlers.fetch.parked_count == 0:
                await asyncio.sleep(0)
            for _ in range(3):
                await writer.ask(ApiKey.PRODUCE, PRODUCE_V, produce("t", {0: batch(b"y")}))
            assert len(values(row(await reader.receive(ApiKey.FETCH, FETCH_V)))) >= 2
            await reader.close()
            await writer.close()

    run(scenario())


def test_a_long_poll_of_a_lost_connection_is_forgotten(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made) as broker:
            await made.create_topic("t")
            await leads(broker, "t")
            client = await made.connect(broker)
            client.send(ApiKey.FETCH, FETCH_V, fetch("t", {0: 0}, max_wait_ms=9_000))
            while broker.handlers.fetch.parked_count == 0:
                await asyncio.sleep(0)
            connection = next(iter(broker.server.connections))
            connection.close("the test cuts it")
            assert broker.handlers.fetch.parked_count == 0
            partition = broker.partition("t", 0)
            assert not partition.fetch_waiters
            await client.close()

    run(scenario())


def test_an_incremental_session_sends_only_what_changed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made) as broker:
            await made.create_topic("t", 2)
            await leads(broker, "t", 2)
            client = await made.connect(broker)
            await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce("t", {1: batch(b"x")}))
            full = await client.ask(ApiKey.FETCH, FETCH_V, fetch("t", {0: 0, 1: 0}, session_epoch=0))
            assert full.session_id > 0
            assert len(full.responses[0].partitions) == 2
            body = fetch("t", {1: 1}, session_id=full.session_id, session_epoch=1)
            nothing = await client.ask(ApiKey.FETCH, FETCH_V, body)
            assert list(nothing.responses) == []
            await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce("t", {0: batch(b"z")}))
            body = {**body, "session_epoch": 2, "topics": []}
            changed = await client.ask(ApiKey.FETCH, FETCH_V, body)
            assert [p.partition_index for p in changed.responses[0].partitions] == [0]
            stale = await client.ask(ApiKey.FETCH, FETCH_V, body)
            assert stale.error_code == ErrorCode.INVALID_FETCH_SESSION_EPOCH
            await client.close()

    run(scenario())


def test_a_replica_fetch_on_a_client_listener_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made) as broker:
            await made.create_topic("t")
            await leads(broker, "t")
            client = await made.connect(broker)
            answer = await client.ask(ApiKey.FETCH, FETCH_V, fetch("t", {0: 0}, replica_id=1))
            assert answer.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED
            await client.close()

    run(scenario())


def test_wrong_brokers_epochs_topics_and_offsets_get_their_error_codes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made) as zero, running(made, broker_id=1) as one:
            await made.create_topic("t", 2)
            brokers = {0: zero, 1: one}
            while zero.view.partition("t", 1) is None:
                await asyncio.sleep(0)
            state = zero.view.partition("t", 0)
            assert state is not None
            leader, other = brokers[state.leader], brokers[1 - state.leader]
            await leads(leader, "t")
            client = await made.connect(other)
            refused = row(await client.ask(ApiKey.PRODUCE, 10, produce("t", {0: batch(b"x")})))
            assert refused.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert refused.current_leader.leader_id == state.leader
            refused = row(await client.ask(ApiKey.FETCH, FETCH_V, fetch("t", {0: 0})))
            assert refused.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
            await client.close()

            client = await made.connect(leader)
            unknown = row(await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce("no-such", {0: batch(b"x")})))
            assert unknown.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            beyond = row(await client.ask(ApiKey.FETCH, FETCH_V, fetch("t", {0: 5})))
            assert beyond.error_code == ErrorCode.OFFSET_OUT_OF_RANGE
            body = fetch("t", {0: 0})
            body["topics"][0]["partitions"][0]["current_leader_epoch"] = state.leader_epoch + 1
            newer = row(await client.ask(ApiKey.FETCH, FETCH_V, body))
            assert newer.error_code == ErrorCode.UNKNOWN_LEADER_EPOCH
            corrupt = bytearray(batch(b"x"))
            corrupt[-1] ^= 1
            refused = row(await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce("t", {0: bytes(corrupt)})))
            assert refused.error_code == ErrorCode.CORRUPT_MESSAGE
            refused = row(await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce("t", {0: batch(b"x")}, acks=2)))
            assert refused.error_code == ErrorCode.INVALID_REQUIRED_ACKS
            await client.close()

    run(scenario())


def test_idempotence_over_the_wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a leader of long standing: a new one answers a gap differently, see `Partition.stage`.
    monkeypatch.setattr("strandline_broker.replica.partition.NEW_LEADER_MS", 0)

    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made) as broker:
            await made.create_topic("t")
            await leads(broker, "t")
            client = await made.connect(broker)

            async def send(sequence: int) -> tuple[int, int]:
                data = batch(b"x", producer_id=7, producer_epoch=0, base_sequence=sequence)
                answer = row(await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce("t", {0: data})))
                return int(answer.error_code), int(answer.base_offset)

            assert await send(0) == (0, 0)
            assert await send(1) == (0, 1)
            assert await send(0) == (0, 0), "a repeated batch is answered with its first offset"
            assert (await send(3))[0] == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
            assert await send(2) == (0, 2)
            await client.close()

    run(scenario())


def test_acks_0_is_never_answered_and_a_refusal_closes_the_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made) as broker:
            await made.create_topic("t")
            await leads(broker, "t")
            client = await made.connect(broker)
            client.send(ApiKey.PRODUCE, PRODUCE_V, produce("t", {0: batch(b"x")}, acks=0))
            answer = await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce("t", {0: batch(b"y")}))
            assert row(answer).base_offset == 1
            client.send(ApiKey.PRODUCE, PRODUCE_V, produce("no-such", {0: batch(b"x")}, acks=0))
            assert await client.closed()
            await client.close()

    run(scenario())
