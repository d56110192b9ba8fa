"""A rule of the product that is broken for as long as a schedule runs, and the faults that show it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.simulation.schedule import Schedule, Step, topics

Patch = tuple[Any, str, Any]


@dataclass(frozen=True)
class Mutant:
    """What is broken, how, and the faults that show it."""

    text: str
    patches: Callable[[], list[Patch]]
    steps: tuple[Step, ...]

    @property
    def schedule(self) -> Schedule:
        """A short schedule with these faults alone."""
        return Schedule(0, topics(minimum_b="1"), self.steps, duration_s=self.steps[-1].at + 8)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Break the product for a while."""
        patches = self.patches()
        before = [(owner, name, _get(owner, name)) for owner, name, _ in patches]
        for owner, name, value in patches:
            _set(owner, name, value)
        try:
            yield
        finally:
            for owner, name, value in before:
                _set(owner, name, value)


def _get(owner: Any, name: str) -> Any:
    # As it is stored: a static method has to go back as one.
    return owner.__dict__[name] if name in getattr(owner, "__dict__", {}) else getattr(owner, name)


def _set(owner: Any, name: str, value: Any) -> None:
    if dataclasses.is_dataclass(owner) and not isinstance(owner, type):
        object.__setattr__(owner, name, value)  # frozen
    else:
        setattr(owner, name, value)


def step(time: float, kind: str, /, **details: Any) -> Step:
    """Return a step."""
    return Step(time, kind, details)
