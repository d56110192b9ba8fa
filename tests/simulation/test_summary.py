"""Adding up results, also those that were kept in files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.simulation import summary
from tests.simulation.batch import Result
from tests.simulation.summary import Summary, from_line, to_line


def result(seed: int, *, violations: tuple[str, ...] = (), fetches: int = 1_000, kills: int = 5) -> Result:
    counts = Counter({"fetch requests": fetches, "commits": 7, "fault kill": kills, "fault reassign": 2})
    return Result(seed, "", list(violations), ["lost"] if violations else [], counts, "digest", 61.5, 0.5)


def test_a_result_comes_back_from_its_line() -> None:
    before = result(17, violations=("12.000 lost: producer-0/3",))
    assert from_line(to_line(before)) == before
    assert from_line(to_line(before)).counts["nothing of the kind"] == 0


def test_what_is_least_is_told_and_administration_is_no_fault() -> None:
    added = Summary()
    added.add(result(1))
    added.add(result(2, fetches=1_500, kills=7))
    text = "\n".join(added.lines())
    assert "2 schedules, 0 failed; 0.50 s of CPU each" in text
    assert "client operations: 2,514 (1,257.0 per schedule, at least 1,007)" in text
    assert "faults: 12 (6.0 per schedule, at least 5)" in text
    assert "faults: kill 12\nadministration: reassign 4" in text
    assert "failing" not in text


def test_files_are_added_up_and_the_last_run_of_a_seed_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(f"{to_line(result(1))}\n{to_line(result(2, violations=('lost',)))}\n")
    assert summary.main([str(first)]) == 1
    assert "failing seeds: 2" in capsys.readouterr().out
    second.write_text(f"{to_line(result(2))}\n{to_line(result(3))}\n")
    assert summary.main([str(first), str(second)]) == 0
    assert "3 schedules, 0 failed" in capsys.readouterr().out


def test_nothing_comes_to_nothing() -> None:
    assert list(Summary().lines()) == ["no schedules"]
