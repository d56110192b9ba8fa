from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.log.conftest import OpenLog
from tests.unit.log.support import NOW_MS, FailingDisk, append, make_batch

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log import producer_snapshot
from strandline_broker.log.producer_snapshot import CorruptSnapshot
from strandline_broker.log.producer_state import ProducerBatch, ProducerEntry, ProducerState

LAST = (1 << 31) - 1


@dataclass
class Model:
    """Kafka's rules in the slowest and plainest form."""

    epoch: int = -1
    next_sequence: int = -1
    last_five: deque[tuple[int, int, int, int]] = field(default_factory=lambda: deque(maxlen=5))

    def judge(self, epoch: int, first: int, count: int) -> str | tuple[int, int]:
        last = (first + count - 1) % (1 << 31)
        if self.epoch == -1:
            return "ok"
        if epoch < self.epoch:
            return "epoch"
        if epoch > self.epoch:
            return "ok" if first == 0 else "order"
        for known_first, known_last, base, end in self.last_five:
            if (known_first, known_last) == (first, last):
                return base, end
        return "ok" if first == self.next_sequence else "order"

    def note(self, epoch: int, first: int, count: int, base: int) -> None:
        if epoch != self.epoch:
            self.last_five.clear()
        self.epoch = epoch
        last = (first + count - 1) % (1 << 31)
        self.last_five.append((first, last, base, base + count - 1))
        self.next_sequence = (last + 1) % (1 << 31)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 5, LAST - 6]), st.integers(1, 40))
def test_judgement_is_kafkas(seed: int, start: int, steps: int) -> None:
    rng = random.Random(seed)
    state, model, offset = ProducerState(), Model(), 0
    epoch, sequence = 3, start
    history: list[tuple[int, int, int]] = []
    for _ in range(steps):
        kind = rng.randrange(10)
        count = rng.randint(1, 4)
        attempt = (epoch, sequence, count)
        if kind == 0 and history:
            attempt = rng.choice(history[-7:])
        elif kind == 1:
            attempt = (epoch + rng.randint(-1, 1), rng.choice([0, sequence, sequence + 1]) & LAST, count)
        elif kind == 2:
            attempt = (epoch, (sequence + rng.randint(-3, 3)) & LAST, count)
        outcome = model.judge(*attempt)
        try:
            duplicate = state.judge(7, attempt[0], attempt[1], attempt[2] - 1)
            seen: str | tuple[int, int] = "ok"
            if duplicate is not None:
                seen = (duplicate.first_offset, duplicate.last_offset)
        except KafkaError as error:
            seen = {
                ErrorCode.INVALID_PRODUCER_EPOCH: "epoch",
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER: "order",
            }[error.code]
        assert seen == outcome
        if outcome == "ok":
            model.note(*attempt, offset)
            state.note(7, attempt[0], attempt[1], attempt[2] - 1, offset + attempt[2] - 1, NOW_MS)
            history.append(attempt)
            offset += attempt[2]
            epoch, sequence = attempt[0], (attempt[1] + attempt[2]) & LAST


def test_sequences_wrap_around() -> None:
    state = ProducerState()
    state.note(1, 0, LAST - 1, 3, 103, NOW_MS)
    entry = state.get(1)
    assert entry is not None
    assert entry.last_sequence == 1
    assert entry.batches[0].first_sequence == LAST - 1
    assert state.judge(1, 0, 2, 0) is None
    assert state.judge(1, 0, LAST - 1, 3) == entry.batches[0]
    with pytest.raises(KafkaError):
        state.judge(1, 0, 5, 0)


def test_sequence_zero_follows_the_last_one() -> None:
    state = ProducerState()
    state.note(1, 0, LAST, 0, 10, NOW_MS)
    assert state.judge(1, 0, 0, 4) is None


def test_changes_can_be_taken_back() -> None:
    state = ProducerState()
    state.note(1, 0, 0, 0, 0, NOW_MS)
    state.settle()
    before = state.get(1)
    state.note(1, 0, 1, 0, 1, NOW_MS)
    state.note(1, 1, 0, 0, 2, NOW_MS)
    state.note(2, 0, 0, 0, 3, NOW_MS)
    state.undo()
    assert state.get(1) == before
    assert state.get(2) is None
    assert len(state) == 1


def test_expiry_by_last_timestamp_but_not_within_a_transaction() -> None:
    state = ProducerState(expiration_ms=1000)
    state.note(1, 0, 0, 0, 0, NOW_MS)
    state.note(2, 0, 0, 0, 1, NOW_MS + 1)
    state.note(3, 0, 0, 0, 2, NOW_MS, transactional=True)
    state.settle()
    state.expire(NOW_MS + 1000)
    assert [entry.producer_id for entry in state] == [2, 3]
    assert state.first_unstable_offset() == 2
    state.note_marker(3, 0, 1, NOW_MS)
    state.settle()
    state.expire(NOW_MS + 1000)
    assert [entry.producer_id for entry in state] == [2]


def test_the_number_of_producers_is_bounded() -> None:
    state = ProducerState(max_producers=16)
    for producer_id in range(100):
        state.note(producer_id, 0, 0, 0, producer_id, NOW_MS + producer_id)
        state.settle()
    assert len(state) <= 16
    assert state.get(99) is not None
    assert state.get(0) is None


