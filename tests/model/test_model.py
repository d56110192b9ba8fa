"""The rules hold in small worlds, and each one that is switched off is missed at once. `make model` runs the large ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.model import configurations, tiering_configurations, tiering_mutants
from tests.model.checker import System, explore
from tests.model.mutants import MUTANTS
from tests.model.settings import Switches
from tests.model.tiering_settings import Switches as TieringSwitches
from tests.model.tiering_world import World as TieringWorld
from tests.model.traces import AnyMutant, as_text, follow, recorded_steps, search, trace_file
from tests.model.world import World

ALL: tuple[AnyMutant, ...] = (*MUTANTS, *tiering_mutants.MUTANTS)
FOUND = [mutant for mutant in ALL if not mutant.needless]


def small_replication(number: int) -> System:
    return World(configurations.SMALL[number], Switches(), strict=True)


def small_tiering(number: int) -> System:
    return TieringWorld(tiering_configurations.SMALL[number], TieringSwitches(), strict=True)


SMALL = [
    *((small_replication, number) for number in range(len(configurations.SMALL))),
    *((small_tiering, number) for number in range(len(tiering_configurations.SMALL))),
]


def name_of(mutant: AnyMutant) -> str:
    return mutant.name


@pytest.mark.parametrize(("make", "number"), SMALL)
def test_with_all_rules_on_nothing_is_lost(make: Callable[[int], System], number: int) -> None:
    result = explore(lambda: make(number))
    assert not result.violation, "\n".join(result.trace)
    assert result.exhausted
    assert result.states > 1_000, "a world in which nothing happens proves nothing"


@pytest.mark.parametrize("mutant", [mutant for mutant in FOUND if not mutant.slow], ids=name_of)
def test_without_a_rule_its_shortest_trace_is_found(mutant: AnyMutant) -> None:
    assert as_text(mutant, search(mutant)) == trace_file(mutant).read_text(encoding="utf-8"), (
        "run `python -m tests.model.run --only mutants --write` and read what changed"
    )


@pytest.mark.parametrize("mutant", FOUND, ids=name_of)
def test_a_recorded_trace_breaks_a_promise_only_without_its_rule(mutant: AnyMutant) -> None:
    labels = recorded_steps(mutant)
    assert labels
    violation = follow(mutant.world(strict=False, recorded=True), labels)
    assert f"Then {violation}." in trace_file(mutant).read_text(encoding="utf-8").splitlines()
    try:
        assert follow(mutant.world(strict=True, recorded=True, with_the_rule=True), labels) == ""
    except LookupError:
        pass  # the rule refuses one of the steps


def test_every_trace_file_belongs_to_a_mutant() -> None:
    files = {path for mutant in FOUND for path in mutant.folder.iterdir()}
    assert files == {trace_file(mutant) for mutant in FOUND}


def test_a_search_that_is_cut_off_does_not_claim_to_be_complete() -> None:
    result = explore(lambda: small_replication(0), max_states=500)
    assert not result.exhausted
    assert not result.violation


def test_a_violation_is_found_again_with_its_trace_when_parents_were_not_kept() -> None:
    assert explore(lambda: FOUND[0].world(strict=True)).trace
