"""A follower's fetcher against a scripted leader: appending, waiting for syncs, truncating, backing off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from strandline_broker.cluster.model import ReplicaRef
from strandline_broker.errors import ErrorCode
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.peers.contract import PeerError
from strandline_broker.replica.fetcher import FETCH_VERSION, FetchSettings, LeaderFetcher, truncation_offset
from strandline_broker.replica.partition import FlushMode, Partition
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.batch import Record, build_batch
from strandline_broker.wire.fetch import FetchRequest, decode_fetch, encode_fetch_response

NOW_MS = 1_700_000_000_000
TOPIC_ID = bytes(15) + b"t"
HEADER_BYTES = 4 + 4 + 1
Row = tuple[Any, ...]


def records(base_offset: int, epoch: int, *values: bytes) -> bytes:
    batch = bytearray(build_batch([Record(value=value, timestamp=NOW_MS) for value in values]))
    batch[0:8] = base_offset.to_bytes(8, "big")
    batch[12:16] = epoch.to_bytes(4, "big")
    return bytes(batch)


class Leader:
    """Answers with what the test says; `requests` is what the follower asked."""

    def __init__(self) -> None:
        self.requests: list[FetchRequest] = []
        self.connections = 0
        self.closed = 0
        self.session_id = 77
        self._asked = asyncio.Condition()
        self._answers: asyncio.Queue[list[Row] | int | PeerError] = asyncio.Queue()

    async def connect(self, leader_id: int) -> Leader:
        assert leader_id == 1
        self.connections += 1
        return self

    async def request(self, api_key: ApiKey, version: int, body: bytes) -> memoryview:
        assert (api_key, version) == (ApiKey.FETCH, FETCH_VERSION)
        async with self._asked:
            self.requests.append(decode_fetch(memoryview(body), 0, version))
            self._asked.notify_all()
        answer = await self._answers.get()
        if isinstance(answer, PeerError):
            raise answer
        if isinstance(answer, int):
            parts = encode_fetch_response(version, 1, answer, 0, [])
        else:
            parts = encode_fetch_response(
                version, 1, 0, self.session_id, [(TOPIC_ID, answer)] if answer else []
            )
        return memoryview(bytearray(b"".join(bytes(part) for part in parts))[HEADER_BYTES:])  # type: ignore[arg-type]

    def close(self) -> None:
        self.closed += 1

    def answer(self, *rows: Row) -> None:
        self._answers.put_nowait(list(rows))

    def refuse(self, code: ErrorCode) -> None:
        self._answers.put_nowait(int(code))

    def breaks(self) -> None:
        self._answers.put_nowait(PeerError("broken by the test"))

    async def asked(self, count: int) -> FetchRequest:
        """Return the `count`-th request as soon as it came."""
        async with asyncio.timeout(5), self._asked:
            await self._asked.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]


class Bench:
    def __init__(self, flush: FlushMode = FlushMode.REPLICATED) -> None:
        self.leader = Leader()
        self.disk = SimDisk()
        self.log = Log.open(self.disk, "t-0", LogConfig(), now_ms=NOW_MS, clean=False)
        self.partition = Partition("t", TOPIC_ID, 0, self.log, flush, 0)
        self.sync_requests = 0
        self.fetcher = LeaderFetcher(
            1,
            ReplicaRef(2, 99),
            connect=self.leader.connect,
            request_sync=self._request_sync,
            settings=FetchSettings(backoff_s=0.02),
            throttle=None,
            clock=ManualClock(wall_ms=NOW_MS),
            loop=asyncio.get_running_loop(),
            rng=random.Random(1),
        )

    def _request_sync(self, partition: Partition) -> None:
        assert partition is self.partition
        self.sync_requests += 1

    def sync(self) -> None:
        """Do what the flusher does."""
        work = self.log.begin_sync()
        assert work is not None
        work.run()
        assert self.log.finish_sync(work)
        self.partition.synced()

    def follow(self, epoch: int) -> None:
        self.partition.resign(1, epoch)
        self.fetcher.follow(self.partition, epoch)

    def row(self, data: bytes = b"", *, code: ErrorCode = ErrorCode.NONE, high_watermark: int = 0, log_start: int = 0,
            diverging: tuple[int, int] | None = None) -> Row:  # fmt: skip
        return (
            0,
            int(code),
            high_watermark,
            high_watermark,
            log_start,
            None,
            -1,
            data,
            diverging,
            None,
            None,
        )


def scenario(
    test: Callable[[Bench], Coroutine[Any, Any, None]], flush: FlushMode = FlushMode.REPLICATED
) -> None:
    async def main() -> None:
        bench = Bench(flush)
        task = asyncio.create_task(bench.fetcher.run())
        try:
            async with asyncio.timeout(10):
                await test(bench)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def entry(request: FetchRequest) -> tuple[int, int, int]:
    """Return (epoch, offset, last epoch) of the only partition of a request."""
    ((_, ((_, epoch, offset, last_epoch, _, _),)),) = request.topics
    return epoch, offset, last_epoch


def test_it_copies_from_the_end_of_its_log_and_says_who_it_is() -> None:
    async def test(bench: Bench) -> None:
        bench.follow(3)
        first = await bench.leader.asked(1)
        assert (first.replica_id, first.replica_epoch) == (2, 99)
        assert entry(first) == (3, 0, -1)
        bench.leader.answer(bench.row(records(0, 3, b"a", b"b"), high_watermark=1))
        second = await bench.leader.asked(2)
        assert (second.session_id, second.session_epoch) == (77, 1)
        assert entry(second) == (3, 2, 3)
        assert bench.partition.high_watermark == 1
        bench.leader.answer()
        assert (await bench.leader.asked(3)).topics == [], "nothing changed, nothing is sent"

    scenario(test)


def test_with_fsync_it_asks_again_only_when_everything_is_durable() -> None:
    async def test(bench: Bench) -> None:
        bench.follow(3)
        await bench.leader.asked(1)
        bench.leader.answer(bench.row(records(0, 3, b"a"), high_watermark=1))
        while not bench.sync_requests:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(bench.leader.requests) == 1, "an offset that is not durable must not be reported"
        assert bench.partition.high_watermark == 0
        bench.sync()
        assert entry(await bench.leader.asked(2)) == (3, 1, 3)
        assert bench.partition.high_watermark == 1

    scenario(test, FlushMode.FSYNC)


def test_a_diverging_log_is_cut_where_the_two_part() -> None:
    async def test(bench: Bench) -> None:
        bench.log.append_follower(memoryview(bytearray(records(0, 1, b"a", b"b") + records(2, 2, b"x"))))
        bench.follow(3)
        assert entry(await bench.leader.asked(1)) == (3, 3, 2)
        bench.leader.answer(bench.row(diverging=(1, 1)))
        second = await bench.leader.asked(2)
        # A batch is never split: all of it goes, the leader sends it again.
        assert entry(second) == (3, 0, 1)

    scenario(test)


def test_a_log_that_the_leader_no_longer_has_is_started_over() -> None:
    async def test(bench: Bench) -> None:
        bench.log.append_follower(memoryview(bytearray(records(0, 1, b"a"))))
        bench.follow(3)
        await bench.leader.asked(1)
        bench.leader.answer(bench.row(code=ErrorCode.OFFSET_OUT_OF_RANGE, log_start=50))
        assert entry(await bench.leader.asked(2))[1] == 50
        assert (bench.log.start_offset, bench.log.end_offset) == (50, 50)

    scenario(test)


@pytest.mark.parametrize(
    "code", [ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_LEADER_EPOCH, ErrorCode.CORRUPT_MESSAGE]
)
def test_after_an_error_it_drops_the_partition_and_asks_again(code: ErrorCode) -> None:
    async def test(bench: Bench) -> None:
        bench.follow(3)
        await bench.leader.asked(1)
        bench.leader.answer(bench.row(code=code))
        again = await bench.leader.asked(2)
        assert (again.session_id, again.topics, again.forgotten) == (77, [], []), (
            "its session still names the partition"
        )
        bench.leader.answer(bench.row(records(0, 3, b"a")))
        assert entry(await bench.leader.asked(3)) == (3, 1, 3)

    scenario(test)


def test_an_answer_to_an_earlier_role_is_ignored() -> None:
    async def test(bench: Bench) -> None:
        bench.follow(3)
        await bench.leader.asked(1)
        bench.follow(4)
        bench.leader.answer(bench.row(records(0, 3, b"a")))
        assert entry(await bench.leader.asked(2)) == (4, 0, -1)
        assert bench.log.end_offset == 0

    scenario(test)


@pytest.mark.parametrize(
    "code", [ErrorCode.FETCH_SESSION_ID_NOT_FOUND, ErrorCode.INVALID_FETCH_SESSION_EPOCH]
)
def test_a_lost_session_begins_anew_on_the_same_connection(code: ErrorCode) -> None:
    async def test(bench: Bench) -> None:
        bench.follow(3)
        await bench.leader.asked(1)
        bench.leader.answer(bench.row(records(0, 3, b"a")))
        await bench.leader.asked(2)
        bench.leader.refuse(code)
        third = await bench.leader.asked(3)
        assert (third.session_epoch, entry(third)) == (0, (3, 1, 3))
        assert bench.leader.connections == 1

    scenario(test)


def test_a_broken_connection_is_made_again() -> None:
    async def test(bench: Bench) -> None:
        bench.follow(3)
        await bench.leader.asked(1)
        bench.leader.breaks()
        assert entry(await bench.leader.asked(2)) == (3, 0, -1)
        assert (bench.leader.connections, bench.leader.closed) == (2, 1)

    scenario(test)


def test_corrupt_records_are_not_appended() -> None:
    async def test(bench: Bench) -> None:
        bench.follow(3)
        await bench.leader.asked(1)
        damaged = bytearray(records(0, 3, b"abcdef"))
        damaged[-2] ^= 1
        bench.leader.answer(bench.row(bytes(damaged)))
        assert (await bench.leader.asked(2)).topics == [], "asked again from the same offset"
        assert bench.log.end_offset == 0

    scenario(test)


def test_the_high_watermark_never_passes_the_own_log_and_never_falls() -> None:
    async def test(bench: Bench) -> None:
        bench.follow(3)
        await bench.leader.asked(1)
        bench.leader.answer(bench.row(records(0, 3, b"a", b"b"), high_watermark=9))
        await bench.leader.asked(2)
        assert bench.partition.high_watermark == 2
        bench.leader.answer(bench.row(high_watermark=1))
        await bench.leader.asked(3)
        assert bench.partition.high_watermark == 2

    scenario(test)


def _log(*batches: bytes) -> Log:
    log = Log.open(SimDisk(), "t-0", LogConfig(), now_ms=NOW_MS, clean=False)
    for batch in batches:
        log.append_follower(memoryview(bytearray(batch)))
    return log


@pytest.mark.parametrize(
    ("leader_epoch", "leader_end", "offset"),
    [
        (1, 1, 1),  # the leader has less of the epoch
        (1, 5, 2),  # it has more of it: ours ends where the next one began
        (3, 9, 4),  # ours is shorter than what the leader has of the last epoch
        (2, 2, 2),  # an epoch that we do not know: cut at the end of the largest one below
        (0, 0, 0),  # below everything that we know
    ],
)
def test_where_to_cut(leader_epoch: int, leader_end: int, offset: int) -> None:
    log = _log(records(0, 1, b"a", b"b"), records(2, 3, b"c", b"d"))
    assert truncation_offset(log, leader_epoch, leader_end) == offset
