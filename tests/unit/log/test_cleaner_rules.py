"""Each rule of compaction: what is cleanable and when, what stays of tombstones and producers, how segments merge."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.log.cleaner_support import (
    Held,
    Pair,
    batches_of,
    check_cleaned,
    clean,
    contents,
    keyed,
    latest_of,
    prepare,
    random_pairs,
)
from tests.unit.log.conftest import OpenLog
from tests.unit.log.support import NOW_MS, FailingDisk, append

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.cleaner_plan import Source, candidate, dirtiest, group_sources
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.log.producer_state import BATCHES_KEPT
from strandline_broker.log.scan import CorruptBatch
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.wire.batch import Compression, build_end_txn_marker

COMPACT = LogConfig(
    cleanup_policy=frozenset({"compact"}),
    segment_bytes=700,
    delete_retention_ms=60_000,
    index_interval_bytes=100,
)
HOUR_MS = 3_600_000


def fill(log: Log, *values: Pair, timestamp: int = NOW_MS, now_ms: int = NOW_MS) -> None:
    """Append each record as a batch of its own and seal the segment."""
    for pair in values:
        append(log, keyed([pair], timestamp=timestamp), now_ms=now_ms)
    log.roll(now_ms)


def values(log: Log) -> list[tuple[int, bytes | None, bytes | None]]:
    return [(record.offset, record.key, record.value) for record in contents(log)]


class TestWhatIsCleanable:
    def test_the_active_segment_never_is(self, open_log: OpenLog) -> None:
        log = open_log(COMPACT)
        append(log, keyed([(b"a", b"1"), (b"a", b"2")]))
        log.sync()
        assert candidate(log, None, log.end_offset, NOW_MS).dirty_bytes == 0
        outcome = clean(log)
        assert (outcome.end_offset, len(contents(log))) == (0, 2)
        log.roll(NOW_MS)
        clean(log)
        assert values(log) == [(1, b"a", b"2")]

    def test_only_what_is_stable_and_synced(self, open_log: OpenLog) -> None:
        log = open_log(COMPACT)
        for number in range(4):
            fill(log, (b"a", b"%d" % number), (b"b", b"%d" % number))
        log.sync()
        # The segment that holds the stable offset is not cleanable.
        assert [candidate(log, None, stable, NOW_MS).upper_offset for stable in (0, 1, 2, 5, 8)] == [
            0,
            0,
            2,
            4,
            8,
        ]
        log.synced_end = 5
        assert candidate(log, None, 8, NOW_MS).upper_offset == 4

    def test_min_compaction_lag(self, open_log: OpenLog) -> None:
        clock = ManualClock(wall_ms=NOW_MS)
        log = open_log(replace(COMPACT, min_compaction_lag_ms=HOUR_MS))
        for number in range(3):
            fill(log, (b"a", b"%d" % number), timestamp=clock.now_ms(), now_ms=clock.now_ms())
            clock.advance(600)
        log.sync()
        uppers = []
        for _ in range(7):
            uppers.append(candidate(log, None, log.end_offset, clock.now_ms()).upper_offset)
            clock.advance(600)
        # At 30, 40, ... 90 minutes; the records are from 0, 10 and 20.
        assert uppers == [0, 0, 0, 1, 2, 3, 3]

    def test_max_compaction_lag_makes_a_log_due(self, open_log: OpenLog) -> None:
        clock = ManualClock(wall_ms=NOW_MS)
        log = open_log(replace(COMPACT, max_compaction_lag_ms=HOUR_MS, min_cleanable_dirty_ratio=1.0))
        fill(log, (b"a", b"1"), (b"a", b"2"))
        log.sync()

        def due(cleaned: int | None = None) -> bool:
            return candidate(log, cleaned, log.end_offset, clock.now_ms()).is_due

        assert not due()
        clock.advance(3601)
        assert due()
        assert not due(cleaned=2), "what was cleaned is never overdue"

    def test_max_compaction_lag_ends_segments_early(self, open_log: OpenLog) -> None:
        log = open_log(replace(COMPACT, max_compaction_lag_ms=HOUR_MS))
        append(log, keyed([(b"a", b"1")]))
        assert not log.roll_if_due(NOW_MS + HOUR_MS)
        assert log.roll_if_due(NOW_MS + HOUR_MS + 1)
        plain = LogConfig(max_compaction_lag_ms=HOUR_MS)
        assert (plain.roll_ms, replace(COMPACT, segment_ms=5).roll_ms) == (plain.segment_ms, 5)

    @pytest.mark.parametrize(("ratio", "due"), [(0.0, True), (0.6, True), (0.7, False), (1.0, False)])
    def test_min_cleanable_dirty_ratio(self, open_log: OpenLog, ratio: float, *, due: bool) -> None:
        log = open_log(replace(COMPACT, min_cleanable_dirty_ratio=ratio))
        for number in range(3):
            fill(log, (b"a", b"%d" % number))
        log.sync()
        found = candidate(log, 1, log.end_offset, NOW_MS)
        assert found.dirty_ratio == pytest.approx(2 / 3)
        assert found.is_due is due
        assert not candidate(log, 3, log.end_offset, NOW_MS).is_due

    def test_the_dirtiest_goes_first(self) -> None:
        logs = []
        for index, clean_segments in enumerate((2, 0, 5)):
            log = Log.open(SimDisk(), f"t-{index}", COMPACT, now_ms=NOW_MS, clean=False)
            for number in range(clean_segments + 4):
                fill(log, (b"a", b"%d" % number))
            log.sync()
            logs.append(candidate(log, clean_segments, log.end_offset, NOW_MS))
        best = dirtiest(logs)
        assert best is logs[1]
        assert dirtiest(logs[2:]) is None, "4 of 9 are less than half"

    @pytest.mark.parametrize("cleaned", [-1, 99])
    def test_a_checkpoint_that_cannot_be_right_counts_for_nothing(
        self, open_log: OpenLog, cleaned: int
    ) -> None:
        log = open_log(COMPACT)
        fill(log, (b"a", b"1"), (b"a", b"2"))
        assert candidate(log, cleaned, log.end_offset, NOW_MS).first_dirty_offset == 0

    def test_a_checkpoint_below_the_log_start(self, open_log: OpenLog) -> None:
        log = open_log(COMPACT)
        for number in range(4):
            fill(log, (b"a", b"%d" % number))
        log.sync()
        log.advance_start(2)
        log.apply_retention(NOW_MS, log.end_offset)
        assert candidate(log, 1, log.end_offset, NOW_MS).first_dirty_offset == 2
        clean(log, cleaned=1)
        assert values(log) == [(3, b"a", b"3")]


class TestWhatStays:
    def test_the_latest_value_of_each_key(self, open_log: OpenLog) -> None:
        log = open_log(COMPACT)
        fill(log, (b"a", b"1"), (b"b", b"1"), (b"a", b"2"))
        fill(log, (b"c", b"1"), (b"b", b"2"), (b"", b"empty key"), (b"", b"again"))
        append(log, keyed([(b"c", b"2")]))
        outcome = clean(log)
        assert values(log) == [
            (2, b"a", b"2"),
            (3, b"c", b"1"),  # the active segment does not count
            (4, b"b", b"2"),
            (6, b"", b"again"),
            (7, b"c", b"2"),
        ]
        assert (outcome.records_read, outcome.records_kept, outcome.keys, outcome.end_offset) == (7, 4, 4, 7)
        assert log.end_offset == 8
        assert log.verify() == []

    def test_records_without_a_key_go(self, open_log: OpenLog) -> None:
        log = open_log(replace(COMPACT, cleanup_policy=frozenset({"delete"})))
        fill(log, (None, b"x"), (b"a", b"1"), (None, None))
        log.config = COMPACT
        outcome = clean(log)
        assert values(log) == [(1, b"a", b"1")]
        assert outcome.records_without_key == 2
        with pytest.raises(KafkaError) as caught:
            append(log, keyed([(None, b"x")]))
        assert caught.value.code is ErrorCode.INVALID_RECORD

    def test_tombstones_stay_for_delete_retention_ms_after_their_first_cleaning(
        self, open_log: OpenLog
    ) -> None:
        clock = ManualClock(wall_ms=NOW_MS)
        log = open_log(COMPACT)
        fill(log, (b"a", b"1"), (b"b", b"1"))
        fill(log, (b"a", None), (b"c", None))
        clock.advance(1000)
        clean(log, now_ms=clock.now_ms())
        assert values(log) == [(1, b"b", b"1"), (2, b"a", None), (3, b"c", None)]
        headers = [header for header, _ in batches_of(log) if header.has_delete_horizon]
        assert [header.base_timestamp for header in headers] == [clock.now_ms() + 60_000] * 2
        assert [record.timestamp for record in contents(log)] == [NOW_MS] * 3
        clock.advance(59.999)
        clean(log, cleaned=4, now_ms=clock.now_ms())
        assert len(values(log)) == 3, "the horizon does not move"
        clock.advance(0.001)
        assert not candidate(log, 4, log.end_offset, clock.now_ms()).is_due, "only new records make a log due"
        fill(log, (b"d", b"1"))
        clean(log, cleaned=4, now_ms=clock.now_ms())
        assert values(log) == [(1, b"b", b"1"), (4, b"d", b"1")]

    def test_a_tombstone_that_was_not_mapped_gets_no_horizon_yet(self, open_log: OpenLog) -> None:
        log = open_log(COMPACT)
        append(log, keyed([(b"a", b"1"), (b"b", b"1")]), keyed([(b"c", b"1")]), keyed([(b"d", None)]))
        log.roll(NOW_MS)
        outcome = clean(log, dedupe_buffer_bytes=208 * 2)
        assert (outcome.end_offset, outcome.map_full) == (2, True)
        assert not [header for header, _ in batches_of(log) if header.has_delete_horizon]

    def test_a_full_map_ends_the_clean_part_early(self, open_log: OpenLog) -> None:
        log = open_log(COMPACT)
        before: list[Pair] = [(b"k%d" % (number % 7), b"%d" % number) for number in range(40)]
        for start in range(0, 40, 8):
            append(log, keyed(before[start : start + 8]))
            log.roll(NOW_MS)
        written = contents(log)
        cleaned, rounds = 0, 0
        while cleaned < 40:
            outcome = clean(log, cleaned=cleaned, dedupe_buffer_bytes=208 * 3)
            assert outcome.end_offset > cleaned
            assert outcome.keys <= 3
            cleaned, rounds = outcome.end_offset, rounds + 1
        assert rounds > 3
        assert [record.offset for record in contents(log)] == list(range(33, 40))
        check_cleaned(written, contents(log), 40)

    @pytest.mark.parametrize("compression", list(Compression))
    def test_compression_offsets_epochs_and_headers(
        self, open_log: OpenLog, compression: Compression
    ) -> None:
        log = open_log(replace(COMPACT, segment_bytes=20_000))
        pairs: list[Pair] = [(b"k%d" % (number % 5), b"%d" % number * 40) for number in range(20)]
        headers = (("trace", b"x"), ("none", None))
        append(log, keyed(pairs, compression=compression, headers=headers), epoch=4)
        append(log, keyed([(b"k0", b"new")]), epoch=4)
        log.roll(NOW_MS)
        written = contents(log)
        clean(log)
        check_cleaned(written, contents(log), 21)
        (header, _), _ = batches_of(log)
        assert (header.base_offset, header.last_offset, header.leader_epoch) == (0, 19, 4)
        assert (header.compression, header.record_count) == (compression, 4)
        assert contents(log)[0].headers == headers

    def test_a_timestamp_lookup_finds_what_is_left(self, open_log: OpenLog) -> None:
        log = open_log(COMPACT)
        for number in range(12):
            append(log, keyed([(b"k%d" % (number % 3), b"v" * 90)], timestamp=NOW_MS + number))
        log.roll(NOW_MS)
        clean(log)
        assert log.offset_for_timestamp(NOW_MS + 2, 12) == (NOW_MS + 9, 9, 0)
        assert log.max_timestamp(12) == (NOW_MS + 11, 11, 0)


class TestProducers:
    def test_the_last_batch_of_an_active_producer_stays_empty(self, open_log: OpenLog) -> None:
        log = open_log(COMPACT)
        append(
            log,
            keyed([(b"a", b"1")], producer=(7, 3, 0)),
            keyed([(b"a", b"2"), (b"b", b"2")], producer=(7, 3, 1)),
        )
        append(log, keyed([(b"a", b"3"), (b"b", b"3")]))
        log.roll(NOW_MS)
        clean(log)
        (kept, _), _ = batches_of(log)
        assert (kept.base_offset, kept.last_offset, kept.record_count) == (1, 2, 0)
        assert (kept.producer_id, kept.producer_epoch, kept.last_sequence) == (7, 3, 2)
        # With nothing but the log the producer is known again, and may go on.
        for name in log.disk.listdir("topic-0"):
            if name.endswith(".snapshot"):
                log.disk.remove(f"topic-0/{name}")
        again = open_log(COMPACT)
        entry = again.producers.get(7)
        assert entry is not None
        assert (entry.epoch, entry.last_sequence) == (3, 2)
        assert again.stage(
            memoryview(keyed([(b"a", b"2"), (b"b", b"2")], producer=(7, 3, 1))), 0, NOW_MS
        ).duplicate
        append(again, keyed([(b"a", b"4")], producer=(7, 3, 3)))
        assert len(entry.batches) <= BATCHES_KEPT

    def test_it_goes_with_the_next_batch_of_the_producer_or_its_end(self, open_log: OpenLog) -> None:
        log = open_log(COMPACT)
        append(log, keyed([(b"a", b"1")], producer=(7, 0, 0)), keyed([(b"b", b"1")], producer=(8, 0, 0)))
        append(log, keyed([(b"a", b"3"), (b"b", b"3")]))
        log.roll(NOW_MS)
        clean(log)
        assert [header.record_count for header, _ in batches_of(log)] == [0, 0, 2]
        append(log, keyed([(b"c", b"1")], producer=(7, 0, 1), timestamp=NOW_MS + 5))
        log.producers.expiration_ms = 5
        log.producers.expire(NOW_MS + 6)
        log.roll(NOW_MS)
        clean(log, cleaned=4)
        assert [header.base_offset for header, _ in batches_of(log)] == [2, 4]

    def test_markers_and_transactional_records_stay(self, open_log: OpenLog) -> None:
        log = open_log(COMPACT)
        batch = keyed([(b"a", b"1")], base_offset=0, epoch=0, producer=(5, 0, 0))
        marker = build_end_txn_marker(
            commit=True, producer_id=5, producer_epoch=0, coordinator_epoch=1, timestamp=NOW_MS, base_offset=1
        )
        log.append_follower(memoryview(bytes(batch) + marker))
        append(log, keyed([(b"a", b"2")]))
        log.roll(NOW_MS)
        clean(log)
        assert [header.is_control for header, _ in batches_of(log)] == [False, True, False]


class TestSegments:
    def test_small_segments_merge_within_segment_bytes(self, open_log: OpenLog, disk: FailingDisk) -> None:
        log = open_log(COMPACT)
        for number in range(30):
            append(log, keyed([(b"k%d" % (number % 4), b"%d" % number * 30)]))
            log.roll(NOW_MS)
        before = contents(log)
        clean(log)
        check_cleaned(before, contents(log), 30)
        sizes = [segment.size for segment in log.segments]
        assert len(sizes) < 12
        assert max(sizes) <= COMPACT.segment_bytes
        clean(log, cleaned=0)
        clean(log, cleaned=0)
        assert len(log.segments) == 2, "the next cleanings merge what became small"
        assert log.size_bytes == sum(segment.size for segment in log.segments)
        names = [name for name in disk.listdir("topic-0") if not name.endswith((".snapshot", "checkpoint"))]
        assert len(names) <= 2 * 3
        assert not [name for name in names if name.count(".") > 1], "no .cleaned, .swap or .deleted"
        assert contents(open_log(COMPACT)) == contents(log)

    def test_segments_go_on_ending_where_the_next_begin(self, open_log: OpenLog) -> None:
        log = open_log(replace(COMPACT, segment_bytes=150))
        for number in range(6):
            fill(log, (b"k%d" % number, b"x"), (b"same", b"%d" % number))
        clean(log)
        for segment, following in zip(log.segments, log.segments[1:], strict=False):
            *_, (_, header) = segment.headers()
            assert header.next_offset == following.base_offset
        # Even recovery that trusts nothing finds the log whole.
        again = open_log(replace(COMPACT, segment_bytes=150), recovery_point=0)
        assert contents(again) == contents(log)
        assert again.recovery.reason == ""

    def test_a_segment_that_loses_nothing_is_left_alone(self, open_log: OpenLog) -> None:
        log = open_log(replace(COMPACT, segment_bytes=200))
        for number in range(6):
            append(log, keyed([(b"k%d" % number, b"v" * 60)]))
        segments = list(log.segments)
        outcome = clean(log)
        assert outcome.bytes_written == 0
        assert log.segments == segments

    def test_grouping(self) -> None:
        config = replace(COMPACT, segment_bytes=1000)

        def grouped(sources: list[Source], end: int = 1 << 60, config: LogConfig = config) -> list[list[int]]:
            return [[s.base_offset for s in group.sources] for group in group_sources(sources, end, config)]

        plain = [Source("", base, base + 10, 400) for base in range(0, 60, 10)]
        assert grouped(plain) == [[0, 10], [20, 30], [40, 50]]
        assert grouped(plain, end=21) == [[0, 10], [20]]
        assert grouped([Source("", 0, 10, 5000), *plain[1:]]) == [[0], [10, 20], [30, 40], [50]]
        wide = [Source("", 0, 10, 9), Source("", 10, 1 << 31, 9), Source("", 1 << 31, (1 << 31) + 1, 9)]
        assert grouped(wide) == [[0, 10], [1 << 31]]
        small_index = replace(config, segment_index_bytes=12 * 9, index_interval_bytes=100)
        assert grouped(plain, config=small_index) == [[0], [10], [20], [30], [40], [50]]
        many = [Source("", base, base + 1, 1) for base in range(150)]
        assert [len(group) for group in grouped(many)] == [64, 64, 22]

    def test_retention_of_compact_delete(self, open_log: OpenLog) -> None:
        log = open_log(
            replace(COMPACT, cleanup_policy=frozenset({"compact", "delete"}), retention_ms=HOUR_MS)
        )
        for number in range(4):
            fill(
                log, (b"a", b"%d" % number), (b"b%d" % number, b"x"), timestamp=NOW_MS + number * HOUR_MS // 4
            )
        clean(log)
        found = [(offset, key) for offset, key, _ in values(log)]
        assert found == [(1, b"b0"), (3, b"b1"), (5, b"b2"), (6, b"a"), (7, b"b3")]
        assert log.apply_retention(NOW_MS + 3 * HOUR_MS, log.end_offset) > 0
        assert log.start_offset == 8
        only_compact = open_log(COMPACT)
        fill(only_compact, (b"z", b"1"))
        assert only_compact.apply_retention(NOW_MS + 10**12, only_compact.end_offset) == 0


def test_a_corrupt_batch_is_never_given_a_good_checksum(open_log: OpenLog, disk: FailingDisk) -> None:
    log = open_log(COMPACT)
    append(log, keyed([(b"a", b"1"), (b"b", b"value")]), keyed([(b"a", b"2")]))
    log.roll(NOW_MS)
    file = disk.open(log.segments[0].path)
    position = file.pread(1 << 20, 0).index(b"value")
    file.pwrite(b"v4lue", position)
    with pytest.raises(CorruptBatch, match="checksum"):
        clean(log)
    assert log.cleaning is None
    assert not log.failed
    assert not [name for name in disk.listdir("topic-0") if name.endswith(".cleaned")]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 1 << 32),
    st.integers(1, 12),
    st.sampled_from([300, 900, 100_000]),
    st.sampled_from([2, 5, 500]),
)
def test_against_a_model(seed: int, keys: int, segment_bytes: int, map_keys: int) -> None:
    """Random appends and cleanings: below the cleaned point one record a key, everything else as it was."""
    rng = random.Random(seed)
    clock = ManualClock(wall_ms=NOW_MS)
    config = replace(COMPACT, segment_bytes=segment_bytes, delete_retention_ms=50_000)
    log = Log.open(SimDisk(), "t-0", config, now_ms=NOW_MS, clean=False)
    written: list[Held] = []
    cleaned: int | None = None
    for _ in range(rng.randint(2, 6)):
        for _ in range(rng.randint(1, 12)):
            pairs = random_pairs(rng, rng.choice((1, 1, 3, 9)), keys)
            codec = rng.choice((Compression.NONE, Compression.NONE, Compression.ZSTD, Compression.SNAPPY))
            if sum(len(key or b"") + len(value or b"") for key, value in pairs) < segment_bytes - 200:
                append(log, keyed(pairs, timestamp=clock.now_ms(), compression=codec), now_ms=clock.now_ms())
            if rng.random() < 0.2:
                log.roll(clock.now_ms())
        end_before = max((record.offset for record in written), default=-1)
        written += [record for record in contents(log) if record.offset > end_before]
        outcome = clean(
            log,
            cleaned=cleaned,
            now_ms=clock.now_ms(),
            stable_offset=rng.randint(0, log.end_offset),
            dedupe_buffer_bytes=208 * map_keys,
            io_buffer_bytes=rng.choice((61, 300, 5000)),
        )
        assert outcome.end_offset >= (cleaned or 0)
        cleaned = outcome.end_offset
        held = contents(log)
        check_cleaned(written, held, cleaned)
        assert (
            latest_of([r for r in held if r.value is not None]).items()
            >= {key: record for key, record in latest_of(written).items() if record.value is not None}.items()
        )
        assert log.verify() == []
        clock.advance(rng.choice((1, 40)))
    assert contents(Log.open(log.disk, "t-0", config, now_ms=NOW_MS, clean=False)) == contents(log)


def test_nothing_is_captured_of_a_log_without_sealed_segments(open_log: OpenLog) -> None:
    log = open_log(COMPACT)
    assert prepare(log).job.sources == ()
