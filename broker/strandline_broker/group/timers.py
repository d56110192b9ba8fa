"""Deadlines of one shard, with few messages to whoever runs the clock.

A heartbeat moves its member's deadline back, thousands of times per second in a large cluster. So a later deadline is
only noted here, and the timer that fires too early is set once more; only an earlier one is announced at once.
"""

from __future__ import annotations

from strandline_broker.group.effects import TimerKey


class TimerTable:
    """Deadlines in milliseconds by key. Methods return the announcement to make, if any."""

    __slots__ = ("_timers",)

    def __init__(self) -> None:
        # key -> [true deadline, announced deadline]
        self._timers: dict[TimerKey, list[int]] = {}

    def __contains__(self, key: TimerKey) -> bool:
        return key in self._timers

    def arm(self, key: TimerKey, deadline_ms: int) -> tuple[TimerKey, int | None] | None:
        """Set or move a timer."""
        timer = self._timers.get(key)
        if timer is not None and timer[1] <= deadline_ms:
            timer[0] = deadline_ms
            return None
        self._timers[key] = [deadline_ms, deadline_ms]
        return key, deadline_ms

    def cancel(self, key: TimerKey) -> tuple[TimerKey, int | None] | None:
        """Forget a timer."""
        return None if self._timers.pop(key, None) is None else (key, None)

    def fire(self, key: TimerKey, now_ms: int) -> tuple[bool, tuple[TimerKey, int | None] | None]:
        """Return whether `key` is due (and forget it then), and the announcement of its true deadline if it is not."""
        timer = self._timers.get(key)
        if timer is None:
            return False, None
        if now_ms < timer[0]:
            timer[1] = timer[0]
            return False, (key, timer[0])
        del self._timers[key]
        return True, None

    def clear(self) -> None:
        """Forget everything without announcements."""
        self._timers.clear()
