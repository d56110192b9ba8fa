from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.unit.log.conftest import OpenLog
from tests.unit.log.support import NOW_MS, FailingDisk, append, make_batch, offsets

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log

SMALL = LogConfig(segment_bytes=400, index_interval_bytes=100)


def fill(log: Log, count: int, *, step_ms: int = 1) -> None:
    for number in range(count):
        append(log, make_batch(1, size=50, timestamp=NOW_MS + number * step_ms), epoch=number // 7)


@pytest.mark.parametrize("keep", range(21))
def test_truncation_to_every_offset(open_log: OpenLog, keep: int) -> None:
    log = open_log(SMALL)
    fill(log, 20)
    log.sync()
    log.truncate_to(keep)
    expected = [(offset, offset) for offset in range(min(keep, 20))]
    assert offsets(log) == expected
    assert (log.end_offset, log.synced_end) == (min(keep, 20), min(keep, 20))
    assert log.epochs.entries == [(number, number * 7) for number in range(3) if number * 7 < keep]
    assert log.max_timestamp(100) == (
        (NOW_MS + len(expected) - 1, len(expected) - 1, (len(expected) - 1) // 7) if expected else None
    )
    append(log, make_batch(2), epoch=9)
    again = open_log(SMALL)
    assert offsets(again) == [*expected, (len(expected), len(expected) + 1)]
    assert again.last_epoch == 9


def test_truncation_within_a_batch_drops_the_batch(open_log: OpenLog) -> None:
    log = open_log()
    append(log, make_batch(3), make_batch(3))
    log.truncate_to(4)
    assert log.end_offset == 3
    assert log.epoch_end_offset(0) == (0, 3)


def test_the_recovery_point_falls_before_anything_is_cut(open_log: OpenLog) -> None:
    log = open_log(SMALL)
    fill(log, 20)
    log.sync()
    seen: list[tuple[int, int]] = []

    class Keeper:
        def recovery_point_falls(self, log: Log, offset: int) -> None:
            seen.append((offset, log.end_offset))

        def write_failed(self, error: OSError) -> None:
            raise AssertionError("nothing is written")

    log.keeper = Keeper()
    log.truncate_to(15)
    log.truncate_to(15)
    log.reset_to(100)
    assert seen == [(15, 20), (0, 15)]


def test_reset_starts_over_anywhere(open_log: OpenLog) -> None:
    log = open_log(SMALL)
    fill(log, 20)
    log.reset_to(1000)
    assert (log.start_offset, log.end_offset, log.synced_end, log.last_epoch) == (1000, 1000, 1000, -1)
    append(log, make_batch(1), epoch=30)
    log.close()
    again = open_log(SMALL, clean=True)
    assert (again.start_offset, offsets(again)) == (1000, [(1000, 1000)])
    again.reset_to(5)
    assert (again.start_offset, again.end_offset) == (5, 5)


def test_delete_records_is_durable_and_cannot_pass_the_end(open_log: OpenLog, disk: FailingDisk) -> None:
    log = open_log(SMALL)
    fill(log, 20)
    log.advance_start(9)
    log.advance_start(3)
    assert log.start_offset == 9
    with pytest.raises(KafkaError) as caught:
        log.read(8, 100, 20, min_one_batch=True)
    assert caught.value.code is ErrorCode.OFFSET_OUT_OF_RANGE
    with pytest.raises(KafkaError) as caught:
        log.advance_start(21)
    assert caught.value.code is ErrorCode.OFFSET_OUT_OF_RANGE
    assert offsets(log) == [(offset, offset) for offset in range(9, 20)]
    assert log.epochs.entries == [(1, 9), (2, 14)]
    again = open_log(SMALL)
    assert again.start_offset == 9
    assert again.segments[0].base_offset <= 9 < again.segments[1].base_offset


def test_a_log_that_ends_below_its_start_starts_over(open_log: OpenLog) -> None:
    log = open_log(SMALL)
    fill(log, 5)
    log.close()
    again = open_log(SMALL, start_offset=50)
    assert (again.start_offset, again.end_offset) == (50, 50)


class TestRetention:
    def test_by_time_oldest_first(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_bytes=400, retention_ms=1000))
        fill(log, 20, step_ms=100)
        sizes = {segment.base_offset: segment.size for segment in log.segments}
        now = NOW_MS + 1900
        freed = log.apply_retention(now, 20)
        gone = [base for base in sizes if base < log.start_offset]
        assert freed == sum(sizes[base] for base in gone) > 0
        assert log.segments[0].base_offset == log.start_offset
        assert now - log.segments[0].max_timestamp <= 1000
        assert log.apply_retention(now, 20) == 0

    def test_by_size_keeps_at_least_that_much(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_bytes=400, retention_bytes=1000, retention_ms=-1))
        fill(log, 40)
        log.apply_retention(NOW_MS, 40)
        assert log.size_bytes >= 1000
        assert log.size_bytes - log.segments[0].size < 1000

    def test_never_at_or_above_the_high_watermark(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_bytes=400, retention_ms=0, retention_bytes=0))
        fill(log, 20)
        second, third = log.segments[1].base_offset, log.segments[2].base_offset
        log.apply_retention(NOW_MS + 10**9, third - 1)
        assert log.start_offset == second
        log.apply_retention(NOW_MS + 10**9, third)
        assert log.start_offset == third

    def test_the_active_segment_goes_only_when_all_of_it_is_obsolete(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_bytes=400, retention_ms=1000))
        fill(log, 20)
        log.apply_retention(NOW_MS + 10**6, 20)
        assert (log.start_offset, log.end_offset, log.size_bytes) == (20, 20, 0)
        assert [segment.base_offset for segment in log.segments] == [20]
        assert log.apply_retention(NOW_MS + 10**6, 20) == 0
        append(log, make_batch(1), epoch=2)
        assert offsets(open_log(SMALL)) == [(20, 20)]

    def test_an_epoch_below_the_logs_own_is_fenced(self, open_log: OpenLog) -> None:
        log = open_log()
        append(log, make_batch(1), epoch=5)
        with pytest.raises(KafkaError) as caught:
            append(log, make_batch(1), epoch=4)
        assert caught.value.code is ErrorCode.FENCED_LEADER_EPOCH
        with pytest.raises(KafkaError):
            log.assign_epoch_start(4)
        append(log, make_batch(1), epoch=5)
        assert log.epochs.entries == [(5, 0)]

    def test_only_the_log_start_counts_without_the_delete_policy(self, open_log: OpenLog) -> None:
        log = open_log(
            LogConfig(
                segment_bytes=400, retention_ms=0, retention_bytes=0, cleanup_policy=frozenset({"compact"})
            )
        )
        fill(log, 20)
        assert log.apply_retention(NOW_MS + 10**9, 20) == 0
        third = log.segments[2].base_offset
        log.advance_start(third + 1)
        assert log.apply_retention(NOW_MS, 20) > 0
        assert log.segments[0].base_offset == third
        assert log.start_offset == third + 1

    def test_segments_without_timestamps_age_from_their_making(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_bytes=400, retention_ms=1000))
        for _ in range(8):
            append(log, make_batch(1, size=50, timestamp=-1))
        assert log.apply_retention(NOW_MS + 1000, 8) == 0
        assert log.apply_retention(NOW_MS + 1001, 8) > 0

    def test_a_crash_cannot_bring_deleted_segments_back(self, open_log: OpenLog, disk: FailingDisk) -> None:
        log = open_log(LogConfig(segment_bytes=400, retention_ms=1000))
        fill(log, 20)
        base = log.segments[0].base_offset
        saved = disk.read_bytes(log.segments[0].path)
        path = log.segments[0].path
        log.apply_retention(NOW_MS + 10**6, 10)
        start = log.start_offset
        assert start > base
        disk.open(path, create=True).append([saved])
        again = open_log(SMALL)
        assert again.start_offset == start
        assert not disk.exists(path)

    def test_files_are_removed(self, open_log: OpenLog, disk: FailingDisk) -> None:
        log = open_log(LogConfig(segment_bytes=400, retention_ms=1000))
        fill(log, 20)
        jobs: list[Callable[[], None]] = []
        log.in_background = jobs.append
        log.apply_retention(NOW_MS + 10**6, 20)
        assert any(name.endswith(".log.deleted") for name in disk.listdir("topic-0"))
        for job in jobs:
            job()
        names = disk.listdir("topic-0")
        assert not any(name.endswith(".deleted") for name in names)
        assert [name for name in names if name.endswith((".log", ".index"))] == ["00000000000000000020.log"]


