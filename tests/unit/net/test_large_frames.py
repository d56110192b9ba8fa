"""Requests that need a buffer of their own, and the bound on the memory of all of them."""

from __future__ import annotations

import asyncio
import os
import struct

from tests.unit.net.support import Client, Serving, frame, run, serving, turns, until

from strandline_broker.net.limits import SMALL_FRAME_BYTES
from strandline_broker.net.metrics import CloseReason

MIB = 1 << 20


def test_five_megabytes_arrive_whole() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            body = b"n" + os.urandom(5 * MIB)
            for _ in range(3):
                await client.send(frame(body) + frame(b"e after"))
                assert await client.answer() == b"e after"
            assert here.handler.frames == [body, b"e after"] * 3
            assert here.server._hub.pool.in_use == 0

    run(scenario)


def test_sizes_around_every_border() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            borders = (SMALL_FRAME_BYTES, 16 * 1024, 256 * 1024, 272 * 1024, MIB)
            bodies = [b"e" * (border + delta) for border in borders for delta in (-5, -4, -3, -1, 0, 1)]
            data = b"".join(frame(body) + frame(b"e small") for body in bodies)
            sending = asyncio.create_task(client.send(data))
            for body in bodies:
                assert await client.answer() == body
                assert await client.answer() == b"e small"
            await sending

    run(scenario)


def test_large_frames_cut_anywhere() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            body = b"e" + os.urandom(70_000)
            data = frame(b"e before") + frame(body) + frame(b"e after")
            for cut in (1, 3, 4, 11, 12, 13, 14, 15, 16, 17, 30_000, 70_012, 70_016, 70_017, 70_018, 70_020):
                base = here.server.metrics.bytes_in
                await client.send(data[:cut])
                await here.received(base + cut)
                await client.send(data[cut:])
                assert await client.answers(3) == [b"e before", body, b"e after"]

    run(scenario)


def test_a_large_frame_behind_a_muting_request() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            body = b"e" + os.urandom(300_000)
            await client.send(frame(b"m1") + frame(body)[:100_000])
            await until(lambda: here.handler.pendings)
            here.handler.complete_all()
            await client.send(frame(body)[100_000:])
            assert await client.answers(2) == [b"m1", body]

    run(scenario)


# Seven eighths of this hold three buffers of the class above 1 MiB, and not four.
FOUR_MIB: dict[str, int] = {"max_frame_bytes": MIB, "request_memory_bytes": 4 * MIB}


async def _waiting(here: Serving, count: int) -> None:
    await until(lambda: here.server.metrics.memory_waits == count)


async def _hold_all_buffers(here: Serving) -> list[Client]:
    """Begin as many frames of 1 MiB as there are buffers, and leave them unfinished."""
    holders = []
    for number in range(3):
        holder = await here.client()
        await holder.send(struct.pack(">i", MIB) + b"n" * 100_000)
        await here.received((number + 1) * 100_004)
        holders.append(holder)
    return holders


def test_when_memory_is_used_up_large_requests_wait_in_line_and_small_ones_go_on() -> None:
    async def scenario() -> None:
        async with serving(more=FOUR_MIB) as here:
            holders = await _hold_all_buffers(here)
            waiting = [await here.client() for _ in range(4)]
            for number, client in enumerate(waiting):
                await client.send(struct.pack(">i", 500_000) + b"n%d" % number)
                await _waiting(here, number + 1)
            rest = [asyncio.create_task(client.send(b"n" * (500_000 - 2))) for client in waiting]
            small = await here.client()
            for _ in range(20):
                assert await small.ask(b"e small") == b"e small"
            assert not any(len(body) > 10 for body in here.handler.frames)
            used = here.server._hub.pool.in_use
            assert used <= 4 * MIB + 256 * 1024
            await holders[0].send(b"n" * (MIB - 100_000))
            await asyncio.gather(*rest)
            await until(lambda: len([body for body in here.handler.frames if len(body) == 500_000]) == 4)
            # First come, first served: four came for two places.
            order = [int(body[1:2]) for body in here.handler.frames if len(body) == 500_000]
            assert set(order[:2]) == {0, 1} or order == [0, 1, 2, 3]

    run(scenario)


def test_a_client_that_leaves_the_line_does_not_stop_it() -> None:
    async def scenario() -> None:
        async with serving(more=FOUR_MIB) as here:
            holders = await _hold_all_buffers(here)
            leaving = await here.client()
            await leaving.send(struct.pack(">i", MIB) + b"n")
            await until(lambda: here.server.metrics.memory_waits == 1)
            staying = await here.client()
            body = b"e" + b"s" * 900_000
            sending = asyncio.create_task(staying.send(frame(body)))
            await until(lambda: here.server.metrics.memory_waits == 2)
            leaving.reset()
            holders[1].reset()
            assert await staying.answer() == body
            await sending

    run(scenario)


def test_closing_a_client_that_waits_for_memory() -> None:
    async def scenario() -> None:
        async with serving(more=FOUR_MIB) as here:
            await _hold_all_buffers(here)
            client = await here.client()
            await client.send(frame(b"e first") + struct.pack(">i", MIB) + b"e")
            assert await client.answer() == b"e first"
            await _waiting(here, 1)
            (connection,) = here.handler.connections.values()
            connection.close("fenced")
            assert await client.ended()
            for each in here.server.connections:
                each.close("enough")
            await turns(3)
            assert here.server._hub.pool.in_use == 0

    run(scenario)


def test_slow_holders_are_cut_off_when_others_wait() -> None:
    async def scenario() -> None:
        limits = FOUR_MIB | {"slow_frame_grace_ms": 200, "frame_min_bytes_per_s": 1_000_000}
        async with serving(more=limits) as here:
            holders = await _hold_all_buffers(here)
            await asyncio.sleep(0.4)
            assert not here.handler.lost  # slow, but in nobody's way
            client = await here.client()
            body = b"e" + b"l" * 900_000
            sending = asyncio.create_task(client.send(frame(body)))
            assert await client.answer() == body
            await sending
            assert here.server.metrics.closed[CloseReason.SLOW_FRAME] == 3
            for holder in holders:
                assert await holder.ended()

    run(scenario)


def test_many_kept_rests_fill_the_small_share_and_drain() -> None:
    async def scenario() -> None:
        # The small share is 160 KiB; every muted connection keeps some 50 KB of further requests.
        async with serving(max_frame_bytes=MIB, request_memory_bytes=1_310_720) as here:
            small_share = 1_310_720 // 8
            muted = [await here.client() for _ in range(8)]
            further = frame(b"e" + b"x" * 9_999) * 5
            sending = [asyncio.create_task(client.send(frame(b"m1") + further)) for client in muted]
            await until(lambda: here.server._hub.pool.full)
            await turns(30)
            assert here.server._hub.pool.in_use <= small_share + 256 * 1024
            assert here.server.metrics.memory_waits > 0
            assert len(here.handler.pendings) < 8
            here.handler.complete_at_end_of_burst = True
            here.handler.complete_all()
            for client in muted:
                assert await client.answers(6) == [b"m1"] + [b"e" + b"x" * 9_999] * 5
            await asyncio.gather(*sending)

    run(scenario)


def test_buffers_are_reused() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            pool = here.server._hub.pool
            for _ in range(5):
                assert len(await client.ask(b"e" * 500_000)) == 500_000
            assert [len(free) for free in pool._free.values()] == [1]
            pool.trim()
            pool.trim()
            assert [len(free) for free in pool._free.values()] == [0]
            assert pool._cached == 0
            assert len(await client.ask(b"e" * 500_000)) == 500_000

    run(scenario)
