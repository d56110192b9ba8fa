"""The checkers can fail: each contradiction they look for, made by hand."""

from __future__ import annotations

import pytest
from tests.crash.history import Key
from tests.simulation.checkers import check_history, check_offsets
from tests.simulation.consumer import Follower, Position
from tests.simulation.journal import Commit, Committed, Journal, parse_value, value_of
from tests.simulation.messages import Fetched, Leader

PARTITION = ("t", 0)


def journal() -> Journal:
    return Journal(lambda: 1.0)


def rules(found: Journal) -> list[str]:
    return [violation.rule for violation in found.violations]


def test_values_name_their_records() -> None:
    key = Key("producer-1:t:0", 17)
    assert parse_value(value_of(key)) == key
    assert parse_value(b"nonsense") is None


def test_two_values_at_one_offset() -> None:
    found = journal()
    found.polled("one", PARTITION, 5, b"a/1")
    found.polled("two", PARTITION, 5, b"a/1")
    assert rules(found) == []
    found.polled("three", PARTITION, 5, b"a/2")
    assert rules(found) == ["one offset, two values"]


def test_an_acknowledged_record_that_is_nowhere() -> None:
    found = journal()
    found.sent(PARTITION, Key("p", 0))
    found.acked(PARTITION, Key("p", 0), 0)
    check_history(found)
    assert rules(found) == ["lost"]


# (offset read, from, to) after commits as (offset, from, to or None)
COMMITS = [(5, 1.0, 2.0), (9, 3.0, 4.0), (12, 6.0, None)]


@pytest.mark.parametrize(
    ("read", "right"),
    [
        ((9, 5.0, 5.5), True),
        ((5, 5.0, 5.5), False),  # 9 was acknowledged before
        ((5, 3.5, 3.6), True),  # 9 is under way
        ((12, 7.0, 7.1), True),  # its outcome was unknown: it happened
        ((9, 7.0, 7.1), True),  # or not
        ((12, 5.0, 5.5), False),  # nobody had committed it yet
        ((-1, 0.1, 0.2), True),
        ((-1, 5.0, 5.5), False),
        ((7, 5.0, 5.5), False),
    ],
)
def test_committed_offsets_are_registers(read: tuple[int, float, float], right: bool) -> None:
    found = journal()
    found.commits[PARTITION] = [Commit(*commit) for commit in COMMITS]
    found.committed[PARTITION] = [Committed(*read)]
    check_offsets(found)
    assert rules(found) == ([] if right else ["committed offset lost"])


class _Client:
    """As much of a client as a follower needs here."""

    name = "c"

    def __init__(self, found: Journal) -> None:
        self.journal = found


@pytest.mark.parametrize(("offset", "right"), [(5, True), (-1, True), (6, False)])
def test_a_coordinator_that_cannot_know_of_its_successor_may_tell_the_past_but_nothing_else(
    offset: int, right: bool
) -> None:
    found = journal()
    found.commits[PARTITION] = [Commit(5, 1.0, 2.0), Commit(9, 3.0, 4.0)]
    found.committed[PARTITION] = [Committed(offset, 5.0, 6.0, unaware=True)]
    check_offsets(found)
    assert found.counts["stale offsets"] == right
    assert bool(found.violations) is not right
    found.committed[PARTITION] = [Committed(offset, 5.0, 6.0)]
    check_offsets(found)
    assert rules(found)[-1] == "committed offset lost"


def test_a_high_watermark_that_falls_within_an_epoch() -> None:
    found = journal()
    follower = Follower(_Client(found))  # type: ignore[arg-type]
    position = Position(PARTITION, "c#1")

    def told(high_watermark: int, epoch: int) -> None:
        fetched = Fetched("t", 0, 0, high_watermark, 0, memoryview(b""))
        follower._note_high_watermark(position, fetched, Leader(0, epoch))

    told(10, 1)
    told(10, 1)
    told(4, 2)  # a new leader may not know better yet
    assert rules(found) == []
    told(3, 2)
    assert rules(found) == ["high watermark fell"]


def test_a_commit_whose_answer_was_lost_counts_when_a_later_member_goes_on_there() -> None:
    found = journal()
    assert found.committed_end(PARTITION) == 0
    found.commits[PARTITION] = [Commit(9, 3.0, 4.0), Commit(12, 6.0, None)]
    assert found.committed_end(PARTITION) == 9
    found.committed[PARTITION] = [Committed(12, 7.0, 7.1), Committed(9, 7.2, 7.3, unaware=True)]
    assert found.committed_end(PARTITION) == 12
