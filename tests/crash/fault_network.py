"""What faults need of a network whose links can be cut; `netns` has the one that is real."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

Heal = Callable[[], None]


class Network(Protocol):
    """Links between brokers and between brokers and clients."""

    def cut(self, broker: int, rng: random.Random) -> tuple[str, Heal]:
        """Cut a broker off in some way; return what was done, and how to undo it."""
        ...

    def slow(self, broker: int, rng: random.Random) -> tuple[str, Heal]:
        """Make a broker's link slow; return what was done, and how to undo it."""
        ...
