"""One active operator: a Lease that this process holds, or waits for.

It saves work and confusion, nothing more: two controllers at once are safe (invariant 2). Whoever holds it is judged by
whether the Lease *changes*, on this process's own monotonic clock; what it says about time is not read. A holder that finds
another name in it stops. While the API server is away nobody can tell, and the holder goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from strandline_broker.cluster.kubernetes_errors import ApiRefusal
from strandline_broker.cluster.model import Object
from strandline_broker.cluster.store import Unavailable
from strandline_operator.kubernetes.client import KubernetesClient

logger = logging.getLogger(__name__)

LEASE_NAME: Final = "strandline-operator"
DURATION_S: Final = 15.0
RENEW_INTERVAL_S: Final = 5.0
_LOOK_INTERVAL_S: Final = 1.0


class Waiter:
    """Decides whether the Lease may be taken; pure. Times are seconds of one monotonic clock."""

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._version = ""
        self._changed_at = 0.0

    def may_take(self, lease: Object | None, now: float) -> bool:
        """Say whether the Lease is free, ours (a former life of this pod held it), or has stood still for long enough."""
        if lease is None:
            return True
        holder = lease["spec"].get("holderIdentity") or ""
        if holder in ("", self._identity):
            return True
        version = lease["metadata"]["resourceVersion"]
        if version != self._version:
            self._version, self._changed_at = version, now
        return now - self._changed_at >= DURATION_S


class OperatorLock:
    """`acquire`, then `hold` in a task, in the end `release`."""

    def __init__(
        self, client: KubernetesClient, namespace: str, identity: str, monotonic: Callable[[], float]
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._identity = identity
        self._monotonic = monotonic

    async def acquire(self) -> None:
        """Wait until this process holds the Lease."""
        waiter = Waiter(self._identity)
        standing_by = False
        while True:
            try:
                lease = await self._client.get("Lease", self._namespace, LEASE_NAME)
                if waiter.may_take(lease, self._monotonic()) and await self._take(lease):
                    logger.info("this process is the active operator")
                    return
                if not standing_by:
                    holder = lease["spec"].get("holderIdentity") if lease else ""
                    logger.info("standing by: %s is the active operator", holder)
                    standing_by = True
            except (ApiRefusal, Unavailable) as error:
                logger.warning("the operator's Lease cannot be read or taken; trying again: %s", error)
            await asyncio.sleep(_LOOK_INTERVAL_S)

    async def hold(self) -> None:
        """Renew until cancelled; returns when another process holds the Lease."""
        while True:
            await asyncio.sleep(RENEW_INTERVAL_S)
            try:
                lease = await self._client.get("Lease", self._namespace, LEASE_NAME)
                if lease is not None and lease["spec"].get("holderIdentity") not in (
                    self._identity,
                    "",
                    None,
                ):
                    return
                await self._take(lease)
            except (ApiRefusal, Unavailable) as error:
                logger.warning("the operator's Lease was not renewed: %s", error)

    async def release(self) -> None:
        """Let go, so that a successor need not wait. One attempt."""
        try:
            lease = await self._client.get("Lease", self._namespace, LEASE_NAME)
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                await self._write(lease, holder="")
        except (ApiRefusal, Unavailable) as error:
            logger.warning("the operator's Lease was not let go: %s", error)

    async def _take(self, lease: Object | None) -> bool:
        if lease is None:
            new = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"namespace": self._namespace, "name": LEASE_NAME},
                "spec": self._spec(self._identity),
            }
            return await self._client.create(new) is not None
        return await self._write(lease, holder=self._identity)

    async def _write(self, lease: Object, *, holder: str) -> bool:
        version = lease["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version}, "spec": self._spec(holder)}
        try:
            await self._client.merge("Lease", self._namespace, LEASE_NAME, patch)
        except ApiRefusal as refusal:
            if refusal.code in (404, 409):
                return False
            raise
        return True

    def _spec(self, holder: str) -> dict[str, Any]:
        now = datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {"holderIdentity": holder, "leaseDurationSeconds": round(DURATION_S), "renewTime": now}
