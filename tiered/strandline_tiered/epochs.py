"""Leader-epoch histories as values: which epoch began at which offset, ascending in both.

Who uses it: manifests, and the leadership, which compares a manifest's history with that of the local log. Pure.

Source: KIP-101, KIP-279; Kafka `LeaderEpochFileCache`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias


class EpochStart(NamedTuple):
    """Records from `start_offset` on were written in `epoch`, up to the start of the next one."""

    epoch: int
    start_offset: int


History: TypeAlias = tuple[EpochStart, ...]

NO_EPOCH = -1


def history_of(pairs: Iterable[tuple[int, int]]) -> History:
    """Return (epoch, start offset) pairs, as a leader-epoch checkpoint has them, as a history.

    Raises ValueError where epochs or offsets do not ascend.
    """
    history = tuple(EpochStart(*pair) for pair in pairs)
    check_history(history)
    return history


def check_history(history: History) -> None:
    """Raise ValueError where epochs or offsets do not ascend, or are negative."""
    before = EpochStart(-1, -1)
    for entry in history:
        if entry.epoch <= before.epoch or entry.start_offset <= before.start_offset:
            raise ValueError(f"epochs do not ascend: {before}, {entry}")
        before = entry


def epoch_at(history: History, offset: int) -> int:
    """Return the epoch in which the record at `offset` was written, -1 if unknown."""
    after = bisect_right(history, offset, key=lambda entry: entry.start_offset)
    return history[after - 1].epoch if after else NO_EPOCH


def extended(history: History, later: History, end_offset: int) -> History:
    """Return `history` with what `later`, a longer history of the same log, adds to it below `end_offset`."""
    if not history:
        kept = [entry for entry in later if entry.start_offset < end_offset]
        return tuple(kept)
    last = history[-1]
    return history + tuple(
        entry
        for entry in later
        if entry.epoch > last.epoch and last.start_offset < entry.start_offset < end_offset
    )


def without_before(history: History, offset: int) -> History:
    """Return `history` without the epochs that ended at or below `offset`; the one of `offset` itself stays."""
    after = bisect_right(history, offset, key=lambda entry: entry.start_offset)
    return history[max(after - 1, 0) :]


def agree_until(one: History, one_end: int, other: History, other_end: int) -> int:
    """Return the offset up to which two logs, which end at these offsets, hold the same records.

    Two logs that have a record of the same epoch in common have the same records up to there: an epoch has one leader. So
    it is where the last epoch that both have ends first, 0 if they have none in common.
    """
    of_other = {entry.epoch for entry in other}
    for entry in reversed(one):
        if entry.epoch in of_other:
            return min(_end(one, one_end, entry.epoch), _end(other, other_end, entry.epoch))
    return 0


def _end(history: History, end_offset: int, epoch: int) -> int:
    later = [entry.start_offset for entry in history if entry.epoch > epoch]
    return min([end_offset, *later[:1]])
