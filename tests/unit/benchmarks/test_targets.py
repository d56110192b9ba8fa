"""The table of results against targets."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import report
from benchmarks.experiments import Metric


@dataclass(frozen=True)
class Rows:
    name: str
    metrics: tuple[Metric, ...]


def table(*values: float, lower_is_better: bool, budget: str = "0.8") -> str:
    rows = Rows(
        "read", (Metric("ratio", "how fast", "ratio", lower_is_better=lower_is_better, budget=budget),)
    )
    runs = {"read": {"S3": [{"ratio": value} for value in values]}}
    return report.against_targets(report.Results({}, ["directory", "S3"], (), runs, []), [rows])


def test_a_target_is_met_or_missed_by_the_median() -> None:
    met = table(0.7, 0.8, 0.9, lower_is_better=False)
    assert "| how fast | ratio | >= 0.8 | - | 0.8 met |" in met
    assert "Missed" not in met
    missed = table(0.79, lower_is_better=False)
    assert "| how fast | ratio | >= 0.8 | - | 0.79 MISSED |" in missed
    assert "- how fast, S3: 0.79 ratio, >= 0.8" in missed


def test_what_has_to_be_small_is_missed_above() -> None:
    assert "<= 0.8 | - | 0.81 MISSED" in table(0.81, lower_is_better=True)
    assert "<= 0.8 | - | 0.8 met" in table(0.8, lower_is_better=True)


def test_without_a_target_there_is_no_verdict() -> None:
    assert "| how fast | ratio | - | - | 0.1 |" in table(0.1, lower_is_better=False, budget="")


def test_rows_nobody_measured_are_left_out() -> None:
    assert "how fast" not in table(lower_is_better=True)
