"""What a run said, and what it should have said: JUnit reports, allow-lists, findings. Pure but for reading files.

An allow-list names the tests that are expected to pass, one `id` per line. A findings page names every other test, each
under a heading with the cause: list items that start with the id in backticks, where `*` stands for anything. A heading
that ends with `(later)` names something that is known to be missing and planned, one that ends with `(factor 3)` what is
only so with three brokers.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from re import compile as regex
from typing import Final, NamedTuple

PASSED: Final = "passed"
_WORST: Final = (PASSED, "skipped", "failed", "error")
_ITEM: Final = regex(r"\s*[-*] `([^`]+)`")
LATER: Final = "(later)"
_FACTOR: Final = regex(r"\(factor ([0-9]+)\)$")


class Outcome(NamedTuple):
    """How one test ended; `status` is passed, failed, error or skipped."""

    test: str
    status: str
    seconds: float = 0.0
    message: str = ""


class Finding(NamedTuple):
    """A cause, and a pattern of the tests that do not pass because of it."""

    pattern: str
    cause: str

    def covers(self, test: str) -> bool:
        """Say whether this is the cause for a test; brackets are literal, only `*` is not."""
        return fnmatchcase(test, self.pattern.replace("[", "[[]"))

    @property
    def later(self) -> bool:
        """Whether the cause is something planned."""
        return self.cause.endswith(LATER)


def read_junit(path: Path) -> dict[str, Outcome]:
    """Return the outcomes in a JUnit report; a test that is in it twice has its worst one.

    Raises FileNotFoundError or ParseError when the suite ended without a report.
    """
    outcomes: dict[str, Outcome] = {}
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}".removeprefix("::")
        status, message = PASSED, ""
        for element in case:
            kind = {"failure": "failed", "error": "error", "skipped": "skipped"}.get(element.tag, PASSED)
            if _WORST.index(kind) > _WORST.index(status):
                status, message = kind, (element.get("message") or element.text or "").strip()
        outcome = Outcome(name, status, float(case.get("time") or 0), message)
        before = outcomes.get(name)
        if before is None or _WORST.index(status) > _WORST.index(before.status):
            outcomes[name] = outcome
    return outcomes


def read_allow_list(path: Path) -> list[str]:
    """Return the ids of a list; empty lines and lines that start with # say nothing."""
    if not path.exists():
        return []
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def read_findings(path: Path, factor: int) -> list[Finding]:
    """Return what a findings page explains of a run at a replication factor."""
    findings = []
    cause = ""
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("#"):
            cause = line.lstrip("#").strip()
        elif found := _ITEM.match(line):
            only = _FACTOR.search(cause)
            if only is None or int(only[1]) == factor:
                findings.append(Finding(found[1], cause))
    return findings


@dataclass(frozen=True, slots=True)
class Verdict:
    """A run held against its allow-list and findings. Everything but `gained` and `stale` fails the target."""

    outcomes: Mapping[str, Outcome]
    regressions: tuple[str, ...]  # allowed, and did not pass or was not there
    unexplained: tuple[str, ...]  # did not pass, and no finding says why
    gained: tuple[str, ...]  # passed, and is not allowed yet
    stale: tuple[str, ...]  # patterns of findings that cover no test that did not pass
    later: int  # not passed for a reason that is planned

    @property
    def passed(self) -> int:
        """Number of tests that passed."""
        return sum(outcome.status == PASSED for outcome in self.outcomes.values())

    @property
    def good(self) -> bool:
        """Whether the target may be green."""
        return not self.regressions and not self.unexplained


def judge(
    outcomes: Mapping[str, Outcome],
    allowed: Iterable[str],
    findings: Iterable[Finding],
    passed_again: Iterable[str] = (),
) -> Verdict:
    """Hold outcomes against what was expected.

    What passed only when it was run again is no regression, and is not counted as passed.
    """
    findings = tuple(findings)
    allowed = set(allowed)
    passed = {test for test, outcome in outcomes.items() if outcome.status == PASSED}
    missed = outcomes.keys() - passed
    causes = {test: [finding for finding in findings if finding.covers(test)] for test in missed}
    used = {finding.pattern for found in causes.values() for finding in found}
    return Verdict(
        outcomes=outcomes,
        regressions=tuple(sorted(allowed - passed - set(passed_again))),
        unexplained=tuple(sorted(test for test in missed - allowed if not causes[test])),
        gained=tuple(sorted(passed - allowed)),
        stale=tuple(finding.pattern for finding in findings if finding.pattern not in used),
        later=sum(any(finding.later for finding in found) for found in causes.values()),
    )
