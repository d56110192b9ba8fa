"""The remote reader: right bytes under any interleaving, within its bounds, and no request that another one has made.

All on virtual time: a request takes seconds here, and the tests milliseconds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.unit.tiered.segment_objects import companions_of, info_of
from tests.unit.tiered.store_contract import MIB, pattern
from tests.unit.tiered.virtual_time import virtually

from strandline_tiered.content import PartsSource, pieces
from strandline_tiered.disk_cache import DiskCache
from strandline_tiered.envelope import FormatError
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind, RandomFaults, ScriptedFaults
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.object_store import NoSuchObject, Unavailable
from strandline_tiered.remote_reader import ATTEMPTS, ReaderConfig, RemoteReader, SegmentRef
from strandline_tiered.segment_object import build

CONFIG = ReaderConfig(
    memory_bytes=16 * MIB, chunk_bytes=MIB, max_requests=4, max_waiting=16, max_ahead_chunks=4
)


async def inline(work: Callable[..., Any], /, *arguments: Any) -> Any:
    return work(*arguments)


class Bucket:
    """Segments in memory; every request takes `delay_s`, and is counted."""

    def __init__(self, *log_bytes: int, delay_s: float = 1.0) -> None:
        self.memory = MemoryStore()
        self.store = FaultyStore(self.memory)
        self.logs: list[bytes] = []
        self.segments: list[SegmentRef] = []
        self.delay_s = delay_s
        self.requests: list[tuple[str, int, int]] = []
        self.at_once = self.most_at_once = 0
        for number, size in enumerate(log_bytes):
            log = pattern(size, number)
            data = b"".join(pieces(build(info_of(100, 40), PartsSource([log]), companions_of(40))))
            self.memory.objects[f"s/{number}"] = data
            self.logs.append(log)
            self.segments.append(SegmentRef(f"s/{number}", len(data), size))

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        assert end is not None
        self.requests.append((key, start, end))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay_s)
            return await self.store.get(key, start, end)
        finally:
            self.at_once -= 1

    def reader(self, config: ReaderConfig = CONFIG, *, disk: DiskCache | None = None) -> RemoteReader:
        return RemoteReader(self, config, disk=disk)  # type: ignore[arg-type]  # only `get` is called


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("position", "length"),
    [
        (0, 10),
        (0, MIB),
        (MIB - 3, 6),
        (MIB, MIB),
        (17, 3 * MIB),
        (3 * MIB, 10**9),
        (3 * MIB + 499, 5),
        (3 * MIB + 500, 5),
        (10**9, 5),
        (5, 0),
    ],
)
def test_what_is_read_is_what_was_stored(position: int, length: int) -> None:
    async def scenario() -> None:
        bucket = Bucket(3 * MIB + 500)
        reader = bucket.reader()
        assert await reader.read(bucket.segments[0], position, length) == bucket.logs[0][position:][:length]

    virtually(scenario)


def test_a_cold_read_costs_one_round_trip_and_a_warm_one_none() -> None:
    async def scenario() -> None:
        bucket = Bucket(3 * MIB)
        reader = bucket.reader()
        await reader.read(bucket.segments[0], 100, 1000)
        assert now() == pytest.approx(1, abs=0.01)
        assert (
            bucket.requests == [("s/0", 3 * MIB, bucket.segments[0].object_bytes), ("s/0", 0, MIB)]
            or len(bucket.requests) == 2
        )
        await reader.read(bucket.segments[0], 2000, 1000)
        assert await reader.locate(bucket.segments[0], 110) == 8000
        assert now() == pytest.approx(1, abs=0.01)
        assert reader.counters.hits == 1

    virtually(scenario)


def test_many_who_want_the_same_make_one_request() -> None:
    async def scenario() -> None:
        bucket = Bucket(MIB)
        reader = bucket.reader()
        results = await asyncio.gather(*(reader.read(bucket.segments[0], 5, 50) for _ in range(500)))
        assert set(results) == {bucket.logs[0][5:55]}
        assert len(bucket.requests) == 2  # chunk and tail

    virtually(scenario)


def test_the_tail_of_what_was_read_ahead_stays_as_long_as_its_chunk() -> None:
    async def scenario() -> None:
        bucket = Bucket(2 * MIB, 2 * MIB, *[MIB] * 20)
        reader = bucket.reader()
        here, then, *others = bucket.segments
        for position in range(0, 2 * MIB, MIB // 2):
            await reader.read(here, position, MIB // 2 + 1000, then=then)
        await asyncio.sleep(2)
        assert (then.key, 0, MIB) in bucket.requests
        # More than the cache holds comes by, while the reader stays near the end of its segment.
        for other in others:
            await reader.read(other, 0, 10)
            await reader.read(here, 2 * MIB - 1000, 1000, then=then)
        before = len(bucket.requests)
        await reader.locate(then, 100)
        await reader.read(then, 0, 1000)
        assert len(bucket.requests) == before

    virtually(scenario)


def test_who_stops_waiting_finds_it_next_time() -> None:
    async def scenario() -> None:
        bucket = Bucket(MIB, delay_s=3)
        reader = bucket.reader()
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await reader.read(bucket.segments[0], 0, 10)
        await asyncio.sleep(1.5)
        async with asyncio.timeout(0.1):
            assert await reader.read(bucket.segments[0], 0, 10) == bucket.logs[0][:10]
        assert len(bucket.requests) == 2

    virtually(scenario)


@pytest.mark.parametrize("step", [300_000, MIB, 2 * MIB + 5])
def test_a_sequential_reader_waits_little(step: int) -> None:
    async def scenario() -> None:
        bucket = Bucket(8 * MIB, 8 * MIB, 8 * MIB)
        reader = bucket.reader()
        for number, segment in enumerate(bucket.segments):
            then = bucket.segments[number + 1] if number < 2 else None
            position = 0
            while position < segment.log_bytes:
                data = await reader.read(segment, position, step, then=then)
                assert data == bucket.logs[number][position : position + len(data)]
                # A broker gives whole batches only, and comes back to the beginning of the one that was cut.
                position += len(data) if position + len(data) == segment.log_bytes else len(data) * 9 // 10
        chunks = [request for request in bucket.requests if request[1] < 8 * MIB]
        assert len(chunks) == len(set(chunks)) == 24
        assert now() < 24 * 0.5, "read-ahead saves most of the round trips"
        assert reader.counters.unused == 0
        assert bucket.most_at_once <= 4 + 2

    virtually(scenario)


def test_what_is_read_ahead_for_one_reader_is_not_lost_to_what_others_are_done_with() -> None:
    async def scenario() -> None:
        size, step = 12 * MIB, MIB // 4
        bucket = Bucket(size, size, size, size, delay_s=0.05)
        reader = bucket.reader(
            ReaderConfig(memory_bytes=13 * MIB, chunk_bytes=MIB, max_requests=6, max_ahead_chunks=4)
        )

        async def read(segment: SegmentRef, position: int) -> None:
            await reader.tail(segment)  # where an offset is looked up
            # A little more than a step, as who looks for the end of a batch does.
            await reader.read(segment, position, step + 1000)

        for position in range(0, size, step):
            await asyncio.gather(*(read(segment, position) for segment in bucket.segments))
            await asyncio.sleep(0.01)
        assert reader.counters.unused == 0
        # 12 chunks and a tail of each, and few of them twice: memory is really short.
        assert len(bucket.requests) < 1.25 * 4 * 13

    virtually(scenario)


def test_a_reader_that_jumps_about_reads_nothing_ahead() -> None:
    async def scenario() -> None:
        bucket = Bucket(60 * MIB)
        reader = bucket.reader()
        for chunk in (50, 3, 20, 33, 10, 41):
            await reader.read(bucket.segments[0], chunk * MIB + 5, 1000)
        assert reader.counters.read_ahead == 0
        assert len(bucket.requests) == 7

    virtually(scenario)


def test_at_the_bound_of_waiting_reads_one_is_told_so_and_may_come_again() -> None:
    async def scenario() -> None:
        bucket = Bucket(60 * MIB, delay_s=5)
        reader = bucket.reader()
        reads = [asyncio.create_task(reader.read(bucket.segments[0], n * 2 * MIB, 10)) for n in range(28)]
        done = await asyncio.gather(*reads, return_exceptions=True)
        refused = [n for n, result in enumerate(done) if isinstance(result, Unavailable)]
        assert 10 <= len(refused) <= 13
        assert bucket.most_at_once <= CONFIG.max_requests + 2
        for n in refused[:4]:
            assert (
                await reader.read(bucket.segments[0], n * 2 * MIB, 10) == bucket.logs[0][n * 2 * MIB :][:10]
            )

    virtually(scenario)


def test_a_failure_reaches_everybody_who_waits_and_is_not_kept() -> None:
    async def scenario() -> None:
        bucket = Bucket(MIB)
        bucket.store.plan = ScriptedFaults([Fault(Kind.UNAVAILABLE)] * 2, operations=["get"])
        reader = bucket.reader()
        reads = await asyncio.gather(
            *(reader.read(bucket.segments[0], 0, 10) for _ in range(5)), return_exceptions=True
        )
        assert all(isinstance(result, Unavailable) for result in reads)
        await asyncio.sleep(5)
        assert reader.memory_bytes == 0
        assert await reader.read(bucket.segments[0], 0, 10) == bucket.logs[0][:10]
        assert reader.memory_bytes == MIB + bucket.segments[0].object_bytes - MIB

    virtually(scenario)


def test_an_object_that_is_gone_is_said_to_be() -> None:
    async def scenario() -> None:
        bucket = Bucket(MIB)
        bucket.memory.objects.clear()
        reader = bucket.reader()
        with pytest.raises(NoSuchObject):
            await reader.read(bucket.segments[0], 0, 10)
        with pytest.raises(NoSuchObject):
            await reader.locate(bucket.segments[0], 0)
        await asyncio.sleep(5)
        assert reader.memory_bytes == 0

    virtually(scenario)


@pytest.mark.parametrize("place", [MIB + 500, 2 * MIB + 150, -10])
def test_damage_on_the_way_is_fetched_again_and_damage_in_the_bucket_is_named(place: int) -> None:
    async def scenario() -> None:
        bucket = Bucket(2 * MIB + 100)
        good = bucket.memory.objects["s/0"]
        bad = bytearray(good)
        bad[place] ^= 1
        for failures in (1, ATTEMPTS):
            reader = bucket.reader()
            bucket.requests.clear()

            async def get(
                key: str, start: int = 0, end: int | None = None, count: list[int] | None = None
            ) -> bytes:
                hit = start <= place % len(good) < (end or 0)
                damaged = hit and sum(request[1] == start for request in bucket.requests) <= failures  # noqa: B023
                return bytes(bad if damaged else good)[start:end]

            bucket.store.get = get  # type: ignore[method-assign]
            reading = reader.read(bucket.segments[0], 0, 3 * MIB)
            if failures == 1:
                assert await reading == bucket.logs[0]
                assert reader.counters.damaged == 1
            else:
                with pytest.raises(FormatError, match="s/0"):
                    await reading
                assert reader.counters.damaged >= ATTEMPTS

    virtually(scenario)


def test_a_manifest_that_is_wrong_about_an_object_is_noticed() -> None:
    async def scenario() -> None:
        bucket = Bucket(2 * MIB)
        segment = bucket.segments[0]
        for wrong in (
            segment._replace(log_bytes=segment.log_bytes - 5),
            segment._replace(object_bytes=segment.object_bytes + 5),
        ):
            with pytest.raises(FormatError):
                await bucket.reader().read(wrong, 0, 10)

    virtually(scenario)


def test_lookups_by_time_and_offset_need_only_the_tail() -> None:
    async def scenario() -> None:
        bucket = Bucket(2 * MIB)
        reader = bucket.reader()
        assert await reader.locate_time(bucket.segments[0], 1000 + 10 * 9) == 8000
        assert await reader.locate(bucket.segments[0], 113) == 12_000
        assert len(bucket.requests) == 1

    virtually(scenario)


def test_evicted_chunks_come_back_from_the_disk(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = Bucket(30 * MIB)
        disk = DiskCache(tmp_path / "cache", 100 * MIB, in_thread=inline)
        disk.open()
        reader = bucket.reader(disk=disk)
        segment, log = bucket.segments[0], bucket.logs[0]
        for _ in range(2):
            for chunk in range(0, 30, 3):
                assert await reader.read(segment, chunk * MIB, 10) == log[chunk * MIB :][:10]
            for chunk in range(1, 30, 3):
                assert await reader.read(segment, chunk * MIB, 10) == log[chunk * MIB :][:10]
        assert reader.counters.disk_hits > 5
        assert len(bucket.requests) < 30
        reader.forget(segment.key)
        await disk.close()
        assert disk.used_bytes == 0
        assert not list((tmp_path / "cache").iterdir())

    virtually(scenario)


def test_a_sequential_reader_does_not_write_what_it_reads_to_the_disk(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = Bucket(60 * MIB)
        disk = DiskCache(tmp_path / "cache", 100 * MIB, in_thread=inline)
        disk.open()
        reader = bucket.reader(disk=disk)
        for position in range(0, 60 * MIB, MIB // 2):
            # A little more than it goes on by, as who looks for the end of a batch.
            await reader.read(bucket.segments[0], position, MIB // 2 + 1000)
            await asyncio.sleep(1)
        await disk.close()
        # What it had to wait for, in the beginning, was not read ahead.
        assert disk.used_bytes < 3 * MIB
        assert reader.counters.read_ahead > 55

    virtually(scenario)


@pytest.mark.parametrize("readers", [1, 3])
def test_nor_do_readers_that_are_as_fast_as_the_bucket(tmp_path: Path, readers: int) -> None:
    async def scenario() -> None:
        bucket = Bucket(*[30 * MIB] * readers)
        disk = DiskCache(tmp_path / "cache", 100 * MIB, in_thread=inline)
        disk.open()
        reader = bucket.reader(disk=disk)

        async def read(segment: SegmentRef) -> None:
            for position in range(0, 30 * MIB, MIB // 2):
                await reader.read(segment, position, MIB // 2 + 1000)

        await asyncio.gather(*map(read, bucket.segments))
        await disk.close()
        # What each began with nobody could know to be the beginning of more.
        assert disk.used_bytes < (2 * readers + 1) * MIB

    virtually(scenario)


def test_closing_ends_what_is_under_way() -> None:
    async def scenario() -> None:
        bucket = Bucket(8 * MIB, delay_s=100)
        reader = bucket.reader()
        reads = [asyncio.create_task(reader.read(bucket.segments[0], n * MIB, 10)) for n in range(6)]
        await asyncio.sleep(1)
        await reader.close()
        assert all(
            isinstance(r, asyncio.CancelledError)
            for r in await asyncio.gather(*reads, return_exceptions=True)
        )
        assert now() < 2
        assert reader.memory_bytes == 0
        assert bucket.at_once == 0

    virtually(scenario)


@pytest.mark.parametrize(
    "options",
    [
        {"chunk_bytes": MIB + 1},
        {"chunk_bytes": 0},
        {"max_requests": 0},
        {"max_waiting": 1},
        {"memory_bytes": 7 * MIB},
    ],
)
def test_a_configuration_that_cannot_keep_its_bounds_is_refused(options: dict[str, int]) -> None:
    chosen = {"memory_bytes": 16 * MIB, "chunk_bytes": MIB, "max_requests": 4} | options
    with pytest.raises(ValueError, match=r"."):
        RemoteReader(MemoryStore(), ReaderConfig(**chosen))


STEP = st.one_of(
    st.tuples(st.just("read"), st.integers(0, 2), st.integers(0, 9 * MIB), st.integers(0, 3 * MIB)),
    st.tuples(st.just("scan"), st.integers(0, 2), st.integers(0, 9 * MIB), st.integers(200_000, 2 * MIB)),
    st.tuples(st.just("impatient"), st.integers(0, 2), st.integers(0, 9 * MIB), st.integers(0, MIB)),
    st.tuples(st.just("locate"), st.integers(0, 2), st.integers(90, 150), st.just(0)),
    st.tuples(st.just("forget"), st.integers(0, 2), st.just(0), st.just(0)),
)


class Watched(Bucket):
    """Looks at the memory at every request."""

    limit = 0
    watched: RemoteReader | None = None

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        assert self.watched is not None
        assert self.watched.memory_bytes <= self.limit
        return await super().get(key, start, end)


async def act(reader: RemoteReader, bucket: Bucket, step: tuple[str, int, int, int]) -> None:
    kind, number, position, length = step
    segment, log = bucket.segments[number], bucket.logs[number]
    if kind in ("read", "impatient"):
        # No more than the chunks that are fetched at once.
        length = min(length, position // MIB * MIB + 3 * MIB - position)
    then = bucket.segments[number + 1] if number < 2 else None
    if kind == "read":
        assert await reader.read(segment, position, length) == log[position : position + length]
    elif kind == "scan":
        for _ in range(6):
            some = min(length, position // MIB * MIB + 3 * MIB - position)
            data = await reader.read(segment, position, some, then=then)
            assert data == log[position : position + some]
            position += len(data) * 9 // 10
    elif kind == "impatient":
        try:
            async with asyncio.timeout(0.5):
                assert await reader.read(segment, position, length) == log[position : position + length]
        except TimeoutError:
            pass
    elif kind == "locate":
        record = min(max(0, (position - 100) // 4 * 4), 36)
        assert await reader.locate(segment, position) == min(record * 1000, segment.log_bytes)
    else:
        reader.forget(segment.key)


# Shrinking takes minutes: a failing schedule is short enough to read as it is.
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.lists(st.lists(STEP, min_size=1, max_size=5), min_size=1, max_size=8),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.2]),
    st.booleans(),
)
def test_any_interleaving_reads_right_bytes_within_the_bounds(
    tmp_path_factory: pytest.TempPathFactory,
    plans: list[list[tuple[str, int, int, int]]],
    seed: int,
    faults: float,
    with_disk: bool,
) -> None:
    async def scenario() -> None:
        config = ReaderConfig(
            memory_bytes=(12 if with_disk else 10) * MIB,
            chunk_bytes=MIB,
            max_requests=3,
            max_waiting=12,
            max_ahead_chunks=3,
        )
        bucket = Watched(9 * MIB, 5 * MIB + 5, 1000)
        disk = None
        if with_disk:
            disk = DiskCache(tmp_path_factory.mktemp("cache"), 5 * MIB, in_thread=inline)
            disk.open()
        reader = bucket.watched = bucket.reader(config, disk=disk)
        bucket.limit = 10 * MIB
        rng = random.Random(seed)
        bucket.store.plan = RandomFaults(
            rng, {Kind.SLOW: 0.5, Kind.UNAVAILABLE: faults, Kind.DAMAGED: faults / 2}, longest_delay_s=4
        )

        async def run_plan(plan: Iterable[tuple[str, int, int, int]]) -> None:
            for step in plan:
                try:
                    await act(reader, bucket, step)
                except Unavailable:
                    await asyncio.sleep(rng.random())
                assert reader.memory_bytes <= bucket.limit

        work: list[Awaitable[None]] = [run_plan(plan) for plan in plans]
        await asyncio.gather(*work)
        await reader.close()
        if disk is not None:
            await disk.close()
            assert disk.used_bytes <= 5 * MIB
            assert sum(path.stat().st_size for path in disk._directory.iterdir()) == disk.used_bytes

    virtually(scenario)
