"""Breadth-first search over all states of a world: nothing is missed, and the first trace found is a shortest one."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class System(Protocol):
    """What can be searched: states are numbers, steps have labels."""

    def initial(self) -> int:
        """Return the state in which everything begins."""
        ...

    def steps(self, state: int) -> list[tuple[str, int]]:
        """Return every step from a state: what happened, and the state after it."""
        ...

    def violation(self, state: int) -> str:
        """Return what is wrong in a state, nothing if all is well."""
        ...

    def changes(self, before: int, after: int) -> list[str]:
        """Return lines for people: what a step changed."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """What a search found, in how many seconds of CPU time.

    `exhausted`: every state within the bounds was seen. `trace`: lines for people. `steps`: the labels in them.
    """

    states: int
    depth: int
    seconds: float
    exhausted: bool
    violation: str = ""
    trace: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)


def explore(
    make: Callable[[], System],
    *,
    keep_parents: bool = False,
    max_states: int = 1 << 62,
    after: Sequence[str] = (),
) -> Result:
    """Search until a property is violated, or every state was seen, or `max_states` were.

    `make`: returns the system, new, since it remembers much. `after`: labels of steps to take before the search begins.
    Without `keep_parents`, which doubles the memory, a violation is searched for again to find its trace.
    """
    world = make()
    prefix = walk(world, after)
    started = time.process_time()
    collects = gc.isenabled()
    gc.disable()  # nothing here is cyclic
    try:
        found = _search(world, prefix[-1][1] if prefix else world.initial(), keep_parents, max_states)
    finally:
        if collects:
            gc.enable()
    seconds = time.process_time() - started
    if found.bad_state is None:
        return Result(found.states, found.depth, seconds, found.exhausted)
    if not keep_parents:
        return explore(make, keep_parents=True, max_states=max_states, after=after)
    steps = prefix + _path(world, found.parents, found.bad_state)
    return Result(
        found.states,
        found.depth,
        seconds,
        exhausted=False,
        violation=world.violation(found.bad_state),
        trace=_readable(world, steps),
        steps=[label for label, _ in steps],
    )


def walk(world: System, labels: Sequence[str]) -> list[tuple[str, int]]:
    """Take these steps and return them with the state after each, up to the first in which something is wrong.

    Raises LookupError where a step cannot be taken.
    """
    taken: list[tuple[str, int]] = []
    state = world.initial()
    for number, label in enumerate(labels, 1):
        after = next((after for found, after in world.steps(state) if found == label), None)
        if after is None:
            raise LookupError(f"step {number} cannot be taken: {label}")
        taken.append((label, after))
        if world.violation(after):
            break
        state = after
    return taken


@dataclass(slots=True)
class _Search:
    states: int
    depth: int
    exhausted: bool
    bad_state: int | None = None
    parents: dict[int, int] = field(default_factory=dict)


def _search(world: System, first: int, keep_parents: bool, max_states: int) -> _Search:
    parents: dict[int, int] = {first: first}
    seen = parents.keys() if keep_parents else {first}
    frontier = [first]
    depth = 0
    steps_of, violation = world.steps, world.violation
    assert not violation(first)
    while frontier and len(seen) < max_states:
        depth += 1
        following: list[int] = []
        for state in frontier:
            for _, after in steps_of(state):
                if after in seen:
                    continue
                if keep_parents:
                    parents[after] = state
                else:
                    seen.add(after)  # type: ignore[union-attr]
                if violation(after):
                    return _Search(len(seen), depth, False, after, parents)
                following.append(after)
        frontier = following
    return _Search(len(seen), depth - 1, not frontier, None, parents)


def _path(world: System, parents: dict[int, int], state: int) -> list[tuple[str, int]]:
    path: list[tuple[str, int]] = []
    while parents[state] != state:
        parent = parents[state]
        label = next(label for label, after in world.steps(parent) if after == state)
        path.append((label, state))
        state = parent
    return path[::-1]


def _readable(world: System, steps: list[tuple[str, int]]) -> list[str]:
    lines = []
    before = world.initial()
    for number, (label, state) in enumerate(steps, 1):
        lines.append(f"{number:3}  {label}")
        lines.extend(f"       {line}" for line in world.changes(before, state))
        before = state
    return lines
