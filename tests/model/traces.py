"""Traces as text files: what each mutant does in the fewest steps, for people to read and for tests to follow again."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from tests.model.checker import Result, System, explore, walk

_STEP = re.compile(r" *\d+  (.+)")


class AnyMutant(Protocol):
    """A rule switched off. See `mutants` and `tiering_mutants`."""

    @property
    def name(self) -> str: ...
    @property
    def rule(self) -> str: ...
    @property
    def strict(self) -> bool: ...
    @property
    def slow(self) -> bool: ...
    @property
    def needless(self) -> str: ...
    @property
    def folder(self) -> Path: ...

    def world(self, *, strict: bool, recorded: bool = False, with_the_rule: bool = False) -> System: ...


def trace_file(mutant: AnyMutant) -> Path:
    """Return where a mutant's trace is kept."""
    return mutant.folder / f"{mutant.name}.txt"


def as_text(mutant: AnyMutant, result: Result) -> str:
    """Return the content of a mutant's trace file."""
    lines = [f"Without the rule: {mutant.rule}.", "", *result.trace, "", f"Then {result.violation}.", ""]
    return "\n".join(lines)


def recorded_steps(mutant: AnyMutant) -> list[str]:
    """Return the labels of the steps in a mutant's trace file."""
    matches = map(_STEP.fullmatch, trace_file(mutant).read_text(encoding="utf-8").splitlines())
    return [match[1] for match in matches if match is not None]


def search(mutant: AnyMutant) -> Result:
    """Search what goes wrong without a rule: a shortest trace, of a strict mutant in two parts."""
    result = explore(lambda: mutant.world(strict=mutant.strict), keep_parents=True)
    if not (mutant.strict and result.violation):
        return result
    later = explore(lambda: mutant.world(strict=False, recorded=True), keep_parents=True, after=result.steps)
    return replace(later, states=result.states + later.states)


def follow(world: System, labels: list[str]) -> str:
    """Take these steps and return what is wrong after them, nothing if all is well.

    Raises LookupError where a step cannot be taken.
    """
    taken = walk(world, labels)
    violation = world.violation(taken[-1][1])
    return violation if len(taken) == len(labels) else f"after {len(taken)} steps already: {violation}"