class TestTimestamps:
    def test_first_record_at_or_after(self, open_log: OpenLog) -> None:
        log = open_log(SMALL)
        for number in range(20):
            append(log, make_batch(3, size=20, timestamp=NOW_MS + number * 10))
        for number in range(20):
            base = NOW_MS + number * 10
            assert log.offset_for_timestamp(base, 60) == (base, number * 3, 0)
            assert log.offset_for_timestamp(base + 1, 60) == (base + 1, number * 3 + 1, 0)
            if number < 19:
                assert log.offset_for_timestamp(base + 3, 60) == (base + 10, number * 3 + 3, 0)
        assert log.offset_for_timestamp(NOW_MS + 193, 60) is None
        assert log.offset_for_timestamp(NOW_MS + 100, 30) is None
        assert log.offset_for_timestamp(0, 60) == (NOW_MS, 0, 0)
        log.advance_start(4)
        assert log.offset_for_timestamp(0, 60) == (NOW_MS + 11, 4, 0)

    def test_timestamps_out_of_order(self, open_log: OpenLog) -> None:
        log = open_log(SMALL)
        times = [5, 3, 9, 1, 9, 7, 2, 30, 4, 8] * 3
        for time in times:
            append(log, make_batch(1, size=30, timestamp=time))
        for target in range(1, 32):
            expected = next(((time, offset, 0) for offset, time in enumerate(times) if time >= target), None)
            assert log.offset_for_timestamp(target, 100) == expected
        for upper in range(1, 31):
            best = max(times[:upper])
            assert log.max_timestamp(upper) == (best, times.index(best), 0)

    def test_log_append_time(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(message_timestamp_type="LogAppendTime"))
        staged = log.stage(memoryview(make_batch(3, timestamp=5)), 0, 1000)
        log.commit()
        assert staged.log_append_time_ms == 1000
        log.stage(memoryview(make_batch(3, timestamp=5)), 0, 2000)
        log.commit()
        assert log.offset_for_timestamp(1500, 6) == (2000, 3, 0)
        assert log.max_timestamp(6) == (2000, 3, 0)
