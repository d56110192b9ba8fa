"""Many schedules in several processes, and one schedule made smaller."""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.simulation.journal import OPERATIONS
from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import Schedule
from tests.simulation.simulation import Verdict, run_schedule
from tests.simulation.tiering_schedule import ALL_FAULTS, schedule_of

from strandline_broker.api.handlers import build_registry
from strandline_broker.wire import cold

# What a schedule leaves behind is collected, mostly; a process does not live for ever all the same.
_SCHEDULES_PER_PROCESS = 250


@dataclass(frozen=True)
class Result:
    """What one process tells of one schedule."""

    seed: int
    mutant: str
    violations: list[str]
    rules: list[str]
    counts: Counter[str]
    digest: str
    virtual_s: float
    cpu_s: float

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the rules."""
        return not self.violations

    @property
    def operations(self) -> int:
        """What clients did."""
        return sum(self.counts[name] for name in OPERATIONS)

    @property
    def faults(self) -> int:
        """What was done to the cluster, administration apart."""
        return sum(self.counts[f"fault {name}"] for name in sorted(ALL_FAULTS))


def run_seed(task: tuple[int, str]) -> Result:
    """Run the schedule of a seed, with a mutant unless its name is empty."""
    seed, mutant = task
    if mutant:
        with MUTANTS[mutant].applied():
            return _result(schedule_of(seed), mutant, halt=True)
    return _result(schedule_of(seed), "", halt=False)


def _result(schedule: Schedule, mutant: str, *, halt: bool) -> Result:
    started = time.process_time()
    verdict = run_schedule(schedule, halt=halt)
    return Result(
        schedule.seed,
        mutant,
        [str(violation) for violation in verdict.violations],
        sorted({violation.rule for violation in verdict.violations}),
        verdict.counts,
        verdict.digest,
        verdict.virtual_s,
        time.process_time() - started,
    )


def run_mutant(name: str) -> Result:
    """Run a mutant with the faults that show it."""
    mutant = MUTANTS[name]
    with mutant.applied():
        return _result(mutant.schedule, name, halt=True)


def run_many(tasks: Iterable[tuple[int, str]], *, jobs: int) -> Iterator[Result]:
    """Run many seeds (and mutants); results come as they are ready."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, _prepare, maxtasksperchild=_SCHEDULES_PER_PROCESS) as pool:
        yield from pool.imap_unordered(run_seed, tasks)


def _prepare() -> None:
    """Spare the collector what every process keeps: modules."""
    cold.warm_up(build_registry().ranges)
    gc.collect()
    gc.freeze()


def shrink(schedule: Schedule, note: Callable[[str], None]) -> tuple[Schedule, Verdict]:
    """Leave out single steps as long as one of the same rules is still broken; return the smallest that fails."""
    verdict = run_schedule(schedule)
    if verdict.ok:
        raise ValueError(f"seed {schedule.seed} does not fail")
    rules = {violation.rule for violation in verdict.violations}
    again = True
    while again:
        again = False
        for step in schedule.steps:
            fewer = dataclasses.replace(schedule, steps=tuple(s for s in schedule.steps if s is not step))
            found = run_schedule(fewer, halt=True)
            if rules & {violation.rule for violation in found.violations}:
                note(f"without {step}")
                schedule, verdict, again = fewer, found, True
                break
    return schedule, verdict
