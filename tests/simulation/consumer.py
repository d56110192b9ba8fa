"""Simulated consumers: they follow partitions from their leaders, jump about, and check what they see at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation import messages
from tests.simulation.client import SimClient
from tests.simulation.frames import ChannelClosed
from tests.simulation.journal import TopicPartition
from tests.simulation.messages import Fetched, FetchFrom, Leader

from strandline_broker.errors import ErrorCode
from strandline_broker.wire.batch import iter_batches, iter_records

MAX_WAIT_MS = 500
MAX_BYTES = 4_000
_OUT_OF_RANGE = int(ErrorCode.OFFSET_OUT_OF_RANGE)
_CORRUPT = int(ErrorCode.CORRUPT_MESSAGE)


@dataclass(slots=True)
class Position:
    """Where a consumer is in one partition. `reader` names one run without jumps for the checkers."""

    partition: TopicPartition
    reader: str
    offset: int = 0
    seen: int = 0
    """The highest offset that any run reached."""
    epoch: int = -1
    high_watermark: int = -1
    """The highest that was told in `epoch`."""
    runs: int = 0


class Follower:
    """Fetches partitions for one client; `Consumer` and group members use it."""

    def __init__(self, client: SimClient) -> None:
        self.client = client
        self.positions: dict[TopicPartition, Position] = {}
        self.on_record: Callable[[TopicPartition, int, int], None] | None = None
        """Told of the partition, offset and timestamp of every record."""

    def assign(self, partitions: dict[TopicPartition, int]) -> None:
        """Follow these partitions from these offsets."""
        self.positions = {}
        for partition, offset in partitions.items():
            self._begin(Position(partition, ""), offset)

    def seek(self, position: Position, offset: int) -> None:
        """Begin a new run elsewhere."""
        self._begin(position, offset)

    def _begin(self, position: Position, offset: int) -> None:
        self.client.journal.count("runs")
        run = self.client.journal.counts["runs"]
        position.reader = f"{self.client.name}#{run}"
        position.offset = offset
        self.positions[position.partition] = position

    async def poll(self) -> int:
        """Fetch once from every leader; return the records seen."""
        client = self.client
        by_leader: dict[int, list[tuple[Position, Leader]]] = defaultdict(list)
        missing = False
        for partition, position in self.positions.items():
            leader = client.leader(partition)
            if leader is None:
                missing = True
            else:
                by_leader[leader.broker].append((position, leader))
        if missing:
            await client.refresh()
        if not by_leader:
            return 0
        polls = [self._poll(broker, wanted) for broker, wanted in by_leader.items()]
        return sum(await asyncio.gather(*polls))

    async def _poll(self, broker: int, wanted: list[tuple[Position, Leader]]) -> int:
        client = self.client
        topics: dict[str, list[FetchFrom]] = defaultdict(list)
        asked: dict[TopicPartition, tuple[Position, Leader, int, str]] = {}
        for position, leader in wanted:
            topic, index = position.partition
            topics[topic].append(FetchFrom(index, leader.epoch, position.offset))
            asked[position.partition] = (position, leader, position.offset, position.reader)
        client.journal.count("fetch requests")
        try:
            answer = await client.ask(
                broker,
                lambda cid, name: messages.fetch(
                    cid, name, list(topics.items()), max_wait_ms=MAX_WAIT_MS, max_bytes=MAX_BYTES
                ),
            )
        except ChannelClosed:
            await client.refresh()
            return 0
        records = 0
        refresh = False
        for fetched in messages.read_fetched(answer):
            position, leader, offset, reader = asked[fetched.topic, fetched.partition]
            if position.reader != reader:
                continue  # it jumped meanwhile
            if fetched.error:
                self._note_error(position, fetched, leader)
                refresh = True
                continue
            self._note_high_watermark(position, fetched, leader)
            records += self._take(position, offset, fetched)
        if refresh:
            await client.refresh()
        return records

    def _note_error(self, position: Position, fetched: Fetched, leader: Leader) -> None:
        journal = self.client.journal
        journal.count(f"fetch error {fetched.error}")
        if fetched.error == _CORRUPT:
            where = f"{position.reader} at {position.partition} offset {position.offset}"
            journal.violation("corrupt record", f"{where}, epoch {leader.epoch}")
        if fetched.error == _OUT_OF_RANGE:
            if position.offset >= journal.log_starts[position.partition]:
                journal.violation(
                    "position out of range",
                    f"{position.reader} at {position.partition} offset {position.offset}, epoch {leader.epoch}",
                )
            self.seek(position, max(0, fetched.log_start))

    def _note_high_watermark(self, position: Position, fetched: Fetched, leader: Leader) -> None:
        """Within one leader epoch the high watermark never falls."""
        if leader.epoch != position.epoch:
            position.epoch = leader.epoch
            position.high_watermark = fetched.high_watermark
        elif fetched.high_watermark < position.high_watermark:
            self.client.journal.violation(
                "high watermark fell",
                f"{position.partition} epoch {leader.epoch}: {position.high_watermark} to {fetched.high_watermark}",
            )
        else:
            position.high_watermark = fetched.high_watermark

    def _take(self, position: Position, asked_offset: int, fetched: Fetched) -> int:
        journal = self.client.journal
        count = 0
        records = fetched.records
        for start, header in iter_batches(records):
            size = header.size
            if start + size > len(records):
                break
            for record in iter_records(records[start : start + size]):
                if record.offset < position.offset:
                    continue  # the batch began before the position
                if record.offset > position.offset:
                    journal.violation(
                        "skipped",
                        f"{position.reader} at {position.partition}: {position.offset} to {record.offset}",
                    )
                journal.polled(position.reader, position.partition, record.offset, record.value or b"")
                if self.on_record is not None:
                    self.on_record(position.partition, record.offset, record.timestamp)
                position.offset = record.offset + 1
                count += 1
        position.seen = max(position.seen, position.offset)
        return count


class Consumer:
    """Follows all partitions of some topics without a group and jumps to random places now and then."""

    def __init__(self, client: SimClient, partitions: list[TopicPartition], *, seek_chance: float) -> None:
        self.client = client
        self.follower = Follower(client)
        self._partitions = partitions
        self._seek_chance = seek_chance

    async def run(self) -> None:
        """Consume until the client's process ends."""
        client = self.client
        await client.refresh()
        self.follower.assign(dict.fromkeys(self._partitions, 0))
        while True:
            found = await self.follower.poll()
            if not found:
                await asyncio.sleep(client.rng.uniform(0.02, 0.1))
            if not client.stopping and client.rng.random() < self._seek_chance:
                position = client.rng.choice(list(self.follower.positions.values()))
                self.follower.seek(position, client.rng.randint(0, position.seen))
