from __future__ import annotations

import pytest
from tests.unit.log.conftest import OpenLog
from tests.unit.log.support import NOW_MS, FailingDisk, append, make_batch, offsets, read_all

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.wire.batch import crc_ok, iter_batches, read_header


def test_offsets_and_epoch_are_assigned_in_place_and_the_checksum_still_holds(open_log: OpenLog) -> None:
    log = open_log()
    first, second = make_batch(3), make_batch(2)
    staged = log.stage(memoryview(first), 7, NOW_MS)
    assert (staged.base_offset, staged.last_offset, staged.log_append_time_ms, staged.duplicate) == (
        0,
        2,
        -1,
        False,
    )
    staged = log.stage(memoryview(second), 7, NOW_MS)
    assert (staged.base_offset, staged.last_offset) == (3, 4)
    assert log.end_offset == 0
    assert log.read(0, 1000, 100, min_one_batch=True) is None
    log.commit()
    assert (log.end_offset, log.synced_end, log.last_epoch) == (5, 0, 7)
    data = read_all(log)
    assert data == bytes(first + second)
    for position, header in iter_batches(data):
        assert header.leader_epoch == 7
        assert crc_ok(memoryview(data)[position : position + header.size])


def test_nothing_beyond_the_upper_offset_is_read(open_log: OpenLog) -> None:
    log = open_log()
    for _ in range(10):
        append(log, make_batch(2))
    for upper in range(0, 22, 2):
        found = log.read(0, 1 << 20, upper, min_one_batch=True)
        expected = [(offset, offset + 1) for offset in range(0, min(upper, 20), 2)]
        seen = (
            [] if found is None else [(h.base_offset, h.last_offset) for _, h in iter_batches(found.read())]
        )
        assert seen == expected
    # An upper offset within a batch keeps the batch back.
    found = log.read(0, 1 << 20, 5, min_one_batch=True)
    assert found is not None
    assert read_header(found.read()[-len(make_batch(2)) :]).last_offset == 3


def test_an_upper_offset_that_is_no_commit_boundary_is_found_by_index_and_scan(open_log: OpenLog) -> None:
    log = open_log(LogConfig(index_interval_bytes=200))
    append(log, *[make_batch(1, size=50) for _ in range(100)])
    for upper in (1, 37, 99):
        found = log.read(0, 1 << 20, upper, min_one_batch=True)
        assert found is not None
        assert [h.base_offset for _, h in iter_batches(found.read())] == list(range(upper))


def test_max_bytes_is_respected_but_for_the_first_batch(open_log: OpenLog) -> None:
    log = open_log(LogConfig(index_interval_bytes=1))
    size = len(make_batch(1, size=1000))
    append(log, *[make_batch(1, size=1000) for _ in range(10)])
    assert log.read(0, size - 1, 10, min_one_batch=False) is None
    found = log.read(0, size - 1, 10, min_one_batch=True)
    assert found is not None
    assert len(found) == size
    found = log.read(2, 3 * size + 5, 10, min_one_batch=False)
    assert found is not None
    assert len(found) == 3 * size
    assert log.read(2, 0, 10, min_one_batch=False) is None


def test_reads_start_with_the_batch_that_holds_the_offset(open_log: OpenLog) -> None:
    log = open_log(LogConfig(index_interval_bytes=100, segment_bytes=2000))
    for _ in range(50):
        append(log, make_batch(3, size=40))
    assert len(log.segments) > 2
    for offset in range(150):
        found = log.read(offset, 1, 150, min_one_batch=True)
        assert found is not None
        header = read_header(found.read())
        assert header.base_offset <= offset <= header.last_offset


@pytest.mark.parametrize("offset", [-1, 5, 100])
def test_offsets_outside_are_out_of_range(open_log: OpenLog, offset: int) -> None:
    log = open_log()
    append(log, make_batch(4))
    assert log.read(4, 100, 4, min_one_batch=True) is None
    with pytest.raises(KafkaError) as caught:
        log.read(offset, 100, 4, min_one_batch=True)
    assert caught.value.code is ErrorCode.OFFSET_OUT_OF_RANGE


def test_sequential_readers_of_every_size_see_everything_once(open_log: OpenLog) -> None:
    log = open_log(LogConfig(index_interval_bytes=300, segment_bytes=4000))
    expected = b""
    for count in range(60):
        batch = make_batch(1 + count % 4, size=count * 5)
        append(log, batch)
        expected += bytes(batch)
    for max_bytes in (1, 100, 500, 1777, 100_000):
        assert read_all(log, max_bytes) == expected


def test_a_burst_of_many_batches_is_one_write_even_above_iov_max(open_log: OpenLog) -> None:
    log = open_log()
    append(log, *[make_batch() for _ in range(2500)])
    assert offsets(log) == [(offset, offset) for offset in range(2500)]


def test_an_idle_reader_costs_no_open_file(open_log: OpenLog, disk: FailingDisk) -> None:
    log = open_log(LogConfig(segment_bytes=1000))
    for _ in range(40):
        append(log, make_batch(size=300))
    read_all(log, 1000)
    assert len(log.segments) > 16
    assert len(log.files) <= 16