ENTRIES = st.lists(
    st.builds(
        lambda producer_id, epoch, batch, coordinator, txn: ProducerEntry(
            producer_id, epoch, (batch,) if batch else (), batch.timestamp if batch else -1, coordinator, txn
        ),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**15 - 1),
        st.none()
        | st.builds(
            ProducerBatch,
            st.integers(0, LAST),
            st.integers(0, 2**62),
            st.integers(0, 1000),
            st.integers(-1, 2**62),
        ),
        st.integers(-1, 2**31 - 1),
        st.integers(-1, 2**62),
    ),
    max_size=5,
)


@given(ENTRIES)
def test_snapshots_round_trip(entries: list[ProducerEntry]) -> None:
    assert producer_snapshot.decode(producer_snapshot.encode(entries)) == entries


@given(ENTRIES, st.data())
def test_damaged_snapshots_are_recognised(entries: list[ProducerEntry], data: st.DataObject) -> None:
    good = producer_snapshot.encode(entries)
    broken = bytearray(good)
    broken[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptSnapshot):
        producer_snapshot.decode(bytes(broken))
    with pytest.raises(CorruptSnapshot):
        producer_snapshot.decode(good[: data.draw(st.integers(0, len(good) - 1))])


class TestInTheLog:
    def test_duplicates_answer_with_the_original_offsets_and_write_nothing(self, open_log: OpenLog) -> None:
        log = open_log()
        batches = [make_batch(2, producer=(4, 0, sequence)) for sequence in range(0, 14, 2)]
        append(log, *[bytearray(batch) for batch in batches])
        size = log.size_bytes
        for number, batch in enumerate(batches):
            if number < 2:
                with pytest.raises(KafkaError) as caught:
                    log.stage(memoryview(bytearray(batch)), 0, NOW_MS)
                assert caught.value.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
                continue
            staged = log.stage(memoryview(bytearray(batch)), 0, NOW_MS)
            assert (staged.base_offset, staged.last_offset) == (2 * number, 2 * number + 1)
            assert staged.duplicate
        log.commit()
        assert (log.size_bytes, log.end_offset) == (size, 14)

    def test_a_duplicate_within_one_burst(self, open_log: OpenLog) -> None:
        log = open_log()
        first = log.stage(memoryview(make_batch(1, producer=(4, 0, 0))), 0, NOW_MS)
        again = log.stage(memoryview(make_batch(1, producer=(4, 0, 0))), 0, NOW_MS)
        assert (first.base_offset, again.base_offset, again.duplicate) == (0, 0, True)
        log.commit()
        assert log.end_offset == 1

    def test_an_unknown_producer_may_start_anywhere(self, open_log: OpenLog) -> None:
        log = open_log()
        append(log, make_batch(1, producer=(4, 2, 100)))
        with pytest.raises(KafkaError):
            log.stage(memoryview(make_batch(1, producer=(4, 2, 100 + 2))), 0, NOW_MS)
        append(log, make_batch(1, producer=(4, 2, 101)), make_batch(1, producer=(4, 3, 0)))
        with pytest.raises(KafkaError) as caught:
            log.stage(memoryview(make_batch(1, producer=(4, 2, 102))), 0, NOW_MS)
        assert caught.value.code is ErrorCode.INVALID_PRODUCER_EPOCH

    @pytest.mark.parametrize("clean", [True, False])
    @pytest.mark.parametrize("with_snapshots", [True, False])
    def test_state_survives_a_restart(
        self, open_log: OpenLog, disk: FailingDisk, *, clean: bool, with_snapshots: bool
    ) -> None:
        log = open_log()
        for sequence in range(0, 30, 3):
            append(
                log, make_batch(3, producer=(4, 1, sequence)), make_batch(1, producer=(5, 0, sequence // 3))
            )
            if sequence == 15:
                log.roll(NOW_MS)
        if clean:
            log.close()
        if not with_snapshots:
            for name in disk.listdir("topic-0"):
                if name.endswith(".snapshot"):
                    disk.remove(f"topic-0/{name}")
        again = open_log(clean=clean)
        for producer_id, last in ((4, 29), (5, 9)):
            entry = again.producers.get(producer_id)
            assert entry is not None
            assert entry.last_sequence == last
        assert again.stage(memoryview(make_batch(3, producer=(4, 1, 27))), 0, NOW_MS).duplicate

    def test_a_corrupt_snapshot_falls_back_to_the_one_before(
        self, open_log: OpenLog, disk: FailingDisk
    ) -> None:
        log = open_log()
        append(log, make_batch(1, producer=(4, 0, 0)))
        log.roll(NOW_MS)
        append(log, make_batch(1, producer=(4, 0, 1)))
        log.close()
        names = [name for name in disk.listdir("topic-0") if name.endswith(".snapshot")]
        assert len(names) == 2
        disk.open(f"topic-0/{names[-1]}").pwrite(b"\xff", 8)
        again = open_log(clean=True)
        entry = again.producers.get(4)
        assert entry is not None
        assert entry.last_sequence == 1
        assert names[-1] not in disk.listdir("topic-0")

    def test_truncation_goes_back_in_time(self, open_log: OpenLog) -> None:
        log = open_log()
        for sequence in range(10):
            append(log, make_batch(1, producer=(4, 0, sequence)))
        log.truncate_to(6)
        entry = log.producers.get(4)
        assert entry is not None
        assert entry.last_sequence == 5
        append(log, make_batch(1, producer=(4, 0, 6)))
