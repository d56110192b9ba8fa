"""`python -m tests.simulation.run`: many seeds, one seed with its trace, a failing one made small, mutants, coverage.

--seeds A:B [--jobs N] [--mutant NAME]   run the schedules of these seeds; 1 if any fails
--seeds A:B --record FILE                the same, and append every result to FILE (summary.py adds such files up)
--seed N --trace [--mutant NAME]         run one and print every event
--shrink N [--mutant NAME]               leave out steps one by one while it still fails
--mutants [--seeds A:B]                  search for each mutant the first seed that catches it
--tiering                                count all seeds from TIERING_SEEDS on: schedules with a bucket
--seeds A:B --coverage                   which lines of the product ran, per package (in this process)
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.simulation.batch import Result, run_many, shrink
from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import Schedule
from tests.simulation.simulation import Verdict, run_schedule
from tests.simulation.summary import Summary, to_line
from tests.simulation.tiering_schedule import TIERING_SEEDS, schedule_of

EXAMPLES_SHOWN = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = _parser().parse_args(arguments)
    first = TIERING_SEEDS if options.tiering else 0
    if options.seed is not None:
        options.seed += first
    if options.shrink is not None:
        options.shrink += first
    if options.mutants:
        return _search_mutants(_range(options.seeds, first), options.jobs)
    with MUTANTS[options.mutant].applied() if options.mutant else contextlib.nullcontext():
        if options.shrink is not None:
            return _shrink(options.shrink)
        if options.seed is not None:
            return _run_one(options.seed, trace=options.trace)
    if options.coverage:
        return _cover(_range(options.seeds, first))
    return _run_seeds(_range(options.seeds, first), options.mutant, options.jobs, options.record)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Simulate clusters.", prog="python -m tests.simulation.run")
    parser.add_argument("--seeds", default="0:100", help="first:end of the seeds to run")
    parser.add_argument("--record", metavar="FILE", type=Path, help="append every result to this file")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, help="run this seed alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every event and log line")
    parser.add_argument("--shrink", type=int, metavar="SEED", help="make a failing schedule small")
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS], help="break the product like this")
    parser.add_argument("--mutants", action="store_true", help="search seeds that catch each mutant")
    parser.add_argument("--tiering", action="store_true", help="seeds are those of schedules with a bucket")
    parser.add_argument("--coverage", action="store_true", help="print which lines of the product ran")
    return parser


def _range(text: str, zero: int) -> range:
    first, colon, end = text.partition(":")
    start = zero + int(first)
    return range(start, zero + int(end)) if colon else range(start, start + 1)


# -- many ----------------------------------------------------------------------------------------------------------


def _run_seeds(seeds: range, mutant: str, jobs: int, record: Path | None) -> int:
    started = time.monotonic()
    summary = Summary()
    with record.open("a") if record is not None else contextlib.nullcontext() as file:
        for result in run_many(((seed, mutant) for seed in seeds), jobs=jobs):
            summary.add(result)
            if file is not None:
                print(to_line(result), file=file, flush=True)
            if not result.ok:
                _print_failure(result)
    for line in summary.lines():
        print(line)
    print(f"{time.monotonic() - started:,.0f} s in all")
    return 1 if summary.failed else 0


def _print_failure(result: Result) -> None:
    print(f"seed {result.seed} fails:")
    for text in result.violations[:EXAMPLES_SHOWN]:
        print(f"  {text[:300]}")
    sys.stdout.flush()


# -- one -----------------------------------------------------------------------------------------------------------


def _run_one(seed: int, *, trace: bool) -> int:
    schedule = schedule_of(seed)
    _print_schedule(schedule)
    if trace:
        logging.basicConfig(
            level=logging.INFO, format="             . %(name)s: %(message)s", stream=sys.stdout
        )
    verdict = run_schedule(schedule, show=print if trace else None)
    _print_verdict(verdict)
    return 0 if verdict.ok else 1


def _print_schedule(schedule: Schedule) -> None:
    print(f"seed {schedule.seed}, flush {schedule.flush}")
    for topic in schedule.topics:
        print(f"  topic {topic.name}: {topic.partitions} partitions, {topic.config}")
    for step in schedule.steps:
        print(f"  {step}")


def _print_verdict(verdict: Verdict) -> None:
    print(
        f"seed {verdict.seed}: {'ok' if verdict.ok else 'FAILED'} after {verdict.virtual_s:.1f} virtual seconds"
    )
    print(f"digest {verdict.digest}")
    for violation in verdict.violations:
        print(f"  {violation}")
    print(", ".join(f"{name} {count}" for name, count in sorted(verdict.counts.items())))


def _shrink(seed: int) -> int:
    schedule, verdict = shrink(schedule_of(seed), lambda text: print(f"still fails {text}", flush=True))
    _print_schedule(schedule)
    _print_verdict(verdict)
    return 1


# -- mutants -------------------------------------------------------------------------------------------------------


def _search_mutants(seeds: range, jobs: int) -> int:
    """Run every mutant with ever more seeds until one catches it."""
    open_ = dict.fromkeys(MUTANTS)
    block = max(2, jobs)
    for first in range(seeds.start, seeds.stop, block):
        tasks = [(seed, name) for name in open_ for seed in range(first, min(first + block, seeds.stop))]
        caught: dict[str, Result] = {}
        for (_, name), result in zip(tasks, _in_order(tasks, jobs), strict=True):
            if not result.ok:
                caught.setdefault(name, result)
        for name, result in caught.items():
            del open_[name]
            print(
                f"{name}: seed {result.seed}, {', '.join(result.rules)}: {result.violations[0][:200]}",
                flush=True,
            )
        if not open_:
            return 0
    for name in open_:
        print(f"{name}: not caught by seeds {seeds.start} to {seeds.stop - 1}")
    return 1


def _in_order(tasks: list[tuple[int, str]], jobs: int) -> list[Result]:
    found = {(result.seed, result.mutant): result for result in run_many(tasks, jobs=jobs)}
    return [found[task] for task in tasks]


# -- coverage ------------------------------------------------------------------------------------------------------


def _cover(seeds: range) -> int:
    """Measure in a process of its own, which has imported nothing of the product yet."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation.measure", str(seeds.start), str(seeds.stop)], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
