"""Traces as text files: what each mutant does in the fewest steps, for people to read and for tests to follow again."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from tests.model.checker import Result, explore, walk
from tests.model.mutants import Mutant
from tests.model.settings import Bounds, Switches
from tests.model.world import World

FOLDER = Path(__file__).parent / "traces"
_STEP = re.compile(r" *\d+  (.+)")


def trace_file(mutant: Mutant) -> Path:
    """Return where a mutant's trace is kept."""
    return FOLDER / f"{mutant.name}.txt"


def as_text(mutant: Mutant, result: Result) -> str:
    """Return the content of a mutant's trace file."""
    lines = [f"Without the rule: {mutant.rule}.", "", *result.trace, "", f"Then {result.violation}.", ""]
    return "\n".join(lines)


def recorded_steps(mutant: Mutant) -> list[str]:
    """Return the labels of the steps in a mutant's trace file."""
    matches = map(_STEP.fullmatch, trace_file(mutant).read_text(encoding="utf-8").splitlines())
    return [match[1] for match in matches if match is not None]


def search(mutant: Mutant) -> Result:
    """Search what goes wrong without a rule: a shortest trace, of a strict mutant in two parts."""
    result = explore(mutant.bounds, mutant.switches, strict=mutant.strict, keep_parents=True)
    if not (mutant.strict and result.violation):
        return result
    later = explore(
        mutant.recorded_bounds, mutant.switches, strict=False, keep_parents=True, after=result.steps
    )
    return replace(later, states=result.states + later.states)


def follow(bounds: Bounds, switches: Switches, labels: list[str], *, strict: bool) -> str:
    """Take these steps and return what is wrong after them, nothing if all is well.

    Raises LookupError where a step cannot be taken.
    """
    world = World(bounds, switches, strict=strict)
    taken = walk(world, labels)
    violation = world.violation(taken[-1][1])
    return violation if len(taken) == len(labels) else f"after {len(taken)} steps already: {violation}"
