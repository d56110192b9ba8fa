"""What strangers can send, and that it ends with their own connection."""

from __future__ import annotations

import asyncio
import logging
import struct

import pytest
from tests.unit.net.support import Client, ScriptedHandler, frame, run, serving, turns, until

from strandline_broker.net.metrics import CloseReason

TLS_HELLO = bytes.fromhex("16030100f8010000f40303") + bytes(200)


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (struct.pack(">i", 0), CloseReason.BAD_LENGTH, "a request of 0 bytes"),
        (struct.pack(">i", -1), CloseReason.BAD_LENGTH, "a request of -1 bytes"),
        (struct.pack(">i", -(1 << 31)), CloseReason.BAD_LENGTH, "a request of -2147483648 bytes"),
        (struct.pack(">i", 104_857_601), CloseReason.TOO_LARGE, "the limit is 104857600"),
        (b"\x7f\xff\xff\xff" + bytes(1000), CloseReason.TOO_LARGE, "2147483647"),
        (TLS_HELLO, CloseReason.TLS_ON_PLAIN, "a TLS client on a listener without TLS"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", CloseReason.HTTP_ON_PLAIN, "an HTTP client"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", CloseReason.HTTP_ON_PLAIN, "an HTTP client"),
        (frame(b"v"), CloseReason.MALFORMED, "beyond the frame"),
        (frame(b"x"), CloseReason.HANDLER_ERROR, "the request handler failed"),
    ],
)
def test_bad_bytes_close_their_connection_with_a_reason(
    data: bytes, kind: CloseReason, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving() as here:
            good = await here.client()
            bad = await here.client()
            await good.send(frame(b"m waiting"))
            await bad.send(data)
            assert await bad.ended()
            await until(lambda: here.handler.lost)
            assert here.server.metrics.closed[kind] == 1
            here.handler.complete_all()
            assert await good.answer() == b"m waiting"
            assert len(here.handler.lost) == 1

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert text in caplog.text
    assert "127.0.0.1" in caplog.text


def test_what_came_before_a_bad_request_is_answered() -> None:
    async def scenario() -> None:
        async with serving() as here:
            for bad in (frame(b"v"), frame(b"x"), struct.pack(">i", -5)):
                client = await here.client()
                await client.send(frame(b"e1") + frame(b"n2") + frame(b"e3") + bad + frame(b"e not handled"))
                assert await client.answers(2) == [b"e1", b"e3"]
                assert await client.ended()
            assert b"e not handled" not in here.handler.frames
            # What the handler began for a request that then failed is finished like everything else.
            client = await here.client()
            await client.send(frame(b"x alone"))
            assert await client.ended()
            assert sum(here.handler.bursts) == len(here.handler.frames)

    run(scenario)


def test_the_handler_may_close_after_its_answer() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            await client.send(frame(b"c bye") + frame(b"e ignored"))
            assert await client.answer() == b"c bye"
            assert await client.ended()
            assert here.handler.frames == [b"c bye"]
            # Also from outside of a burst, and twice.
            other = await here.client()
            assert await other.ask(b"e") == b"e"
            connection = next(c for c in here.handler.connections.values() if not c.closed)
            connection.close("fenced")
            connection.close("fenced again")
            assert connection.closed
            assert await other.ended()
            assert here.server.metrics.closed[CloseReason.HANDLER] == 2

    run(scenario)


def test_a_failing_end_of_burst_closes_only_the_connection_that_caused_it() -> None:
    async def scenario() -> None:
        async with serving() as here:
            good, bad = await here.client(), await here.client()
            assert await good.ask(b"e") == b"e"
            here.handler.fail_at_end_of_burst = True
            await bad.send(frame(b"p"))
            assert await bad.ended()
            here.handler.fail_at_end_of_burst = False
            assert await good.ask(b"e") == b"e"

    run(scenario)


def test_a_failing_connection_lost_harms_nobody() -> None:
    class Failing(ScriptedHandler):
        def connection_lost(self, conn: object, /) -> None:
            raise RuntimeError("a bug")

    async def scenario() -> None:
        async with serving(handler=Failing()) as here:
            good, bad = await here.client(), await here.client()
            await bad.send(frame(b"v"))
            assert await bad.ended()
            assert await good.ask(b"e") == b"e"

    run(scenario)


async def _send_slowly(client: Client, data: bytes) -> None:
    for byte in data:
        await client.send(bytes([byte]))
        await asyncio.sleep(0.02)


def test_slow_loris_is_cut_off_whatever_part_of_a_frame_it_sent() -> None:
    async def scenario() -> None:
        async with serving(
            frame_timeout_ms=200, slow_frame_grace_ms=200, frame_min_bytes_per_s=1 << 24
        ) as here:
            good = await here.client()
            for data in (b"\x00", b"\x00\x00\x00", frame(b"e" * 100)[:50], frame(b"e" * 200_000)[:100]):
                slow = await here.client()
                await slow.send(data)
                assert await slow.ended()
                assert await good.ask(b"e") == b"e"
            # One byte now and then does not help: the time counts from the start of the frame.
            slow = await here.client()
            with pytest.raises(ConnectionError):
                await _send_slowly(slow, frame(b"e" * 10_000))
            assert here.server.metrics.closed[CloseReason.SLOW_FRAME] == 5
            assert await good.ask(b"e") == b"e"

    run(scenario)


def test_complete_requests_at_a_slow_pace_are_no_slow_loris() -> None:
    async def scenario() -> None:
        async with serving(frame_timeout_ms=150, slow_frame_grace_ms=150) as here:
            client = await here.client()
            data = frame(b"e1") + frame(b"e2")
            await client.send(data[:5])
            for _ in range(12):  # always in the middle of a frame, but never for long in the same one
                await asyncio.sleep(0.05)
                await client.send(data[5:] + data[:5])
                assert len(await client.answers(2)) == 2
            assert not here.handler.lost

    run(scenario)


def test_time_while_we_do_not_read_does_not_count_against_a_frame() -> None:
    async def scenario() -> None:
        async with serving(frame_timeout_ms=150, slow_frame_grace_ms=150) as here:
            client = await here.client()
            await client.send(frame(b"m") + frame(b"e" * 100)[:50])
            await until(lambda: here.handler.pendings)
            await asyncio.sleep(0.4)
            here.handler.complete_all()
            assert await client.answer() == b"m"
            await client.send(frame(b"e" * 100)[50:])
            assert await client.answer() == b"e" * 100

    run(scenario)


def test_nor_does_time_while_too_much_is_unsent() -> None:
    async def scenario() -> None:
        async with serving(
            frame_timeout_ms=150, slow_frame_grace_ms=150, output_backlog_bytes=100_000
        ) as here:
            client = await here.client()
            await client.send(frame(b"p1") + frame(b"p2") + frame(b"e" * 100)[:50])
            await until(lambda: len(here.handler.pendings) == 2)
            here.handler.pendings[1][0].complete(frame(b"b" * 200_000))
            assert here.server.metrics.backlog_pauses == 1
            await asyncio.sleep(0.4)
            here.handler.pendings[0][0].complete(frame(b"1"))
            assert await client.answer() == b"1"
            assert len(await client.answer()) == 200_000
            await client.send(frame(b"e" * 100)[50:])
            assert await client.answer() == b"e" * 100

    run(scenario)


def test_idle_connections_are_closed_but_not_those_that_wait_for_an_answer() -> None:
    async def scenario() -> None:
        async with serving(idle_timeout_ms=300) as here:
            idle, waiting, busy = [await here.client() for _ in range(3)]
            await waiting.send(frame(b"m"))
            async with asyncio.timeout(10):
                while not here.handler.lost:
                    assert await busy.ask(b"e") == b"e"
                    await asyncio.sleep(0.02)
            assert await idle.ended()
            here.handler.complete_all()
            assert await waiting.answer() == b"m"
            assert here.server.metrics.closed[CloseReason.IDLE] == 1

    run(scenario)


def test_a_half_closed_client_still_gets_its_answers() -> None:
    async def scenario() -> None:
        async with serving() as here:
            client = await here.client()
            await client.send(frame(b"p1") + frame(b"e2"))
            client.sock.shutdown(1)
            await until(lambda: here.handler.pendings)
            await turns()
            assert not here.handler.lost
            here.handler.complete_all()
            assert await client.answers(2) == [b"p1", b"e2"]
            assert await client.ended()
            assert here.server.metrics.closed[CloseReason.PEER_CLOSED] == 1

    run(scenario)


def test_a_half_closed_client_is_not_waited_for_forever() -> None:
    async def scenario() -> None:
        async with serving(half_close_timeout_ms=200) as here:
            client = await here.client()
            await client.send(frame(b"p1") + b"\x00\x00")
            client.sock.shutdown(1)
            assert await client.ended()
            assert here.handler.pendings[0][0].lost

    run(scenario)


def test_limit_per_address_and_total() -> None:
    async def scenario() -> None:
        async with serving(max_connections=5, max_connections_per_address=3) as here:
            first = [await here.client(source="127.0.0.1") for _ in range(3)]
            for client in first:
                assert await client.ask(b"e") == b"e"
            assert await (await here.client(source="127.0.0.1")).ended()
            second = [await here.client(source="127.0.0.2") for _ in range(2)]
            for client in second:
                assert await client.ask(b"e") == b"e"
            assert await (await here.client(source="127.0.0.3")).ended()
            assert here.server.metrics.closed[CloseReason.ADDRESS_LIMIT] == 1
            assert here.server.metrics.closed[CloseReason.CONNECTION_LIMIT] == 1
            first[0].close()
            await until(lambda: here.handler.lost)
            assert await (await here.client(source="127.0.0.1")).ask(b"e") == b"e"

    run(scenario)


def test_logs_do_not_grow_with_the_number_of_bad_clients(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving() as here:
            for _ in range(100):
                client = await here.client()
                await client.send(struct.pack(">i", -1))
                assert await client.ended()

    with caplog.at_level(logging.INFO):
        run(scenario)
    assert len(caplog.records) == 10


def test_a_good_client_goes_on_beside_all_of_them() -> None:
    async def scenario() -> None:
        limits = {
            "max_frame_bytes": 1 << 20,
            "request_memory_bytes": 4 << 20,
            "output_backlog_bytes": 1 << 20,
        }
        async with serving(
            frame_timeout_ms=500, slow_frame_grace_ms=300, half_close_timeout_ms=300, more=limits
        ) as here:
            here.handler.big = frame(b"b" * 500_000)
            stop = asyncio.Event()

            async def misbehave(data: bytes, *, reset: bool = False, half_close: bool = False) -> None:
                while not stop.is_set():
                    client = await here.client(receive_buffer=4096)
                    try:
                        await client.send(data)
                        if half_close:
                            client.sock.shutdown(1)
                        await asyncio.sleep(0.05)
                    except OSError:
                        pass
                    if reset:
                        client.reset()
                    else:
                        client.close()

            bad = [
                misbehave(struct.pack(">i", -1)),
                misbehave(struct.pack(">i", 1 << 30) + bytes(5000)),
                misbehave(frame(b"v")),
                misbehave(frame(b"x"), reset=True),
                misbehave(frame(b"e" * 900_000)[:300_000]),
                misbehave(frame(b"e" * 900_000)[:300_000], reset=True),
                misbehave(frame(b"e" * 1000)[:500], half_close=True),
                misbehave(frame(b"b") * 50, reset=True),
                misbehave(frame(b"b") * 50, half_close=True),
                misbehave(TLS_HELLO),
                misbehave(b"GET / HTTP/1.1\r\n\r\n"),
                misbehave(b""),
            ]
            tasks = [asyncio.create_task(one) for one in bad]
            loris = [await here.client() for _ in range(3)]
            for client in loris:
                await client.send(frame(b"e" * 1_000_000)[:1000])
            good = await here.client()
            large = b"e" + b"L" * 800_000
            for number in range(60):
                body = b"e%d" % number
                assert await good.ask(body) == body
                await asyncio.sleep(0.005)
                if number % 10 == 0:
                    sending = asyncio.create_task(good.send(frame(large)))
                    assert await good.answer() == large
                    await sending
            stop.set()
            await asyncio.gather(*tasks)
            assert here.server.metrics.closed[CloseReason.BAD_LENGTH] > 0

    run(scenario)
