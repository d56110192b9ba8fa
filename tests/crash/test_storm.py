"""Consumer groups in a storm, and the rules by which a storm is judged. As a program it goes on for longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.crash.rebalance_storm import StormPlan, run
from tests.crash.storm_check import (
    NO_OFFSET,
    Commit,
    Delivery,
    OffsetRead,
    Place,
    Register,
    StormHistory,
    StormVerdict,
    check,
)
from tests.crash.storm_cluster import GroupView
from tests.crash.storm_journal import IN_FLIGHT_S, Journal, JournalReader, StormCounts

PLACE = Place("t", 0)
REGISTER = Register("g", PLACE)


@pytest.mark.crash
@pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")
def test_storm_leaves_no_group_stuck_and_loses_no_commit(tmp_path: Path) -> None:
    outcome = run(StormPlan(minutes=0.7, consumers=24, groups=4, kills=1, seed=7), tmp_path)
    assert outcome.ok, str(outcome)
    assert outcome.kills == 2
    assert outcome.verdict.delivered >= 4 * outcome.produced
    assert outcome.counts.joins >= 24


def acked(offset: int, start: float, end: float, *, assigned_at: float = 0.0) -> Commit:
    return Commit(offset, start, end, acked=True, consumer="g/0", assigned_at=assigned_at)


@pytest.fixture
def history() -> StormHistory:
    """Ten records, all delivered, half of them twice; commits of 5 and 10, read back after each."""
    history = StormHistory(groups=["g"], ends={PLACE: 10})
    history.acks = {number: (PLACE, number, 1.0) for number in range(10)}
    history.deliveries[REGISTER] = [Delivery(2.0, 0, tuple(range(10))), Delivery(4.0, 5, tuple(range(5, 10)))]
    history.commits[REGISTER] = [acked(5, 3.0, 3.1), acked(10, 5.0, 5.1)]
    history.takeovers[REGISTER] = [OffsetRead(0, 0.5, 2.0, "g/0"), OffsetRead(5, 3.5, 4.0, "g/1")]
    history.probes[REGISTER] = [OffsetRead(10, 6.0, 6.1, "probe")]
    history.ends_seen = [(REGISTER, 10, 10, "probe")]
    return history


def judge(history: StormHistory) -> StormVerdict:
    return check(history, longest_wait_s=60)


def test_nothing_is_found_in_a_good_history(history: StormHistory) -> None:
    verdict = judge(history)
    assert verdict.ok, verdict.examples
    assert (verdict.delivered, verdict.duplicates, verdict.commits, verdict.reads) == (15, 5, 2, 3)
    assert verdict.waits_s == {"g": [1.0] * 10}
    assert verdict.gaps_s == {"g": 2.0}


@pytest.mark.parametrize("offset", [5, NO_OFFSET, 7])
def test_a_commit_that_is_gone_is_found(history: StormHistory, offset: int) -> None:
    history.probes[REGISTER].append(OffsetRead(offset, 7.0, 7.1, "probe"))
    assert judge(history).counts == {"committed offset lost": 1}


def test_a_read_may_see_a_commit_under_way_but_not_one_that_is_over(history: StormHistory) -> None:
    lost = Commit(8, 4.5, 4.5 + IN_FLIGHT_S, acked=False, consumer="g/1", assigned_at=3.5)
    history.commits[REGISTER].append(lost)
    history.probes[REGISTER].append(OffsetRead(8, 5.2, 5.3, "probe"))
    assert judge(history).ok
    history.commits[REGISTER].append(acked(10, 20.0, 20.1))
    history.probes[REGISTER].append(OffsetRead(8, 21.0, 21.1, "probe"))
    assert judge(history).counts == {"committed offset lost": 1}


def test_a_member_that_begins_elsewhere_is_found(history: StormHistory) -> None:
    history.takeovers[REGISTER].append(OffsetRead(0, 5.5, 5.6, "g/2"))
    assert judge(history).counts == {"took over elsewhere": 1}


def test_a_commit_goes_back_only_by_a_rebalance(history: StormHistory) -> None:
    history.commits[REGISTER].append(acked(6, 5.5, 5.6, assigned_at=4.0))
    history.probes[REGISTER] = []
    verdict = judge(history)
    assert verdict.ok
    assert verdict.reread_commits == 1
    history.commits[REGISTER].append(acked(7, 5.7, 5.8, assigned_at=5.2))
    assert judge(history).counts == {"commit went back": 1}


def test_commits_above_the_log_end_are_found(history: StormHistory) -> None:
    history.commits[REGISTER].append(acked(11, 5.5, 5.6))
    history.ends_seen.append((REGISTER, 11, 10, "probe"))
    history.probes[REGISTER] = []
    assert judge(history).counts == {"commit above the log end": 2}


def test_missing_false_and_late_deliveries_are_found(history: StormHistory) -> None:
    history.deliveries[REGISTER] = [Delivery(2.0, 0, tuple(range(9)))]
    assert judge(history).counts == {"never delivered": 1}
    history.deliveries[REGISTER].append(Delivery(70.0, 9, (9,)))
    assert judge(history).counts == {"stuck": 1}
    history.deliveries[REGISTER].append(Delivery(2.0, 9, (3,)))
    assert judge(history).counts == {"stuck": 1, "delivered what is not there": 1}


def test_acknowledgements_beyond_the_end_or_of_one_offset_are_found(history: StormHistory) -> None:
    history.acks[10] = (PLACE, 10, 1.0)
    history.acks[11] = (PLACE, 9, 1.0)
    assert judge(history).counts == {"acknowledged, then gone": 1, "one offset for two": 1}


def test_a_journal_that_a_kill_cut_short_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.write("join", "g/0")
    journal.write("assigned", "g/0", 3, [["t", 0]])
    journal.write("delivered", "g/0", [["t", 0, 4, [40, 41]]])
    for commit_id, error in enumerate(("", "ILLEGAL_GENERATION")):
        journal.write("commit", "g/0", commit_id, [["t", 0, 6]])
        journal.write("committed", "g/0", commit_id, [["t", 0, error]])
    journal.write("commit", "g/0", 2, [["t", 0, 6]])
    with path.open("ab") as file:
        file.write(b'["committed",1')
    history, counts = StormHistory(), StormCounts()
    JournalReader(history, counts).read(path, ended_at=1e12)
    assert (counts.joins, counts.leaves, counts.deaths) == (1, 0, 1)
    assert counts.generations == {"g": 3}
    assert counts.failed_commits == {"ILLEGAL_GENERATION": 1}
    assert [read.offset for read in history.takeovers[REGISTER]] == [4]
    assert [delivery.numbers for delivery in history.deliveries[REGISTER]] == [(40, 41)]
    commits = history.commits[REGISTER]
    assert [commit.acked for commit in commits] == [True, False, False]
    assert commits[2].end == 1e12 + IN_FLIGHT_S


def test_a_group_is_whole_when_stable_members_own_every_partition_once() -> None:
    places = [Place("t", 0), Place("t", 1)]
    assert not GroupView("Stable", 2, places).fault(2, places)
    assert "not stable" in GroupView("PreparingRebalance", 2, []).fault(2, places)
    assert "not stable with 3" in GroupView("Stable", 2, places).fault(3, places)
    assert "without owner" in GroupView("Stable", 2, places[:1]).fault(2, places)
    assert "owned twice" in GroupView("Stable", 2, [*places, places[0]]).fault(2, places)
