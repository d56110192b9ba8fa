"""Listeners, admission, and the end of a server."""

from __future__ import annotations

import asyncio
import os
import resource
import socket

import pytest
from tests.unit.net.support import Client, ScriptedHandler, frame, run, serving, until

from strandline_broker.net.limits import Limits
from strandline_broker.net.metrics import CloseReason
from strandline_broker.net.server import ListenerConfig, Server
from strandline_broker.seams.local_network import LocalNetwork


def test_several_named_listeners() -> None:
    async def scenario() -> None:
        handler = ScriptedHandler()
        server = Server(LocalNetwork(), handler, Limits(max_connections=1))
        host, outside = await server.open(ListenerConfig("OUTSIDE", "127.0.0.1", 0))
        _, inside = await server.open(ListenerConfig("INSIDE", "127.0.0.1", 0, internal=True))
        assert (host, outside) == server.address("OUTSIDE")
        with pytest.raises(ValueError, match="open already"):
            await server.open(ListenerConfig("INSIDE", "127.0.0.1", 0))
        client = await Client.connect(outside)
        assert await client.ask(b"e") == b"e"
        # Clients cannot use up the connections of brokers.
        broker = await Client.connect(inside)
        assert await broker.ask(b"e") == b"e"
        refused = await Client.connect(outside)
        assert await refused.ended()
        first, second = handler.connections.values()
        assert (first.listener.name, first.listener.internal) == ("OUTSIDE", False)
        assert (second.listener.name, second.listener.internal) == ("INSIDE", True)
        assert first.peer == client.sock.getsockname()
        assert first.principal == "User:ANONYMOUS"
        assert server.metrics.open_by_listener == {"OUTSIDE": 1, "INSIDE": 1}
        assert len(server.connections) == 2
        for each in (client, broker, refused):
            each.close()
        await server.close(grace_ms=100)
        with pytest.raises(ConnectionRefusedError):
            await Client.connect(outside)

    run(scenario)


def test_brokers_may_share_an_address() -> None:
    async def scenario() -> None:
        handler = ScriptedHandler()
        server = Server(LocalNetwork(), handler, Limits(max_connections_per_address=1))
        _, outside = await server.open(ListenerConfig("OUTSIDE", "127.0.0.1", 0))
        _, inside = await server.open(ListenerConfig("INSIDE", "127.0.0.1", 0, internal=True))
        clients = [await Client.connect(port) for port in (outside, inside, inside, outside)]
        for client in clients[:3]:
            assert await client.ask(b"e") == b"e"
        assert await clients[3].ended()
        assert server.metrics.closed[CloseReason.ADDRESS_LIMIT] == 1
        for client in clients:
            client.close()
        await server.close(grace_ms=100)

    run(scenario)


def test_a_taken_port_says_so() -> None:
    async def scenario() -> None:
        async with serving() as here:
            server = here.server
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{here.port}"):
                await server.open(ListenerConfig("SECOND", "127.0.0.1", here.port))
            with pytest.raises(KeyError):
                server.address("SECOND")
            assert "SECOND" not in server.metrics.open_by_listener

    run(scenario)


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6_and_all_addresses() -> None:
    async def scenario() -> None:
        handler = ScriptedHandler()
        server = Server(LocalNetwork(), handler)
        try:
            await server.open(ListenerConfig("SIX", "::1", 0))
        except OSError:
            await server.close()
            pytest.skip("no IPv6 loopback here")
        await server.open(ListenerConfig("ALL", "", 0))
        await server.open(ListenerConfig("NAME", "localhost", 0))
        clients = []
        for name, host in [("SIX", "::1"), ("ALL", "127.0.0.1"), ("ALL", "::1"), ("NAME", "127.0.0.1")]:
            client = await Client.connect(server.address(name)[1], host=host)
            assert await client.ask(b"e") == b"e"
            clients.append(client)
        peers = [connection.peer[0] for connection in handler.connections.values()]
        assert peers == ["::1", "127.0.0.1", "::1", "127.0.0.1"]
        for client in clients:
            client.close()
        await server.close()

    run(scenario)


