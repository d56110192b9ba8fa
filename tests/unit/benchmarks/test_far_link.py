"""The link that makes a bucket far: its arithmetic, and bytes that pass it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from benchmarks.far_link import HOST, PIECE_BYTES, Link, serve

THERE_S, BACK_S = 0.02, 0.03


@contextlib.asynccontextmanager
async def linked_to(
    address: tuple[str, int],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Task[None]]]:
    """A connection through a link, and the link's task."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(0)
        there, back = Link(float("inf"), THERE_S), Link(1e9, BACK_S)
        serving = asyncio.create_task(serve(listener, address, there, back))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        try:
            yield reader, writer, serving
        finally:
            writer.close()
            serving.cancel()
            await asyncio.wait((serving,))


def test_pieces_leave_one_behind_the_other_and_arrive_a_delay_later() -> None:
    link = Link(1000, 0.25, burst_s=0)
    assert link.send(500, 10.0) == (10.5, 10.75)
    # Of any connection: the link has one clock.
    assert link.send(500, 10.0) == (11.0, 11.25)
    assert link.send(1000, 10.5) == (12.0, 12.25)


def test_an_idle_link_saves_up_no_more_than_its_burst() -> None:
    link = Link(1000, 0, burst_s=0.5)
    assert link.send(500, 100.0).left_s == 100.0
    assert link.send(500, 100.0).left_s == 100.5
    assert link.send(500, 200.0).left_s == 200.0
    assert link.send(500, 200.0).left_s == 200.5


def test_timers_that_are_late_cost_nothing_within_the_burst() -> None:
    def after_100_pieces(burst_s: float) -> float:
        link, left_s = Link(1000, 0, burst_s), 0.0
        for _ in range(100):
            left_s = link.send(100, left_s + 0.05).left_s
        return left_s

    assert after_100_pieces(burst_s=0) == pytest.approx(15.0)
    assert after_100_pieces(burst_s=0.1) == pytest.approx(10.0, abs=0.1)


def test_a_link_without_a_rate_only_delays() -> None:
    link = Link(float("inf"), 0.005)
    assert link.send(1 << 30, 1.0) == (1.0, 1.005)
    assert link.send(1 << 30, 1.0) == (1.0, 1.005)


def test_bytes_pass_unchanged_no_sooner_than_the_round_trip_and_both_ends_are_told_of_the_end() -> None:
    sent = bytes(range(256)) * (3 * PIECE_BYTES // 256)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(echo, HOST, 0)
        async with server, linked_to(server.sockets[0].getsockname()) as (reader, writer, _):
            began = loop.time()
            writer.write(sent)
            writer.write_eof()
            assert await reader.read() == sent
            assert loop.time() - began >= THERE_S + BACK_S

    asyncio.run(run())


def test_a_server_that_is_not_there_closes_the_connection_and_ends_nothing_else() -> None:
    with socket.create_server((HOST, 0)) as gone:
        nobody = gone.getsockname()

    async def run() -> None:
        async with linked_to(nobody) as (reader, _, serving):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert not serving.done()

    asyncio.run(run())
