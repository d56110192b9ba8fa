"""Many timers behind one `loop.call_at`.

Sessions are extended by every heartbeat, so setting a timer again must be cheap: a later deadline only overwrites a
number, and the entry in the heap is moved when it comes up. Timers belong to an owner (a shard) and go with it.
Used by `coordinator.runtime`. Not more than a few milliseconds of timers fire in one turn of the loop.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Hashable

logger = logging.getLogger(__name__)

_TURN_S = 0.004
_MIN_HEAP = 64


class _Timer:
    """One timer: when it fires, and where its entry in the heap stands."""

    __slots__ = ("at", "entry", "payload")

    def __init__(self, at: float, payload: int, entry: int) -> None:
        self.at = at
        self.payload = payload
        self.entry = entry


class _Entry(NamedTuple):
    at: float
    number: int
    owner: Hashable
    key: Hashable


class Timers:
    """Calls `fire(owner, key, payload)` when the loop's time passes a deadline; a timer fires once."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fire: Callable[[Hashable, Hashable, int], None]
    ) -> None:
        self._loop = loop
        self._fire = fire
        self._owners: dict[Hashable, dict[Hashable, _Timer]] = {}
        self._heap: list[_Entry] = []
        self._count = 0
        self._numbers = itertools.count()
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return the number of timers that are set."""
        return self._count

    def set(self, owner: Hashable, key: Hashable, at: float, payload: int) -> None:
        """Set or move a timer: `at` is the loop's time in seconds."""
        timers = self._owners.setdefault(owner, {})
        timer = timers.get(key)
        if timer is None:
            timers[key] = self._push(owner, key, at, payload)
            self._count += 1
        elif at >= timer.at:
            timer.at = at
            timer.payload = payload
        else:
            timers[key] = self._push(owner, key, at, payload)

    def cancel(self, owner: Hashable, key: Hashable) -> None:
        """Let a timer not fire; not an error if it is not set."""
        timers = self._owners.get(owner)
        if timers is not None and timers.pop(key, None) is not None:
            self._count -= 1
            if not timers:
                del self._owners[owner]

    def drop(self, owner: Hashable) -> None:
        """Cancel all timers of an owner."""
        self._count -= len(self._owners.pop(owner, ()))

    def close(self) -> None:
        """Cancel everything."""
        self._owners.clear()
        self._heap.clear()
        self._count = 0
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _push(self, owner: Hashable, key: Hashable, at: float, payload: int) -> _Timer:
        if len(self._heap) > _MIN_HEAP + 2 * self._count:
            self._compact()
        timer = _Timer(at, payload, next(self._numbers))
        heapq.heappush(self._heap, _Entry(at, timer.entry, owner, key))
        if self._heap[0].number == timer.entry:
            self._arm(at)
        return timer

    def _compact(self) -> None:
        """Forget the entries of timers that were cancelled or moved forward."""
        self._heap = [entry for entry in self._heap if self._current(entry) is not None]
        heapq.heapify(self._heap)

    def _current(self, entry: _Entry) -> _Timer | None:
        timer = self._owners.get(entry.owner, {}).get(entry.key)
        return timer if timer is not None and timer.entry == entry.number else None

    def _arm(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_at(at, self._turn)

    def _turn(self) -> None:
        self._handle = None
        end = self._loop.time() + _TURN_S
        heap = self._heap
        while heap:
            now = self._loop.time()
            if heap[0].at > now or now >= end:
                break
            entry = heapq.heappop(heap)
            timer = self._current(entry)
            if timer is None:
                continue
            if timer.at > now:
                timer.entry = next(self._numbers)
                heapq.heappush(heap, _Entry(timer.at, timer.entry, entry.owner, entry.key))
                continue
            self.cancel(entry.owner, entry.key)
            try:
                self._fire(entry.owner, entry.key, timer.payload)
            except Exception:
                # A bug behind one timer must not stop all others.
                logger.exception("timer %r failed", entry.key)
            heap = self._heap
        if heap and self._handle is None:
            self._arm(heap[0].at)
