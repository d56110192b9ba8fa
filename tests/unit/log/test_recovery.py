from __future__ import annotations

import errno
import random
import struct

import pytest
from tests.unit.log.conftest import OpenLog
from tests.unit.log.support import NOW_MS, FailingDisk, FailingFile, append, make_batch, offsets, read_all

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.seams.disk import Buffer, DiskError
from strandline_broker.seams.sim_disk import SimDisk

FIRST = "topic-0/00000000000000000000"
SMALL = LogConfig(segment_bytes=1000, index_interval_bytes=100)


def fill(open_log: OpenLog, count: int, *, clean: bool = False, config: LogConfig = SMALL) -> bytes:
    log = open_log(config)
    for number in range(count):
        append(log, make_batch(1, size=50, timestamp=NOW_MS + number), epoch=number // 20)
    log.sync()
    content = read_all(log)
    if clean:
        log.close()
    return content


def test_a_torn_tail_is_cut_at_every_byte(open_log: OpenLog, disk: FailingDisk) -> None:
    batch_size = len(make_batch(1, size=50))
    fill(open_log, 3, config=LogConfig())
    content = disk.read_bytes(f"{FIRST}.log")
    for cut in range(2 * batch_size, 3 * batch_size):
        disk.open(f"{FIRST}.log").truncate(cut)
        log = open_log()
        assert offsets(log) == [(0, 0), (1, 1)]
        assert log.recovery.truncated_bytes == cut - 2 * batch_size
        assert disk.open(f"{FIRST}.log").size() == 2 * batch_size
        assert log.synced_end == log.end_offset == 2
        disk.open(f"{FIRST}.log").append([content[2 * batch_size :]])


@pytest.mark.parametrize("segment_bytes", [1 << 20, 400], ids=["one segment", "several segments"])
@pytest.mark.parametrize("seed", range(8))
def test_what_is_accepted_after_a_sync_failed_for_a_killed_process_survives_a_power_cut(
    seed: int, segment_bytes: int
) -> None:
    """The pages of a failed sync can be read and count as written, so the next sync alone would pass over them."""
    config = LogConfig(segment_bytes=segment_bytes)
    disk = SimDisk()
    log = Log.open(disk, "topic-0", config, now_ms=NOW_MS, clean=False)
    append(log, make_batch(1, size=90))
    log.sync()
    append(log, make_batch(1, size=90))
    for _ in range(4):
        append(log, make_batch(2, size=90))
    disk.fail_next("datasync", errno.EIO, path_part=".log", times=9)
    with pytest.raises(DiskError):
        log.sync()
    disk.clear_faults()

    disk = disk.kill()
    found = Log.open(disk, "topic-0", config, now_ms=NOW_MS, clean=False, recovery_point=1)
    assert (found.end_offset, found.synced_end) == (10, 10)
    content = read_all(found)

    disk = disk.crash(random.Random(seed))
    found = Log.open(disk, "topic-0", config, now_ms=NOW_MS, clean=False, recovery_point=10)
    assert read_all(found) == content
    assert not found.recovery.lost_synced


def test_only_what_may_not_be_on_the_disk_is_written_again(
    open_log: OpenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(open_log, 5, config=LogConfig())
    written: list[tuple[int, int]] = []
    write = FailingFile.pwrite

    def pwrite(file: FailingFile, data: Buffer, offset: int) -> None:
        if file.path.endswith(".log"):
            written.append((offset, len(data)))
        write(file, data, offset)

    monkeypatch.setattr(FailingFile, "pwrite", pwrite)
    size = len(make_batch(1, size=50))
    for recovery_point, expected in ((5, []), (3, [(3 * size, 2 * size)]), (0, [(0, 5 * size)])):
        written.clear()
        open_log(recovery_point=recovery_point)
        assert written == expected


def test_a_tail_of_zeros_or_garbage_is_cut(open_log: OpenLog, disk: FailingDisk) -> None:
    content = fill(open_log, 5, config=LogConfig())
    for garbage in (bytes(10), bytes(4096), b"\xff" * 100, content[:70], content):
        disk.open(f"{FIRST}.log").append([garbage])
        log = open_log()
        assert read_all(log) == content
        assert log.recovery.reason


def test_every_flipped_byte_of_the_last_batch_is_found(open_log: OpenLog, disk: FailingDisk) -> None:
    content = fill(open_log, 2, config=LogConfig())
    half = len(content) // 2
    for position in range(half + 8, len(content)):
        if half + 12 <= position < half + 16:
            continue  # the leader epoch, outside the checksum
        file = disk.open(f"{FIRST}.log")
        file.pwrite(bytes([content[position] ^ 0x55]), position)
        assert offsets(open_log()) == [(0, 0)]
        disk.open(f"{FIRST}.log").truncate(0)
        disk.open(f"{FIRST}.log").append([content])


def test_a_corrupt_batch_ends_the_log_and_later_segments_go(open_log: OpenLog, disk: FailingDisk) -> None:
    fill(open_log, 40)
    names = [name for name in disk.listdir("topic-0") if name.endswith(".log")]
    disk.open(f"topic-0/{names[2]}").pwrite(b"\x00", 200)
    log = open_log(SMALL, recovery_point=10)
    base = int(names[2][:20])
    assert log.end_offset == base + 1
    assert offsets(log) == [(offset, offset) for offset in range(base + 1)]
    assert log.recovery.removed_segments == len(names) - 3
    assert log.recovery.reason
    assert not log.recovery.lost_synced
    append(log, make_batch(1))
    assert log.end_offset == base + 2
    assert log.epochs.entries == [(0, 0)]


def test_losing_what_was_synced_is_reported(open_log: OpenLog, disk: FailingDisk) -> None:
    fill(open_log, 5, config=LogConfig())
    disk.open(f"{FIRST}.log").truncate(100)
    log = open_log(recovery_point=5)
    assert log.recovery.lost_synced
    assert log.end_offset == 0


def test_a_lost_end_of_a_sealed_segment_is_no_hole(open_log: OpenLog, disk: FailingDisk) -> None:
    fill(open_log, 40)
    names = [name for name in disk.listdir("topic-0") if name.endswith(".log")]
    batch_size = len(make_batch(1, size=50))
    file = disk.open(f"topic-0/{names[1]}")
    file.truncate(file.size() - batch_size)
    end = int(names[2][:20]) - 1
    log = open_log(SMALL, recovery_point=0)
    assert log.end_offset == end
    assert "does not continue" in log.recovery.reason


def test_segments_below_the_recovery_point_are_not_read(open_log: OpenLog, disk: FailingDisk) -> None:
    fill(open_log, 40)
    names = [name for name in disk.listdir("topic-0") if name.endswith(".log")]
    base = int(names[-1][:20])
    log = open_log(SMALL, recovery_point=base + 1)
    assert log.recovery.segments_checked == 1
    assert log.end_offset == 40


@pytest.mark.parametrize("suffix", ["index", "timeindex"])
@pytest.mark.parametrize("damage", ["missing", "torn", "zeros", "garbage", "beyond", "empty"])
@pytest.mark.parametrize("clean", [True, False])
def test_damaged_indexes_are_rebuilt(
    open_log: OpenLog, disk: FailingDisk, suffix: str, damage: str, *, clean: bool
) -> None:
    content = fill(open_log, 60, clean=True)
    names = [name for name in disk.listdir("topic-0") if name.endswith(f".{suffix}")]
    originals = {name: disk.read_bytes(f"topic-0/{name}") for name in names}
    size = 8 if suffix == "index" else 12
    for name in names:
        path = f"topic-0/{name}"
        if damage == "missing":
            disk.remove(path)
            continue
        file = disk.open(path)
        if damage == "torn":
            file.append([b"\x00" * 3])
        elif damage == "zeros":
            file.append([bytes(size * 4)])
        elif damage == "garbage":
            file.truncate(0)
            file.append([bytes(range(7, 7 + size)) * 5])
        elif damage == "beyond":
            file.append(
                [
                    struct.pack(
                        ">II" if size == 8 else ">qI",
                        *((1 << 30, 1 << 30) if size == 8 else (1 << 50, 1 << 30)),
                    )
                ]
            )
        else:
            file.truncate(0)
    log = open_log(SMALL, clean=clean)
    assert read_all(log, 300) == content
    for number in range(60):
        assert log.offset_for_timestamp(NOW_MS + number, 60) == (NOW_MS + number, number, number // 20)
    if damage != "empty" or suffix == "timeindex":
        log.close()
        assert {name: disk.read_bytes(f"topic-0/{name}") for name in names} == originals


def test_an_index_that_lies_is_noticed_on_use(open_log: OpenLog, disk: FailingDisk) -> None:
    content = fill(open_log, 12, clean=True, config=LogConfig(index_interval_bytes=100))
    path = f"{FIRST}.index"
    entries = list(struct.iter_unpack(">II", disk.read_bytes(path)))
    assert len(entries) > 2
    for number, (relative, position) in enumerate(entries):
        disk.open(path).pwrite(struct.pack(">II", relative, position + 5), number * 8)
    log = open_log(LogConfig(index_interval_bytes=100), clean=True)
    assert read_all(log, 200, start=0) == content


def test_a_corrupt_batch_in_the_middle_is_reported_and_harms_no_other_read(
    open_log: OpenLog, disk: FailingDisk
) -> None:
    content = fill(open_log, 40, clean=True)
    names = [name for name in disk.listdir("topic-0") if name.endswith(".log")]
    file = disk.open(f"topic-0/{names[1]}")
    size = len(make_batch(1, size=50))
    file.pwrite(struct.pack(">i", 5), 3 * size + 8)
    log = open_log(SMALL, clean=True)
    assert log.end_offset == 40
    base = int(names[1][:20])
    (finding,) = log.verify()
    assert (finding.path, finding.position) == (f"topic-0/{names[1]}", 3 * size)
    assert read_all(log, start=int(names[2][:20])) == content[int(names[2][:20]) * size :]
    for _ in range(2):
        assert read_all(log, start=base + 4)[: 2 * size] == content[(base + 4) * size : (base + 6) * size]
        with pytest.raises(KafkaError) as caught:
            log.read(base + 3, 1, 40, min_one_batch=True)
        assert caught.value.code is ErrorCode.CORRUPT_MESSAGE
        assert names[1] in caught.value.message
    file.pwrite(content[(base + 3) * size : (base + 4) * size], 3 * size)
    file.pwrite(b"\xee", 3 * size + 70)
    assert [found.reason for found in log.verify()] == [f"wrong checksum of the batch at offset {base + 3}"]


def test_a_clean_stop_is_believed_unless_the_tail_says_otherwise(
    open_log: OpenLog, disk: FailingDisk
) -> None:
    content = fill(open_log, 10, clean=True)
    log = open_log(SMALL, clean=True)
    assert (log.recovery.clean, log.recovery.segments_checked, log.end_offset) == (True, 0, 10)
    log.close()
    names = [name for name in disk.listdir("topic-0") if name.endswith(".log")]
    disk.open(f"topic-0/{names[-1]}").append([b"\x01" * 30])
    log = open_log(SMALL, clean=True)
    assert not log.recovery.clean
    assert read_all(log) == content


def test_a_lost_epoch_file_is_rebuilt_from_the_batches(open_log: OpenLog, disk: FailingDisk) -> None:
    fill(open_log, 60, clean=True)
    for damage in (None, b"garbage"):
        disk.remove("topic-0/leader-epoch-checkpoint")
        if damage is not None:
            disk.open("topic-0/leader-epoch-checkpoint", create=True).append([damage])
        for clean in (True, False):
            assert open_log(SMALL, clean=clean).epochs.entries == [(0, 0), (1, 20), (2, 40)]


def test_stray_files_are_tidied_up(open_log: OpenLog, disk: FailingDisk) -> None:
    fill(open_log, 3, clean=True)
    strays = [
        "00000000000000000007.index",
        "00000000000000000000.log.deleted",
        "x.tmp",
        "00000000000000000099.snapshot",
    ]
    for name in strays:
        disk.open(f"topic-0/{name}", create=True)
    disk.open("topic-0/notes.txt", create=True)
    open_log(SMALL)
    left = disk.listdir("topic-0")
    assert not set(strays) & set(left)
    assert "notes.txt" in left


class TestFullDisk:
    def test_a_commit_is_undone_and_works_again_with_space(
        self, open_log: OpenLog, disk: FailingDisk
    ) -> None:
        log = open_log()
        append(log, make_batch(2, producer=(1, 0, 0)))
        content = read_all(log)
        batch_size = len(make_batch(1, producer=(1, 0, 2)))
        for room in range(0, 2 * batch_size, 7):
            disk.room = room
            log.stage(memoryview(make_batch(1, producer=(1, 0, 2))), 0, NOW_MS)
            log.stage(memoryview(make_batch(1, producer=(1, 0, 3))), 0, NOW_MS)
            log.stage(memoryview(make_batch(1, producer=(2, 0, 0))), 0, NOW_MS)
            with pytest.raises(KafkaError) as caught:
                log.commit()
            assert caught.value.code is ErrorCode.KAFKA_STORAGE_ERROR
            assert (log.end_offset, log.size_bytes) == (2, len(content))
            assert read_all(log) == content
            assert disk.open(f"{FIRST}.log").size() == len(content)
            assert log.producers.get(2) is None
        disk.room = None
        append(log, make_batch(1, producer=(1, 0, 2)))
        assert offsets(log) == [(0, 1), (2, 2)]
        assert offsets(open_log()) == [(0, 1), (2, 2)]

    def test_a_commit_over_several_segments_is_undone(self, open_log: OpenLog, disk: FailingDisk) -> None:
        config = LogConfig(segment_bytes=500, index_interval_bytes=100)
        log = open_log(config)
        append(log, make_batch(size=50), make_batch(size=50))
        content = read_all(log)
        staged = [make_batch(size=50) for _ in range(12)]
        total = sum(map(len, staged))
        for room in range(0, total, 37):
            disk.room = room
            for batch in staged:
                log.stage(memoryview(batch[:8] + batch[8:]), 0, NOW_MS)
            with pytest.raises(KafkaError):
                log.commit()
            assert not log.failed
            assert (log.end_offset, len(log.segments)) == (2, 1)
            assert read_all(log) == content
            assert log.size_bytes == len(content)
        disk.room = None
        append(log, *[make_batch(size=50) for _ in range(12)])
        expected = [(offset, offset) for offset in range(14)]
        assert offsets(log) == expected
        log.sync()
        assert offsets(open_log(config)) == expected

    def test_if_the_file_cannot_be_cut_back_the_log_stops_until_reopened(
        self, open_log: OpenLog, disk: FailingDisk
    ) -> None:
        log = open_log()
        append(log, make_batch())
        log.sync()
        disk.room, disk.fail_truncate = 30, True
        log.stage(memoryview(make_batch()), 0, NOW_MS)
        with pytest.raises(KafkaError):
            log.commit()
        disk.room, disk.fail_truncate = None, False
        with pytest.raises(KafkaError) as caught:
            log.stage(memoryview(make_batch()), 0, NOW_MS)
        assert caught.value.code is ErrorCode.KAFKA_STORAGE_ERROR
        assert offsets(log) == [(0, 0)]
        log.reopen(NOW_MS)
        append(log, make_batch())
        assert offsets(log) == [(0, 0), (1, 1)]


class TestSync:
    def test_synced_end_moves_to_what_was_captured(self, open_log: OpenLog) -> None:
        log = open_log()
        assert log.begin_sync() is None
        append(log, make_batch(3))
        work = log.begin_sync()
        assert work is not None
        append(log, make_batch(2))
        work.run()
        assert log.synced_end == 0
        assert log.finish_sync(work)
        assert (log.synced_end, log.end_offset) == (3, 5)
        log.sync()
        assert log.synced_end == 5
        assert log.begin_sync() is None

    def test_a_failed_sync_is_final_until_reopened(self, open_log: OpenLog, disk: FailingDisk) -> None:
        log = open_log()
        append(log, make_batch(3))
        log.sync()
        append(log, make_batch(2))
        disk.fail_sync = True
        with pytest.raises(DiskError):
            log.sync()
        disk.fail_sync = False
        assert log.synced_end == 3
        assert log.begin_sync() is None
        for action in (
            lambda: log.stage(memoryview(make_batch()), 0, NOW_MS),
            lambda: log.truncate_to(1),
            lambda: log.advance_start(1),
            log.close,
        ):
            with pytest.raises(KafkaError) as caught:
                action()
            assert caught.value.code is ErrorCode.KAFKA_STORAGE_ERROR
        log.reopen(NOW_MS)
        # The page cache still shows the two records, but nobody knows whether the disk has them.
        assert (log.end_offset, log.synced_end) == (3, 3)
        append(log, make_batch(2))
        log.sync()
        assert log.synced_end == 5

    def test_a_truncation_voids_a_sync_under_way(self, open_log: OpenLog) -> None:
        log = open_log()
        append(log, make_batch(1), make_batch(1), make_batch(1))
        work = log.begin_sync()
        assert work is not None
        log.truncate_to(1)
        append(log, make_batch(1))
        work.run()
        assert log.finish_sync(work)
        assert (log.synced_end, log.end_offset) == (1, 2)

    def test_an_inline_sync_takes_over_what_is_under_way(self, open_log: OpenLog, disk: FailingDisk) -> None:
        log = open_log(LogConfig(segment_bytes=200))
        append(log, make_batch(1, size=90))
        append(log, make_batch(1, size=90))
        work = log.begin_sync()
        assert work is not None
        append(log, make_batch(1))
        disk.synced.clear()
        log.sync()
        assert {file.path for file in work.files} <= set(disk.synced)
        assert log.synced_end == 3
        work.run()
        assert log.finish_sync(work)
        assert log.synced_end == 3
