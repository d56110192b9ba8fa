"""Traces as text files: what each mutant does in the fewest steps, for people to read and for tests to follow again."""

from __future__ import annotations

import re
from pathlib import Path

from tests.model.checker import Result
from tests.model.mutants import Mutant
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


def follow(world: World, labels: list[str]) -> str:
    """Take these steps and return what is wrong after them, nothing if all is well.

    Raises LookupError where a step cannot be taken.
    """
    state = world.initial()
    for number, label in enumerate(labels, 1):
        after = next((after for found, after in world.steps(state) if found == label), None)
        if after is None:
            raise LookupError(f"step {number} cannot be taken: {label}")
        state = after
        violation = world.violation(state)
        if violation:
            return violation if number == len(labels) else f"after {number} steps already: {violation}"
    return ""
