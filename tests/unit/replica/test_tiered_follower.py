"""A follower of a tiered partition: what it may delete, and where it begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.unit.replica.test_fetcher import NOW_MS, Bench, Row, entry, records

from strandline_broker.errors import ErrorCode
from strandline_broker.log.producer_state import ProducerEntry
from strandline_broker.replica.bootstrap import Bootstraps
from strandline_broker.replica.remote import RemoteUnavailable, TailState
from strandline_broker.wire.fetch import TierNews

MOVED = ErrorCode.OFFSET_MOVED_TO_TIERED_STORAGE
TAIL = TailState(((1, 0), (2, 40)), (ProducerEntry(7, 3, (), NOW_MS),))
KEY = "a/segment.seg"


class Bucket:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self.answers: asyncio.Queue[TailState | RemoteUnavailable] = asyncio.Queue()

    async def tail_state(self, segment_key: str, offset: int) -> TailState:
        self.asked.put_nowait((segment_key, offset))
        answer = await self.answers.get()
        if isinstance(answer, RemoteUnavailable):
            raise answer
        return answer


def scenario(test: Callable[[Bench, Bucket], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        bench, bucket = Bench(), Bucket()
        bench.fetcher._bootstraps = Bootstraps(bucket, asyncio.get_running_loop())
        task = asyncio.create_task(bench.fetcher.run())
        try:
            async with asyncio.timeout(10):
                await test(bench, bucket)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def with_news(row: Row, news: TierNews) -> Row:
    return (*row, news)


def test_it_learns_what_it_may_delete_and_where_the_log_begins() -> None:
    async def test(bench: Bench, bucket: Bucket) -> None:
        bench.follow(3)
        await bench.leader.asked(1)
        assert bench.partition.tier is None
        data = bench.row(records(0, 3, b"a", b"b"), high_watermark=2)
        bench.leader.answer(with_news(data, TierNews(1, 0, KEY)))
        await bench.leader.asked(2)
        assert bench.log.tier is not None
        assert bench.log.tier.tiered_through == 1
        bench.leader.answer(bench.row(high_watermark=2, log_start=1))
        third = await bench.leader.asked(3)
        assert (bench.partition.log_start_offset, bench.log.start_offset) == (1, 1)
        assert third.topics[0][1][0][4] == 1, "the leader waits for it"

    scenario(test)


def test_what_another_epoch_authorised_is_not_taken() -> None:
    async def test(bench: Bench, bucket: Bucket) -> None:
        bench.follow(3)
        await bench.leader.asked(1)
        bench.follow(4)
        bench.leader.answer(with_news(bench.row(), TierNews(9, 0, KEY)))
        await bench.leader.asked(2)
        assert bench.log.tier is None

    scenario(test)


def test_it_begins_behind_the_bucket_and_knows_what_came_before() -> None:
    async def test(bench: Bench, bucket: Bucket) -> None:
        bench.log.append_follower(memoryview(bytearray(records(0, 1, b"old"))))
        bench.follow(3)
        await bench.leader.asked(1)
        bench.leader.answer(with_news(bench.row(code=MOVED, log_start=10), TierNews(100, 70, KEY)))
        assert await bucket.asked.get() == (KEY, 100)
        await bench.leader.asked(1)
        bucket.answers.put_nowait(TAIL)
        assert entry(await bench.leader.asked(2)) == (3, 100, 2)
        assert (bench.log.start_offset, bench.partition.log_start_offset) == (100, 10)
        assert bench.partition.high_watermark == 100
        assert bench.log.epochs.entries == [(1, 10), (2, 40)]
        assert bench.log.producers.get(7) == TAIL.producers[0]

    scenario(test)


def test_while_the_bucket_is_away_it_asks_again() -> None:
    async def test(bench: Bench, bucket: Bucket) -> None:
        bench.follow(3)
        moved = with_news(bench.row(code=MOVED), TierNews(100, 70, KEY))
        await bench.leader.asked(1)
        bench.leader.answer(moved)
        bucket.answers.put_nowait(RemoteUnavailable("broken by the test"))
        again = await bench.leader.asked(2)
        assert bench.log.end_offset == 0
        if not again.topics:  # its session still names the partition
            bench.leader.answer()
            again = await bench.leader.asked(3)
        bench.leader.answer(moved)
        bucket.answers.put_nowait(TAIL)
        while bench.log.end_offset != 100:
            await asyncio.sleep(0)

    scenario(test)


@pytest.mark.parametrize(
    ("news", "log_start", "end"),
    [
        (TierNews(0, 70, ""), 10, 0),  # the leader has not looked yet
        (TierNews(50, 70, KEY), 10, 0),  # nor uploaded what it lacks
        (TierNews(70, 70, ""), 70, 70),  # nothing in the bucket counts
    ],
)
def test_what_it_does_without_a_place_to_begin(news: TierNews, log_start: int, end: int) -> None:
    async def test(bench: Bench, bucket: Bucket) -> None:
        bench.follow(3)
        await bench.leader.asked(1)
        bench.leader.answer(with_news(bench.row(code=MOVED, log_start=log_start), news))
        await bench.leader.asked(2)
        assert (bench.log.end_offset, bucket.asked.qsize()) == (end, 0)

    scenario(test)


def test_who_leads_meanwhile_keeps_its_log() -> None:
    async def test(bench: Bench, bucket: Bucket) -> None:
        bench.follow(3)
        await bench.leader.asked(1)
        bench.leader.answer(with_news(bench.row(code=MOVED), TierNews(100, 70, KEY)))
        await bucket.asked.get()
        bench.fetcher.unfollow((bench.partition.topic_id, 0))
        bucket.answers.put_nowait(TAIL)
        for _ in range(20):
            await asyncio.sleep(0)
        assert bench.log.end_offset == 0

    scenario(test)
