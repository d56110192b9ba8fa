from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strandline_tiered.epochs import (
    History,
    agree_until,
    epoch_at,
    extended,
    history_of,
    without_before,
)


def of_records(epochs: list[int]) -> History:
    """The history of a log whose record i was written in epochs[i]."""
    return history_of((epoch, i) for i, epoch in enumerate(epochs) if i == 0 or epochs[i - 1] != epoch)


RECORDS = st.lists(st.integers(0, 4), max_size=12).map(sorted)


@pytest.mark.parametrize(
    "pairs", [[(1, 0), (1, 5)], [(1, 5), (2, 5)], [(-1, 0)], [(0, -1)], [(2, 0), (1, 4)]]
)
def test_a_history_ascends(pairs: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="do not ascend"):
        history_of(pairs)


@settings(max_examples=60, deadline=None)
@given(RECORDS)
def test_each_record_has_its_epoch(epochs: list[int]) -> None:
    history = of_records(epochs)
    assert [epoch_at(history, offset) for offset in range(len(epochs))] == epochs
    assert epoch_at(without_before(history, 0), -1) == -1


@settings(max_examples=60, deadline=None)
@given(RECORDS, st.integers(0, 12))
def test_a_history_without_its_beginning_still_knows_the_rest(epochs: list[int], start: int) -> None:
    kept = without_before(of_records(epochs), start)
    assert [epoch_at(kept, offset) for offset in range(start, len(epochs))] == epochs[start:]


@settings(max_examples=60, deadline=None)
@given(RECORDS, st.integers(0, 12), st.integers(0, 12))
def test_a_history_is_extended_up_to_an_end(epochs: list[int], first: int, second: int) -> None:
    first, second = sorted((min(first, len(epochs)), min(second, len(epochs))))
    assert extended(of_records(epochs[:first]), of_records(epochs), second) == of_records(epochs[:second])


@settings(max_examples=60, deadline=None)
@given(RECORDS, st.data())
def test_logs_agree_where_their_epochs_do(common: list[int], data: st.DataObject) -> None:
    """Two logs that share a beginning and then were written by leaders of different epochs."""
    last = common[-1] if common else 0
    one = common + sorted(data.draw(st.lists(st.sampled_from([last + 1, last + 3]), max_size=4)))
    other = common + sorted(data.draw(st.lists(st.sampled_from([last + 2, last + 4]), max_size=4)))
    agreed = agree_until(of_records(one), len(one), of_records(other), len(other))
    assert agreed == len(common)
    assert agreed == agree_until(of_records(other), len(other), of_records(one), len(one))
    longer = common + [last] * 2 if common else []
    assert agree_until(of_records(common), len(common), of_records(longer), len(longer)) == len(common)
