"""The simulated network delivers in order, late, not at all or never again, as it is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.simulation.frames import ChannelClosed, FrameChannel
from tests.simulation.loop import Process, VirtualLoop, no_collections, simulate
from tests.simulation.network import SimNetwork, SimStream


class Echo:
    """Answers every frame with itself, and remembers what it got."""

    def __init__(self, loop: VirtualLoop, network: SimNetwork, host: str = "server") -> None:
        self.process = Process(loop, host)
        self.process.on_end(network)
        self.got: list[bytes] = []
        self._network = network
        self.host = host
        self.process.spawn(self._listen())

    async def _listen(self) -> None:
        await self._network.of(self.host).listen(self.host, 1, self._accepted)  # type: ignore[arg-type]

    def _accepted(self, stream: SimStream) -> None:
        def read() -> None:
            try:
                data = stream.take()
            except OSError:
                data = None
            if data is None:
                stream.close()
                return
            self.got.append(data)
            stream.send([data])

        stream.set_reader(read)


def frame(text: str) -> bytes:
    return len(text).to_bytes(4, "big") + text.encode()


def world(test: Callable[[VirtualLoop, SimNetwork, Echo], Awaitable[Any]]) -> Any:
    async def main(loop: VirtualLoop) -> Any:
        network = SimNetwork(loop, random.Random(1))
        echo = Echo(loop, network)
        await asyncio.sleep(0.1)
        return await test(loop, network, echo)

    with no_collections():
        return simulate(main, VirtualLoop())


def test_frames_of_one_connection_stay_in_order_and_take_time() -> None:
    async def test(loop: VirtualLoop, network: SimNetwork, echo: Echo) -> None:
        channel = await FrameChannel.connect(network.of("client"), "server", 1)
        started = loop.time()
        answers = [channel.send(frame(str(number))) for number in range(50)]
        assert [await answer for answer in answers] == [str(number).encode() for number in range(50)]
        assert loop.time() - started >= 2 * network.links.latency_s[0]

    world(test)


def test_what_a_cut_holds_back_arrives_when_it_ends() -> None:
    async def test(loop: VirtualLoop, network: SimNetwork, echo: Echo) -> None:
        channel = await FrameChannel.connect(network.of("client"), "server", 1)
        network.cut("client", "server")
        answer = channel.send(frame("late"))
        await asyncio.sleep(5)
        assert not echo.got
        network.heal("client", "server")
        assert await answer == b"late"

    world(test)


def test_a_cut_has_a_direction() -> None:
    async def test(loop: VirtualLoop, network: SimNetwork, echo: Echo) -> None:
        channel = await FrameChannel.connect(network.of("client"), "server", 1)
        network.cut("server", "client")
        answer = channel.send(frame("heard"))
        await asyncio.sleep(5)
        assert echo.got
        assert not answer.done()
        network.heal("server", "client")
        assert await answer == b"heard"

    world(test)


def test_cuts_add_up() -> None:
    async def test(loop: VirtualLoop, network: SimNetwork, echo: Echo) -> None:
        network.cut("client", "server")
        network.cut("client", "server")
        network.heal("client", "server")
        with pytest.raises(ChannelClosed):
            await FrameChannel.connect(network.of("client"), "server", 1)
        network.heal("client", "server")
        await FrameChannel.connect(network.of("client"), "server", 1)

    world(test)


def test_a_reset_loses_what_was_under_way() -> None:
    async def test(loop: VirtualLoop, network: SimNetwork, echo: Echo) -> None:
        channel = await FrameChannel.connect(network.of("client"), "server", 1)
        answer = channel.send(frame("lost"))
        assert network.reset("client", "server") == 1
        with pytest.raises(ChannelClosed):
            await answer
        await asyncio.sleep(1)
        assert not echo.got
        assert channel.closed

    world(test)


def test_who_dies_hangs_up_and_listens_no_more() -> None:
    async def test(loop: VirtualLoop, network: SimNetwork, echo: Echo) -> None:
        channel = await FrameChannel.connect(network.of("client"), "server", 1)
        echo.process.kill()
        await asyncio.sleep(1)
        assert channel.closed
        with pytest.raises(ChannelClosed):
            await FrameChannel.connect(network.of("client"), "server", 1)

    world(test)


def test_a_client_learns_of_a_death_behind_a_cut_when_it_sends_after_it() -> None:
    async def test(loop: VirtualLoop, network: SimNetwork, echo: Echo) -> None:
        channel = await FrameChannel.connect(network.of("client"), "server", 1)
        network.cut("server", "client")
        echo.process.kill()
        await asyncio.sleep(1)
        assert not channel.closed
        network.heal("server", "client")
        with pytest.raises(ChannelClosed):
            await channel.send(frame("anybody there"))

    world(test)


def test_what_was_sent_arrives_although_its_sender_died() -> None:
    async def test(loop: VirtualLoop, network: SimNetwork, echo: Echo) -> None:
        client = Process(loop, "client")

        async def send() -> None:
            channel = await FrameChannel.connect(network.of("client"), "server", 1)
            channel.send(frame("last words"))
            client.kill()

        client.spawn(send())
        await asyncio.sleep(1)
        assert echo.got == [frame("last words")]

    world(test)


def test_a_request_that_takes_too_long_ends_its_connection() -> None:
    async def test(loop: VirtualLoop, network: SimNetwork, echo: Echo) -> None:
        channel = await FrameChannel.connect(network.of("client"), "server", 1)
        echo.process.pause()
        with pytest.raises(ChannelClosed):
            await channel.ask(frame("hello"), 2.0)
        assert channel.closed

    world(test)
