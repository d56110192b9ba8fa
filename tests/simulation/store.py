"""The cluster store as one process reaches it, with all that may go wrong on the way.

Faults, each of which a real API server or its network has:

- it is away: requests fail, at once or after a time-out, and nothing was written;
- an answer is lost: the write happened and its caller is told that nobody knows;
- a write is late: its caller has given up, and then it lands, whatever happened meanwhile;
- a watch lags, ends, or is told that its history is gone.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tests.simulation.network import Links
from tests.simulation.store_server import Change, StoreServer, event_of

from strandline_broker.cluster.model import Object
from strandline_broker.cluster.object_rules import check_kind
from strandline_broker.cluster.store import (
    Event,
    Gone,
    Operation,
    StoreError,
    Subresource,
    Test,
    Unavailable,
)

T = TypeVar("T")

STORE_HOST = "store"
TIMEOUT_S = 2.0
MAX_LATE_S = 8.0


@dataclass(slots=True)
class StoreFaults:
    """What is wrong at the store now, for everybody. Chances are per request."""

    away: bool = False
    refused: float = 0.0
    lost_answer: float = 0.0
    late_write: float = 0.0


class StorePath:
    """The way from one host to the store."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        links: Links,
        host: str,
        rng: random.Random,
        faults: StoreFaults,
    ) -> None:
        self.loop = loop
        self.links = links
        self.host = host
        self.rng = rng
        self.faults = faults
        self.lag_s = 0.0
        """By how much the watches of this host are behind."""
        self.neutral = contextvars.Context()

    @property
    def out(self) -> bool:
        """Whether requests arrive."""
        return not self.links.is_cut(self.host, STORE_HOST)

    @property
    def back(self) -> bool:
        """Whether answers arrive."""
        return not self.links.is_cut(STORE_HOST, self.host)


class _Watcher:
    __slots__ = ("ending", "kind", "wake")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.wake = asyncio.Event()
        self.ending: StoreError | bool = False

    def end(self, error: StoreError | None = None) -> None:
        self.ending = error or True
        self.wake.set()


class MemoryStore:
    """A client of a `StoreServer`; without a path nothing lies between them. See `ClusterStore`."""

    def __init__(self, server: StoreServer, path: StorePath | None = None) -> None:
        self._server = server
        self._path = path
        self._watchers: dict[_Watcher, None] = {}
        self._closed = False
        server.wakers[self._written] = None

    def _written(self, kind: str) -> None:
        for watcher in self._watchers:
            if watcher.kind == kind:
                watcher.wake.set()

    async def get(self, kind: str, name: str) -> Object:
        """See `ClusterStore.get`."""
        return await self._call(lambda: self._server.get(kind, name))

    async def list(self, kind: str) -> tuple[list[Object], str]:
        """See `ClusterStore.list`."""
        return await self._call(lambda: self._server.list_objects(kind))

    async def create(self, kind: str, obj: Object) -> Object:
        """See `ClusterStore.create`."""
        return await self._call(lambda: self._server.create(kind, obj), writes=True)

    async def patch_if(
        self,
        kind: str,
        name: str,
        *,
        uid: str,
        tests: Sequence[Test],
        operations: Sequence[Operation],
        subresource: Subresource | None = None,
    ) -> Object:
        """See `ClusterStore.patch_if`."""
        return await self._call(
            lambda: self._server.patch_if(kind, name, uid, tests, operations, subresource), writes=True
        )

    async def delete_if(self, kind: str, name: str, *, uid: str, tests: Sequence[Test] = ()) -> None:
        """See `ClusterStore.delete_if`."""
        await self._call(lambda: self._server.delete_if(kind, name, uid, tests), writes=True)

    async def close(self) -> None:
        """See `ClusterStore.close`."""
        self._closed = True
        self._server.wakers.pop(self._written, None)
        self.end_watches()

    def forget(self) -> None:
        """Be the client of a process that is dead."""
        self._closed = True
        self._server.wakers.pop(self._written, None)
        self._watchers.clear()

    def end_watches(self, error: StoreError | None = None) -> None:
        """Let all watches end, as a server may at any time, with `error` or without."""
        for watcher in self._watchers:
            watcher.end(error)

    # -- requests --

    async def _call(self, operation: Callable[[], T], *, writes: bool = False) -> T:
        if self._closed:
            raise Unavailable("the cluster store is closed")
        path = self._path
        if path is None:
            await asyncio.sleep(0)
            return operation()
        rng = path.rng
        faults = path.faults
        if not path.out:
            if writes and rng.random() < 0.5:
                self._land_later(path, operation)
            await asyncio.sleep(TIMEOUT_S)
            raise Unavailable("the cluster store does not answer")
        await asyncio.sleep(path.links.delay_s(path.host, STORE_HOST))
        if faults.away or (faults.refused and rng.random() < faults.refused):
            raise Unavailable("the cluster store is away")
        if writes and faults.late_write and rng.random() < faults.late_write:
            self._land_later(path, operation)
            await asyncio.sleep(TIMEOUT_S)
            raise Unavailable("the cluster store does not answer")
        failure: StoreError | None = None
        try:
            result = operation()
        except StoreError as error:
            failure = error
        if not path.back or (faults.lost_answer and rng.random() < faults.lost_answer):
            await asyncio.sleep(TIMEOUT_S)
            raise Unavailable("the cluster store does not answer")
        await asyncio.sleep(path.links.delay_s(STORE_HOST, path.host))
        if failure is not None:
            raise failure
        return result

    def _land_later(self, path: StorePath, operation: Callable[[], object]) -> None:
        """Do a write that nobody waits for any more, whatever became of who asked for it."""

        def land() -> None:
            try:
                operation()
            except StoreError:
                pass  # nobody hears of it

        path.loop.call_later(path.rng.uniform(0.1, MAX_LATE_S), land, context=path.neutral)

    # -- watches --

    async def watch(self, kind: str, version: str) -> AsyncGenerator[Event, None]:
        """See `ClusterStore.watch`."""
        check_kind(kind)
        if not (version.isascii() and version.isdigit()):
            raise Gone(f"{version!r} is no version of this store")
        position = int(version)
        watcher = _Watcher(kind)
        self._watchers[watcher] = None
        try:
            while not self._closed:
                watcher.wake.clear()
                changes = self._server.changes_after(kind, position)
                for change in changes:
                    if not await self._travel(watcher, change):
                        return
                    position = change.version
                    yield event_of(change)
                if not changes:
                    await watcher.wake.wait()
                if watcher.ending:
                    if isinstance(watcher.ending, StoreError):
                        raise watcher.ending
                    return
        finally:
            self._watchers.pop(watcher, None)

    async def _travel(self, watcher: _Watcher, change: Change) -> bool:
        """Wait until an event has arrived; return whether the watch goes on. Raises StoreError."""
        path = self._path
        if path is None:
            return True
        started = path.loop.time()
        due = change.at + path.lag_s + path.links.delay_s(STORE_HOST, path.host)
        while not watcher.ending:
            now = path.loop.time()
            if path.back and not path.faults.away:
                if now >= due:
                    return True
                await asyncio.sleep(min(due - now, 0.5))
                continue
            if now > started + 5 * TIMEOUT_S:
                raise Unavailable("the watch is silent")
            await asyncio.sleep(0.1)
        if isinstance(watcher.ending, StoreError):
            raise watcher.ending
        return False
