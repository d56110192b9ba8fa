"""The informer: a view of one cluster's objects that follows the store by itself.

Brokers and the controller hold one each. `ClusterCache` is the pure half (lookups, indexes, the copy on
disk); this half keeps it fed: list, watch from there, list again when the history is gone, after every
failure, and now and then for good measure. A store that is away changes nothing in the view: what was known
last stays (invariant 3).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from typing import Final

from .backoff import Backoff
from .cache import Change, ClusterCache, TopicView
from .model import CLUSTER, CLUSTER_STATE, KINDS, LEASE, PARTITION_SET, TOPIC, BrokerLease
from .store import ClusterStore, Gone, Unavailable

__all__ = ["BROKER_KINDS", "CONTROLLER_KINDS", "Change", "ClusterView", "TopicView"]

logger = logging.getLogger(__name__)

BROKER_KINDS: Final = (LEASE, CLUSTER, CLUSTER_STATE, PARTITION_SET)
CONTROLLER_KINDS: Final = (*BROKER_KINDS, TOPIC)

ChangeCallback = Callable[[Change], None]

# A watch that lasted so long, in seconds, did not fail to begin.
_SHORT_WATCH_S: Final = 10.0


class ClusterView(ClusterCache):
    """A `ClusterCache` that `run` keeps current.

    `relist_interval_s`: how long a watch is trusted before a list confirms it. Callbacks run on the event
    loop, one after the other, when the whole list or event is in the view; they must be quick (set a flag,
    wake a task).
    """

    def __init__(
        self,
        store: ClusterStore,
        cluster: str,
        *,
        kinds: Iterable[str] = BROKER_KINDS,
        rng: random.Random | None = None,
        relist_interval_s: float = 300.0,
    ) -> None:
        super().__init__(cluster)
        self._store = store
        self._kinds = tuple(kinds)
        assert all(kind in KINDS for kind in self._kinds)
        self._rng = rng if rng is not None else random.SystemRandom()
        self._relist_interval_s = relist_interval_s
        self._callbacks: list[ChangeCallback] = []
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._fresh: set[str] = set()
        # Event-loop time since when every kind has been listed without a failure; None while the store is
        # away. The controller judges no broker dead before this plus one lease duration.
        self.fresh_since: float | None = None
        # Lists begun and done so far, by kind, and the number of lists that `refresh` wants to see done.
        self._begun = dict.fromkeys(self._kinds, 0)
        self._done = dict.fromkeys(self._kinds, 0)
        self._wanted = dict.fromkeys(self._kinds, 0)
        self._watches: dict[str, asyncio.Timeout] = {}
        # Event-loop time at which each broker's Lease was seen to change, by broker id.
        self._lease_changed_at: dict[int, float] = {}

    async def run(self) -> None:
        """Follow the store until cancelled. Never raises because of the store."""
        try:
            async with asyncio.TaskGroup() as group:
                for kind in self._kinds:
                    group.create_task(self._follow(kind), name=f"cluster-view-{kind}")
        finally:
            self._fresh.clear()
            self.fresh_since = None

    def on_change(self, callback: ChangeCallback) -> Callable[[], None]:
        """Call `callback` with every change from now on; returns what ends that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def wait_until(
        self, predicate: Callable[[ClusterView], bool], timeout_s: float | None = None
    ) -> None:
        """Return as soon as `predicate(view)` holds. Raises TimeoutError after `timeout_s` seconds."""
        async with asyncio.timeout(timeout_s):
            while not predicate(self):
                waiter = asyncio.get_running_loop().create_future()
                self._waiters[waiter] = None
                try:
                    await waiter
                finally:
                    del self._waiters[waiter]

    async def wait_fresh(self, timeout_s: float | None = None) -> None:
        """Return once every kind was listed from the store. Raises TimeoutError after `timeout_s` seconds."""
        await self.wait_until(lambda view: view.fresh_since is not None, timeout_s)

    async def refresh(self, kind: str) -> bool:
        """List a kind anew, for who must not take a late watch for silence; the watch goes on from that list.

        Returns True when a list that began after this call is in the view, False when the store is away.
        """
        wanted = self._wanted[kind] = self._begun[kind] + 1
        watch = self._watches.get(kind)
        if watch is not None and not watch.expired():
            watch.reschedule(asyncio.get_running_loop().time())
        self._wake()
        await self.wait_until(lambda view: view.fresh_since is None or view._done[kind] >= wanted)
        return self._done[kind] >= wanted

    def silent_brokers(self) -> frozenset[int]:
        """Return the brokers whose Leases have stood still for longer than they last, by this process's clock.

        To show, not to decide by: whether a broker lives is for the controller to say. Nobody is silent while the store is
        away, or before it has been watched for so long.
        """
        if self.fresh_since is None:
            return frozenset()
        now = asyncio.get_running_loop().time()
        return frozenset(
            broker_id
            for broker_id, lease in self.leases.items()
            if lease.held
            and now - max(self._lease_changed_at.get(broker_id, now), self.fresh_since)
            > lease.lease_duration_ms / 1000
        )

    # -- following --

    async def _follow(self, kind: str) -> None:
        version: str | None = None
        backoff = Backoff(self._rng)
        while True:
            try:
                if version is None or self._outdated(kind):
                    self._begun[kind] += 1
                    number = self._begun[kind]
                    objects, version = await self._store.list(kind)
                    self._deliver(self.replace(kind, objects))
                    self._done[kind] = number
                    self._mark_fresh(kind)
                    if self._outdated(kind):
                        continue
                began = asyncio.get_running_loop().time()
                resume = await self._watch(kind, version)
                # A server ends a watch after some minutes even if nothing happened: no reason to look away for a while.
                idle = resume == version and asyncio.get_running_loop().time() - began < _SHORT_WATCH_S
                version = resume
            except Gone:
                version, idle = None, True
            except Unavailable as error:
                version = None
                self._mark_stale(kind, error)
                await asyncio.sleep(max(backoff.next_s(), error.retry_after_s or 0.0))
                continue
            if idle:
                # A stream that ends at once, or is gone at once, again and again, must not become a busy
                # loop.
                with contextlib.suppress(TimeoutError):
                    await self.wait_until(lambda view: view._outdated(kind), backoff.next_s())
            else:
                backoff.reset()

    async def _watch(self, kind: str, version: str) -> str | None:
        """Apply events after `version`; return where to resume, or None when it is time to list again."""
        # Jitter, so that a fleet that started together does not list together.
        interval_s = self._relist_interval_s * self._rng.uniform(0.8, 1.2)
        try:
            async with (
                asyncio.timeout(interval_s) as self._watches[kind],
                contextlib.aclosing(self._store.watch(kind, version)) as events,
            ):
                async for event in events:
                    version = event.version
                    change = self.apply(kind, event)
                    if change is not None:
                        self._deliver([change])
                return version
        except TimeoutError:
            return None
        finally:
            del self._watches[kind]

    def _outdated(self, kind: str) -> bool:
        return self._wanted[kind] > self._begun[kind]

    def _mark_fresh(self, kind: str) -> None:
        self._fresh.add(kind)
        if self.fresh_since is None and self._fresh.issuperset(self._kinds):
            self.fresh_since = asyncio.get_running_loop().time()
        self._wake()

    def _mark_stale(self, kind: str, error: Unavailable) -> None:
        if kind in self._fresh:
            logger.warning("the cluster store is away; going on with the last known %s: %s", kind, error)
        self._fresh.discard(kind)
        self.fresh_since = None
        self._wake()

    def _deliver(self, changes: list[Change]) -> None:
        if not changes:
            return
        for change in changes:
            if isinstance(change.new, BrokerLease):
                self._lease_changed_at[change.new.broker_id] = asyncio.get_running_loop().time()
            elif isinstance(change.old, BrokerLease):
                self._lease_changed_at.pop(change.old.broker_id, None)
            for callback in tuple(self._callbacks):
                try:
                    callback(change)
                except Exception:
                    # One listener's bug must not blind the others.
                    logger.exception("a listener failed on a change of %s %s", change.kind, change.name)
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
