"""An object store that fails as real ones do, around any other: for tests and the simulator.

What it can do is what the seam allows (object_store.py), no more: refuse work for a while, take its time, do it and lose
the answer, do it twice, and do a put or delete long after it said that it could not, even after the sender died.

Work that lands late belongs to the bucket: it runs in an empty context, so that the end of a simulated process does not
take it along, and with the content as it was when it was sent.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeVar

from strandline_tiered.content import as_source, pieces
from strandline_tiered.object_store import (
    Content,
    DamagedAnswer,
    ObjectInfo,
    ObjectStore,
    Refused,
    Unavailable,
    check_key,
)

T = TypeVar("T")


class Kind(Enum):
    """What happens to a request."""

    UNAVAILABLE = "nothing is done, and that is all one hears"
    SLOW_DOWN = "nothing is done; come back after `delay_s`"
    REFUSED = "nothing is done, and will not be"
    SLOW = "done after `delay_s`"
    STALLED = "no answer ever; a write lands after `delay_s`"
    LOST_ANSWER = "done, but the answer is lost"
    LATE = "fails at once; a write lands after `delay_s`"
    TWICE = "done at once, and a write once more after `delay_s`"
    DAMAGED = "done, but the answer arrives damaged, and that is noticed"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `delay_s` in seconds."""

    kind: Kind
    delay_s: float = 0.0


class FaultPlan(Protocol):
    """Decides over every request."""

    def draw(self, operation: str, key: str) -> Fault | None:
        """Return what befalls a request (put, get, head, list, copy, delete), None for nothing."""
        ...


class ScriptedFaults:
    """One fault after the other for the operations named, then none. `None` lets a request pass."""

    def __init__(self, faults: Iterable[Fault | None], *, operations: Iterable[str] = ("put", "get")) -> None:
        self._faults = iter(faults)
        self._operations = frozenset(operations)

    def draw(self, operation: str, key: str) -> Fault | None:
        """See `FaultPlan.draw`."""
        return next(self._faults, None) if operation in self._operations else None


class RandomFaults:
    """Faults by chance: `rates` gives each kind its share of the requests. `longest_delay_s` bounds the delays drawn."""

    def __init__(
        self, rng: random.Random, rates: Mapping[Kind, float], *, longest_delay_s: float = 30.0
    ) -> None:
        assert sum(rates.values()) <= 1.0, "shares of the requests"
        self._rng = rng
        self._rates = dict(rates)
        self._longest_delay_s = longest_delay_s

    def draw(self, operation: str, key: str) -> Fault | None:
        """See `FaultPlan.draw`."""
        chance = self._rng.random()
        for kind, rate in self._rates.items():
            if chance < rate:
                return Fault(kind, self._rng.uniform(0, self._longest_delay_s))
            chance -= rate
        return None


class FaultyStore:
    """See `ObjectStore`. `plan` may be replaced at any time; None is a healthy store."""

    def __init__(self, store: ObjectStore, plan: FaultPlan | None = None) -> None:
        self._store = store
        self.plan = plan
        self._landing: set[asyncio.Task[None]] = set()

    async def put(self, key: str, content: Content, *, if_absent: bool = False) -> None:
        """See `ObjectStore.put`."""
        check_key(key)
        fault = self._draw("put", key)
        if fault is None:
            await self._store.put(key, content, if_absent=if_absent)
            return
        sent = [bytes(piece) for piece in pieces(as_source(content))]
        await self._suffer(
            fault, "put", key, lambda: self._store.put(key, sent, if_absent=if_absent), writes=True
        )

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        return await self._suffer(
            self._draw("get", key), "get", key, lambda: self._store.get(key, start, end)
        )

    async def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""
        return await self._suffer(self._draw("head", key), "head", key, lambda: self._store.head(key))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore.list`. A list may fail in its middle."""
        fault = self._draw("list", prefix)
        if fault is None:
            async for info in self._store.list(prefix, after=after):
                yield info
            return

        async def take() -> Sequence[ObjectInfo]:
            return [info async for info in self._store.list(prefix, after=after)]

        if fault.kind in (Kind.LOST_ANSWER, Kind.DAMAGED, Kind.TWICE):
            found = await take()
            for info in found[: len(found) // 2]:
                yield info
            raise Unavailable(f"list {prefix}: {fault.kind.value}")
        for info in await self._suffer(fault, "list", prefix, take):
            yield info

    async def copy(self, source: ObjectInfo, key: str) -> None:
        """See `ObjectStore.copy`."""
        check_key(key)
        await self._suffer(
            self._draw("copy", key), "copy", key, lambda: self._store.copy(source, key), writes=True
        )

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        doomed = list(keys)
        await self._suffer(
            self._draw("delete", doomed[0] if doomed else ""),
            "delete",
            str(doomed),
            lambda: self._store.delete(doomed),
            writes=True,
        )

    async def close(self) -> None:
        """See `ObjectStore.close`. Nothing lands after it."""
        for task in self._landing:
            task.cancel()
        await asyncio.gather(*self._landing, return_exceptions=True)
        await self._store.close()

    async def landed(self) -> None:
        """Wait until nothing is on its way any more."""
        while self._landing:
            await asyncio.wait(self._landing)

    def _draw(self, operation: str, key: str) -> Fault | None:
        return None if self.plan is None else self.plan.draw(operation, key)

    async def _suffer(
        self,
        fault: Fault | None,
        operation: str,
        key: str,
        work: Callable[[], Awaitable[T]],
        *,
        writes: bool = False,
    ) -> T:
        if fault is None:
            return await work()
        said = f"{operation} {key}: {fault.kind.value}"
        if fault.kind is Kind.REFUSED:
            raise Refused("AccessDenied", said)
        if fault.kind is Kind.SLOW_DOWN:
            raise Unavailable(said, retry_after_s=fault.delay_s)
        if fault.kind is Kind.SLOW:
            await asyncio.sleep(fault.delay_s)
            return await work()
        if fault.kind in (Kind.LATE, Kind.STALLED):
            if writes:
                self._land(fault.delay_s, work)
            if fault.kind is Kind.STALLED:
                await asyncio.get_running_loop().create_future()
            raise Unavailable(said)
        if fault.kind is Kind.UNAVAILABLE:
            raise Unavailable(said)
        done = await work()
        if fault.kind is Kind.TWICE:
            if writes:
                self._land(fault.delay_s, work)
            return done
        raise DamagedAnswer(said) if fault.kind is Kind.DAMAGED else Unavailable(said)

    def _land(self, delay_s: float, work: Callable[[], Awaitable[Any]]) -> None:
        async def land() -> None:
            await asyncio.sleep(delay_s)
            try:
                await work()
            except Exception:  # noqa: BLE001 - its sender is gone: nobody hears of it (a lost race of conditional puts)
                return

        work_of_the_bucket: Coroutine[Any, Any, None] = land()
        task = asyncio.get_running_loop().create_task(work_of_the_bucket, context=contextvars.Context())
        self._landing.add(task)
        task.add_done_callback(self._landing.discard, context=contextvars.Context())
