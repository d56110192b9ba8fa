"""Topics whose Cluster does not exist: no controller runs for them, and their finalizer must not hold them for ever.

The same pure decision as the controller's, over a world without a Cluster: what is being deleted is let go with an Event,
the rest says in its status that its Cluster is missing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.cluster.kubernetes_errors import ApiRefusal
from strandline_broker.cluster.model import CLUSTER, MALFORMED, TOPIC, Topic
from strandline_broker.cluster.store import ClusterStore, StoreError
from strandline_operator.controller.actions import Patch
from strandline_operator.controller.decisions import decide
from strandline_operator.controller.world import World
from strandline_operator.kopf_app.events import EventPoster
from strandline_operator.kubernetes.client import KubernetesClient

logger = logging.getLogger(__name__)

# (namespace, name of a Cluster) of which Topics were seen and no daemon runs; more than these wait for the next event.
MAX_WAITING: Final = 10_000

ClusterKey = tuple[str, str]


class Orphans:
    """`look_at` notes a Cluster that may be missing; `run`, in a task, looks and decides."""

    def __init__(
        self,
        client: KubernetesClient,
        open_store: Callable[[str], ClusterStore],
        events: EventPoster,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._open_store = open_store
        self._events = events
        self._rng = rng
        self._waiting: dict[ClusterKey, None] = {}
        self._wake = asyncio.Event()

    def look_at(self, namespace: str, cluster_name: str) -> None:
        """Have a look soon at the Topics of this Cluster, if it is missing."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting[namespace, cluster_name] = None
            self._wake.set()
        else:
            logger.warning("Topics of Cluster %s/%s are not looked at now", namespace, cluster_name)

    async def run(self) -> None:
        """Look until cancelled. Never raises because of the API server."""
        backoff = Backoff(self._rng)
        while True:
            await self._wake.wait()
            self._wake.clear()
            for key in tuple(self._waiting):
                del self._waiting[key]
                try:
                    clean = await self._look(*key)
                except (ApiRefusal, StoreError) as error:
                    logger.warning("Topics without a Cluster: %s", error)
                    clean = False
                if clean:
                    backoff.reset()
                else:
                    self.look_at(*key)
                    await asyncio.sleep(backoff.next_s())

    async def _look(self, namespace: str, cluster_name: str) -> bool:
        """Return whether there is nothing more to do."""
        if await self._client.get(CLUSTER, namespace, cluster_name) is not None:
            return True  # its own controller looks after them
        store = self._open_store(namespace)
        objects, _ = await store.list(TOPIC)
        topics = []
        for obj in objects:
            try:
                topic = Topic.from_object(obj)
            except MALFORMED as error:
                logger.error("Topic %s cannot be read: %r", obj["metadata"]["name"], error)
                continue
            if topic.cluster == cluster_name:
                topics.append(topic)
        decision = decide(World(cluster_name, now_ms=time.time_ns() // 1_000_000, topics=tuple(topics)))
        uids = {topic.name: topic.uid for topic in topics}
        clean = True
        for action in (*decision.actions, *(status.patch for status in decision.statuses)):
            assert isinstance(action, Patch), "without a Cluster nothing is made or deleted"
            clean &= await self._write(store, namespace, action, uids.get(action.name, ""))
        return clean

    async def _write(self, store: ClusterStore, namespace: str, patch: Patch, uid: str) -> bool:
        try:
            await store.patch_if(
                patch.kind,
                patch.name,
                uid=patch.uid,
                tests=patch.tests,
                operations=patch.operations,
                subresource=patch.subresource,
            )
        except StoreError as error:
            logger.info(
                "%s %s/%s changed meanwhile, looking again: %s", patch.kind, namespace, patch.name, error
            )
            return False
        for notice in patch.notices:
            self._events.post(namespace, notice, uid)
        return True
