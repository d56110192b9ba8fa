"""Requests in, answers out: order, muting, coalescing, and frames however the network cuts them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from tests.unit.net.support import frame, run, serving, turns, until

from strandline_broker.net.handler import Pending
from strandline_broker.seams.disk import Buffer
from strandline_broker.seams.network import Stream


def test_answers_one_request() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            assert await client.ask(b"e1") == b"e1"
            assert await client.ask(b"sparts") == b"sparts"
            assert await client.ask(b"done at once") == b"done at once"

    run(scenario)


def test_many_frames_in_one_recv_are_one_burst_and_keep_their_order() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            bodies = [b"e%d" % number for number in range(500)]
            await client.send(b"".join(map(frame, bodies)))
            assert await client.answers(500) == bodies
            assert here.handler.frames == bodies
            assert here.server.metrics.requests == 500
            # The kernel may cut the segment, but never into 500 pieces.
            assert len(here.handler.bursts) < 20
            assert sum(here.handler.bursts) == 500

    run(scenario)


def test_frames_split_at_every_byte_boundary() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            data = frame(b"e first") + frame(b"e") + frame(b"e third")
            for cut in range(1, len(data)):
                seen = len(here.handler.frames)
                await client.send(data[:cut])
                await here.received(seen // 3 * len(data) + cut)
                await client.send(data[cut:])
                assert await client.answers(3) == [b"e first", b"e", b"e third"]
                assert here.handler.frames[seen:] == [b"e first", b"e", b"e third"]

    run(scenario)


def test_byte_by_byte() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            for count, byte in enumerate(frame(b"e slowly") + frame(b"e again"), 1):
                await client.send(bytes([byte]))
                await here.received(count)
            assert await client.answers(2) == [b"e slowly", b"e again"]

    run(scenario)


def test_answers_wait_behind_a_pending_one() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            await client.send(frame(b"e1") + frame(b"p2") + frame(b"e3") + frame(b"p4") + frame(b"s5"))
            assert await client.answer() == b"e1"
            await until(lambda: len(here.handler.pendings) == 2)
            (second, _), (fourth, _) = here.handler.pendings
            fourth.complete(frame(b"4"))
            await turns()
            assert here.server.metrics.bytes_out == len(frame(b"e1"))
            second.complete(frame(b"2"))
            assert await client.answers(4) == [b"2", b"e3", b"4", b"s5"]

    run(scenario)


def test_any_order_of_completion_gives_the_order_of_requests() -> None:
    async def scenario() -> None:
        async with serving() as here:
            for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]):
                client = await here.client()
                await client.send(
                    b"".join(frame(b"p%d" % number) + frame(b"e%d" % number) for number in range(4))
                )
                await until(lambda: len(here.handler.pendings) == 4)
                pendings, here.handler.pendings = here.handler.pendings, []
                for index in order:
                    pending, body = pendings[index]
                    pending.complete(frame(body))
                    await asyncio.sleep(0)
                expected = [kind + b"%d" % number for number in range(4) for kind in (b"p", b"e")]
                assert await client.answers(8) == expected

    run(scenario)


def test_requests_without_an_answer() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            await client.send(frame(b"n1") + frame(b"p2") + frame(b"n3") + frame(b"p4") + frame(b"e5"))
            await until(lambda: len(here.handler.pendings) == 2)
            here.handler.pendings[1][0].complete(None)
            here.handler.pendings[0][0].complete(frame(b"2"))
            assert await client.answers(2) == [b"2", b"e5"]
            await client.send(frame(b"n6") * 10)
            assert await client.ask(b"e7") == b"e7"

    run(scenario)


def test_mute_stops_handling_and_keeps_what_was_received() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            await client.send(frame(b"m1") + frame(b"m2") + frame(b"e3") + frame(b"e4")[:3])
            await until(lambda: here.handler.pendings)
            await client.send(frame(b"e4")[3:] + frame(b"e5"))
            await turns()
            assert here.handler.frames == [b"m1"]
            here.handler.complete_all()
            assert await client.answer() == b"m1"
            await until(lambda: here.handler.pendings)
            assert here.handler.frames == [b"m1", b"m2"]
            here.handler.complete_all()
            assert await client.answers(4) == [b"m2", b"e3", b"e4", b"e5"]

    run(scenario)


def test_mute_behind_a_pending_answer() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            await client.send(frame(b"p1") + frame(b"m2") + frame(b"e3"))
            await until(lambda: len(here.handler.pendings) == 2)
            here.handler.pendings[1][0].complete(frame(b"m2"))
            await until(lambda: here.handler.frames[-1] == b"e3")
            assert here.server.metrics.bytes_out == 0
            here.handler.pendings[0][0].complete(frame(b"p1"))
            assert await client.answers(3) == [b"p1", b"m2", b"e3"]

    run(scenario)


def test_many_muted_requests_in_one_recv_are_handled_one_after_the_other() -> None:
    async def scenario() -> None:
        async with serving() as here:
            here.handler.complete_at_end_of_burst = True
            client = await here.client()
            bodies = [b"m%d" % number for number in range(300)]
            await client.send(b"".join(map(frame, bodies)))
            assert await client.answers(300) == bodies
            assert set(here.handler.bursts) == {1}

    run(scenario)


def test_completion_in_another_connections_burst_is_sent_with_it() -> None:
    async def scenario() -> None:
        async with serving() as here:
            waiting = await here.client()
            await waiting.send(frame(b"m long poll"))
            await until(lambda: here.handler.pendings)
            producer = await here.client()
            here.handler.complete_at_end_of_burst = True
            assert await producer.ask(b"e record") == b"e record"
            assert await waiting.answer() == b"m long poll"
            # Also when a request itself completes the answers of others, and its own earlier ones.
            here.handler.complete_at_end_of_burst = False
            await waiting.send(frame(b"m again"))
            await until(lambda: here.handler.pendings)
            await producer.send(frame(b"p1") + frame(b"w2"))
            assert await producer.answers(2) == [b"p1", b"w2"]
            assert await waiting.answer() == b"m again"

    run(scenario)


def test_completions_outside_of_bursts_are_coalesced() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            await client.send(b"".join(frame(b"p%d" % number) for number in range(50)))
            await until(lambda: len(here.handler.pendings) == 50)
            (connection,) = here.handler.connections.values()
            counting = _CountingStream(connection._stream)
            connection._stream = cast(Stream, counting)
            here.handler.complete_all()
            assert await client.answers(50) == [b"p%d" % number for number in range(50)]
            assert counting.sends == [50]

    run(scenario)


class _CountingStream:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.sends: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def send(self, parts: Sequence[Buffer], *, more: bool = False) -> int:
        self.sends.append(len(parts))
        return self._stream.send(parts, more=more)


def test_a_long_burst_lets_others_in_between() -> None:
    async def scenario() -> None:
        async with serving(max_requests_per_burst=10) as here:
            client = await here.client()
            bodies = [b"e%d" % number for number in range(95)]
            await client.send(b"".join(map(frame, bodies)))
            assert await client.answers(95) == bodies
            assert max(here.handler.bursts) == 10

    run(scenario)


def test_a_pending_can_be_completed_once_only() -> None:
    pending = Pending()
    pending.complete(None)
    with pytest.raises(RuntimeError, match="twice"):
        pending.complete(None)


def test_completing_after_the_connection_is_gone_does_nothing() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            await client.send(frame(b"p1") + frame(b"p2") + frame(b"p3"))
            await until(lambda: len(here.handler.pendings) == 3)
            here.handler.pendings[1][0].complete(frame(b"2"))
            client.reset()
            await until(lambda: here.handler.lost)
            assert [pending.lost for pending, _ in here.handler.pendings] == [True, True, True]
            here.handler.pendings[0][0].complete(frame(b"1"))
            here.handler.pendings[2][0].complete(None)
            await turns(3)

    run(scenario)
