"""Authentication as clients see it: frames, limits, delays, sessions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import struct
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.support import Client, Cluster, cluster, run, running, until
from tests.unit.security.support import ScramClient, entry

from strandline_broker.errors import ErrorCode
from strandline_broker.net.metrics import CloseReason
from strandline_broker.security.credentials import ScramMechanism
from strandline_broker.server.broker import Broker
from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey

API_VERSIONS, METADATA = ApiKey.API_VERSIONS, ApiKey.METADATA
HANDSHAKE, AUTHENTICATE = ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE
ALL = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
EVERYTHING: dict[str, Any] = {"topics": None}


class Here:
    """A broker and the clients to hang up in the end."""

    def __init__(self, made: Cluster, broker: Broker) -> None:
        self.broker = broker
        self.clients: list[Client] = []
        self._made = made

    async def connect(self, listener: str = "SASL_PLAINTEXT") -> Client:
        self.clients.append(await self._made.connect(self.broker, listener))
        return self.clients[-1]

    def closed_for(self, reason: CloseReason) -> int:
        return self.broker.server.metrics.closed[reason]


@contextlib.asynccontextmanager
async def sasl_broker(directory: Path, **keys: str) -> AsyncIterator[Here]:
    users = directory / "users.json"
    users.write_text(json.dumps({"users": {name: entry(f"{name}-geheim") for name in ("alice", "bob")}}))
    settings = {
        "listeners": "SASL_PLAINTEXT://127.0.0.1:0,OPEN://127.0.0.1:0",
        "listener_security_protocol_map": "OPEN:PLAINTEXT",
        "sasl_enabled_mechanisms": ALL,
        "sasl_users_file": str(users),
        "connection_failed_authentication_delay_ms": "20",
    }
    async with cluster(directory) as made, running(made, **(settings | keys)) as broker:
        here = Here(made, broker)
        try:
            yield here
        finally:
            for client in here.clients:
                await client.close()


async def shake(client: Client, mechanism: str = "PLAIN", version: int = 1) -> Any:
    return await client.ask(HANDSHAKE, version, {"mechanism": mechanism})


async def token(client: Client, data: bytes, version: int = 2) -> Any:
    return await client.ask(AUTHENTICATE, version, {"auth_bytes": data})


async def login(client: Client, name: str = "alice", password: str | None = None) -> Any:
    await shake(client)
    return await token(client, f"\0{name}\0{password or f'{name}-geheim'}".encode())


@pytest.mark.parametrize("mechanism", ScramMechanism)
@pytest.mark.parametrize("version", [0, 1, 2])
def test_scram_opens_the_connection(tmp_path: Path, mechanism: ScramMechanism, version: int) -> None:
    async def test() -> None:
        async with sasl_broker(tmp_path) as here:
            client = await here.connect()
            assert await client.ask(
                API_VERSIONS, 3, {"client_software_name": "t", "client_software_version": "1"}
            )
            answer = await shake(client, str(mechanism))
            assert (answer.error_code, answer.mechanisms) == (ErrorCode.NONE, tuple(ALL.split(",")))
            scram = ScramClient(mechanism, "alice", "alice-geheim")
            challenge = await token(client, scram.first(), version)
            assert challenge.error_code == ErrorCode.NONE
            final = await token(client, scram.final(challenge.auth_bytes), version)
            assert (final.error_code, final.error_message) == (ErrorCode.NONE, None)
            assert (await client.ask(METADATA, 12, EVERYTHING)).cluster_id
            (connection,) = here.broker.server.connections
            assert connection.principal == "User:alice"
            assert connection.context is None, "an authenticated connection costs nothing more"
            for late in (await shake(client), await token(client, b"x")):
                assert late.error_code == ErrorCode.ILLEGAL_SASL_STATE
            assert (await client.ask(METADATA, 12, EVERYTHING)).cluster_id, "and stays open"
            await client.close()

    run(test())


def test_a_failure_is_answered_after_a_delay_that_holds_up_nobody_else(tmp_path: Path) -> None:
    async def test() -> None:
        async with sasl_broker(tmp_path, connection_failed_authentication_delay_ms="300") as here:
            wrong, right = await here.connect(), await here.connect()
            began = time.monotonic()
            failing = asyncio.create_task(login(wrong, "alice", "wrong"))
            assert (await login(right)).error_code == ErrorCode.NONE
            assert (await right.ask(METADATA, 12, EVERYTHING)).cluster_id
            assert not failing.done()
            answer = await failing
            assert time.monotonic() - began >= 0.3
            assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
            assert answer.error_message == "Authentication failed: Invalid username or password"
            assert await wrong.closed()
            assert here.closed_for(CloseReason.AUTHENTICATION_FAILED) == 1
            await right.close()

    run(test())


def test_an_unknown_mechanism_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    async def test() -> None:
        async with sasl_broker(tmp_path) as here:
            client = await here.connect()
            answer = await shake(client, "GSSAPI")
            assert answer.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM
            assert answer.mechanisms == tuple(ALL.split(","))
            assert await client.closed()

    run(test())


def test_nothing_else_is_served_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with sasl_broker(tmp_path) as here:
            requests = [
                cold.encode_request(METADATA, 12, 1, "test", EVERYTHING),
                cold.encode_request(
                    ApiKey.PRODUCE, 9, 1, "test", {"acks": 1, "timeout": 1, "topic_data": []}
                ),
                struct.pack(">i", 20) + b"\x60" + bytes(19),  # GSSAPI before there were handshakes
                struct.pack(">i", 1) + b"\0",
            ]
            for number, request in enumerate(requests, 1):
                client = await here.connect()
                client._writer.write(request)
                assert await client.closed()
                assert here.closed_for(CloseReason.UNAUTHENTICATED) == number
            client = await here.connect()
            await shake(client)
            client.send(METADATA, 12, EVERYTHING)
            assert await client.closed(), "nor between handshake and token"
            client = await here.connect()
            answer = await token(client, b"\0alice\0alice-geheim")
            assert answer.error_code == ErrorCode.ILLEGAL_SASL_STATE, "nor a token without a handshake"
            assert await client.closed()

    run(test())
    assert "a METADATA request before authentication" in caplog.text
    assert "something that is no Kafka request before authentication" in caplog.text


def test_raw_tokens_after_a_handshake_of_version_0(tmp_path: Path) -> None:
    async def raw(client: Client, data: bytes) -> bytes:
        client._writer.write(struct.pack(">i", len(data)) + data)
        (size,) = struct.unpack(">i", await client._reader.readexactly(4))
        return await client._reader.readexactly(size)

    async def test() -> None:
        async with sasl_broker(tmp_path) as here:
            client = await here.connect()
            assert (await shake(client, "PLAIN", 0)).error_code == ErrorCode.NONE
            assert await raw(client, b"\0alice\0alice-geheim") == b""
            assert (await client.ask(METADATA, 12, EVERYTHING)).cluster_id
            await client.close()
            client = await here.connect()
            await shake(client, "SCRAM-SHA-256", 0)
            scram = ScramClient(ScramMechanism.SHA_256, "alice", "alice-geheim")
            assert (await raw(client, scram.final(await raw(client, scram.first())))).startswith(b"v=")
            assert (await client.ask(METADATA, 12, EVERYTHING)).cluster_id
            await client.close()
            client = await here.connect()
            await shake(client, "PLAIN", 0)
            client._writer.write(struct.pack(">i", 8) + b"\0alice\0x")
            assert await client.closed(), "a failure has no answer"

    run(test())


def test_what_is_too_large_is_refused_until_the_client_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with sasl_broker(tmp_path, sasl_server_max_receive_size="1024") as here:
            client = await here.connect()
            await shake(client)
            client.send(AUTHENTICATE, 2, {"auth_bytes": b"\0alice\0" + b"x" * 1024})
            assert await client.closed()
            client = await here.connect()
            await login(client)
            names = [{"name": f"topic-{number:04}"} for number in range(200)]
            body = {"topics": names, "allow_auto_topic_creation": False}
            assert len((await client.ask(METADATA, 9, body)).topics) == 200
            await client.close()

    run(test())
    assert "the limit is 1024" in caplog.text


def test_authentication_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    async def test() -> None:
        async with sasl_broker(tmp_path, sasl_authentication_timeout_ms="150") as here:
            silent, slow, known = [await here.connect() for _ in range(3)]
            await shake(slow)
            await login(known)
            assert await silent.closed()
            assert await slow.closed()
            assert here.closed_for(CloseReason.AUTHENTICATION_TIMEOUT) == 2
            assert (await known.ask(METADATA, 12, EVERYTHING)).cluster_id
            await known.close()

    run(test())


def test_clients_that_vanish_leave_nothing_behind(tmp_path: Path) -> None:
    async def test() -> None:
        async with sasl_broker(tmp_path) as here:
            for _ in range(20):
                client = await here.connect()
                await shake(client)
                client.send(AUTHENTICATE, 2, {"auth_bytes": b"\0alice\0wrong"})
                await client.close()
            await until(lambda: not here.broker.server.connections)

    run(test())


def test_sessions_end_unless_the_client_authenticates_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with sasl_broker(tmp_path, connections_max_reauth_ms="1500") as here:
            early, late = await here.connect(), await here.connect()
            assert (await login(early)).session_lifetime == timedelta(milliseconds=1500)
            await login(late)
            began = time.monotonic()
            assert (await early.ask(METADATA, 12, EVERYTHING)).cluster_id
            assert (await login(early)).session_lifetime == timedelta(milliseconds=1500), (
                "again, long before the end"
            )
            assert (await shake(early)).error_code == ErrorCode.ILLEGAL_SASL_STATE, (
                "not twice within a second"
            )
            await asyncio.sleep(began + 1.6 - time.monotonic())
            late.send(METADATA, 12, EVERYTHING)
            assert await late.closed()
            assert here.closed_for(CloseReason.SESSION_EXPIRED) == 1
            answer = await login(early, "bob")
            assert answer.error_message == (
                "Cannot change principals during re-authentication from User.alice: User.bob"
            )
            assert await early.closed()

    run(test())


def test_a_changed_users_file_counts_for_the_next_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strandline_broker.server.sasl.USERS_CHECK_INTERVAL_S", 0.02)

    async def test() -> None:
        async with sasl_broker(tmp_path) as here:
            client = await here.connect()
            await login(client)
            replaced = tmp_path / "new.json"
            replaced.write_text(json.dumps({"users": {"carol": entry("carol-geheim")}}))
            replaced.replace(tmp_path / "users.json")
            service = here.broker._endpoints._sasl
            assert service is not None
            await until(lambda: service._users.current.find("carol", ScramMechanism.SHA_256).known)
            assert (await login(await here.connect(), "carol")).error_code == ErrorCode.NONE
            gone = await login(await here.connect(), "alice")
            assert gone.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
            assert (await client.ask(METADATA, 12, EVERYTHING)).cluster_id, "who is in stays in"

    run(test())


def test_where_nobody_has_to_authenticate(tmp_path: Path) -> None:
    async def test() -> None:
        async with sasl_broker(tmp_path) as here:
            client = await here.connect("OPEN")
            assert (await client.ask(METADATA, 12, EVERYTHING)).cluster_id
            answer = await shake(client)
            assert (answer.error_code, answer.mechanisms) == (ErrorCode.ILLEGAL_SASL_STATE, ())
            assert (await token(client, b"x")).error_code == ErrorCode.ILLEGAL_SASL_STATE
            await client.close()

    run(test())


def test_random_bytes_never_get_in(tmp_path: Path) -> None:
    rng = random.Random(7)

    async def test() -> None:
        async with sasl_broker(tmp_path, connection_failed_authentication_delay_ms="0") as here:
            for number in range(120):
                client = await here.connect()
                if number % 3:
                    await shake(client, ALL.split(",")[number % 3], number % 2)
                data = rng.randbytes(rng.randrange(1, 80))
                client._writer.write(struct.pack(">i", len(data)) + data)
                client.send(METADATA, 12, EVERYTHING)
                with contextlib.suppress(OSError, EOFError):
                    assert b"127.0.0.1" not in await asyncio.wait_for(client._reader.read(), 10)
                await client.close()

    run(test())


def test_no_secret_is_in_any_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sent = list[bytes]()

    async def test() -> None:
        async with sasl_broker(tmp_path) as here:
            for name, password in (
                ("alice", "alice-geheim"),
                ("alice", "wrong-geheim"),
                ("geheim-name", "geheim"),
            ):
                for mechanism in ScramMechanism:
                    client = await here.connect()
                    await shake(client, str(mechanism))
                    scram = ScramClient(mechanism, name, password, nonce="clientgeheim")
                    challenge = await token(client, scram.first())
                    sent.extend((challenge.auth_bytes, scram.final(challenge.auth_bytes)))
                    sent.append((await token(client, sent[-1])).auth_bytes)
                    await client.close()
                client = await here.connect()
                await login(client, name, password)
                await client.close()
            for bad in (
                b"\0geheim",
                b"geheim\0alice\0geheim",
                b"\0alice\0geheim\xff",
                b"\0alice\0" + b"geheim" * 500,
            ):
                client = await here.connect()
                await shake(client)
                await token(client, bad)
                await client.close()
            client = await here.connect()
            await shake(client)
            data = b"\0\x24\0\0\0\0\0\1\xff\xff\0\0\0\x50geheim"  # a token longer than its request
            client._writer.write(struct.pack(">i", len(data)) + data)
            assert await client.closed()

    run(test())
    assert "is User:alice by PLAIN" in caplog.text
    assert "wrong password for user 'alice'" in caplog.text
    assert "no such user" in caplog.text
    assert "geheim" not in caplog.text
    stored = [
        value for made in entry("alice-geheim").values() for value in made.values() if isinstance(value, str)
    ]
    parts = [part.split("=", 1)[1] for data in sent for part in data.decode().split(",") if "=" in part]
    for secret in stored + [part for part in parts if len(part) > 8]:
        assert secret not in caplog.text
