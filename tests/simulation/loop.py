"""A deterministic event loop on virtual time, and the processes that live on it.

Who uses it: the simulator, its tests, and tests of single parts that want a minute to pass in a millisecond. Nothing here
waits: when no callback is ready, the time of the next timer is now. A seed gives the order of timers that are due in the
same instant; everything else is first come, first served.

A `Process` is what a crash ends. Every callback runs in the context in which it was scheduled, and a context knows its
process, so a dead process is one whose callbacks are dropped: no handler of it runs, no `finally`, no goodbye, just as
after `kill -9`. What belongs to it is kept until the loop is closed, because collecting it would run code of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import heapq
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

MAX_STEPS_PER_INSTANT = 100_000
# Time passes between any two timers and while code runs, as it does in life: a wait that a rounding made too short must
# not last for ever.
_TICK_S = 1e-6
_TURN_S = 1e-7


class Deadlock(Exception):  # noqa: N818 - it names what happened
    """Nothing is ready and nothing is scheduled, but the main task waits."""


class Halted(Exception):  # noqa: N818 - it names what happened
    """Somebody called `halt`."""


class Livelock(Exception):  # noqa: N818 - it names what happened
    """Callbacks run on and on while no time passes."""


class OutOfTime(Exception):  # noqa: N818 - it names what happened
    """The virtual time of the whole run is used up."""


class Ending(Protocol):
    """What is told of the end of a process: networks, disks."""

    def process_ended(self, process: Process) -> None:
        """Cut off everything that `process` held."""
        ...


class Process:
    """Something that can be killed or paused as a whole. `name` is unique among the living."""

    __slots__ = ("_endings", "alive", "backlog", "context", "kept", "loop", "name", "paused")

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.alive = True
        self.paused = False
        self.backlog: list[Turn] = []
        self.kept: list[object] = []
        self.context = contextvars.Context()
        self.context.run(_process.set, self)
        self._endings: list[Ending] = []

    def __repr__(self) -> str:
        state = "alive" if self.alive else "dead"
        return f"<Process {self.name} {state}>"

    @property
    def ready(self) -> bool:
        """Whether it may run now."""
        return self.alive and not self.paused

    def spawn(self, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Run a coroutine as a task of this process."""
        task = self.loop.create_task(work, name=name, context=self.context)
        self.kept.append(task)
        return task

    def on_end(self, ending: Ending) -> None:
        """Tell `ending` when this process is killed."""
        self._endings.append(ending)

    def kill(self) -> None:
        """End it here and now: no callback of it runs any more."""
        if not self.alive:
            return
        self.alive = False
        self.loop.graveyard.append((self, self.backlog))
        self.backlog = []
        for ending in self._endings:
            ending.process_ended(self)

    def pause(self) -> None:
        """Stop it as SIGSTOP does: what becomes due waits."""
        self.paused = True

    def resume(self) -> None:
        """Let everything that waited run, in its order."""
        if self.paused:
            self.paused = False
            backlog, self.backlog = self.backlog, []
            if self.alive:
                self.loop.run_again(backlog)


_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def current_process() -> Process | None:
    """Return the process whose code runs now, None outside of all."""
    return _process.get()