class TestRolling:
    def test_by_size(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_bytes=1000))
        for _ in range(10):
            append(log, make_batch(size=300))
        assert all(segment.size <= 1000 for segment in log.segments)
        assert [segment.base_offset for segment in log.segments] == [0, 2, 4, 6, 8]
        assert log.size_bytes == len(read_all(log))

    def test_within_one_commit(self, open_log: OpenLog, disk: FailingDisk) -> None:
        log = open_log(LogConfig(segment_bytes=1000))
        append(log, *[make_batch(size=300) for _ in range(7)])
        assert [segment.base_offset for segment in log.segments] == [0, 2, 4, 6]
        assert offsets(log) == [(offset, offset) for offset in range(7)]
        names = disk.listdir("topic-0")
        assert "00000000000000000006.log" in names
        assert any(name.endswith(".snapshot") for name in names)

    def test_by_time_of_the_first_record(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_ms=1000))
        append(log, make_batch(timestamp=NOW_MS))
        append(log, make_batch(timestamp=NOW_MS + 1000))
        assert len(log.segments) == 1
        append(log, make_batch(timestamp=NOW_MS + 1001))
        assert [segment.base_offset for segment in log.segments] == [0, 2]
        append(log, make_batch(timestamp=NOW_MS + 2000))
        assert len(log.segments) == 2

    def test_a_follower_too_by_time_of_the_first_record(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_ms=1000))
        for offset, later_ms in enumerate((0, 1000, 1001, 2000)):
            batch = make_batch(timestamp=NOW_MS + later_ms, base_offset=offset, epoch=1)
            log.append_follower(memoryview(batch))
        assert [segment.base_offset for segment in log.segments] == [0, 2]

    def test_by_wall_clock_without_timestamps(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_ms=1000))
        append(log, make_batch(timestamp=-1))
        append(log, make_batch(timestamp=-1), now_ms=NOW_MS + 1000)
        assert len(log.segments) == 1
        append(log, make_batch(timestamp=-1), now_ms=NOW_MS + 1001)
        assert len(log.segments) == 2

    def test_jitter_only_ever_shortens(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_ms=1000, segment_jitter_ms=500))
        append(log, make_batch(timestamp=NOW_MS))
        append(log, make_batch(timestamp=NOW_MS + 499))
        assert len(log.segments) == 1
        append(log, make_batch(timestamp=NOW_MS + 1001))
        assert len(log.segments) == 2

    def test_by_a_full_index(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_index_bytes=60, index_interval_bytes=0))
        for count in range(12):
            append(log, make_batch(timestamp=NOW_MS + count))
        assert len(log.segments) > 1
        assert all(len(segment.time_index) <= 5 for segment in log.segments)
        assert offsets(log) == [(offset, offset) for offset in range(12)]

    def test_by_relative_offset_overflow(self, open_log: OpenLog) -> None:
        log = open_log()
        far = (1 << 31) + 5
        log.append_follower(memoryview(make_batch(base_offset=0, epoch=1)))
        log.append_follower(memoryview(make_batch(base_offset=far, epoch=1)))
        assert [segment.base_offset for segment in log.segments] == [0, 6 + (1 << 31) - 1]
        assert log.end_offset == far + 1
        log.close()
        again = open_log(clean=False)
        assert again.end_offset == far + 1

    def test_a_quiet_segment_rolls_by_age(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_ms=1000))
        assert not log.roll_if_due(NOW_MS + 5000)
        append(log, make_batch())
        assert not log.roll_if_due(NOW_MS + 1000)
        assert log.roll_if_due(NOW_MS + 1001)
        assert [segment.base_offset for segment in log.segments] == [0, 1]
        append(log, make_batch())
        assert offsets(log) == [(0, 0), (1, 1)]


def test_follower_appends_keep_offsets_and_epochs(open_log: OpenLog) -> None:
    log = open_log()
    wire = make_batch(2, base_offset=10, epoch=3) + make_batch(1, base_offset=15, epoch=5)
    torn = make_batch(1, base_offset=16, epoch=5)[:-1]
    assert log.append_follower(memoryview(wire + torn)) == 15
    assert read_all(log) == bytes(wire)
    assert log.epochs.entries == [(3, 10), (5, 15)]
    assert log.epoch_end_offset(3) == (3, 15)
    assert log.append_follower(memoryview(torn)) == -1


def test_follower_appends_refuse_what_does_not_follow(open_log: OpenLog) -> None:
    log = open_log()
    log.append_follower(memoryview(make_batch(2, base_offset=10, epoch=3)))
    with pytest.raises(KafkaError) as caught:
        log.append_follower(
            memoryview(make_batch(1, base_offset=12, epoch=3) + make_batch(1, base_offset=12, epoch=3))
        )
    assert caught.value.code is ErrorCode.OFFSET_OUT_OF_RANGE
    corrupt = make_batch(1, base_offset=12, epoch=3)
    corrupt[-1] ^= 1
    with pytest.raises(KafkaError) as caught:
        log.append_follower(memoryview(corrupt))
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE
    assert log.end_offset == 12
    assert log.append_follower(memoryview(make_batch(1, base_offset=12, epoch=3))) == 12


def test_a_dynamic_change_takes_effect_with_the_next_append(open_log: OpenLog) -> None:
    log = open_log()
    for _ in range(4):
        append(log, make_batch(size=300))
    assert len(log.segments) == 1
    log.config = LogConfig(segment_bytes=1000)
    append(log, make_batch(size=300))
    assert [segment.base_offset for segment in log.segments] == [0, 4]


def test_a_slice_outlives_its_segment(open_log: OpenLog) -> None:
    log = open_log(LogConfig(segment_bytes=500, retention_bytes=0))
    batch = make_batch(size=300)
    append(log, batch)
    found = log.read(0, 1000, 1, min_one_batch=True)
    append(log, make_batch(size=300))
    log.apply_retention(NOW_MS, 2)
    assert log.start_offset > 0
    assert found is not None
    assert found.read() == bytes(batch)
