"""Simulated producers: idempotent ones that retry in order until everything is acknowledged, and careless ones.

An `IdempotentProducer` behaves as librdkafka with `enable.idempotence`: up to five batches of a partition under way, each
with its sequence number; after a failure everything that is not acknowledged is sent again, in order, with the numbers it
had. It never gives up, so at the end every record that it was given must be in the log exactly once.

A `CarelessProducer` uses acks=1, no sequence numbers and no retries: what it is told may be lost, but never doubled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.crash.history import UNKNOWN_OFFSET, Key
from tests.simulation import messages
from tests.simulation.client import Build, SimClient
from tests.simulation.frames import ChannelClosed
from tests.simulation.journal import TopicPartition, value_of

from strandline_broker.errors import ErrorCode
from strandline_broker.wire.batch import Record, build_batch

MAX_IN_FLIGHT = 5
REQUEST_TIMEOUT_MS = 3_000
_BACKOFF_S = (0.05, 0.2)

# What a client retries (Kafka's RetriableException and what librdkafka adds).
RETRIABLE = frozenset(
    {
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.UNKNOWN_LEADER_EPOCH,
    }
)
_SEQUENCE_GAP = int(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER)
_DUPLICATE = int(ErrorCode.DUPLICATE_SEQUENCE_NUMBER)
_retriable = frozenset(map(int, RETRIABLE))


@dataclass(slots=True)
class _Batch:
    keys: list[Key]
    data: bytes
    answer: asyncio.Future[bytes] | None = None
    acked: bool = False


@dataclass(slots=True)
class Lane:
    """One partition of an idempotent producer."""

    partition: TopicPartition
    interval_s: float
    window: int
    next_number: int = 0
    queue: deque[_Batch] = field(default_factory=deque)
    sent_to: int = -1

    @property
    def idle(self) -> bool:
        """Whether everything is acknowledged."""
        return not self.queue


class IdempotentProducer:
    """See the module. `lanes` are the partitions that it writes to."""

    def __init__(
        self, client: SimClient, lanes: list[Lane], holds: Callable[[TopicPartition, Key], bool]
    ) -> None:
        """`holds` says whether the leader of a partition has a record; see `_take`."""
        self.client = client
        self.lanes = lanes
        self._holds = holds
        self._producer_id = -1
        self._epoch = -1

    @property
    def stuck(self) -> list[str]:
        """What is not acknowledged yet."""
        return [
            f"{self.client.name} {lane.partition}: {len(lane.queue)}" for lane in self.lanes if lane.queue
        ]

    async def run(self) -> None:
        """Produce until the client stops, then finish."""
        await self._initialize()
        async with asyncio.TaskGroup() as tasks:
            for lane in self.lanes:
                tasks.create_task(self._run_lane(lane))

    async def _initialize(self) -> None:
        client = self.client
        while True:
            try:
                error, producer_id, epoch = messages.read_producer_id(
                    await client.ask_any(messages.init_producer_id)
                )
            except ChannelClosed:
                error = int(ErrorCode.NETWORK_EXCEPTION)
            if not error:
                break
            await asyncio.sleep(client.rng.uniform(0.1, 0.5))
        client.journal.event(f"{client.name} has producer id {producer_id}")
        self._producer_id, self._epoch = producer_id, epoch

    async def _run_lane(self, lane: Lane) -> None:
        client = self.client
        due = client.loop.time() + client.rng.uniform(0, lane.interval_s)
        while True:
            now = client.loop.time()
            while not client.stopping and now >= due and len(lane.queue) < lane.window:
                self._add(lane)
                due += lane.interval_s * client.rng.uniform(0.3, 1.7)
            due = max(due, now)  # what was not sent in time is not sent in a burst
            if not lane.queue:
                if client.stopping:
                    return
                await asyncio.sleep(due - now)
                continue
            if not await self._send(lane):
                await self._retry(lane)
                continue
            head = lane.queue[0]
            assert head.answer is not None
            if not client.stopping and len(lane.queue) < lane.window and not head.answer.done():
                await asyncio.wait([head.answer], timeout=max(0.0, due - client.loop.time()))
                if not head.answer.done():
                    continue
            await self._settle(lane)

    def _add(self, lane: Lane) -> None:
        client = self.client
        first = lane.next_number
        count = client.rng.choice((1, 1, 1, 2, 3))
        lane.next_number += count
        name = f"{client.name}:{lane.partition[0]}:{lane.partition[1]}"
        keys = [Key(name, number) for number in range(first, first + count)]
        for key in keys:
            client.journal.sent(lane.partition, key)
        now_ms = client.now_ms()
        data = build_batch(
            [Record(timestamp=now_ms, value=value_of(key)) for key in keys],
            producer_id=self._producer_id,
            producer_epoch=self._epoch,
            base_sequence=first,
        )
        lane.queue.append(_Batch(keys, data))

    async def _send(self, lane: Lane) -> bool:
        """Send what is not under way; return whether the connection took it."""
        client = self.client
        leader = client.leader(lane.partition)
        if leader is None:
            return False
        if lane.sent_to not in (-1, leader.broker):
            return False  # what is under way at the last leader has to come back first
        try:
            channel = await client.channel(leader.broker)
            for batch in lane.queue:
                if batch.answer is None and not batch.acked:
                    batch.answer = channel.send(client.frame(_request(lane.partition, batch.data, -1)))
                    lane.sent_to = leader.broker
                    client.journal.count("produce requests")
                    client.loop.call_later(2 * REQUEST_TIMEOUT_MS / 1000, _give_up, batch.answer, channel)
        except ChannelClosed:
            return False
        return True

    async def _settle(self, lane: Lane) -> None:
        """Take the answer for the oldest batch."""
        head = lane.queue[0]
        assert head.answer is not None
        try:
            produced = messages.read_produced(await head.answer)
        except ChannelClosed:
            await self._retry(lane)
            return
        if not self._take(lane, head, produced, is_head=True):
            await self._retry(lane)
        while lane.queue and lane.queue[0].acked:
            lane.queue.popleft()

    def _take(self, lane: Lane, batch: _Batch, produced: messages.Produced, *, is_head: bool) -> bool:
        """Book an answer; return whether the batch is acknowledged."""
        client = self.client
        error = produced.error
        if error in (0, _DUPLICATE):
            if not batch.acked:
                batch.acked = True
                unknown = error or produced.base_offset < 0
                for position, key in enumerate(batch.keys):
                    offset = UNKNOWN_OFFSET if unknown else produced.base_offset + position
                    client.journal.acked(lane.partition, key, offset)
                client.journal.count("acked batches")
            return True
        client.journal.count(f"produce error {error}")
        if error == _SEQUENCE_GAP and not is_head:
            return False
        if error == _SEQUENCE_GAP and self._holds(lane.partition, batch.keys[-1]):
            # A known weakness, Kafka's too: of each producer a snapshot keeps the last batch only, so a leader that was
            # started from one does not know older batches again. A client could only send them under a new epoch, twice.
            client.journal.count("retries not recognised")
            batch.acked = True
            return True
        if error not in _retriable:
            first = batch.keys[0]
            client.journal.violation(
                "producer refused", f"{first} in {lane.partition}: {ErrorCode(error).name}"
            )
        return False

    async def _retry(self, lane: Lane) -> None:
        """Wait for what is under way, look for the leader, and mark everything unsent, in order."""
        client = self.client
        for batch in lane.queue:
            if batch.answer is not None:
                try:
                    produced = messages.read_produced(await batch.answer)
                except ChannelClosed:
                    pass
                else:
                    self._take(lane, batch, produced, is_head=False)
                batch.answer = None
        while lane.queue and lane.queue[0].acked:
            lane.queue.popleft()
        lane.sent_to = -1
        await asyncio.sleep(client.rng.uniform(*_BACKOFF_S))
        await client.refresh()


def _request(partition: TopicPartition, batch: bytes, acks: int) -> Build:
    topic, index = partition
    return lambda cid, name: messages.produce(cid, name, topic, index, batch, acks, REQUEST_TIMEOUT_MS)


def _give_up(answer: asyncio.Future[bytes], channel: object) -> None:
    """End a connection on which a request takes too long."""
    if not answer.done():
        channel.close()  # type: ignore[attr-defined]


class CarelessProducer:
    """See the module."""

    def __init__(self, client: SimClient, partitions: list[TopicPartition], interval_s: float) -> None:
        self.client = client
        self._partitions = partitions
        self._interval_s = interval_s
        self._number = 0

    async def run(self) -> None:
        """Produce until the client stops."""
        client = self.client
        await client.refresh()
        while not client.stopping:
            await asyncio.sleep(self._interval_s * client.rng.uniform(0.3, 1.7))
            partition = client.rng.choice(self._partitions)
            leader = client.leader(partition)
            if leader is None:
                await client.refresh()
                continue
            # A name of its own: order is promised to nobody here.
            key = Key(f"{client.name}:{self._number}", 0)
            self._number += 1
            client.journal.sent(partition, key)
            data = build_batch([Record(timestamp=client.now_ms(), value=value_of(key))])
            try:
                answer = await client.ask(leader.broker, _request(partition, data, 1))
                client.journal.count("acks=1 requests")
                if messages.read_produced(answer).error:
                    await client.refresh()
            except ChannelClosed:
                await client.refresh()


class UncleanWriter:
    """Writes to a partition that may lose what it acknowledges; nobody is told what was, or whether it was."""

    def __init__(self, client: SimClient, partition: TopicPartition) -> None:
        self.client = client
        self._partition = partition

    async def run(self) -> None:
        """Produce until the client stops."""
        client = self.client
        number = 0
        while not client.stopping:
            await asyncio.sleep(client.rng.uniform(0.1, 0.5))
            leader = client.leader(self._partition)
            if leader is None:
                await client.refresh()
                continue
            number += 1
            value = value_of(Key(client.name, number))
            data = build_batch([Record(timestamp=client.now_ms(), value=value)])
            client.journal.count("unclean requests")
            try:
                answer = await client.ask(leader.broker, _request(self._partition, data, -1))
                if messages.read_produced(answer).error:
                    await client.refresh()
            except ChannelClosed:
                await client.refresh()
