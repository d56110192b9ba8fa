"""`make conformance`: run the foreign suites against `strandline dev` and hold them against what is expected of them.

    python -m tests.conformance.run [SUITE...] [--factor 3] [--update] [--jobs N]

Each suite runs in a process of its own, in the environment of `sources`, with a cluster of its own. The totals come from
the suites' own reports: a test that was skipped, could not be set up or was not collected counts as not passed. Exit
status 1: a test of an allow-list did not pass (not even when it was run again, with those that failed with it), or one
that did not pass has no cause in the findings. `--update` rewrites the allow-lists from what passed, and the tables of
docs/conformance.md.

With `--factor 3` the suites' clusters have three brokers, and their topics three replicas.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from tests.conformance import scripts, sources
from tests.conformance.reports import (
    Finding,
    Outcome,
    Verdict,
    judge,
    read_allow_list,
    read_findings,
    read_junit,
)
from tests.conformance.suites import SUITES, Suite

HERE: Final = Path(__file__).resolve().parent
RUNS: Final = sources.CACHE / "runs"
PAGE: Final = sources.REPOSITORY / "docs" / "conformance.md"
_PROGRAM: Final = Path(sys.executable).with_name("strandline")
_SHOWN: Final = 40
_ATTEMPTS: Final = 3  # at most; clients have races of their own (docs/conformance.md)
_GRACE_S: Final = 60.0


class Result(NamedTuple):
    """What came of one suite: a verdict, or why it was not run."""

    suite: Suite
    verdict: Verdict | None
    seconds: float
    second_attempts: tuple[str, ...] = ()
    missing: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance", description="Run suites written by others.")
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], help="default: all of them")
    parser.add_argument(
        "--factor", type=int, choices=(1, 3), default=1, help="brokers, and replicas of topics"
    )
    parser.add_argument("--update", action="store_true", help="rewrite allow-lists and the tables of totals")
    parser.add_argument("--jobs", type=int, default=2, help="suites at a time")
    options = parser.parse_args()
    chosen = [SUITES[name] for name in options.suites or SUITES]
    started = time.monotonic()
    os.environ["CONFORMANCE_FACTOR"] = str(options.factor)  # for the plugins, and for our own scripts
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(partial(run_suite, factor=options.factor), chosen))
    for result in results:
        report(result)
    _say(f"\n{table(results)}\n{time.monotonic() - started:.0f} s")
    if options.update:
        update(results, options.factor)
    return 0 if all(result.verdict is None or result.verdict.good for result in results) else 1


def run_suite(suite: Suite, factor: int) -> Result:
    """Run one suite; what it said is in `.cache/conformance/runs/factor-N/NAME`."""
    started = time.monotonic()
    directory = RUNS / f"factor-{factor}" / suite.name
    try:
        outcomes = _run(suite, directory, factor)
    except sources.SourceMissingError as missing:
        return Result(suite, None, time.monotonic() - started, missing=str(missing))
    allowed = read_allow_list(_allow_list(suite, factor))
    failed = [test for test in allowed if test in outcomes and outcomes[test].status != "passed"]
    again: list[str] = []
    for attempt in range(2, _ATTEMPTS + 1):
        if not failed:
            break
        more = _run(suite, directory / f"attempt-{attempt}", factor, only=failed)
        again += [test for test in failed if test in more and more[test].status == "passed"]
        failed = [test for test in failed if test not in again]
    verdict = judge(outcomes, allowed, _findings(suite, factor), again)
    return Result(suite, verdict, time.monotonic() - started, tuple(again))


def _run(suite: Suite, directory: Path, factor: int, only: list[str] | None = None) -> Mapping[str, Outcome]:
    """Run a suite in an empty directory; scripts of our own are always run all. Raises SourceMissingError."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return (
        _run_pytest(suite, directory, factor, only)
        if suite.kind == "pytest"
        else scripts.run(suite, directory)
    )


def _run_pytest(suite: Suite, directory: Path, factor: int, only: list[str] | None) -> Mapping[str, Outcome]:
    environment = sources.python_environment()
    tree = sources.fresh_tree(suite, directory / "tree")
    junit = directory / "report.xml"
    # fmt: off
    command = [
        str(environment / "bin" / "pytest"), "-p", suite.plugin, "-p", "patience", "-p", "no:cacheprovider",
        "-q", "-rA", "--tb=long",
        f"--junit-xml={junit}", "-o", "junit_family=xunit2", "--continue-on-collection-errors",
        # A suite may ask for the other method, which ends the whole run with the first test that is too slow.
        "--timeout-method=signal",
        "-o", "console_output_style=classic", *suite.options,
        *(node_ids(only, tree) if only else suite.tests),
    ]
    # fmt: on
    variables = {
        **os.environ,
        **dict(suite.environment),
        "PYTHONPATH": str(HERE / "plugins"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": _path(environment),
        "CONFORMANCE_PROGRAM": str(_PROGRAM),
        "CONFORMANCE_RUN": str(directory),
        "CONFORMANCE_IMPATIENT": str(_impatient(suite, directory, factor)),
    }
    with (directory / "output.txt").open("w") as output:
        in_time = _run_within(command, suite.timeout_s, cwd=tree, env=variables, output=output)
    try:
        outcomes = read_junit(junit)
        if not in_time:
            message = f"stopped after {suite.timeout_s:.0f} s; what is missing here was not run"
            outcomes[suite.name] = Outcome(suite.name, "error", message=message)
        return outcomes
    except (FileNotFoundError, ET.ParseError) as error:
        end = (directory / "output.txt").read_text()[-2000:]
        return {suite.name: Outcome(suite.name, "error", message=f"ended without a report: {error}\n{end}")}


def _run_within(
    command: list[str], timeout_s: float, *, cwd: Path, env: Mapping[str, str], output: TextIO
) -> bool:
    """Run pytest to its end and return True, or interrupt it (it then still writes its report) and return False.

    Clusters that it leaves behind are told to stop; a process that does not even end is killed with them.
    """
    process = subprocess.Popen(
        command, cwd=cwd, env=env, stdout=output, stderr=output, start_new_session=True
    )
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):  # nobody is left
            os.killpg(process.pid, signal.SIGTERM)
    return True


