"""Status writes on change only, and at most every 15 s per object unless a condition flips. Pure.

A status that is written on every pass triggers the next pass, and counters that move all the time would keep an API
server busy.
"""

from __future__ import annotations

STATUS_INTERVAL_S = 15.0

Key = tuple[str, str]


class StatusPacer:
    """Remembers when each object's status was written; times are seconds of one monotonic clock."""

    __slots__ = ("_written_at",)

    def __init__(self) -> None:
        self._written_at: dict[Key, float] = {}

    def wait_s(self, key: Key, now: float, *, flips: bool) -> float:
        """Return the seconds until the object's status may be written; 0 for now."""
        written_at = self._written_at.get(key)
        if flips or written_at is None:
            return 0.0
        return max(0.0, written_at + STATUS_INTERVAL_S - now)

    def written(self, key: Key, now: float) -> None:
        """Note a write, and forget those that no longer hold anything back."""
        if len(self._written_at) > 1024:
            horizon = now - STATUS_INTERVAL_S
            self._written_at = {k: at for k, at in self._written_at.items() if at > horizon}
        self._written_at[key] = now