class Turn(asyncio.TimerHandle):
    """A callback that waits for its turn, with or without a time: what `asyncio.Handle` is, made in a third of the time."""

    __slots__ = ()
    _callback: Callable[..., object]
    _args: tuple[Any, ...]
    _context: contextvars.Context
    _cancelled: bool
    _when: float

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
        when: float,
    ) -> None:
        # All that the base class would do more serves asyncio's debug mode.
        self._callback = callback
        self._args = args
        self._context = context
        self._when = when
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<Turn of {self._callback!r} at {self._when:.6f}>"

    def cancel(self) -> None:
        """Let it not run; a timer stays where it is and is dropped when its time comes."""
        self._cancelled = True
        self._args = ()


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. `limit_s` is the virtual time at which `OutOfTime` ends the run.

    With a `rng` timers of one instant run in random order, otherwise in the order of their making.
    """

    def __init__(self, *, rng: random.Random | None = None, limit_s: float = 3600.0) -> None:
        super().__init__()
        self._ready: deque[Turn]
        self._now = 0.0
        self._rng = rng
        self._limit_s = limit_s
        self._made = 0
        self._heap: list[tuple[float, float, int, Turn]] = []
        self.graveyard: list[object] = []
        self.failures: list[dict[str, Any]] = []
        """What reached the loop's exception handler: errors that nobody caught."""
        self.steps = 0
        self._halted = False
        self._instant_ends = MAX_STEPS_PER_INSTANT
        self.set_exception_handler(lambda loop, context: self.failures.append(context))

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._now

    def call_at(  # type: ignore[override]  # typeshed's way to say the same
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule for a virtual time; one in the past is now, or as soon as time allows."""
        turn = Turn(callback, args, context if context is not None else contextvars.copy_context(), when)
        self._made += 1
        tie = self._rng.random() if self._rng is not None else 0.0
        earliest = self._now + _TICK_S
        heapq.heappush(self._heap, (when if when > earliest else earliest, tie, self._made, turn))
        return turn

    def call_later(  # type: ignore[override]  # typeshed's way to say the same
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule for `delay` virtual seconds from now."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_soon(  # type: ignore[override]  # typeshed's way to say the same
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Schedule behind everything that is ready."""
        turn = Turn(callback, args, context if context is not None else contextvars.copy_context(), self._now)
        self._ready.append(turn)
        return turn

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def halt(self) -> None:
        """End the run as soon as the present callback is over: `simulate` raises Halted."""
        self._halted = True

    def run_again(self, handles: list[Turn]) -> None:
        """Put handles that were held back where they can run."""
        self._ready.extend(handles)

    def _run_once(self) -> None:
        """Run all there is until somebody stops the loop: asking `BaseEventLoop` after every instant costs too much."""
        ready = self._ready
        while True:
            if self._halted:
                raise Halted
            if ready:
                self._now += _TURN_S
            else:
                self._pass_time()
            if self.steps > self._instant_ends:
                raise Livelock(f"at {self._now:.6f} s {ready[0]!r} and others run for ever")
            for _ in range(len(ready)):
                turn = ready.popleft()
                if turn._cancelled:
                    continue
                context = turn._context
                process = context.get(_process)
                if process is not None:
                    if not process.alive:
                        self.graveyard.append(turn)
                        continue
                    if process.paused:
                        process.backlog.append(turn)
                        continue
                self.steps += 1
                try:
                    context.run(turn._callback, *turn._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001  # as `asyncio.Handle` does
                    self.call_exception_handler({"message": f"{turn!r} failed", "exception": error})
            if self._stopping:  # type: ignore[attr-defined] # the base class has it
                return

    def _pass_time(self) -> None:
        """Let the next timer be due. Raises Deadlock, OutOfTime."""
        heap = self._heap
        while heap and heap[0][3]._cancelled:
            heapq.heappop(heap)
        if not heap:
            raise Deadlock(f"at {self._now:.3f} s nothing is ready and nothing is scheduled")
        when, _, _, timer = heapq.heappop(heap)
        self._now = max(self._now, when)
        self._instant_ends = self.steps + MAX_STEPS_PER_INSTANT
        if self._now > self._limit_s:
            raise OutOfTime(f"{self._limit_s} s are over")
        self._ready.append(timer)

    def _process_events(self, event_list: object) -> None:
        raise AssertionError("there is no selector")

    def _write_to_self(self) -> None:
        """There is nobody to wake."""

    def close(self) -> None:
        """Forget everything that is scheduled."""
        self._heap.clear()
        super().close()


def simulate(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]], loop: VirtualLoop) -> T:
    """Run `main(loop)` to its end and close the loop. Raises Deadlock, OutOfTime, and what `main` raises."""
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.set_exception_handler(lambda loop, context: None)
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        loop.graveyard.clear()


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Let the garbage collector sleep, then have it collect those who never ended.

    What it finalizes, and when, would depend on more than the seed. Afterwards nothing outside may refer to that world:
    its coroutines object to ending then, which interests nobody.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
        try:
            # A coroutine that objects to its end survives one collection: the next one takes it.
            with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # one that never began
                gc.collect()
        finally:
            sys.unraisablehook = hook
            if enabled:
                gc.enable()
