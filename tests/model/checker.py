"""Breadth-first search over all states of a world: nothing is missed, and the first trace found is a shortest one."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.model.settings import Bounds, Switches
from tests.model.state import NO_VIEW, Broker
from tests.model.world import World, texts

from strandline_broker.cluster.model import NO_LEADER


@dataclass(frozen=True, slots=True)
class Result:
    """What a search found, in how many seconds of CPU time.

    `exhausted`: every state within the bounds was seen. `trace`: lines for people. `steps`: the labels in them.
    """

    bounds: Bounds
    states: int
    depth: int
    seconds: float
    exhausted: bool
    violation: str = ""
    trace: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)


def explore(
    bounds: Bounds,
    switches: Switches | None = None,
    *,
    strict: bool = True,
    keep_parents: bool = False,
    max_states: int = 1 << 62,
    after: Sequence[str] = (),
) -> Result:
    """Search until a property is violated, or every state was seen, or `max_states` were.

    `after`: labels of steps to take before the search begins. Without `keep_parents`, which doubles the memory, a violation
    is searched for again to find its trace.
    """
    world = World(bounds, switches if switches is not None else Switches(), strict=strict)
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
        return Result(bounds, found.states, found.depth, seconds, found.exhausted)
    if not keep_parents:
        return explore(bounds, switches, strict=strict, keep_parents=True, max_states=max_states, after=after)
    steps = prefix + _path(world, found.parents, found.bad_state)
    return Result(
        bounds,
        found.states,
        found.depth,
        seconds,
        exhausted=False,
        violation=world.violation(found.bad_state),
        trace=_readable(world, steps),
        steps=[label for label, _ in steps],
    )


def walk(world: World, labels: Sequence[str]) -> list[tuple[str, int]]:
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


def _search(world: World, first: int, keep_parents: bool, max_states: int) -> _Search:
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


def _path(world: World, parents: dict[int, int], state: int) -> list[tuple[str, int]]:
    path: list[tuple[str, int]] = []
    while parents[state] != state:
        parent = parents[state]
        label = next(label for label, after in world.steps(parent) if after == state)
        path.append((label, state))
        state = parent
    return path[::-1]


def _readable(world: World, steps: list[tuple[str, int]]) -> list[str]:
    lines = []
    before = world.initial()
    for number, (label, state) in enumerate(steps, 1):
        lines.append(f"{number:3}  {label}")
        (_, old), (_, new) = world.unpack(before), world.unpack(state)
        lines.extend(
            f"       {_describe_broker(world, broker)}"
            for broker, former in zip(new, old, strict=True)
            if broker != former
        )
        before = state
    return lines


def _describe_broker(world: World, broker: Broker) -> str:
    if broker.view == NO_VIEW:
        role = "knows nothing of the store"
    elif broker.leads:
        role = f"leads epoch {world.partitions[broker.view].leader_epoch}"
    elif world.partitions[broker.view].leader in (NO_LEADER, broker.number):
        role = f"waits in epoch {world.partitions[broker.view].leader_epoch}"
    else:
        view = world.partitions[broker.view]
        role = f"follows broker {view.leader} in epoch {view.leader_epoch}"
    synced = "" if world.bounds.flush_replicated else f", synced {broker.synced}"
    return f"broker {broker.number}/{broker.generation}: log {texts(broker.log)}{synced}, {role}"
