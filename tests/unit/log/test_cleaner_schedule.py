"""The cleaner as a broker runs it: which log when, what failures lead to, and the process that does the work."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from tests.unit.log.cleaner_support import clean, contents, keyed, prepare
from tests.unit.log.support import NOW_MS, append

from strandline_broker.log.checkpoints import CLEANER_OFFSETS, read_offsets
from strandline_broker.log.cleaner import CleanerConfig, LogCleaner
from strandline_broker.log.cleaner_child import ChildDied, ChildWorker
from strandline_broker.log.cleaner_plan import Group
from strandline_broker.log.cleaner_swap import run_here
from strandline_broker.log.cleaner_work import (
    ENTRY_BYTES,
    Cleaned,
    CleaningAborted,
    InlineWorker,
    Throttle,
    Worker,
)
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.log.manager import LogManager
from strandline_broker.log.scan import CorruptBatch
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.local_disk import LocalDisk

COMPACT = LogConfig(cleanup_policy=frozenset({"compact"}), segment_bytes=700)


class Harness:
    """A cleaner over a few logs on a real disk."""

    def __init__(self, path: Path, *, make_worker: Callable[[LocalDisk], Worker] = InlineWorker) -> None:
        self.disk = LocalDisk(path)
        self.clock = ManualClock(wall_ms=NOW_MS)
        self.logs = LogManager(self.disk, self.clock)
        self.logs.open()
        self.synced: list[Log] = []
        self.executor = ThreadPoolExecutor(1)
        self.cleaner = LogCleaner(
            self.logs,
            self.clock,
            self.executor,
            config=CleanerConfig(dedupe_buffer_bytes=ENTRY_BYTES * 1000, backoff_ms=20),
            make_worker=lambda: make_worker(self.disk),
            stable_offset_of=lambda log: log.end_offset,
            high_watermark_of=lambda log: log.end_offset,
            request_sync=self.synced.append,
        )

    def log(self, name: str, segments: int, config: LogConfig = COMPACT) -> Log:
        """Make a log of two keys with so many sealed segments."""
        log = self.logs.open_or_create(name, 0, UUID(int=len(self.logs.logs) + 1), config)
        self.append(log, segments)
        return log

    def append(self, log: Log, segments: int) -> None:
        """Add sealed segments, durably."""
        for _ in range(segments):
            append(log, keyed([(b"a", b"%d" % log.end_offset), (b"b", b"%d" % log.end_offset)]))
            log.roll(NOW_MS)
        log.sync()


def run(path: Path, test: Callable[[Harness], Awaitable[None]], **arguments: object) -> None:
    async def main() -> None:
        harness = Harness(path, **arguments)  # type: ignore[arg-type]
        try:
            await test(harness)
        finally:
            harness.executor.shutdown()

    asyncio.run(main())


def test_the_dirtiest_log_goes_first_and_checkpoints_follow(tmp_path: Path) -> None:
    async def test(harness: Harness) -> None:
        cleaner = harness.cleaner
        half, new = harness.log("half", 3), harness.log("new", 2)
        harness.log("plain", 3, LogConfig())
        assert await cleaner.clean_once()
        assert await cleaner.clean_once()
        assert read_offsets(harness.disk, CLEANER_OFFSETS) == {("half", 0): 6, ("new", 0): 4}
        assert [len(contents(log)) for log in (half, new)] == [2, 2]
        assert not await cleaner.clean_once(), "nothing is due"
        harness.append(half, 3)
        harness.append(new, 9)
        assert await cleaner.clean_once()
        assert (len(contents(new)), len(contents(half))) == (2, 8)
        assert cleaner.metrics.max_dirty_ratio > 0.8
        metrics = cleaner.metrics
        assert (metrics.cleanings, metrics.failed, metrics.aborted) == (3, 0, 0)
        assert metrics.records_removed == 4 + 2 + 18
        assert metrics.bytes_freed > 0
        assert harness.synced, "new names are made durable with the next sync"

    run(tmp_path, test)


def test_a_log_that_cannot_be_cleaned_keeps_no_other_from_it(tmp_path: Path) -> None:
    async def test(harness: Harness) -> None:
        bad, good = harness.log("bad", 9), harness.log("good", 2)
        position = bad.segments[2].file.pread(1000, 0).rindex(b"b")
        bad.segments[2].file.pwrite(b"X", position)
        assert not await harness.cleaner.clean_once()
        assert harness.cleaner.uncleanable == ["bad-0"]
        assert not bad.failed
        assert await harness.cleaner.clean_once()
        assert len(contents(good)) == 2
        assert not await harness.cleaner.clean_once()
        assert harness.cleaner.metrics.failed == 1
        harness.logs.purge(UUID(int=1))
        assert harness.cleaner.uncleanable == []

    run(tmp_path, test)


class FullDisk(InlineWorker):
    """A worker whose disk is full."""

    room = False

    def write(self, group: Group) -> Cleaned:
        if not FullDisk.room:
            raise OSError(28, "No space left on device")
        return super().write(group)


def test_a_full_disk_is_tried_again_later(tmp_path: Path) -> None:
    async def test(harness: Harness) -> None:
        log = harness.log("t", 3)
        FullDisk.room = False
        assert not await harness.cleaner.clean_once()
        assert harness.cleaner.uncleanable == []
        assert not log.failed
        FullDisk.room = True
        assert not await harness.cleaner.clean_once(), "not at once"
        harness.clock.advance(61)
        assert await harness.cleaner.clean_once()
        assert len(contents(log)) == 2

    run(tmp_path, test, make_worker=FullDisk)


def test_retention_takes_its_turn_after_a_cleaning(tmp_path: Path) -> None:
    async def test(harness: Harness) -> None:
        config = replace(COMPACT, cleanup_policy=frozenset({"compact", "delete"}), retention_bytes=0)
        log = harness.log("t", 5, config)
        assert await harness.cleaner.clean_once()
        assert log.start_offset == 10

    run(tmp_path, test)


def test_a_topic_that_becomes_compacted_and_one_that_is_no_more(tmp_path: Path) -> None:
    async def test(harness: Harness) -> None:
        log = harness.log("t", 3, LogConfig())
        assert not await harness.cleaner.clean_once()
        log.config = COMPACT
        assert await harness.cleaner.clean_once()
        harness.append(log, 5)
        log.config = LogConfig()
        assert not await harness.cleaner.clean_once()

    run(tmp_path, test)


class Patient(InlineWorker):
    """A worker that waits before it writes."""

    reached = threading.Event()
    go_on = threading.Event()

    def write(self, group: Group) -> Cleaned:
        Patient.reached.set()
        assert Patient.go_on.wait(20)
        return super().write(group)


@pytest.mark.parametrize("how", ["stop", "truncate", "purge"])
def test_what_runs_is_aborted(tmp_path: Path, how: str) -> None:
    Patient.reached.clear()
    Patient.go_on.clear()

    async def test(harness: Harness) -> None:
        log = harness.log("t", 4)
        loop = asyncio.create_task(harness.cleaner.run())
        await asyncio.to_thread(Patient.reached.wait, 20)
        if how == "stop":
            harness.cleaner.stop()
        elif how == "truncate":
            log.truncate_to(2)
        else:
            harness.logs.purge(UUID(int=1))
        Patient.go_on.set()
        while harness.cleaner.metrics.aborted == 0:
            await asyncio.sleep(0.001)
        harness.cleaner.stop()
        await asyncio.wait_for(loop, 20)
        assert log.cleaning is None
        assert read_offsets(harness.disk, CLEANER_OFFSETS) == {}
        if how != "purge":
            assert not [name for name in harness.disk.listdir("t-0") if name.endswith(".cleaned")]
            assert log.verify() == []

    run(tmp_path, test, make_worker=Patient)


def test_the_loop_goes_on_after_its_backoff_and_stops_at_once(tmp_path: Path) -> None:
    async def test(harness: Harness) -> None:
        loop = asyncio.create_task(harness.cleaner.run())
        await asyncio.sleep(0)
        log = harness.log("t", 3)
        while harness.cleaner.metrics.cleanings == 0:
            await asyncio.sleep(0.001)
        assert len(contents(log)) == 2
        harness.cleaner.config = CleanerConfig(backoff_ms=3_600_000)
        await asyncio.sleep(0.03)
        harness.cleaner.stop()
        await asyncio.wait_for(loop, 20)

    run(tmp_path, test)


class TestChildProcess:
    def test_it_does_what_the_worker_here_does(self, tmp_path: Path) -> None:
        images = []
        for name, make in (("here", InlineWorker), ("child", ChildWorker)):
            disk = LocalDisk(tmp_path / name)
            log = Log.open(disk, "t-0", COMPACT, now_ms=NOW_MS, clean=False)
            for number in range(60):
                append(
                    log,
                    keyed(
                        [(b"%d" % (number % 7), b"x" * 50), (b"long" * 20, None)], producer=(3, 0, 2 * number)
                    ),
                )
            worker: Worker = make(disk)
            outcome = clean(log, worker=worker)
            worker.close()
            assert outcome.bytes_freed > 0
            files = {name: disk.read_bytes(f"t-0/{name}") for name in disk.listdir("t-0")}
            images.append((outcome, files))
        assert images[0] == images[1]

    def test_its_failures_are_ours(self, tmp_path: Path) -> None:
        disk = LocalDisk(tmp_path)
        log = Log.open(disk, "t-0", COMPACT, now_ms=NOW_MS, clean=False)
        append(log, keyed([(b"a", b"1")]), keyed([(b"a", b"value")]))
        log.roll(NOW_MS)
        log.segments[0].file.pwrite(b"v4lue", log.segments[0].file.pread(999, 0).index(b"value"))
        worker = ChildWorker(disk)
        with pytest.raises(CorruptBatch, match="checksum"):
            run_here(prepare(log, worker=worker))
        worker.close()
        disk.remove("t-0/00000000000000000000.log")
        worker = ChildWorker(disk)
        with pytest.raises(OSError, match="No such file"):
            run_here(prepare(log, worker=worker))
        worker.close()

    def test_killed_by_somebody_it_is_a_failure_that_may_pass(self, tmp_path: Path) -> None:
        disk = LocalDisk(tmp_path)
        log = Log.open(disk, "t-0", COMPACT, now_ms=NOW_MS, clean=False)
        append(log, keyed([(b"a", b"1")]), keyed([(b"a", b"2")]))
        log.roll(NOW_MS)
        worker = ChildWorker(disk)
        steps = prepare(log, worker=worker).steps()
        work = steps.send(next(steps)())
        assert worker._process is not None
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(ChildDied):
            work()
        steps.close()
        worker.close()

    def test_cancelled_it_ends_and_leaves_nothing(self, tmp_path: Path) -> None:
        disk = LocalDisk(tmp_path)
        log = Log.open(disk, "t-0", COMPACT, now_ms=NOW_MS, clean=False)
        append(log, keyed([(b"a", b"1")]), keyed([(b"a", b"2")]))
        log.roll(NOW_MS)
        worker = ChildWorker(disk)
        cleaning = prepare(log, worker=worker)
        steps = cleaning.steps()
        work = steps.send(next(steps)())
        disk.open("t-0/00000000000000000000.log.cleaned", create=True)
        cleaning.abort()
        with pytest.raises(CleaningAborted):
            work()
        steps.close()
        worker.close()
        assert not [name for name in disk.listdir("t-0") if name.endswith(".cleaned")]
        never = ChildWorker(disk)
        never.cancel()
        with pytest.raises(CleaningAborted):
            never.build(cleaning.job)
        never.close()

    def test_it_does_not_outlive_a_parent_that_was_killed(self, tmp_path: Path) -> None:
        """The parent dies while the child is busy; the child must not wait for the end of its work."""
        disk = LocalDisk(tmp_path)
        log = Log.open(disk, "t-0", replace(COMPACT, segment_bytes=1 << 20), now_ms=NOW_MS, clean=False)
        for number in range(300):
            append(log, keyed([(b"%d" % (number % 7), b"x" * 500)]))
        log.roll(NOW_MS)
        job = replace(prepare(log).job, max_bytes_per_second=20_000)
        program = (
            "import os, sys, threading\n"
            "from strandline_broker.log.cleaner_child import ChildWorker\n"
            "from strandline_broker.log.cleaner_work import Job\n"
            "from strandline_broker.log.cleaner_plan import Source\n"
            "from strandline_broker.seams.local_disk import LocalDisk\n"
            f"worker = ChildWorker(LocalDisk({str(tmp_path)!r}))\n"
            f"threading.Thread(target=worker.build, args=({job!r},), daemon=True).start()\n"
            "while worker._process is None: threading.Event().wait(0.001)\n"
            "print(worker._process.pid, flush=True)\n"
            "threading.Event().wait(60)\n"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            assert Path(f"/proc/{child}").exists()
            parent.kill()
            parent.wait()
        for _ in range(20_000):
            if not _runs(child):
                break
            os.sched_yield()
            threading.Event().wait(0.001)
        assert not _runs(child)


def _runs(pid: int) -> bool:
    """Whether a process runs; one that nobody waited for does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_throttle_keeps_the_average() -> None:
    now = 0.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    throttle = Throttle(1000, lambda: now, sleep)
    for _ in range(10):
        throttle.account(500)
    assert now == pytest.approx(5.0)
    now += 100
    throttle.account(500)
    assert now == pytest.approx(105.0), "time that passed otherwise counts"
    unlimited = Throttle(0, lambda: now, sleep)
    before = len(slept)
    unlimited.account(1 << 40)
    assert len(slept) == before


def test_reading_and_writing_are_throttled(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path)
    log = Log.open(disk, "t-0", COMPACT, now_ms=NOW_MS, clean=False)
    for number in range(30):
        append(log, keyed([(b"%d" % (number % 7), b"x" * 50)]))
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    worker = InlineWorker(disk, monotonic=lambda: now, sleep=sleep)
    cleaning = prepare(log, worker=worker)
    cleaning.job = replace(cleaning.job, max_bytes_per_second=1000)
    size = sum(source.size for source in cleaning.job.sources)
    outcome = run_here(cleaning)
    assert now == pytest.approx((2 * size + outcome.bytes_written) / 1000, rel=0.2)


def test_the_map_takes_no_more_memory_than_stated() -> None:
    import tracemalloc

    from strandline_broker.log.cleaner_records import key_identity

    for pattern in (b"user-%026d", b"a-key-longer-than-31-bytes-%010d"):
        tracemalloc.start()
        latest: dict[bytes, int] = {}
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        count = 180_000  # just beyond a growth of the table, where it is largest for what it holds
        for number in range(count):
            latest[key_identity(pattern % number)] = (1 << 40) + number
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        assert peak / count < ENTRY_BYTES
