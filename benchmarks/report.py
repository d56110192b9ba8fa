"""Medians, ratios and verdicts: from the numbers of all runs to a Markdown table and JSON.

Pure but for `save`. Callers: `benchmarks.run`, `benchmarks.replication`, `benchmarks.tiering`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from benchmarks.experiments import Metric, Numbers

EVEN = 0.10
"""Ratios within this of 1 count as even: repeats differ by about as much."""


class Rows(Protocol):
    """An experiment as far as the table needs it."""

    @property
    def name(self) -> str:
        """The key of its numbers."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Its rows."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two systems to compare. Only those that promise the same count as won or lost."""

    ours: str
    theirs: str
    same_promise: bool = True


@dataclass(frozen=True, slots=True)
class Results:
    """All numbers of one session: runs[experiment][system label] is one `Numbers` per repeat."""

    environment: Mapping[str, str]
    systems: Sequence[str]
    pairs: Sequence[Pair]
    runs: Mapping[str, Mapping[str, Sequence[Numbers]]]
    failures: Sequence[str]

    def median(self, experiment: str, system: str, key: str) -> float | None:
        """Median over the repeats; None without any."""
        found = [numbers[key] for numbers in self.runs.get(experiment, {}).get(system, ()) if key in numbers]
        return statistics.median(found) if found else None


def verdict(metric: Metric, ours: float, theirs: float, *, same_promise: bool) -> str:
    """Give the ratio ours / theirs, and a word for it where it is fair."""
    if theirs == 0:
        return "-"
    ratio = ours / theirs
    if not same_promise:
        return f"{ratio:.2f}"
    if abs(ratio - 1) <= EVEN:
        return f"{ratio:.2f} even"
    return f"{ratio:.2f} " + ("win" if (ratio < 1) == metric.lower_is_better else "LOSE")


def markdown(results: Results, experiments: Iterable[Rows], *, budget: str = "budget in page cache") -> str:
    """Return facts, table and summary as Markdown. `budget` is the title of that column."""
    pairs = [pair for pair in results.pairs if {pair.ours, pair.theirs} <= set(results.systems)]
    heads = [
        "measured",
        "unit",
        budget,
        *results.systems,
        *(f"{p.ours} / {p.theirs}" for p in pairs),
    ]
    lines = [f"- {name}: {value}" for name, value in results.environment.items()]
    lines += ["", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    tally: dict[str, int] = {"win": 0, "even": 0, "LOSE": 0}
    lost: list[str] = []
    for experiment in experiments:
        for metric in experiment.metrics:
            medians = {name: results.median(experiment.name, name, metric.key) for name in results.systems}
            if all(value is None for value in medians.values()):
                continue
            cells = [metric.title, metric.unit, metric.budget or "-"]
            cells += [_shown(medians[name]) for name in results.systems]
            for pair in pairs:
                ours, theirs = medians[pair.ours], medians[pair.theirs]
                said = "-"
                if ours is not None and theirs is not None:
                    said = verdict(metric, ours, theirs, same_promise=pair.same_promise)
                cells.append(said)
                if (word := said.split()[-1]) in tally:
                    tally[word] += 1
                if said.endswith("LOSE"):
                    lost.append(
                        f"- {metric.title}: {pair.ours} {_shown(ours)} against {_shown(theirs)} {metric.unit}"
                    )
            lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"{tally['win']} wins, {tally['even']} even (within {EVEN:.0%}), {tally['LOSE']} lost.",
        *lost,
    ]
    if results.failures:
        lines += ["", "Failed or skipped:", *(f"- {failure}" for failure in results.failures)]
    return "\n".join(lines) + "\n"


def against_targets(results: Results, experiments: Iterable[Rows]) -> str:
    """Return facts and table as Markdown where systems are not compared with one another but with targets.

    A metric's budget is its target, if it is a number.
    """
    lines = [f"- {name}: {value}" for name, value in results.environment.items()]
    lines += ["", "| " + " | ".join(["measured", "unit", "target", *results.systems]) + " |"]
    lines += ["|" + "---|" * (3 + len(results.systems))]
    missed: list[str] = []
    for experiment in experiments:
        for metric in experiment.metrics:
            cells = [metric.title, metric.unit, "-"]
            if metric.budget:
                cells[2] = f"{'<=' if metric.lower_is_better else '>='} {metric.budget}"
            medians = [results.median(experiment.name, system, metric.key) for system in results.systems]
            if all(value is None for value in medians):
                continue
            for system, value in zip(results.systems, medians, strict=True):
                cells.append(_shown(value))
                if value is None or not metric.budget:
                    continue
                target = float(metric.budget)
                if value <= target if metric.lower_is_better else value >= target:
                    cells[-1] += " met"
                else:
                    cells[-1] += " MISSED"
                    missed.append(f"- {metric.title}, {system}: {_shown(value)} {metric.unit}, {cells[2]}")
            lines.append("| " + " | ".join(cells) + " |")
    if missed:
        lines += ["", "Missed:", *missed]
    if results.failures:
        lines += ["", "Failed or skipped:", *(f"- {failure}" for failure in results.failures)]
    return "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def save(results: Results, directory: Path, *, prefix: str = "") -> Path:
    """Write all numbers as JSON and return the file, named by the time after `prefix`."""
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    path = directory / f"{prefix}{now:%Y%m%dT%H%M%SZ}.json"
    content = {
        "finished": now.isoformat(timespec="seconds"),
        "environment": results.environment,
        "systems": results.systems,
        "runs": results.runs,
        "failures": results.failures,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path