def _path(environment: Path) -> str:
    """Stand-ins for programs that are not here come last."""
    return os.pathsep.join([str(environment / "bin"), os.environ.get("PATH", ""), str(HERE / "shims")])


def node_ids(tests: list[str], tree: Path) -> list[str]:
    """Return pytest's node ids for ids of a report (`package.module.Class::test`)."""
    found = []
    for test in tests:
        names, _, function = test.partition("::")
        parts = names.split(".")
        for length in range(len(parts), 0, -1):
            file = Path(*parts[:length]).with_suffix(".py")
            if (tree / file).is_file():
                found.append("::".join([str(file), *parts[length:], function]))
                break
    return found


def _allow_list(suite: Suite, factor: int) -> Path:
    return HERE / "allow" / f"factor-{factor}" / f"{suite.name}.txt"


def _impatient(suite: Suite, directory: Path, factor: int) -> Path:
    file = directory / "impatient.txt"
    file.write_text("".join(f"{finding.pattern}\n" for finding in _findings(suite, factor) if finding.later))
    return file


def _findings(suite: Suite, factor: int) -> list[Finding]:
    return read_findings(HERE / "findings" / f"{suite.name}.md", factor)


def report(result: Result) -> None:
    """Say what a reader has to know about one suite."""
    _say(f"\n== {result.suite.name} {result.suite.version}")
    if result.verdict is None:
        _say(f"NOT RUN: {result.missing}")
        return
    verdict = result.verdict
    for title, tests in (
        ("REGRESSIONS (allowed, not passed)", verdict.regressions),
        ("NO CAUSE GIVEN (not passed, in no finding)", verdict.unexplained),
        ("passed only when run again", result.second_attempts),
        ("passed, not in the allow-list yet", verdict.gained),
        ("findings that explain nothing any more", verdict.stale),
    ):
        if tests:
            _say(f"{title}: {len(tests)}")
        for test in tests[:_SHOWN]:
            outcome = verdict.outcomes.get(test)
            line = outcome.message.splitlines()[0][:160] if outcome and outcome.message else ""
            _say(
                f"  {test}"
                + (f"  [{outcome.status}] {line}" if outcome and outcome.status != "passed" else "")
            )
    _say(f"passed {verdict.passed} of {len(verdict.outcomes)}; {result.seconds:.0f} s")


def table(results: list[Result]) -> str:
    """Return the totals as a Markdown table."""
    lines = [
        "| suite | version | passed | of | not passed: planned | not passed: other | a fake broker reaches |",
        "|---|---|---|---|---|---|---|",
    ]
    for suite, verdict, *_ in results:
        if verdict is None:
            lines.append(f"| {suite.name} | {suite.version} | not run | | | | |")
            continue
        total = len(verdict.outcomes)
        other = total - verdict.passed - verdict.later
        reference = "{} of {}".format(*suite.reference) if suite.reference else ""
        lines.append(
            f"| {suite.name} | {suite.version} | {verdict.passed} | {total} | {verdict.later} | {other} | {reference} |"
        )
    return "\n".join(lines)


def update(results: list[Result], factor: int) -> None:
    """Rewrite the allow-lists from what passed, and these suites' rows of the factor's table on the page."""
    for result in results:
        if result.verdict is not None:
            passed = {test for test, o in result.verdict.outcomes.items() if o.status == "passed"}
            kept = {*passed, *result.second_attempts}
            for finding in _findings(result.suite, factor):  # it passed by chance
                kept = {test for test in kept if not finding.covers(test)}
            file = _allow_list(result.suite, factor)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{test}\n" for test in sorted(kept)))
    begin, end = f"<!-- totals at factor {factor} -->\n", f"<!-- end of totals at factor {factor} -->\n"
    head, _, rest = PAGE.read_text().partition(begin)
    before, _, tail = rest.partition(end)
    rows = {**_rows(before), **_rows(table(results))}
    lines = [rows[name] for name in ("suite", "---", *SUITES) if name in rows]
    PAGE.write_text(f"{head}{begin}" + "\n".join([*lines, end]) + tail)


def _rows(markdown: str) -> dict[str, str]:
    """Return a table's lines by their first column."""
    return {line.split("|")[1].strip(): line for line in markdown.splitlines() if line.startswith("|")}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
