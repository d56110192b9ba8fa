"""Time as an argument: who needs the time takes a `Clock`, so that tests and the simulator can own it.

Timers go through the running asyncio loop (`loop.call_later`); a simulator brings a loop whose `time()` is the
same virtual time as its clock.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that only measures distances, one that names moments."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start; never goes back."""
        ...

    def now_ms(self) -> int:
        """Return wall-clock milliseconds since the Unix epoch; may jump."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when told to."""

    __slots__ = ("_monotonic", "_wall_ms")

    def __init__(self, *, wall_ms: int = 1_700_000_000_000) -> None:
        self._monotonic = 0.0
        self._wall_ms = wall_ms

    def monotonic(self) -> float:
        """Return the virtual seconds advanced so far."""
        return self._monotonic

    def now_ms(self) -> int:
        """Return the virtual wall clock in milliseconds."""
        return self._wall_ms

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks."""
        assert seconds >= 0, "time does not go back; use jump_wall for clock jumps"
        self._monotonic += seconds
        self._wall_ms += round(seconds * 1000)

    def jump_wall(self, delta_ms: int) -> None:
        """Set the wall clock forward or back without letting time pass."""
        self._wall_ms += delta_ms
