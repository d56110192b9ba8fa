"""Consumers' fetches of what lies only in the bucket: when they are answered, with what, and while the bucket is away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.api.test_replica_fetch import ManualLoop
from tests.unit.replica.support import lead_alone

from strandline_broker.api import remote_reads
from strandline_broker.api.fetch import FetchHandler
from strandline_broker.api.fetch_sessions import FetchSessionCache
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.net.handler import Pending
from strandline_broker.replica.partition import FlushMode, Partition
from strandline_broker.replica.remote import (
    NotRemote,
    RemoteCorrupt,
    RemoteError,
    RemoteGone,
    RemoteUnavailable,
)
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.disk import FileSlice
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.batch import Record, build_batch
from strandline_broker.wire.header import decode_request_header

NOW_MS = 1_700_000_000_000
VERSION = 12
MAX_WAIT_MS = 500
LOCAL_START = 3


class Loop(ManualLoop):
    """Virtual timers, real tasks."""

    def create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)


class Remote:
    """A bucket that answers when the test says so; it holds everything below 5."""

    end_offset = 5

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self._answers: list[asyncio.Future[bytes]] = []

    async def read(self, offset: int, max_bytes: int) -> bytes:
        self.asked.append((offset, max_bytes))
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        return await answer

    async def answer(self, data: bytes | RemoteError, number: int = -1) -> None:
        if isinstance(data, RemoteError):
            self._answers[number].set_exception(data)
        else:
            self._answers[number].set_result(data)
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Waiter:
    acks = 1
    patient = False

    def partition_done(self, row: list[object]) -> None:
        """Take the answer."""


class Broker:
    """Partition 0 has only [3, 5) here, the rest in the bucket; partition 1 is not tiered."""

    def __init__(self) -> None:
        self.clock = ManualClock(wall_ms=NOW_MS)
        self.loop = Loop(self.clock)
        self.remote = Remote()
        disk = SimDisk()
        self.partitions = {index: self._open(disk, index) for index in (0, 1)}
        tier = self.tiered.start_tiering()
        tier.remote = cast("Any", self.remote)
        tier.authorise(LOCAL_START, "key")
        self.tiered.log.advance_start(LOCAL_START)
        self.replicas = SimpleNamespace(
            by_key={"t": SimpleNamespace(partitions=self.partitions)},
            find=lambda key, index: self.partitions.get(index),
            why_absent=lambda key, index: KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
            current_leader=lambda key, index: None,
        )
        self.handler = FetchHandler(
            cast("Any", self.replicas),
            cast("Any", SimpleNamespace(leases={})),
            FetchSessionCache(random.Random(1)),
            self.clock,
            cast("Any", self.loop),
            cast("Any", SimpleNamespace(connection_lost=lambda connection: None)),
            max_bytes=1 << 20,
            max_parked=10,
        )

    def _open(self, disk: SimDisk, index: int) -> Partition:
        log = Log.open(disk, f"t-{index}", LogConfig(), now_ms=NOW_MS, clean=False)
        partition = Partition("t", bytes(16), index, log, FlushMode.REPLICATED, 0)
        lead_alone(partition, 1)
        for number in range(5):
            batch = build_batch([Record(value=b"%d" % number, timestamp=NOW_MS)])
            partition.stage(cast("Any", Waiter()), [0] * 8, memoryview(bytearray(batch)), NOW_MS)
            partition.commit()
        return partition

    @property
    def tiered(self) -> Partition:
        return self.partitions[0]


class Connection:
    listener = SimpleNamespace(internal=False, name="C")


class Consumer:
    """One connection; `rows` are those of the last answer, None while there is none."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.connection = cast("Any", Connection())
        self.waiting: Pending | None = None
        self.rows: dict[int, Any] | None = None

    def fetch(self, offsets: dict[int, int], *, min_bytes: int = 1, max_bytes: int = 1 << 20) -> None:
        body = {
            "replica_id": -1, "max_wait": MAX_WAIT_MS, "min_bytes": min_bytes, "max_bytes": max_bytes,
            "isolation_level": 0, "session_id": 0, "session_epoch": -1, "forgotten_topics_data": [], "rack_id": "",
            "topics": [{"topic": "t", "partitions": [
                {"partition": index, "fetch_offset": offset, "partition_max_bytes": 1 << 16}
                for index, offset in offsets.items()
            ]}],
        }  # fmt: skip
        frame = memoryview(bytearray(cold.encode_request(ApiKey.FETCH, VERSION, 1, "test", body)))[4:]
        self.rows = None
        answer = self.broker.handler.handle(self.connection, decode_request_header(frame), frame)
        if isinstance(answer, Pending):
            self.waiting = answer
        else:
            self._take(answer)

    def turn(self, seconds: float = 0.0) -> dict[int, Any] | None:
        self.broker.loop.turn(seconds)
        if self.waiting is not None and self.waiting.done:
            waiting, self.waiting = self.waiting, None
            self._take(waiting.response)
        return self.rows

    def _take(self, response: Any) -> None:
        parts = response if isinstance(response, list | tuple) else [response]
        data = b"".join(part.read() if isinstance(part, FileSlice) else bytes(part) for part in parts)
        _, body = cold.decode_response(ApiKey.FETCH, VERSION, memoryview(data)[4:])
        self.rows = {row.partition_index: row for topic in body.responses for row in topic.partitions}


