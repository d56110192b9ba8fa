"""The history checker finds every kind of contradiction, and none in a sound history."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from tests.crash.history import UNKNOWN_OFFSET, Ack, History, Key, Read, Send, check


def _key(number: int, producer: str = "p") -> Key:
    return Key(producer, number)


def _sound() -> History:
    """Five records of one producer in two partitions, all acknowledged, read by one concurrent reader."""
    history = History()
    offsets = {0: 0, 1: 0}
    for number in range(5):
        partition = number % 2
        history.sends.append(Send(_key(number), partition, at=number))
        history.acks.append(Ack(_key(number), partition, offsets[partition], at=number + 0.5))
        history.final.append(Read(partition, offsets[partition], _key(number)))
        offsets[partition] += 1
    history.polls["r"] = list(history.final)
    return history


def test_a_sound_history_has_no_contradictions() -> None:
    verdict = check(_sound())
    assert verdict.ok
    assert (verdict.sent, verdict.acked, verdict.read) == (5, 5, 5)
    assert "no contradictions" in str(verdict)


def test_a_record_that_was_not_acknowledged_may_be_there_or_not() -> None:
    history = _sound()
    del history.acks[1]
    assert check(history).ok
    history.sends.append(Send(_key(5), 1, at=9))
    assert check(history).ok


def test_a_log_that_starts_later_for_readers_is_sound() -> None:
    history = _sound()
    history.polls["late"] = history.final[2:]
    assert check(history).ok


def test_an_acknowledgement_may_not_know_the_offset() -> None:
    history = _sound()
    history.acks[2] = history.acks[2]._replace(offset=UNKNOWN_OFFSET)
    assert check(history).ok


def _lose_unplaced(history: History) -> None:
    history.acks[4] = history.acks[4]._replace(offset=UNKNOWN_OFFSET)
    _lose(history)


def _lose(history: History) -> None:
    history.final.remove(Read(0, 2, _key(4)))
    history.polls.clear()


def _duplicate(history: History) -> None:
    history.final.append(Read(0, 3, _key(4)))


def _reorder(history: History) -> None:
    history.acks.clear()
    history.polls.clear()
    history.final[0], history.final[2] = Read(0, 0, _key(2)), Read(0, 1, _key(0))


def _move(history: History) -> None:
    history.acks[-1] = history.acks[-1]._replace(offset=7)


def _share_an_offset(history: History) -> None:
    history.acks[2] = history.acks[2]._replace(offset=0)


def _spurious_zero(history: History) -> None:
    history.acks[4] = history.acks[4]._replace(offset=0)


def _ack_twice(history: History) -> None:
    history.acks.append(history.acks[0])


def _ack_unsent(history: History) -> None:
    history.acks.append(Ack(_key(77), 0, 0, at=20))


def _foreign(history: History) -> None:
    history.final.append(Read(1, 2, None))


def _wrong_partition(history: History) -> None:
    del history.acks[4]
    history.final[4] = Read(1, 2, _key(4))
    history.polls.clear()


def _hole(history: History) -> None:
    history.sends.append(Send(_key(5), 1, at=9))
    history.final.append(Read(1, 3, _key(5)))


def _read_twice(history: History) -> None:
    history.final.append(history.final[0])


def _went_back(history: History) -> None:
    history.acks[0], history.acks[2] = (
        history.acks[0]._replace(offset=1),
        history.acks[2]._replace(offset=0),
    )


def _poll_back(history: History) -> None:
    history.polls["r"].append(history.final[0])


def _poll_skip(history: History) -> None:
    history.polls["r"].remove(Read(0, 1, _key(2)))


def _vanish(history: History) -> None:
    history.sends.append(Send(_key(5), 1, at=9))
    history.polls["r"].append(Read(1, 2, _key(5)))


def _change(history: History) -> None:
    history.sends.append(Send(_key(5), 1, at=9))
    history.sends.append(Send(_key(6), 1, at=9))
    history.polls["r"].append(Read(1, 2, _key(5)))
    history.final.append(Read(1, 2, _key(6)))


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [
        ("lost", _lose),
        ("lost", _lose_unplaced),
        ("duplicated", _duplicate),
        ("reordered", _reorder),
        ("moved", _move),
        ("one offset for two", _share_an_offset),
        ("one offset for two", _spurious_zero),
        ("acked twice", _ack_twice),
        ("acked but never sent", _ack_unsent),
        ("never sent", _foreign),
        ("never sent", _wrong_partition),
        ("hole", _hole),
        ("offset read twice", _read_twice),
        ("offset went back", _went_back),
        ("poll went back", _poll_back),
        ("poll skipped", _poll_skip),
        ("read, then gone", _vanish),
        ("read, then changed", _change),
    ],
)
def test_a_contradiction_is_found(rule: str, spoil: Callable[[History], None]) -> None:
    history = _sound()
    spoil(history)
    verdict = check(history)
    assert not verdict.ok
    assert verdict.counts[rule] == 1
    assert rule in str(verdict)


def test_examples_are_bounded_and_counts_are_not() -> None:
    history = _sound()
    history.acks += [Ack(_key(100 + i), 0, 100 + i, at=20) for i in range(1000)]
    verdict = check(history)
    assert verdict.counts["lost"] == 1000
    assert len(verdict.examples) < 100


def test_interleaved_producers_with_overlapping_acknowledgements_are_sound() -> None:
    rng = random.Random(1)
    history = History()
    clock = 0.0
    waiting: list[tuple[Key, int, int]] = []
    numbers = {"a": 0, "b": 0}
    end = {0: 0, 1: 0}
    for _ in range(2000):
        clock += 1
        if waiting and rng.random() < 0.5:
            key, partition, offset = waiting.pop(rng.randrange(len(waiting)))
            history.acks.append(Ack(key, partition, offset, at=clock))
            continue
        producer, partition = rng.choice("ab"), rng.randrange(2)
        key = Key(producer, numbers[producer])
        numbers[producer] += 1
        history.sends.append(Send(key, partition, at=clock))
        if rng.random() < 0.9:
            history.final.append(Read(partition, end[partition], key))
            waiting.append((key, partition, end[partition]))
            end[partition] += 1
    assert check(history).ok
