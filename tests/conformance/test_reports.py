"""The judgement that `make conformance` rests on, and the page it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance import run
from tests.conformance.reports import Finding, Outcome, judge, read_findings, read_junit
from tests.conformance.suites import SUITES

JUNIT = """<testsuites><testsuite>
<testcase classname="a.B" name="passes" time="0.5"/>
<testcase classname="a.B" name="fails"><failure message="no">text</failure></testcase>
<testcase classname="a.B" name="skips"><skipped message="old broker"/></testcase>
<testcase classname="a.B" name="ends badly"/>
<testcase classname="a.B" name="ends badly"><error message="teardown"/></testcase>
</testsuite></testsuites>"""


def outcomes(**status: str) -> dict[str, Outcome]:
    return {name: Outcome(name, how) for name, how in status.items()}


def test_a_test_is_as_bad_as_its_worst_entry(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(JUNIT)
    found = read_junit(report)
    assert {name.removeprefix("a.B::"): outcome.status for name, outcome in found.items()} == {
        "passes": "passed",
        "fails": "failed",
        "skips": "skipped",
        "ends badly": "error",
    }
    assert found["a.B::fails"].message == "no"


@pytest.mark.parametrize("how", ["failed", "error", "skipped"])
def test_what_is_allowed_must_pass(how: str) -> None:
    assert judge(outcomes(a="passed"), ["a"], []).good
    assert judge(outcomes(a=how), ["a"], [Finding("a", "it is known to fail")]).regressions == ("a",)
    assert judge(outcomes(b="passed"), ["a"], []).regressions == ("a",), "a test that is gone"


def test_what_passes_when_it_is_run_again_is_told_apart() -> None:
    once, never = "passes the second time", "never passes"
    verdict = judge(outcomes(**{once: "failed", never: "failed"}), [once, never], [], [once])
    assert (verdict.regressions, verdict.unexplained, verdict.passed) == ((never,), (), 0)
    assert judge(outcomes(**{once: "failed"}), [once], [], [once]).good


@pytest.mark.parametrize("how", ["failed", "error", "skipped"])
def test_what_does_not_pass_needs_a_cause(how: str) -> None:
    verdict = judge(outcomes(**{"t[x]": how, "u": how}), [], [Finding("t[*", "planned (later)")])
    assert verdict.unexplained == ("u",)
    assert (verdict.passed, verdict.later, verdict.good) == (0, 1, False)


def test_findings_that_explain_nothing_are_named() -> None:
    verdict = judge(outcomes(a="passed", b="failed"), ["a"], [Finding("a", "cause"), Finding("b", "cause")])
    assert verdict.stale == ("a",)
    assert verdict.good


def test_a_finding_may_hold_for_one_factor(tmp_path: Path) -> None:
    page = tmp_path / "findings.md"
    page.write_text("# Suite\n\n## Always\n\n- `a`\n\n## Only there (factor 3)\n\nText.\n\n- `b`: why\n")
    assert [finding.pattern for finding in read_findings(page, 1)] == ["a"]
    assert [finding.pattern for finding in read_findings(page, 3)] == ["a", "b"]


def test_rows_of_suites_that_did_not_run_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "PAGE", tmp_path / "page.md")
    run.PAGE.write_text("begin\n<!-- totals at factor 3 -->\n<!-- end of totals at factor 3 -->\nend\n")
    for name, how in (("kcat", "passed"), ("kafka-python", "failed")):
        verdict = judge(outcomes(a=how, b="passed"), [], [])
        run.update([run.Result(SUITES[name], verdict, 1.0)], 3)
    lines = run.PAGE.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("begin", "end")
    rows = [line.split("|")[1:5] for line in lines if line.startswith("| k")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["kafka-python", "3.0.12", "1", "2"],
        ["kcat", "any", "2", "2"],
    ]
    assert (tmp_path / "allow" / "factor-3" / "kafka-python.txt").read_text() == "b\n"
