"""Clients that do not read, or ask for more than is answered: memory stays bounded, nothing is lost."""

from __future__ import annotations

import asyncio

from tests.unit.net.support import frame, run, serving, turns, until


def test_a_client_that_never_reads_is_not_read_from() -> None:
    async def scenario() -> None:
        async with serving(output_backlog_bytes=1 << 20) as here:
            here.handler.big = frame(b"b" * 100_000)
            slow = await here.client(receive_buffer=4096)
            count = 1_000  # a hundred megabytes of answers
            sending = asyncio.create_task(slow.send(frame(b"b") * count))
            await until(lambda: here.server.metrics.backlog_pauses > 0)
            (connection,) = here.handler.connections.values()
            seen = -1
            while seen != len(here.handler.frames):
                seen = len(here.handler.frames)
                await turns(50)
            assert seen < count // 2
            assert connection._outbox.size <= (1 << 20) + 100_004
            other = await here.client()
            assert await other.ask(b"e still here") == b"e still here"
            # It was only slow: everything arrives.
            for _ in range(count):
                assert len(await slow.answer()) == 100_000
            await sending
            assert len(here.handler.frames) == count + 1

    run(scenario)


def test_answers_behind_a_pending_one_count_as_backlog() -> None:
    async def scenario() -> None:
        async with serving(output_backlog_bytes=1 << 20) as here:
            here.handler.big = frame(b"b" * 100_000)
            client = await here.client()
            await client.send(frame(b"p first") + frame(b"b") * 100)
            await until(lambda: here.server.metrics.backlog_pauses > 0)
            await turns()
            assert len(here.handler.frames) == 12
            here.handler.complete_all()
            assert await client.answer() == b"p first"
            for _ in range(100):
                assert len(await client.answer()) == 100_000

    run(scenario)


def test_requests_in_flight_are_bounded() -> None:
    async def scenario() -> None:
        async with serving(max_in_flight_requests=10) as here:
            client = await here.client()
            bodies = [b"p%d" % number for number in range(35)]
            await client.send(b"".join(map(frame, bodies)))
            await until(lambda: len(here.handler.pendings) == 10)
            await turns()
            assert len(here.handler.frames) == 10
            # Half of them must be answered before it goes on.
            for _ in range(4):
                pending, body = here.handler.pendings.pop(0)
                pending.complete(frame(body))
            await turns()
            assert len(here.handler.frames) == 10
            here.handler.complete_at_end_of_burst = True
            here.handler.complete_all()
            assert await client.answers(35) == bodies
            assert here.server.metrics.in_flight_pauses >= 1

    run(scenario)


def test_answers_behind_a_pending_one_count_as_in_flight() -> None:
    async def scenario() -> None:
        async with serving(max_in_flight_requests=10) as here:
            client = await here.client()
            await client.send(frame(b"p1") + frame(b"e2") * 30)
            await until(lambda: len(here.handler.frames) == 10)
            await turns()
            assert len(here.handler.frames) == 10
            here.handler.complete_all()
            assert await client.answers(31) == [b"p1"] + [b"e2"] * 30

    run(scenario)


def test_a_client_that_reads_nothing_for_long_is_idle() -> None:
    async def scenario() -> None:
        async with serving(idle_timeout_ms=300, output_backlog_bytes=100_000) as here:
            here.handler.big = frame(b"b" * 20_000_000)
            slow = await here.client(receive_buffer=4096)
            await slow.send(frame(b"b"))
            await until(lambda: here.handler.lost)
            assert here.server._hub.pool.in_use == 0

    run(scenario)


def test_a_throttled_connection_is_answered_and_not_read_for_a_while() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client, other = await here.client(), await here.client()
            await client.send(frame(b"p1"))
            await until(lambda: len(here.handler.pendings) == 1)
            (connection,) = here.handler.connections.values()
            loop = asyncio.get_running_loop()
            since = loop.time()
            connection.throttle(0.2)
            connection.throttle(60.0)  # one pause at a time
            await client.send(frame(b"e2") + frame(b"e3"))
            here.handler.complete_all()
            assert await client.answer() == b"p1", "what was handled is answered"
            assert await other.ask(b"e4") == b"e4", "nobody else is held up"
            assert here.handler.frames == [b"p1", b"e4"]
            assert await client.answers(2) == [b"e2", b"e3"]
            assert loop.time() - since >= 0.19
            assert here.server.metrics.throttles == 1
            assert await client.ask(b"e5") == b"e5"

    run(scenario)


def test_a_throttled_connection_can_end() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            await client.ask(b"e1")
            (connection,) = here.handler.connections.values()
            connection.throttle(0.01)
            connection.close("asked to")
            assert connection.closed
            await asyncio.sleep(0.02)
            assert here.handler.lost == [connection]

    run(scenario)
