"""LeaseKeeper: a broker's own Lease, taken at start, renewed while it runs, let go when it stops.

Used by the broker's server. The Lease says that the broker lives and what it is; it grants nothing: safety
comes from epochs and generations, and a broker whose renewals fail because the store is away goes on
(invariant 3). Only another *incarnation* in the Lease means something: a successor was started under the same
broker id, and this process must end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from .backoff import Backoff
from .json_patch import pointer
from .model import LEASE, MALFORMED, BrokerLease, BrokerPhase, Object
from .store import AlreadyExists, ClusterStore, Conflict, NotFound, Operation, Test, Unavailable

logger = logging.getLogger(__name__)

_MAX_ATTEMPTS: Final = 16


class LeaseLost(Exception):  # noqa: N818 - it names what happened
    """Another incarnation holds the Lease."""


def micro_time(now_ms: int | None = None) -> str:
    """Return wall-clock milliseconds, by default the machine's, as Kubernetes' MicroTime."""
    now = datetime.now(tz=UTC) if now_ms is None else datetime.fromtimestamp(now_ms / 1000, tz=UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class LeaseKeeper:
    """Keeps `lease` in the store.

    `lease` holds this broker's details and a new incarnation. `on_lost` is called once, on the event loop,
    with the Lease that a successor wrote (None where it cannot be read). `now` returns an RFC 3339 time with
    microseconds.

    Life: `acquire`, then `run` in a task beside `set_state` and `update`, then (task cancelled) `release`.
    """

    def __init__(
        self,
        store: ClusterStore,
        lease: BrokerLease,
        *,
        renew_interval_ms: int = 3_000,
        on_lost: Callable[[BrokerLease | None], None],
        rng: random.Random | None = None,
        now: Callable[[], str] = micro_time,
    ) -> None:
        assert lease.incarnation, "a lease without an incarnation is a free one"
        self._store = store
        self._lease = lease
        self._renew_interval_s = renew_interval_ms / 1000
        self._on_lost = on_lost
        self._rng = rng if rng is not None else random.SystemRandom()
        self._now = now
        self._lock = asyncio.Lock()
        self._lost = False

    @property
    def lease(self) -> BrokerLease:
        """What this broker says about itself; with a UID once it was stored."""
        return self._lease

    @property
    def lost(self) -> bool:
        """Whether a successor was found in the Lease."""
        return self._lost

    async def acquire(self) -> BrokerLease:
        """Create the Lease or take it over from whoever held it, and return it.

        Waits, with back-off, while the store is away. Raises Invalid.
        """
        await self._patiently(lambda: self._converge(take_over=True))
        return self._lease

    async def run(self) -> None:
        """Renew until cancelled; returns only after the Lease was lost. Call `acquire` first."""
        try:
            while True:
                await asyncio.sleep(self._renew_interval_s * self._rng.uniform(0.9, 1.0))
                await self._patiently(self._renew)
        except LeaseLost:
            return

    async def set_state(self, state: BrokerPhase) -> None:
        """Store another state at once; waits while the store is away. Raises LeaseLost."""
        await self.update(state=state)

    async def update(self, **changes: Any) -> None:
        """Store other details (fields of `BrokerLease`: state, listeners, rack, http, writable, storage) at once.

        Raises LeaseLost.

        Waits while the store is away; when cancelled meanwhile, the next renewal carries the change.
        """
        assert not changes.keys() & {"broker_id", "incarnation", "generation", "uid", "cluster"}
        self._lease = dataclasses.replace(self._lease, **changes)
        await self._patiently(self._renew)

    async def release(self) -> None:
        """Let go, so that the controller need not wait for the Lease to expire.

        One attempt; raises Unavailable.
        """
        async with self._lock:
            if self._lost or not self._lease.uid:
                return
            operations: list[Operation] = [
                {"op": "add", "path": "/spec/holderIdentity", "value": ""},
                {"op": "add", "path": "/spec/renewTime", "value": self._now()},
            ]
            try:
                await self._store.patch_if(
                    LEASE,
                    self._lease.name,
                    uid=self._lease.uid,
                    tests=self._held_test(),
                    operations=operations,
                )
            except (Conflict, NotFound) as error:
                logger.info("the lease %s was not ours to release any more: %s", self._lease.name, error)

    # -- writing --

    async def _patiently(self, attempt: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(self._rng, cap_s=self._renew_interval_s)
        while True:
            try:
                async with self._lock:
                    if self._lost:
                        raise LeaseLost(self._lease.name)
                    await attempt()
            except Unavailable as error:
                logger.warning("the lease %s is not renewed: %s", self._lease.name, error)
                await asyncio.sleep(max(backoff.next_s(), error.retry_after_s or 0.0))
            else:
                return

    async def _renew(self) -> None:
        # All annotations each time: what an interrupted `update` left behind goes out with the next renewal.
        operations: list[Operation] = [
            {"op": "add", "path": pointer("metadata", "annotations", key), "value": value}
            for key, value in self._lease.annotations_object().items()
        ]
        operations.append({"op": "add", "path": "/spec/renewTime", "value": self._now()})
        try:
            stored = await self._store.patch_if(
                LEASE, self._lease.name, uid=self._lease.uid, tests=self._held_test(), operations=operations
            )
        except (Conflict, NotFound):
            await self._converge(take_over=False)
        else:
            self._adopt(stored)

    async def _converge(self, *, take_over: bool) -> None:
        """Bring the Lease from whatever it is to ours.

        Raises LeaseLost if somebody else holds it, unless `take_over`.

        An empty holder is nobody: somebody released it, or deleted and re-created the object.
        """
        for _ in range(_MAX_ATTEMPTS):
            try:
                current = await self._store.get(LEASE, self._lease.name)
            except NotFound:
                self._start_holding(transitions=0)
                try:
                    self._adopt(
                        await self._store.create(LEASE, dataclasses.replace(self._lease, uid="").to_object())
                    )
                except AlreadyExists:
                    continue
                return
            spec = current.get("spec") or {}
            holder = spec.get("holderIdentity")
            if holder and holder != self._lease.incarnation and not take_over:
                self._report_lost(current)
                raise LeaseLost(self._lease.name)
            if holder != self._lease.incarnation:
                self._start_holding(transitions=spec.get("leaseTransitions", 0) + 1)
            try:
                self._adopt(await self._overwrite(current, holder))
            except (Conflict, NotFound):
                continue
            return
        raise Unavailable(f"the lease {self._lease.name} changes faster than it can be taken")

    async def _overwrite(self, current: Object, holder: str | None) -> Object:
        metadata, ours = current["metadata"], self._lease.to_object()["metadata"]
        operations: list[Operation] = [
            {
                "op": "add",
                "path": f"/metadata/{field}",
                "value": {**(metadata.get(field) or {}), **ours.get(field, {})},
            }
            for field in ("labels", "annotations")
        ]
        operations.append({"op": "add", "path": "/spec", "value": self._lease.spec_object()})
        return await self._store.patch_if(
            LEASE,
            self._lease.name,
            uid=metadata["uid"],
            tests=[("/spec/holderIdentity", holder)],
            operations=operations,
        )

    def _start_holding(self, *, transitions: int) -> None:
        now = self._now()
        self._lease = dataclasses.replace(
            self._lease, acquire_time=now, renew_time=now, transitions=transitions
        )

    def _adopt(self, stored: Object) -> None:
        metadata = stored["metadata"]
        self._lease = dataclasses.replace(
            self._lease,
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            renew_time=stored["spec"]["renewTime"],
        )

    def _held_test(self) -> list[Test]:
        return [("/spec/holderIdentity", self._lease.incarnation)]

    def _report_lost(self, current: Object) -> None:
        self._lost = True
        try:
            successor = BrokerLease.from_object(current)
        except MALFORMED as error:
            logger.error("the lease %s was taken by something that is no broker: %r", self._lease.name, error)
            successor = None
        self._on_lost(successor)
