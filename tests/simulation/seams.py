"""Clocks and threads of a simulated process.

Each simulated machine has its own wall clock, which the schedule may set forward and back; all share the loop's time as
their monotonic clock. Blocking work runs on the loop's thread when a virtual disk would have done it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from tests.simulation.loop import VirtualLoop

# 2026-01-01T00:00:00Z
EPOCH_MS = 1_767_225_600_000


class SimClock:
    """A clock of one machine; see `seams.clock.Clock`."""

    __slots__ = ("_loop", "jump_ms", "monotonic")

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.monotonic = loop.time
        self.jump_ms = 0
        """How far the wall clock is off."""

    def now_ms(self) -> int:
        """Return the machine's wall clock in milliseconds."""
        return EPOCH_MS + self.jump_ms + round(self._loop.time() * 1000)


class SimThreads:
    """Implements `seams.threads.Threads`; `delay_s` draws how long one job takes."""

    def __init__(self, loop: VirtualLoop, delay_s: Callable[[], float]) -> None:
        self._loop = loop
        self._delay_s = delay_s

    def pool(self, name: str, threads: int = 1) -> Executor:
        """Return a pool of virtual threads."""
        return SimPool(self._loop, self._delay_s, threads)


class _OneThread:
    """Stands in for the lock of a future that one thread uses alone: a real one is most of what a job costs."""

    def __enter__(self) -> None:
        """There is nobody to keep out."""

    def __exit__(self, *error: object) -> None:
        """There is nobody to let in."""

    def notify_all(self) -> None:
        """There is nobody to wake."""


_one_thread = _OneThread()


class SimFuture(Future[Any]):
    """The outcome of a job, for callbacks only: nobody can wait for it by blocking the one thread there is."""

    def __init__(self) -> None:
        # What the base class does, but for its lock.
        self._condition = _one_thread  # type: ignore[assignment] # all that is asked of a condition here
        self._state = "PENDING"
        self._result = None
        self._exception = None
        self._waiters = []
        self._done_callbacks: list[object] = []


class SimPool(Executor):
    """Runs jobs on the loop's thread, each at the end of the time that it takes, at most `threads` at once.

    A job of a process that is dead by then does not run.
    """

    def __init__(self, loop: VirtualLoop, delay_s: Callable[[], float], threads: int) -> None:
        self._loop = loop
        self._delay_s = delay_s
        self._free = threads
        self._waiting: deque[Callable[[], None]] = deque()
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor.submit`."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = SimFuture()

        def run() -> None:
            self._free += 1
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except BaseException as error:  # as a real pool does
                    future.set_exception(error)
                    if not isinstance(error, Exception):
                        raise
                else:
                    future.set_result(result)
            self._start()

        self._waiting.append(run)
        self._start()
        return future

    def _start(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            self._loop.call_later(self._delay_s(), self._waiting.popleft())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs; those that wait are done all the same, unless cancelled."""
        self._closed = True
        if cancel_futures:
            self._waiting.clear()
