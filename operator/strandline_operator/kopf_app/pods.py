"""The pods of one Cluster as the API server shows them, and the ends of brokers that they tell of.

A broker writes the id of its life into its container's termination message (`termination_message_file`), so that a
container seen to have ended names exactly whose end it was: the next life may hold the Lease already. A pod that only
vanished from the API, by a forced deletion, proves nothing about the process; its Lease does.
"""

from __future__ import annotations

import contextlib
import logging
import random
from asyncio import sleep
from collections.abc import Callable, Iterator

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.cluster.kubernetes_errors import ApiRefusal
from strandline_broker.cluster.model import LABEL_CLUSTER, Object
from strandline_broker.cluster.store import Unavailable
from strandline_operator.kubernetes.client import KubernetesClient, WatchEvent
from strandline_operator.kubernetes.stateful_set import CONTAINER

logger = logging.getLogger(__name__)

POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"
_INCARNATION = "incarnation="


def broker_id_of(pod: Object) -> int | None:
    """Return the id of the broker in a pod, None if it is no broker's."""
    text = (pod["metadata"].get("labels") or {}).get(POD_INDEX_LABEL, "")
    return int(text) if text.isascii() and text.isdigit() else None


def ended_incarnations(pod: Object) -> Iterator[str]:
    """Yield the lives of the broker that the pod's status says have ended: of this container, and of the one before."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") != CONTAINER:
            continue
        for state in (status.get("lastState"), status.get("state")):
            terminated = (state or {}).get("terminated") or {}
            for line in (terminated.get("message") or "").splitlines():
                if line.startswith(_INCARNATION):
                    yield line.removeprefix(_INCARNATION).strip()


def is_ready(pod: Object) -> bool:
    """Say whether the pod's broker is ready, which means: in sync in all its partitions."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def waiting_reason(pod: Object) -> str:
    """Return why a pod's containers do not run, as `kubectl describe` would say it; empty if they do."""
    status = pod.get("status") or {}
    for entry in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (entry.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            return f"{reason}: {waiting.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}".rstrip(": ")
    return ""


def is_idle(pod: Object) -> bool:
    """Say whether nothing runs in the pod, and something other than time keeps it so."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    running = any("running" in (one.get("state") or {}) for one in statuses)
    return not running and waiting_reason(pod) != ""


class PodWatcher:
    """Keeps `pods` (by name) current while `run` runs, and reports every end of a broker's process once."""

    def __init__(
        self,
        client: KubernetesClient,
        namespace: str,
        cluster_name: str,
        *,
        on_change: Callable[[], None],
        on_ended: Callable[[int, str], None],
        rng: random.Random,
    ) -> None:
        self.pods: dict[str, Object] = {}
        self._client = client
        self._namespace = namespace
        self._labels = {LABEL_CLUSTER: cluster_name}
        self._on_change = on_change
        self._on_ended = on_ended
        self._rng = rng
        # The last ends reported, two per broker at most: those that a pod's status can still show.
        self._reported: dict[str, tuple[str, ...]] = {}

    async def run(self) -> None:
        """Follow the pods until cancelled. Never raises because of the API server."""
        backoff = Backoff(self._rng)
        version: str | None = None
        while True:
            try:
                if version is None:
                    pods, version = await self._client.list("Pod", self._namespace, self._labels)
                    self._replace(pods)
                began = version
                async with contextlib.aclosing(
                    self._client.watch("Pod", self._namespace, version, self._labels)
                ) as events:
                    async for event in events:
                        version = event.object["metadata"]["resourceVersion"]
                        self._take(event)
                if version != began:
                    backoff.reset()
            except ApiRefusal as refusal:
                # The history is gone, mostly; whatever else it is, a list will say.
                logger.info("pods are listed again: %s", refusal)
                version = None
            except Unavailable as error:
                logger.warning("pods cannot be watched; trying again: %s", error)
                version = None
            await sleep(backoff.next_s())

    def _replace(self, pods: list[Object]) -> None:
        self.pods = {pod["metadata"]["name"]: pod for pod in pods}
        for pod in pods:
            self._report(pod)
        self._on_change()

    def _take(self, event: WatchEvent) -> None:
        name = event.object["metadata"]["name"]
        if event.type == "DELETED":
            self.pods.pop(name, None)
        else:
            self.pods[name] = event.object
        self._report(event.object)
        self._on_change()

    def _report(self, pod: Object) -> None:
        broker_id = broker_id_of(pod)
        if broker_id is None:
            return
        ended = tuple(ended_incarnations(pod))
        known = self._reported.get(pod["metadata"]["name"], ())
        for incarnation in ended:
            if incarnation not in known:
                logger.info("the container of broker %d (%s) has ended", broker_id, incarnation)
                self._on_ended(broker_id, incarnation)
        if ended:
            self._reported[pod["metadata"]["name"]] = ended
