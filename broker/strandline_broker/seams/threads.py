"""Threads as an argument: who has blocking work takes a `Threads`, so that the simulator can own when it is done.

`SystemThreads` makes real pools. A simulator's pools run the same jobs on the loop's thread after a virtual delay,
which is why jobs must not wait for each other.
"""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Protocol


class Threads(Protocol):
    """Where blocking work is done."""

    def pool(self, name: str, threads: int = 1) -> Executor:
        """Return a new pool of at most `threads` threads; with one thread jobs run in the order of their submission.

        Who made it shuts it down.
        """
        ...


class SystemThreads:
    """Threads of this process."""

    __slots__ = ()

    def pool(self, name: str, threads: int = 1) -> Executor:
        """See `Threads.pool`."""
        return ThreadPoolExecutor(threads, name)
