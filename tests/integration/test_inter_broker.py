"""The listener between brokers, from outside: who gets in, and what nobody else may do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.support import (
    Client,
    Cluster,
    batch,
    cluster,
    fetch,
    leads,
    produce,
    run,
    running,
    until,
)
from tests.unit.peers.support import OTHER_TOKEN, TOKEN, peers_with

from strandline_broker.errors import ErrorCode
from strandline_broker.net.metrics import CloseReason
from strandline_broker.peers.contract import PeerConnection, PeerError
from strandline_broker.server.broker import Broker
from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.fetch_client import decode_fetch_response, encode_fetch_request

INTERNAL = "INTERNAL"
FETCH = ApiKey.FETCH


@contextlib.asynccontextmanager
async def broker_with_internal(directory: Path, **keys: str) -> AsyncIterator[tuple[Cluster, Broker]]:
    token_file = directory / "token"
    token_file.write_text(TOKEN)
    settings = {
        "listeners": f"PLAINTEXT://127.0.0.1:0,{INTERNAL}://127.0.0.1:0",
        "inter_broker_listener_name": INTERNAL,
        "inter_broker_token_file": str(token_file),
        "connection_failed_authentication_delay_ms": "20",
    }
    async with cluster(directory) as made, running(made, **(settings | keys)) as broker:
        yield made, broker


async def peer(broker: Broker, token: str = TOKEN) -> PeerConnection:
    """Connect as another broker would: to where the Lease says."""
    host, port = broker.view.leases[0].listeners[INTERNAL]
    assert (host, port) == broker.server.address(INTERNAL)
    return await peers_with(token).connect(host, port)


def test_nothing_is_answered_without_the_token(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker_with_internal(tmp_path) as (made, broker):
            closed = broker.server.metrics.closed
            requests = [
                cold.encode_request(ApiKey.METADATA, 12, 1, "test", {"topics": None}),
                cold.encode_request(FETCH, 12, 1, "test", fetch("t", {0: 0}, replica_id=1)),
                cold.encode_request(ApiKey.PRODUCE, 9, 1, "test", produce("t", {0: batch(b"x")})),
                cold.encode_request(ApiKey.DELETE_TOPICS, 5, 1, "test", {"topic_names": ["t"]}),
                struct.pack(">i", 4) + b"\0\x01\0\x0c",
            ]
            for number, request in enumerate(requests, 1):
                client = await made.connect(broker, INTERNAL)
                client._writer.write(request)
                assert await client.closed()
                assert closed[CloseReason.UNAUTHENTICATED] == number
                await client.close()
            with pytest.raises(PeerError, match="does not accept our token"):
                await peer(broker, OTHER_TOKEN)
            await until(lambda: closed[CloseReason.AUTHENTICATION_FAILED] == 1)
            client = await made.connect(broker, INTERNAL)
            answer = await client.ask(ApiKey.SASL_HANDSHAKE, 1, {"mechanism": "PLAIN"})
            assert answer.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM, "the token must not be sent"
            assert answer.mechanisms == ("SCRAM-SHA-256",)
            assert await client.closed()
            await client.close()

    run(test())


def test_another_broker_fetches_with_the_token(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker_with_internal(tmp_path) as (made, broker):
            await made.create_topic("t")
            await leads(broker, "t")
            client = await made.connect(broker)
            await client.ask(ApiKey.PRODUCE, 9, produce("t", {0: batch(b"one", b"two")}))
            await client.close()
            connection = await peer(broker)
            topic = broker.view.topics["t"]
            for version in (15, 17, 18):
                body = encode_fetch_request(
                    version,
                    replica_id=-1,
                    replica_epoch=-1,
                    max_wait_ms=0,
                    min_bytes=1,
                    max_bytes=1 << 20,
                    session_id=0,
                    session_epoch=-1,
                    topics=[(topic.topic_id.bytes, [(0, -1, 0, -1, -1, 1 << 20)])],
                    forgotten=[],
                )
                answer = decode_fetch_response(await connection.request(FETCH, version, body), version)
                ((topic_id, (partition,)),) = answer.topics
                assert (answer.error_code, topic_id) == (0, topic.topic_id.bytes)
                assert (partition.index, partition.error_code, partition.high_watermark) == (0, 0, 2)
                assert b"two" in bytes(partition.records)
            connection.close()

    run(test())


async def replica_fetch(client: Client, version: int, topic_id: Any) -> Any:
    body = fetch("t", {0: 0}, replica_id=7)
    if version >= 13:
        body["topics"][0]["topic_id"] = topic_id
    if version >= 15:
        body["replica_state"] = {"replica_id": 7, "replica_epoch": 1}
    return await client.ask(FETCH, version, body)


def test_clients_cannot_fetch_as_a_replica(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker_with_internal(tmp_path) as (made, broker):
            await made.create_topic("t")
            await leads(broker, "t")
            client = await made.connect(broker)
            await client.ask(ApiKey.PRODUCE, 9, produce("t", {0: batch(b"x")}))
            topic_id = broker.view.topics["t"].topic_id
            for version in range(4, 19):
                answer = await replica_fetch(client, version, topic_id)
                assert not answer.responses, version
                if version >= 7:
                    assert answer.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED, version
            # The same as a consumer is fine.
            answer = await client.ask(FETCH, 12, fetch("t", {0: 0}))
            assert answer.responses[0].partitions[0].records
            await client.close()

    run(test())


def test_clients_are_not_told_of_the_listener(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker_with_internal(tmp_path) as (made, broker):
            client = await made.connect(broker)
            public, internal = (broker.server.address(name)[1] for name in ("PLAINTEXT", INTERNAL))
            for key, version, body in (
                (ApiKey.METADATA, 13, {"topics": None}),
                (ApiKey.METADATA, 1, {"topics": None}),
                (ApiKey.DESCRIBE_CLUSTER, 2, {"include_fenced_brokers": True}),
            ):
                answer = await client.ask(key, version, body)
                assert [row.port for row in answer.brokers] == [public]
                assert str(internal) not in repr(answer)
            await client.close()

    run(test())


def test_the_token_is_in_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with broker_with_internal(tmp_path) as (_, broker):
            (await peer(broker)).close()
            with pytest.raises(PeerError):
                await peer(broker, OTHER_TOKEN)
            for value, *_ in broker.config.kafka_configs().values():
                assert TOKEN not in str(value)

    caplog.set_level(logging.DEBUG)
    run(test())
    assert "authentication failed" in caplog.text
    assert TOKEN not in caplog.text
    assert OTHER_TOKEN not in caplog.text


def test_limits_of_clients_do_not_keep_brokers_out(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker_with_internal(tmp_path, max_connections_per_ip="1") as (made, broker):
            client = await made.connect(broker)
            await client.ask(ApiKey.METADATA, 12, {"topics": None})
            connections = await asyncio.gather(*(peer(broker) for _ in range(3)))
            for connection in connections:
                connection.close()
            await client.close()

    run(test())
