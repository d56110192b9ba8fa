"""The rules of the tiering protocol (design 7.3), one predicate each.

Who uses it: `protocol`. They stand apart so that the model checker in `tests/model/` can switch each off and show what is
lost without it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from strandline_tiered.keys import ClaimName, ManifestName, Name


def is_loadable(name: ManifestName, leader_epoch: int, may_write: bool) -> bool:
    """Whether a leader may begin with this manifest: one below its epoch, or, if it only resumes to serve, of it."""
    return name.leader_epoch < leader_epoch or (not may_write and name.leader_epoch == leader_epoch)


def next_sequence(sequence: int, stored: int) -> int:
    """Return the sequence of the next attempt, above all that were used, not only above what is known to be stored.

    An attempt with an unknown outcome may land at any time.
    """
    return max(sequence, stored) + 1


def is_own(name: ManifestName, leader_epoch: int) -> bool:
    """Whether a manifest may authorise deletions: only one of the leader's own epoch stands above what zombies write."""
    return name.leader_epoch == leader_epoch and name.sequence > 0


def shows_successor(names: Iterable[Name], leader_epoch: int) -> bool:
    """Whether a listing shows a claim or manifest of a higher epoch."""
    return any(
        name.leader_epoch > leader_epoch for name in names if isinstance(name, ClaimName | ManifestName)
    )


def forgotten_from(sequence: int) -> int:
    """Return the first sequence whose manifest lacks what was removed when `sequence` was the last one used."""
    return sequence + 1


def is_collectable(name_epoch: int, leader_epoch: int) -> bool:
    """Whether an object that no manifest references may be collected: not what may be published yet."""
    return name_epoch < leader_epoch


def uploadable_end(high_watermark: int, last_stable_offset: int) -> int:
    """Return the offset below which data may be uploaded: committed, and of decided transactions only."""
    return min(high_watermark, last_stable_offset)


def must_start_again(agreed_end: int, manifest_end: int) -> bool:
    """Whether a log has to be dropped after an unclean election: the manifest has other or more records."""
    return agreed_end < manifest_end


def may_append(recovering: bool, confirmed: bool) -> bool:
    """Whether a leader may take records: after an unclean election only behind a manifest of its own."""
    return confirmed or not recovering


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules as they are used; replaced one by one in the model checker only."""

    is_loadable: Callable[[ManifestName, int, bool], bool] = is_loadable
    next_sequence: Callable[[int, int], int] = next_sequence
    is_own: Callable[[ManifestName, int], bool] = is_own
    shows_successor: Callable[[Iterable[Name], int], bool] = shows_successor
    forgotten_from: Callable[[int], int] = forgotten_from
    is_collectable: Callable[[int, int], bool] = is_collectable
    uploadable_end: Callable[[int, int], int] = uploadable_end
    must_start_again: Callable[[int, int], bool] = must_start_again
    may_append: Callable[[bool, bool], bool] = may_append


RULES = Rules()
