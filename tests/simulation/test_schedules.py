"""Whole clusters under whole schedules: a bounded set of seeds here, as many as wanted with `make simulate`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.simulation.batch import run_many, run_mutant
from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import (
    BROKERS,
    DURATION_S,
    FAULTS,
    FAULTS_LEAST,
    OPERATIONS,
    OPERATIONS_LEAST,
    draw,
)
from tests.simulation.simulation import run_schedule

SEEDS = range(int(os.environ.get("STRANDLINE_SIMULATION_SEEDS", "12")))
ROOT = Path(__file__).resolve().parents[2]

DIGESTS = """
import json, sys
from tests.simulation.batch import run_seed
result = run_seed((int(sys.argv[1]), ""))
print(json.dumps([result.digest, result.virtual_s, sorted(result.counts.items())]))
"""


def test_no_schedule_breaks_a_rule() -> None:
    failed = []
    for result in run_many(((seed, "") for seed in SEEDS), jobs=os.cpu_count() or 1):
        counts = result.counts
        assert result.operations >= OPERATIONS_LEAST
        assert result.faults >= FAULTS_LEAST
        assert counts["records acked"] > 100
        assert result.virtual_s >= DURATION_S
        if not result.ok:
            failed.append(
                f"python -m tests.simulation.run --seed {result.seed} --trace: {result.violations[0]}"
            )
    assert not failed


@pytest.mark.parametrize("name", MUTANTS)
def test_every_broken_rule_is_noticed(name: str) -> None:
    result = run_mutant(name)
    assert not result.ok, f"{MUTANTS[name].text}: nobody noticed"
    assert set(result.rules) - {"broken off", "broken client", "broken simulator"}, result.violations


def test_a_seed_is_one_run_whatever_the_process() -> None:
    """Hashes of strings and addresses of objects differ between processes; what happens must not."""
    runs = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        output = subprocess.run(
            [sys.executable, "-c", DIGESTS, "2"], capture_output=True, check=True, cwd=ROOT, env=environment
        ).stdout
        runs.append(json.loads(output))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", MUTANTS)
def test_what_shows_a_broken_rule_breaks_none(name: str) -> None:
    """The same faults without the mutant: it is the mutant that is noticed."""
    verdict = run_schedule(MUTANTS[name].schedule)
    assert verdict.ok, verdict.violations


def test_schedules_are_drawn_from_their_seeds_alone() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_schedules_are_full_of_faults() -> None:
    kinds: set[str] = set()
    for seed in range(200):
        schedule = draw(seed)
        faults = [step for step in schedule.steps if step.kind in FAULTS]
        kinds.update(step.kind for step in schedule.steps)
        assert len(faults) >= FAULTS_LEAST
        assert all(0 < step.at < DURATION_S for step in schedule.steps)
        assert all(step.details.get("node", 0) < BROKERS for step in schedule.steps)
    assert kinds == set(FAULTS) | set(OPERATIONS)