def test_accepting_goes_on_after_running_out_of_descriptors() -> None:
    async def scenario() -> None:
        async with serving() as here:
            before = await here.client()
            assert await before.ask(b"e") == b"e"
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            sock = socket.socket()
            sock.settimeout(0)
            client = Client(sock)
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
            holders = [os.dup(0) for _ in range(highest)]  # no free descriptor below the limit
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (max(holders) + 1, hard))
                with pytest.raises(OSError, match="Too many open files"):
                    os.close(os.dup(0))
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", here.port))
                await until(lambda: here.server.metrics.accept_errors > 0)
                assert await before.ask(b"e still here") == b"e still here"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for holder in holders:
                    os.close(holder)
            assert await client.ask(b"e accepted at last") == b"e accepted at last"
            assert here.server.metrics.accept_errors < 10
            client.close()

    run(scenario)


def test_close_sends_open_answers_first() -> None:
    async def scenario() -> None:
        async with serving() as here:
            clients = [await here.client() for _ in range(3)]
            here.handler.big = frame(b"b" * 3_000_000)
            await clients[0].send(frame(b"p1") + frame(b"b"))
            await clients[1].send(frame(b"m1") + frame(b"e not handled any more"))
            assert await clients[2].ask(b"e") == b"e"
            await until(lambda: len(here.handler.pendings) == 2)
            closing = asyncio.create_task(here.server.close(grace_ms=5_000))
            assert await clients[2].ended()
            clients[2].close()
            with pytest.raises(ConnectionRefusedError):
                await here.client()
            assert not closing.done()
            here.handler.complete_all()
            assert await clients[0].answer() == b"p1"
            assert len(await clients[0].answer()) == 3_000_000
            assert await clients[1].answer() == b"m1"
            clients[0].close()
            clients[1].close()
            await closing
            assert b"e not handled any more" not in here.handler.frames
            assert len(here.handler.lost) == 3
            assert here.server.metrics.closed[CloseReason.SHUTDOWN] == 3
            await here.server.close()

    run(scenario)


def test_close_does_not_wait_beyond_its_deadline() -> None:
    async def scenario() -> None:
        async with serving() as here:
            stuck = await here.client()
            await stuck.send(frame(b"p never answered"))
            await until(lambda: here.handler.pendings)
            loop = asyncio.get_running_loop()
            started = loop.time()
            await here.server.close(grace_ms=150)
            assert 0.1 < loop.time() - started < 5
            assert here.handler.pendings[0][0].lost
            assert here.server.metrics.connections_open == 0

    run(scenario)


def test_close_reads_what_is_left_so_that_answers_are_not_lost() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client(receive_buffer=4096)
            await client.send(frame(b"m1"))
            await until(lambda: here.handler.pendings)
            # Unread requests in the server's socket would make close(2) reset the connection.
            await client.send(frame(b"e" * 100_000))
            here.handler.pendings[0][0].complete(frame(b"b" * 1_000_000))
            closing = asyncio.create_task(here.server.close(grace_ms=5_000))
            await asyncio.sleep(0.05)
            assert len(await client.answer()) == 1_000_000
            assert await client.ended()
            client.close()
            await closing
            assert here.handler.frames == [b"m1"]

    run(scenario)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"max_connections": 0}, "max_connections must be positive"),
        ({"max_frame_bytes": 300 * 1024 * 1024}, "at most 268435456"),
        ({"receive_buffer_bytes": 1000}, "receive_buffer_bytes must be at least"),
        ({"request_memory_bytes": 100 * 1024 * 1024}, "request_memory_bytes must be at least"),
    ],
)
def test_limits_that_cannot_work_are_refused(limits: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Limits(**limits)
