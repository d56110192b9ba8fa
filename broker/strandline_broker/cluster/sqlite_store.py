"""SqliteStore: a cluster store in one file, shared by processes on one host.

The embedded default of `strandline dev`, of tests and of crash tests. Operations run in two worker threads, one for
reads and one for writes, so that the event loop never waits for the disk, and a watch never for a write that waits
for its turn: who decides from old news decides wrongly. Watches learn of this process's writes at once, and of other
processes' writes by looking at SQLite's change counter every few milliseconds (a read of shared memory).
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from . import sqlite_engine
from .model import Object
from .object_rules import check_kind
from .store import Event, Gone, Operation, Subresource, Test, Unavailable, Validator

T = TypeVar("T")

_BATCH: Final = 256
# Writes of this process that share one transaction, and with it one sync of the disk.
_WRITES_TOGETHER: Final = 64


class _Watcher:
    """One running watch: how far it got, and what wakes it."""

    __slots__ = ("kind", "position", "wake")

    def __init__(self, kind: str, position: int) -> None:
        self.kind = kind
        self.position = position
        self.wake = asyncio.Event()


class _Worker:
    """One thread with one connection, opened at first use.

    Up to `together` operations that wait while the thread is busy run in one transaction: a disk that syncs a hundred
    times a second takes more than a hundred writes.
    """

    __slots__ = ("_engine", "_executor", "_open", "_together", "_waiting")

    def __init__(self, open_engine: Callable[[], sqlite_engine.Engine], name: str, *, together: int) -> None:
        self._open = open_engine
        self._together = together
        self._engine: sqlite_engine.Engine | None = None
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._waiting: deque[tuple[Callable[[sqlite_engine.Engine], Any], Future[Any]]] = deque()

    def submit(self, operation: Callable[[sqlite_engine.Engine], T]) -> asyncio.Future[T]:
        """Run `operation` in the thread, after all that was submitted before. Raises what it raises, and Unavailable."""
        done: Future[T] = Future()
        self._waiting.append((operation, done))
        self._executor.submit(self._work)
        return asyncio.wrap_future(done)

    def _work(self) -> None:
        """Run what waits; there is one call for each operation, and most find that an earlier one took theirs along."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._together))]
        if not batch:
            return
        outcomes: Sequence[object]
        try:
            if self._engine is None:
                self._engine = self._open()
            outcomes = self._engine.run_together([operation for operation, _ in batch])
        except sqlite3.Error as error:
            outcomes = [Unavailable(f"the cluster store: {error}") for _ in batch]
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            outcomes = [error] * len(batch)
        for (_, done), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)

    async def close(self) -> None:
        """Close the connection when everything before is done."""
        await asyncio.wrap_future(self._executor.submit(self._close))
        self._executor.shutdown(wait=False)

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()


