"""What the operator's process holds from its start to its end: clients, the lock, the poster of Events, the daemons.

Made by `handlers` when Kopf starts. It knows nothing of Kopf.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.cluster.kubernetes_access import Access
from strandline_broker.cluster.kubernetes_api import KubernetesApi
from strandline_broker.cluster.kubernetes_store import KubernetesStore
from strandline_broker.cluster.model import Object
from strandline_operator.kopf_app.deletion import delete_cluster
from strandline_operator.kopf_app.events import EventPoster
from strandline_operator.kopf_app.lock import OperatorLock
from strandline_operator.kopf_app.operation import ClusterOperation, run_patiently
from strandline_operator.kopf_app.orphans import Orphans
from strandline_operator.kubernetes.client import KubernetesClient
from strandline_operator.kubernetes.settings import OperatorSettings

logger = logging.getLogger(__name__)

ClusterKey = tuple[str, str]


class Application:
    """`start`, then operate Clusters as they come, in the end `stop`."""

    def __init__(self, access: Access, settings: OperatorSettings) -> None:
        self.settings = settings
        self._access = access
        self._rng = random.SystemRandom()
        self._api = KubernetesApi(access)
        self._client = KubernetesClient(self._api)
        self.events = EventPoster(self._client, lambda: datetime.now(tz=UTC))
        self.orphans = Orphans(
            self._client, lambda namespace: KubernetesStore(self._api, namespace), self.events, self._rng
        )
        self._lock = OperatorLock(self._client, settings.own_namespace, settings.identity, time.monotonic)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        # Set when the daemon of a Cluster has ended; there is none for Clusters that have no daemon.
        self._ended: dict[ClusterKey, asyncio.Event] = {}
        # UIDs of Clusters whose deletion was carried out and that are not gone yet.
        self._deleted: set[str] = set()

    async def start(self) -> None:
        """Become the active operator, which may take as long as another one is."""
        await self._lock.acquire()
        self._spawn(self._hold_lock())
        self._spawn(self._patiently(self.events.run, "the poster of Events"))
        self._spawn(self._patiently(self.orphans.run, "the look at Topics without a Cluster"))

    async def stop(self) -> None:
        """End the tasks, let the lock go, close the connections."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lock.release()
        await self._client.close()

    async def operate(self, namespace: str, name: str, stopped: Callable[[], Awaitable[object]]) -> None:
        """Run one Cluster until `stopped()` returns."""
        ended = self._ended[namespace, name] = asyncio.Event()
        # Connections of its own: many watches of many Clusters must not use up one another's.
        api = KubernetesApi(self._access)
        try:
            await ClusterOperation(api, namespace, name, self.settings, self.events).run(stopped)
        finally:
            ended.set()
            if self._ended.get((namespace, name)) is ended:
                del self._ended[namespace, name]

    async def delete(self, cluster: Object) -> None:
        """Do what a deleted Cluster's deletionPolicy says, once, after its daemon has ended.

        Kopf asks again in every look at the object until the daemon has been gone for a moment.
        """
        if cluster["metadata"]["uid"] in self._deleted:
            return
        ended = self._ended.get((cluster["metadata"]["namespace"], cluster["metadata"]["name"]))
        if ended is not None:
            await ended.wait()
        await delete_cluster(self._client, cluster, self.events)
        self._deleted.add(cluster["metadata"]["uid"])

    def gone(self, namespace: str, name: str, uid: str) -> None:
        """Note that a Cluster is gone: somebody must look after its Topics."""
        self._deleted.discard(uid)
        self.orphans.look_at(namespace, name)

    def topic_seen(self, namespace: str, cluster_name: str) -> None:
        """Note a Topic of a Cluster, which may be missing; those of all others are their controllers'."""
        if (namespace, cluster_name) not in self._ended:
            self.orphans.look_at(namespace, cluster_name)

    async def _hold_lock(self) -> None:
        await self._lock.hold()
        logger.error("another process has become the active operator; this one ends")
        os.kill(os.getpid(), signal.SIGTERM)  # Kopf stops everything in order

    async def _patiently(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        await run_patiently(work, self._stopping.wait, name=name, backoff=Backoff(self._rng, first_s=0.5))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))
