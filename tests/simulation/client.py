"""What all simulated clients share: a process, connections to brokers, and metadata that only moves forward."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation import messages
from tests.simulation.frames import ChannelClosed, FrameChannel
from tests.simulation.journal import Journal, TopicPartition
from tests.simulation.messages import Leader
from tests.simulation.seams import EPOCH_MS

if TYPE_CHECKING:
    from tests.simulation.loop import Process
    from tests.simulation.network import HostNetwork

REQUEST_TIMEOUT_S = 4.0
Build = Callable[[int, str], bytes]


class SimClient:
    """One client. `bootstrap` are the addresses of all brokers, live or not."""

    def __init__(
        self,
        name: str,
        *,
        process: Process,
        network: HostNetwork,
        journal: Journal,
        rng: random.Random,
        bootstrap: list[tuple[str, int]],
    ) -> None:
        self.name = name
        self.process = process
        self.journal = journal
        self.rng = rng
        self.loop = asyncio.get_running_loop()
        self.leaders: dict[TopicPartition, Leader] = {}
        self.stopping = False
        """No new work; finish what is under way."""
        self._network = network
        self._bootstrap = bootstrap
        self._brokers: dict[int, tuple[str, int]] = {}
        self._channels: dict[tuple[str, int], FrameChannel] = {}
        self._correlation_id = 0
        self._refreshing: asyncio.Task[None] | None = None

    def now_ms(self) -> int:
        """Return this client's wall clock."""
        return EPOCH_MS + round(self.loop.time() * 1000)

    async def channel(self, broker: int) -> FrameChannel:
        """Return the connection to a broker. Raises ChannelClosed."""
        address = self._brokers.get(broker)
        if address is None:
            raise ChannelClosed(f"broker {broker} is not known")
        return await self._channel(address)

    async def _channel(self, address: tuple[str, int]) -> FrameChannel:
        channel = self._channels.get(address)
        if channel is not None and not channel.closed:
            return channel
        opened = await FrameChannel.connect(self._network, *address)
        other = self._channels.get(address)
        if other is not None and not other.closed:
            opened.close()  # somebody was faster
            return other
        self._channels[address] = opened
        return opened

    def frame(self, build: Build) -> bytes:
        """Return a request frame with a new correlation id."""
        self._correlation_id += 1
        return build(self._correlation_id, self.name)

    async def ask(self, broker: int, build: Build, timeout_s: float = REQUEST_TIMEOUT_S) -> bytes:
        """Send one request and return its answer. Raises ChannelClosed."""
        channel = await self.channel(broker)
        return await channel.ask(self.frame(build), timeout_s)

    async def ask_any(self, build: Build, timeout_s: float = REQUEST_TIMEOUT_S) -> bytes:
        """Send one request to some broker. Raises ChannelClosed."""
        channel = await self._channel(self.rng.choice(self._bootstrap))
        return await channel.ask(self.frame(build), timeout_s)

    async def refresh(self) -> None:
        """Ask for metadata once; concurrent callers share the request. Failures leave it as it was."""
        task = self._refreshing
        if task is None or task.done():
            task = self._refreshing = self.loop.create_task(self._refresh())
        await asyncio.shield(task)

    async def _refresh(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.02, 0.1))
        try:
            found = messages.read_metadata(await self.ask_any(messages.metadata, 2.0))
        except ChannelClosed:
            return
        self._brokers.update(found.brokers)
        for partition, leader in found.leaders.items():
            known = self.leaders.get(partition)
            if known is None or leader.epoch >= known.epoch:
                self.leaders[partition] = leader

    def leader(self, partition: TopicPartition) -> Leader | None:
        """Return the leader with the highest epoch that any broker named, None where there is none."""
        found = self.leaders.get(partition)
        return found if found is not None and found.broker >= 0 else None