class SqliteStore:
    """See `ClusterStore` for the contract.

    One instance belongs to one event loop; the file is opened at first use.

    `path` may be ":memory:" for a store of this instance alone. `history` bounds the events kept per kind.
    `new_uid` and `now_ms` (wall clock) are there for tests and the simulator.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        validator: Validator | None = None,
        history: int = 1_000,
        poll_interval_s: float = 0.01,
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._path = str(path)
        self._shared = self._path != ":memory:"
        self._engine_options: dict[str, Any] = {
            "validator": validator,
            "history": history,
            "new_uid": new_uid,
            "now_ms": now_ms,
        }
        self._poll_interval_s = poll_interval_s
        self._writer = _Worker(self._open, "cluster-store-writes", together=_WRITES_TOGETHER)
        # One connection is all that a store in memory has.
        self._reader = (
            _Worker(self._open, "cluster-store-reads", together=1) if self._shared else self._writer
        )
        self._watchers: set[_Watcher] = set()
        self._poll_connection: sqlite3.Connection | None = None
        self._poll_timer: asyncio.TimerHandle | None = None
        self._seen_data_version = -1
        self._closed = False

    async def get(self, kind: str, name: str) -> Object:
        """See `ClusterStore.get`."""
        return await self._read(lambda engine: engine.get(kind, name))

    async def list(self, kind: str) -> tuple[list[Object], str]:
        """See `ClusterStore.list`."""
        return await self._read(lambda engine: engine.list_objects(kind))

    async def create(self, kind: str, obj: Object) -> Object:
        """See `ClusterStore.create`."""
        return await self._write(kind, lambda engine: engine.create(kind, obj))

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
        return await self._write(
            kind, lambda engine: engine.patch_if(kind, name, uid, tests, operations, subresource)
        )

    async def delete_if(self, kind: str, name: str, *, uid: str, tests: Sequence[Test] = ()) -> None:
        """See `ClusterStore.delete_if`."""
        await self._write(kind, lambda engine: engine.delete_if(kind, name, uid, tests))

    async def watch(self, kind: str, version: str) -> AsyncGenerator[Event, None]:
        """See `ClusterStore.watch`."""
        check_kind(kind)
        if not (version.isascii() and version.isdigit()):
            raise Gone(f"{version!r} is no version of this store")
        watcher = _Watcher(kind, int(version))
        self._watchers.add(watcher)
        try:
            while not self._closed:
                # Cleared before reading: what is written after the read sets it again.
                watcher.wake.clear()
                events = await self._read(
                    lambda engine: engine.events_after(watcher.kind, watcher.position, _BATCH)
                )
                for event in events:
                    watcher.position = int(event.version)
                    yield event
                if len(events) < _BATCH:
                    self._start_polling()
                    await watcher.wake.wait()
        finally:
            self._watchers.discard(watcher)
            if not self._watchers:
                self._stop_polling()

    async def close(self) -> None:
        """See `ClusterStore.close`."""
        if self._closed:
            return
        self._closed = True
        self._stop_polling()
        if self._poll_connection is not None:
            self._poll_connection.close()
        for watcher in self._watchers:
            watcher.wake.set()
        await self._writer.close()
        if self._reader is not self._writer:
            await self._reader.close()

    # -- worker threads --

    async def _read(self, operation: Callable[[sqlite_engine.Engine], T]) -> T:
        if self._closed:
            raise Unavailable("the cluster store is closed")
        return await asyncio.shield(self._reader.submit(operation))

    async def _write(self, kind: str, operation: Callable[[sqlite_engine.Engine], T]) -> T:
        """Run `operation`, which writes objects of a kind; that kind's watches wake afterwards."""
        if self._closed:
            raise Unavailable("the cluster store is closed")
        future = self._writer.submit(operation)
        # Also when the caller is cancelled meanwhile: the write still happens.
        future.add_done_callback(functools.partial(self._written, kind))
        return await asyncio.shield(future)

    def _open(self) -> sqlite_engine.Engine:
        connection = sqlite_engine.connect(self._path)
        try:
            sqlite_engine.prepare(connection)
        except BaseException:
            connection.close()
            raise
        return sqlite_engine.Engine(connection, **self._engine_options)

    # -- waking watches --

    def _written(self, kind: str, future: asyncio.Future[Any]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        for watcher in self._watchers:
            if watcher.kind == kind:
                watcher.wake.set()

    def _start_polling(self) -> None:
        if self._shared and self._poll_timer is None and not self._closed:
            self._poll_timer = asyncio.get_running_loop().call_later(self._poll_interval_s, self._poll)

    def _stop_polling(self) -> None:
        if self._poll_timer is not None:
            self._poll_timer.cancel()
            self._poll_timer = None

    def _poll(self) -> None:
        self._poll_timer = None
        try:
            if self._poll_connection is None:
                self._poll_connection = sqlite_engine.connect(self._path)
                self._poll_connection.execute("PRAGMA query_only=1")
                self._poll_connection.execute("PRAGMA busy_timeout=0")
            (data_version,) = self._poll_connection.execute("PRAGMA data_version").fetchone()
            if data_version != self._seen_data_version:
                heads = dict(self._poll_connection.execute("SELECT kind, head FROM kinds"))
                # Remembered only after the heads were read: an error in between means to look again.
                self._seen_data_version = data_version
                for watcher in self._watchers:
                    if heads[watcher.kind] > watcher.position:
                        watcher.wake.set()
        except sqlite3.Error:
            # Locked for a moment, or broken: the watches find out which when they read.
            for watcher in self._watchers:
                watcher.wake.set()
        self._start_polling()