def scenario(test: Callable[[Broker, Consumer], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        broker = Broker()
        async with asyncio.timeout(10):
            await test(broker, Consumer(broker))
        await broker.handler.close()

    asyncio.run(main())


def test_a_fetch_waits_for_the_bucket_and_gets_its_bytes() -> None:
    async def test(broker: Broker, consumer: Consumer) -> None:
        consumer.fetch({0: 1}, min_bytes=1000)
        await settle()
        assert consumer.turn() is None
        assert broker.remote.asked == [(1, 1 << 16)]
        await broker.remote.answer(b"batches")
        rows = consumer.turn()
        assert rows is not None
        assert (rows[0].error_code, bytes(rows[0].records)) == (0, b"batches")
        assert (rows[0].log_start_offset, rows[0].high_watermark) == (0, 5)
        assert broker.tiered.bytes_out == len(b"batches")
        consumer.fetch({0: 1})
        await settle()
        assert len(broker.remote.asked) == 2, "what was fetched is not kept"

    scenario(test)


def test_what_comes_too_late_is_there_for_the_next_fetch() -> None:
    async def test(broker: Broker, consumer: Consumer) -> None:
        consumer.fetch({0: 1})
        await settle()
        rows = consumer.turn(MAX_WAIT_MS / 1000)
        assert rows is not None
        assert (rows[0].error_code, bytes(rows[0].records)) == (0, b"")
        await broker.remote.answer(b"batches")
        consumer.fetch({0: 1})
        assert consumer.rows is not None
        assert bytes(consumer.rows[0].records) == b"batches"
        assert len(broker.remote.asked) == 1

    scenario(test)


def test_what_is_here_does_not_wait_for_the_bucket() -> None:
    async def test(broker: Broker, consumer: Consumer) -> None:
        consumer.fetch({0: 1, 1: 0})
        assert consumer.rows is not None
        assert len(consumer.rows[0].records or b"") == 0
        assert len(consumer.rows[1].records) > 0
        await settle()
        await broker.remote.answer(b"batches")
        consumer.fetch({0: 1, 1: 5})
        assert consumer.rows is not None
        assert bytes(consumer.rows[0].records) == b"batches"

    scenario(test)


def test_what_is_local_is_read_locally() -> None:
    async def test(broker: Broker, consumer: Consumer) -> None:
        consumer.fetch({0: LOCAL_START})
        assert consumer.rows is not None
        assert len(consumer.rows[0].records) > 0
        assert broker.remote.asked == []
        consumer.fetch({0: 9})
        assert consumer.rows[0].error_code == ErrorCode.OFFSET_OUT_OF_RANGE

    scenario(test)


def test_several_consumers_share_a_read() -> None:
    async def test(broker: Broker, consumer: Consumer) -> None:
        other = Consumer(broker)
        consumer.fetch({0: 1})
        other.fetch({0: 1})
        await settle()
        await broker.remote.answer(b"batches")
        for one in (consumer, other):
            rows = one.turn()
            assert rows is not None
            assert bytes(rows[0].records) == b"batches"
        assert len(broker.remote.asked) == 1

    scenario(test)


def test_a_leader_that_has_not_loaded_the_manifest_answers_empty() -> None:
    async def test(broker: Broker, consumer: Consumer) -> None:
        assert broker.tiered.tier is not None
        broker.tiered.tier.forget_role()
        consumer.fetch({0: 1})
        rows = consumer.turn(MAX_WAIT_MS / 1000)
        assert rows is not None
        assert (rows[0].error_code, rows[0].log_start_offset) == (0, 0)

    scenario(test)


def test_while_the_bucket_is_away_rows_stay_empty_and_later_say_why() -> None:
    async def test(broker: Broker, consumer: Consumer) -> None:
        codes = []
        for _ in range(3):
            consumer.fetch({0: 1})
            await settle()
            await broker.remote.answer(RemoteUnavailable("away"))
            rows = consumer.turn(MAX_WAIT_MS / 1000)
            assert rows is not None, "never before the client's time is up, never after"
            codes.append(ErrorCode(rows[0].error_code))
            broker.clock.advance(remote_reads.PATIENCE_S * 0.6)
        assert codes == [ErrorCode.NONE, ErrorCode.NONE, ErrorCode.KAFKA_STORAGE_ERROR]
        assert broker.handler.remote_reads.failures == 3
        await settle()
        await broker.remote.answer(b"batches")
        consumer.fetch({0: 1})
        assert consumer.rows is not None
        assert bytes(consumer.rows[0].records) == b"batches", "it heals by itself"

    scenario(test)


@pytest.mark.parametrize(
    ("error", "log_start", "code"),
    [
        (RemoteCorrupt("broken"), 0, ErrorCode.CORRUPT_MESSAGE),
        (RemoteGone("named by the manifest"), 0, ErrorCode.KAFKA_STORAGE_ERROR),
        (NotRemote("gone"), 2, ErrorCode.OFFSET_OUT_OF_RANGE),
        (NotRemote("a hole"), 0, ErrorCode.KAFKA_STORAGE_ERROR),
    ],
)
def test_errors_are_told_at_once(error: RemoteError, log_start: int, code: ErrorCode) -> None:
    async def test(broker: Broker, consumer: Consumer) -> None:
        consumer.fetch({0: 1})
        await settle()
        assert broker.tiered.tier is not None
        broker.tiered.tier.raise_log_start(log_start)
        await broker.remote.answer(error)
        rows = consumer.turn()
        assert rows is not None
        assert rows[0].error_code == code

    scenario(test)


def test_what_does_not_fit_any_more_comes_with_the_next_answer() -> None:
    async def test(broker: Broker, consumer: Consumer) -> None:
        consumer.fetch({0: 1}, max_bytes=100)
        await settle()
        consumer.turn(MAX_WAIT_MS / 1000)
        await broker.remote.answer(bytes(90))
        consumer.fetch({1: 4, 0: 1}, max_bytes=100)
        assert consumer.rows is not None
        assert [len(consumer.rows[index].records or b"") for index in (1, 0)] == [69, 0]
        consumer.fetch({0: 1}, max_bytes=100)
        assert len(consumer.rows[0].records) == 90

    scenario(test)


def test_reads_are_few_at_once_and_none_begins_for_a_client_that_is_gone() -> None:
    async def test(broker: Broker, consumer: Consumer) -> None:
        broker.handler.remote_reads = remote_reads.RemoteReads(
            broker.clock, cast("Any", broker.loop), concurrency=1, max_waiting=1
        )
        others = [consumer, Consumer(broker), Consumer(broker)]
        for offset, one in enumerate(others):
            one.fetch({0: offset})
        await settle()
        assert [offset for offset, _ in broker.remote.asked] == [0]
        assert broker.handler.remote_reads.open_count == 2, "the third is answered empty"
        broker.handler.connection_lost(others[1].connection)
        await broker.remote.answer(b"x")
        assert [offset for offset, _ in broker.remote.asked] == [0]
        rows = others[2].turn(MAX_WAIT_MS / 1000)
        assert rows is not None
        assert rows[0].error_code == 0

    scenario(test)


def test_what_nobody_comes_for_is_dropped() -> None:
    async def test(broker: Broker, consumer: Consumer) -> None:
        for offset in (0, 1):
            consumer.fetch({0: offset})
            await settle()
            consumer.turn(MAX_WAIT_MS / 1000)
            broker.clock.advance(remote_reads.KEPT_S)
            await broker.remote.answer(b"x")
            broker.clock.advance(remote_reads.KEPT_S / 2)
        consumer.fetch({0: 0})
        await settle()
        assert [offset for offset, _ in broker.remote.asked] == [0, 1, 0]

    scenario(test)


def test_a_follower_sends_consumers_to_the_leader() -> None:
    async def test(broker: Broker, consumer: Consumer) -> None:
        broker.tiered.resign(7, 2)
        consumer.fetch({0: 1})
        assert consumer.rows is not None
        assert (consumer.rows[0].error_code, consumer.rows[0].preferred_read_replica) == (0, 7)
        consumer.fetch({0: LOCAL_START})
        assert consumer.rows[0].preferred_read_replica == -1
        assert len(consumer.rows[0].records) > 0

    scenario(test)
