"""A log of which a part lies in the bucket: its two starts, what retention takes, and starting over behind that part."""

from __future__ import annotations

import errno

import pytest
from tests.unit.log.conftest import OpenLog
from tests.unit.log.support import NOW_MS, FailingDisk, append, make_batch, offsets

from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.log.producer_state import ProducerEntry
from strandline_broker.seams.disk import DiskError

LATER_MS = NOW_MS + 10**9
SMALL = LogConfig(segment_bytes=400, index_interval_bytes=100, retention_ms=-1, local_retention_ms=1000)


def fill(log: Log, count: int) -> None:
    for number in range(count):
        append(log, make_batch(1, size=50, timestamp=NOW_MS + number), epoch=number // 7)


def test_the_log_start_is_durable_and_never_falls(open_log: OpenLog) -> None:
    log = open_log(SMALL)
    fill(log, 20)
    assert log.tier is None
    tier = log.start_tiering()
    assert log.start_tiering() is tier
    assert (tier.log_start, open_log(SMALL).tier is not None) == (0, True)
    assert tier.raise_log_start(9)
    assert not tier.raise_log_start(5)
    again = open_log(SMALL)
    assert again.tier is not None
    assert again.tier.log_start == 9
    assert again.start_offset == 9, "what both tiers gave up is not read here either"


def test_a_log_start_that_cannot_be_written_does_not_move(
    open_log: OpenLog, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(SMALL)
    fill(log, 20)
    tier = log.start_tiering()

    def fails(disk: FailingDisk, path: str, data: bytes) -> None:
        raise DiskError(errno.EIO, "broken by the test", path)

    monkeypatch.setattr(FailingDisk, "write_atomic", fails)
    with pytest.raises(DiskError):
        tier.raise_log_start(5)
    assert tier.log_start == 0


class TestRetention:
    def test_only_what_is_in_the_bucket_goes(self, open_log: OpenLog) -> None:
        log = open_log(SMALL)
        fill(log, 20)
        tier = log.start_tiering()
        assert log.apply_retention(LATER_MS, 20) == 0, "nothing is in the bucket"
        second, third = log.segments[1].base_offset, log.segments[2].base_offset
        tier.raise_tiered_through(third - 1)
        assert log.apply_retention(LATER_MS, 20) > 0
        assert log.start_offset == second
        tier.raise_tiered_through(20)
        assert log.apply_retention(LATER_MS, third) > 0
        assert log.start_offset == third, "the high watermark is a bound of its own"
        assert tier.log_start == 0

    def test_it_stays_as_long_as_local_retention_says(self, open_log: OpenLog) -> None:
        log = open_log(SMALL)
        fill(log, 20)
        log.start_tiering().raise_tiered_through(20)
        assert log.apply_retention(NOW_MS + 500, 20) == 0
        log.config = LogConfig(segment_bytes=400, retention_ms=-1, local_retention_bytes=1000)
        log.apply_retention(LATER_MS, 20)
        assert 1000 <= log.size_bytes < 1000 + log.segments[0].size

    def test_unset_local_retention_is_that_of_both_tiers(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_bytes=400, retention_ms=1000))
        fill(log, 20)
        log.start_tiering().raise_tiered_through(20)
        assert log.apply_retention(NOW_MS + 500, 20) == 0
        assert log.apply_retention(LATER_MS, 20) > 0

    def test_below_the_log_start_of_both_tiers_everything_goes(self, open_log: OpenLog) -> None:
        log = open_log(LogConfig(segment_bytes=400, retention_ms=-1))
        fill(log, 20)
        tier = log.start_tiering()
        third = log.segments[2].base_offset
        tier.raise_log_start(third + 1)
        log.advance_start(third + 1)
        assert log.apply_retention(NOW_MS, 20) > 0
        assert (log.segments[0].base_offset, log.start_offset) == (third, third + 1)


class TestEpochs:
    def test_those_of_the_bucket_are_kept(self, open_log: OpenLog) -> None:
        log = open_log(SMALL)
        fill(log, 20)
        tier = log.start_tiering()
        tier.raise_tiered_through(20)
        log.apply_retention(LATER_MS, 20)
        log.sync()
        assert log.start_offset == 20
        for known in (log, open_log(SMALL)):
            assert known.epochs.entries == [(0, 0), (1, 7), (2, 14)]
            assert known.epoch_end_offset(0) == (0, 7)
        tier.raise_log_start(8)
        log.advance_start(20)
        again = open_log(SMALL)
        assert again.epochs.entries == [(1, 8), (2, 14)]
        assert again.start_offset == 20

    def test_a_lost_history_can_be_put_in_front_again(self, open_log: OpenLog) -> None:
        log = open_log(SMALL)
        fill(log, 20)
        log.epochs.truncate_from_start(15)
        log.epochs.prepend([(0, 0), (1, 7), (2, 14), (3, 16)])
        assert log.epochs.entries == [(0, 0), (1, 7), (2, 15)]
        log.epochs.clear()
        log.epochs.prepend([(0, 0), (1, 7)])
        assert (log.epochs.entries, log.last_epoch) == ([(0, 0), (1, 7)], 1)


class TestStartingOver:
    PRODUCER = ProducerEntry(7, 3, (), NOW_MS)
    EPOCHS = ((2, 0), (4, 60), (9, 200))

    def test_a_replica_knows_what_came_before(self, open_log: OpenLog) -> None:
        log = open_log(SMALL)
        fill(log, 20)
        log.start_tiering()
        seen: list[int] = []

        class Keeper:
            def recovery_point_falls(self, log: Log, offset: int) -> None:
                seen.append(offset)

            def write_failed(self, error: OSError) -> None:
                raise AssertionError("everything can be written")

        log.keeper = Keeper()
        log.reset_to(100, self.EPOCHS, [self.PRODUCER])
        assert seen[-1] == 100
        append(log, make_batch(1), epoch=5)
        log.sync()
        for known in (log, open_log(SMALL, recovery_point=100)):
            assert (known.start_offset, known.end_offset) == (100, 101)
            assert known.epochs.entries == [(2, 0), (4, 60), (5, 100)]
            assert known.producers.get(7) == self.PRODUCER
        assert offsets(log) == [(100, 100)]

    def test_without_a_history_it_shows_that_it_has_none(self, open_log: OpenLog) -> None:
        log = open_log(SMALL)
        fill(log, 20)
        log.start_tiering()
        log.reset_to(100)
        assert (log.last_epoch, open_log(SMALL).last_epoch) == (-1, -1)


def test_segments_can_be_sealed_by_age(open_log: OpenLog) -> None:
    log = open_log(SMALL)
    append(log, make_batch(1))
    assert not log.roll_if_older(NOW_MS + 1000, 1000)
    assert log.roll_if_older(NOW_MS + 1001, 1000)
    assert not log.roll_if_older(LATER_MS, 0), "an empty one stays"
