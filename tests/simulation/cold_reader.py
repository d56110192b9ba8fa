"""A simulated consumer of old records: it begins where the log begins, jumps back, and looks records up by their time.

What lies before its position is in the bucket, mostly. When the others stop it begins once more, at the log start, and
reads everything that there is to its end.

Who uses it: `Simulation`, where a schedule tiers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from tests.simulation import messages
from tests.simulation.consumer import Follower, Position
from tests.simulation.frames import ChannelClosed
from tests.simulation.journal import Lookup, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.client import SimClient
    from tests.simulation.messages import Leader

EARLIEST = -2
_REMEMBERED = 100
"""Records per partition whose times it may ask for."""


class ColdReader:
    """See the module. `epoch_of` says which leader epoch of a partition the store knows."""

    def __init__(
        self,
        client: SimClient,
        partitions: list[TopicPartition],
        *,
        jump_chance: float,
        epoch_of: Callable[[TopicPartition], int],
    ) -> None:
        self.client = client
        self.follower = Follower(client)
        self.follower.on_record = self._saw
        self.finishing: set[TopicPartition] = set()
        """The partitions whose last run has begun."""
        self._partitions = partitions
        self._jump_chance = jump_chance
        self._epoch_of = epoch_of
        self._seen: dict[TopicPartition, deque[tuple[int, int]]] = {
            partition: deque(maxlen=_REMEMBERED) for partition in partitions
        }

    def _saw(self, partition: TopicPartition, offset: int, timestamp: int) -> None:
        self._seen[partition].append((offset, timestamp))

    async def run(self) -> None:
        """Consume until the client's process ends."""
        client, rng = self.client, self.client.rng
        await client.refresh()
        self.follower.assign(dict.fromkeys(self._partitions, 0))
        while True:
            found = await self.follower.poll()
            if not found:
                await asyncio.sleep(rng.uniform(0.02, 0.1))
            if client.stopping:
                for partition in self._partitions:
                    if partition not in self.finishing and await self._to_the_start(partition):
                        self.finishing.add(partition)
            elif rng.random() < self._jump_chance:
                await self._jump(rng.choice(self._partitions))

    async def _jump(self, partition: TopicPartition) -> None:
        position = self.follower.positions[partition]
        how = self.client.rng.choice(("start", "time", "anywhere"))
        if how == "start":
            await self._to_the_start(partition)
        elif how == "time":
            await self._to_a_time(partition)
        else:
            low = self.client.journal.log_starts[partition]
            self.follower.seek(position, self.client.rng.randint(min(low, position.seen), position.seen))

    async def _look_up(
        self, partition: TopicPartition, timestamp: int
    ) -> tuple[Leader, messages.FoundOffset] | None:
        """Ask the leader for an offset; None if it cannot say now."""
        client, journal = self.client, self.client.journal
        leader = client.leader(partition)
        if leader is None:
            await client.refresh()
            return None
        topic, index = partition
        journal.count("offset lookups")
        try:
            answer = await client.ask(
                leader.broker,
                lambda cid, name: messages.list_offsets(cid, name, topic, index, leader.epoch, timestamp),
            )
        except ChannelClosed:
            await client.refresh()
            return None
        found = messages.read_found(answer)
        if found.error:
            journal.count(f"lookup error {found.error}")
            await client.refresh()
            return None
        return leader, found

    async def _to_the_start(self, partition: TopicPartition) -> bool:
        journal = self.client.journal
        answer = await self._look_up(partition, EARLIEST)
        if answer is None:
            return False
        leader, found = answer
        if found.offset > journal.log_starts[partition]:
            journal.violation(
                "log start too high",
                f"{partition} begins at {found.offset} in epoch {leader.epoch}: {journal.log_starts[partition]}",
            )
        self._seek(self.follower.positions[partition], found.offset)
        return True

    async def _to_a_time(self, partition: TopicPartition) -> None:
        seen = self._seen[partition]
        if not seen:
            return
        offset, timestamp = self.client.rng.choice(seen)
        answer = await self._look_up(partition, timestamp)
        if answer is None:
            return
        leader, found = answer
        stale = leader.epoch != self._epoch_of(partition)
        lookup = Lookup(partition, timestamp, offset, found.offset, found.timestamp, stale)
        self.client.journal.lookups.append(lookup)
        if found.offset >= 0:
            self._seek(self.follower.positions[partition], found.offset)

    def _seek(self, position: Position, offset: int) -> None:
        self.client.journal.count("jumps back")
        self.follower.seek(position, offset)
