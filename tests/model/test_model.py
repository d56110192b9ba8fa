"""The rules hold in small worlds, and each one that is switched off is missed at once. `make model` runs the large ones."""

from __future__ import annotations

import pytest
from tests.model.checker import explore
from tests.model.configurations import SMALL
from tests.model.mutants import MUTANTS, Mutant
from tests.model.settings import Bounds, Switches
from tests.model.traces import FOLDER, as_text, follow, recorded_steps, search, trace_file

FOUND = [mutant for mutant in MUTANTS if not mutant.needless]


def name_of(mutant: Mutant) -> str:
    return mutant.name


@pytest.mark.parametrize("bounds", SMALL, ids=str)
def test_with_all_rules_on_nothing_is_lost(bounds: Bounds) -> None:
    result = explore(bounds)
    assert not result.violation, "\n".join(result.trace)
    assert result.exhausted
    assert result.states > 1_000, "a world in which nothing happens proves nothing"


@pytest.mark.parametrize("mutant", [mutant for mutant in FOUND if not mutant.slow], ids=name_of)
def test_without_a_rule_its_shortest_trace_is_found(mutant: Mutant) -> None:
    assert as_text(mutant, search(mutant)) == trace_file(mutant).read_text(encoding="utf-8"), (
        "run `python -m tests.model.run --only mutants --write` and read what changed"
    )


@pytest.mark.parametrize("mutant", FOUND, ids=name_of)
def test_a_recorded_trace_breaks_a_promise_only_without_its_rule(mutant: Mutant) -> None:
    labels = recorded_steps(mutant)
    assert labels
    bounds = mutant.recorded_bounds
    violation = follow(bounds, mutant.switches, labels, strict=False)
    assert f"Then {violation}." in trace_file(mutant).read_text(encoding="utf-8").splitlines()
    try:
        assert follow(bounds, Switches(), labels, strict=True) == ""
    except LookupError:
        pass  # the rule refuses one of the steps


def test_every_trace_file_belongs_to_a_mutant() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {mutant.name for mutant in FOUND}


def test_a_search_that_is_cut_off_does_not_claim_to_be_complete() -> None:
    result = explore(SMALL[0], max_states=500)
    assert not result.exhausted
    assert not result.violation


def test_a_violation_is_found_again_with_its_trace_when_parents_were_not_kept() -> None:
    mutant = FOUND[0]
    assert explore(mutant.bounds, mutant.switches).trace
