"""Everything that runs for one Cluster, from the start of its daemon to its end.

Kopf pauses a daemon that raises, by default for a minute in which nobody would watch for failures, and never starts again
one that returns. So this has its own outer loop: whatever fails or ends inside ends all of it (a task that ended would
else go unnoticed) and begins anew after a moment, until Kopf says stop.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.cluster.kubernetes_api import KubernetesApi
from strandline_broker.cluster.kubernetes_store import KubernetesStore
from strandline_broker.cluster.model import CLUSTER, TOPIC
from strandline_operator.controller.actions import Notice
from strandline_operator.controller.loop import Controller
from strandline_operator.controller.tier_poller import TierPoller
from strandline_operator.kopf_app.events import EventPoster
from strandline_operator.kopf_app.resources import ResourceLoop
from strandline_operator.kubernetes.client import KubernetesClient
from strandline_operator.kubernetes.listeners import INTERNAL_LISTENER
from strandline_operator.kubernetes.settings import OperatorSettings

logger = logging.getLogger(__name__)

_FIRST_RETRY_S: Final = 0.5
# Longer than a broker's Lease lasts, nobody may look away.
_LAST_RETRY_S: Final = 5.0


async def run_patiently(
    work: Callable[[], Awaitable[None]],
    stopped: Callable[[], Awaitable[object]],
    *,
    name: str,
    backoff: Backoff,
) -> None:
    """Run `work` again and again, whatever it raises, until `stopped()` returns; then cancel it and wait for its end."""
    stopping = asyncio.ensure_future(stopped())
    try:
        while not stopping.done():
            running = asyncio.ensure_future(work())
            try:
                await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
            finally:
                running.cancel()
                (outcome,) = await asyncio.gather(running, return_exceptions=True)
            if stopping.done():
                return
            if isinstance(outcome, BaseException):
                logger.error("%s failed and begins anew", name, exc_info=outcome)
            else:
                logger.error("%s ended by itself and begins anew", name)
            await asyncio.wait((stopping,), timeout=backoff.next_s())
    finally:
        stopping.cancel()


async def run_together(works: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Run works that never end, until cancelled; when one ends nevertheless, end all.

    Raises what that one raised, RuntimeError if it raised nothing or CancelledError: a TaskGroup would say nothing of the
    latter, and the others would go on without it.
    """
    tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        if not task.cancelled():
            task.result()
    raise RuntimeError(
        f"{', '.join(sorted(task.get_name() for task in ended))} ended, which nobody asked for"
    )


class ClusterOperation:
    """One Cluster's daemon."""

    def __init__(
        self, api: KubernetesApi, namespace: str, name: str, settings: OperatorSettings, events: EventPoster
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._settings = settings
        self._events = events
        self._rng = random.SystemRandom()

    async def run(self, stopped: Callable[[], Awaitable[object]]) -> None:
        """Run until `stopped()` returns. Raises nothing but CancelledError."""
        backoff = Backoff(self._rng, first_s=_FIRST_RETRY_S, cap_s=_LAST_RETRY_S)
        name = f"Cluster {self._namespace}/{self._name}"
        try:
            await run_patiently(self._work, stopped, name=name, backoff=backoff)
        finally:
            await self._api.close()

    async def _work(self) -> None:
        controller: Controller

        def notify(notice: Notice) -> None:
            self._events.post(self._namespace, notice, _uid(controller, notice))

        controller = Controller(
            KubernetesStore(self._api, self._namespace),
            self._name,
            monotonic=time.monotonic,
            now_ms=lambda: time.time_ns() // 1_000_000,
            notify=notify,
        )
        resources = ResourceLoop(
            KubernetesClient(self._api),
            controller,
            self._namespace,
            self._name,
            self._settings,
            notify=notify,
            rng=self._rng,
        )
        poller = TierPoller(controller, internal_listener=INTERNAL_LISTENER, rng=self._rng)
        await run_together(
            {
                "controller": controller.run(),
                "resources": resources.run(),
                "pods": resources.pods.run(),
                "tiers": poller.run(),
            }
        )


def _uid(controller: Controller, notice: Notice) -> str:
    """Return the UID of what a notice is about, without which `kubectl describe` does not show its Event."""
    cluster = controller.view.cluster
    if notice.kind == CLUSTER and cluster is not None and cluster.name == notice.name:
        return cluster.uid
    if notice.kind == TOPIC:
        return next((one.uid for one in controller.view.topic_objects() if one.name == notice.name), "")
    return ""
