"""Whole clusters under whole schedules: a bounded set of seeds here, as many as wanted with `make simulate`."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
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
from tests.simulation.tiering_schedule import (
    ALL_FAULTS,
    TIER_FAULTS,
    TIER_OPERATIONS,
    TIERING_SEEDS,
    draw_tiering,
    schedule_of,
)

SEEDS = range(int(os.environ.get("STRANDLINE_SIMULATION_SEEDS", "12")))
TIERING = range(
    TIERING_SEEDS, TIERING_SEEDS + int(os.environ.get("STRANDLINE_SIMULATION_TIERING_SEEDS", "4"))
)
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


def test_no_schedule_that_tiers_breaks_a_rule() -> None:
    failed = []
    together: Counter[str] = Counter()
    for result in run_many(((seed, "") for seed in TIERING), jobs=os.cpu_count() or 1):
        together += result.counts
        assert result.operations >= OPERATIONS_LEAST
        assert result.faults >= FAULTS_LEAST
        assert result.counts["bucket put segment"] > 5
        assert result.counts["bucket put manifest"] > 5
        if not result.ok:
            failed.append(
                f"python -m tests.simulation.run --seed {result.seed} --trace: {result.violations[0]}"
            )
    assert not failed
    for what in ("local deletions", "bucket get", "objects deleted", "late puts", "offset lookups"):
        assert together[what] > 0, what


@pytest.mark.parametrize("name", MUTANTS)
def test_every_broken_rule_is_noticed(name: str) -> None:
    result = run_mutant(name)
    assert not result.ok, f"{MUTANTS[name].text}: nobody noticed"
    assert set(result.rules) - {"broken off", "broken client", "broken simulator"}, result.violations


@pytest.mark.parametrize("seed", ["2", str(TIERING_SEEDS)])
def test_a_seed_is_one_run_whatever_the_process(seed: str) -> None:
    """Hashes of strings and addresses of objects differ between processes; what happens must not."""
    runs = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        output = subprocess.run(
            [sys.executable, "-c", DIGESTS, seed], capture_output=True, check=True, cwd=ROOT, env=environment
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
    assert schedule_of(7) == draw(7)
    assert schedule_of(TIERING_SEEDS) == draw_tiering(TIERING_SEEDS)
    assert draw_tiering(TIERING_SEEDS) != draw_tiering(TIERING_SEEDS + 1)


def test_seeds_without_a_bucket_draw_what_they_always_drew() -> None:
    """Results of twenty thousand of them are kept in files: they would mean something else."""
    drawn = [(one.topics, one.steps, one.flush, one.interval_s) for one in map(draw, range(50))]
    digest = hashlib.sha256(repr(drawn).encode()).hexdigest()[:16]
    assert digest == "f45c9e68a91573c8"


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


def test_schedules_that_tier_are_full_of_faults() -> None:
    kinds: set[str] = set()
    for seed in range(TIERING_SEEDS, TIERING_SEEDS + 200):
        schedule = draw_tiering(seed)
        assert schedule.tiering
        kinds.update(step.kind for step in schedule.steps)
        assert sum(step.kind in ALL_FAULTS for step in schedule.steps) >= FAULTS_LEAST
        assert all(0 < step.at < DURATION_S for step in schedule.steps)
    assert kinds == ALL_FAULTS | set(OPERATIONS) | set(TIER_FAULTS) | set(TIER_OPERATIONS)
