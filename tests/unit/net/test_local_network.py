"""The real streams against the contract of `seams.network`."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest
from tests.unit.net.support import run, until

from strandline_broker.net.ticker import Ticker
from strandline_broker.seams.local_network import LocalNetwork
from strandline_broker.seams.network import ListenSocket, Network, Stream


async def _pair(network: Network) -> tuple[ListenSocket, Stream, Stream]:
    accepted: list[Stream] = []
    listener = await network.listen("127.0.0.1", 0, accepted.append)
    near = await network.connect(listener.host, listener.port)
    await until(lambda: accepted)
    return listener, near, accepted[0]


def _close(*things: Stream | ListenSocket) -> None:
    for each in things:
        each.close()


def test_bytes_in_both_directions_and_the_end() -> None:
    async def scenario() -> None:
        listener, near, far = await _pair(LocalNetwork())
        assert near.peer == (listener.host, listener.port)
        buffer = memoryview(bytearray(100))
        with pytest.raises(BlockingIOError):
            near.recv_into(buffer)
        arrived: list[bytes] = []

        def read() -> None:
            arrived.append(bytes(buffer[: near.recv_into(buffer)]))

        near.set_reader(read)
        assert far.send([b"ab"]) == 2
        assert far.send([b"c", bytearray(b"d"), memoryview(b"ef")], more=True) == 4
        assert far.send([b"g", b"h"]) == 2
        await until(lambda: b"".join(arrived) == b"abcdefgh")
        far.shutdown_write()
        await until(lambda: arrived[-1] == b"")
        near.set_reader(None)
        near.set_reader(None)
        assert near.send([b"still"]) == 5
        await until(lambda: _try_recv(far, buffer) == 5)
        near.close()
        near.close()
        far.close()
        far.shutdown_write()
        listener.close()
        listener.close()

    run(scenario)


def _try_recv(stream: Stream, buffer: memoryview) -> int:
    try:
        return stream.recv_into(buffer)
    except BlockingIOError:
        return -1


def _send_for_ever(stream: Stream, data: bytes) -> None:
    while True:
        stream.send([data])


def test_a_full_socket_blocks_and_the_writer_says_when_it_goes_on() -> None:
    async def scenario() -> None:
        listener, near, far = await _pair(LocalNetwork())
        data = bytes(1 << 20)
        with pytest.raises(BlockingIOError):
            _send_for_ever(near, data)
        calls: list[None] = []
        near.set_writer(lambda: calls.append(None))
        await asyncio.sleep(0.01)
        assert not calls
        buffer = memoryview(bytearray(1 << 20))
        while not calls:
            _try_recv(far, buffer)
            await asyncio.sleep(0)
        near.set_writer(None)
        assert near.send([b"x"]) == 1
        _close(near, far, listener)

    run(scenario)


def test_an_exception_in_accepted_does_not_end_the_listener(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        accepted: list[Stream] = []

        def take(stream: Stream) -> None:
            if not accepted:
                accepted.append(stream)
                raise RuntimeError("a bug")
            accepted.append(stream)

        listener = await LocalNetwork().listen("127.0.0.1", 0, take)
        first = await LocalNetwork().connect("127.0.0.1", listener.port)
        await until(lambda: len(accepted) == 1)
        second = await LocalNetwork().connect("127.0.0.1", listener.port)
        await until(lambda: len(accepted) == 2)
        assert second.send([b"x"]) == 1
        _close(first, second, *accepted, listener)

    run(scenario)
    assert "could not take over a connection" in caplog.text


def test_connecting_to_nobody() -> None:
    async def scenario() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                await LocalNetwork().connect("127.0.0.1", sock.getsockname()[1])
            with pytest.raises(OSError, match="cannot listen on") as raised:
                await LocalNetwork().listen("127.0.0.1", sock.getsockname()[1], lambda _: None)
            assert raised.value.errno == errno.EADDRINUSE

    run(scenario)


def test_sockets_are_set_up_for_small_answers_and_silent_peers() -> None:
    async def scenario() -> None:
        listener, near, far = await _pair(LocalNetwork())
        for stream in (near, far):
            sock = stream._sock  # type: ignore[attr-defined]
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        _close(near, far, listener)

    run(scenario)


def test_a_ticker_survives_its_callback(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        calls: list[None] = []

        def tick() -> None:
            calls.append(None)
            raise RuntimeError("a bug")

        ticker = Ticker(asyncio.get_running_loop(), 0.001, tick)
        await until(lambda: len(calls) > 2)
        ticker.stop()
        ticker.stop()
        seen = len(calls)
        await asyncio.sleep(0.01)
        assert len(calls) == seen

    run(scenario)
    assert "it goes on" in caplog.text
