"""Delays between attempts: exponential, capped, with full jitter so that a fleet does not retry in step.

Used by everything here that talks to a store. Pure; randomness is an argument.
"""

from __future__ import annotations

import random


class Backoff:
    """Yields delays in seconds, doubling from `first_s` to `cap_s`, each drawn from [half, whole]."""

    def __init__(self, rng: random.Random, *, first_s: float = 0.05, cap_s: float = 5.0) -> None:
        self._rng = rng
        self._first_s = first_s
        self._cap_s = cap_s
        self._next_s = first_s

    def next_s(self) -> float:
        """Return the next delay."""
        delay = self._next_s
        self._next_s = min(self._cap_s, 2 * delay)
        return delay * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Start over, after a success."""
        self._next_s = self._first_s
