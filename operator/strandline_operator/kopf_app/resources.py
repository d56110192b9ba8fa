"""The loop that keeps one Cluster's Kubernetes objects as they should be: observe, plan, write what differs.

Level-triggered: it looks when the Cluster or a pod changed, and every half minute for good measure. A pass may be
interrupted anywhere and the next one goes on; what it cannot do becomes part of the Cluster's status.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Final

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.cluster.kubernetes_errors import ApiRefusal
from strandline_broker.cluster.model import CLUSTER, LABEL_CLUSTER, Cluster, Object
from strandline_broker.cluster.store import Unavailable
from strandline_broker.cluster.view import Change
from strandline_operator.controller.actions import Notice
from strandline_operator.controller.conditions import Trouble
from strandline_operator.controller.loop import Controller
from strandline_operator.kopf_app.pods import PodWatcher, broker_id_of, is_ready
from strandline_operator.kopf_app.rolling_update import RollingUpdate
from strandline_operator.kopf_app.troubles import outside_troubles
from strandline_operator.kopf_app.volume_growth import grow_volumes
from strandline_operator.kubernetes.access import new_token, token_secret
from strandline_operator.kubernetes.blueprint import Blueprint
from strandline_operator.kubernetes.bootstrap import cluster_bootstrap, listener_statuses
from strandline_operator.kubernetes.children import children
from strandline_operator.kubernetes.client import KubernetesClient
from strandline_operator.kubernetes.observation import blueprint_of
from strandline_operator.kubernetes.placement import ANNOTATION_PLACEMENT, needs_node, placement
from strandline_operator.kubernetes.plan import Apply, Blocked, Key, Remove, Step, key_of, plan
from strandline_operator.kubernetes.settings import OperatorSettings

logger = logging.getLogger(__name__)

# Kinds of a Cluster's objects that are listed by its label. Secrets are not among them: the operator may not list them.
LISTED_KINDS: Final = (
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Service",
    "PodDisruptionBudget",
    "NetworkPolicy",
    "StatefulSet",
)
RESYNC_S: Final = 30.0
# While something is awaited that no watch tells of: an address of a load balancer, the end of a former Cluster's objects.
_IMPATIENT_S: Final = 1.0


class ResourceLoop:
    """One per Cluster; `run` belongs into a task beside the controller's."""

    def __init__(
        self,
        client: KubernetesClient,
        controller: Controller,
        namespace: str,
        cluster_name: str,
        settings: OperatorSettings,
        *,
        notify: Callable[[Notice], None],
        rng: random.Random,
    ) -> None:
        self._client = client
        self._controller = controller
        self._namespace = namespace
        self._cluster_name = cluster_name
        self._settings = settings
        self._notify = notify
        self._rng = rng
        self._wake = asyncio.Event()
        self._token_tried = False
        self._rolling = RollingUpdate(client, controller, namespace, cluster_name, notify)
        self.pods = PodWatcher(
            client,
            namespace,
            cluster_name,
            on_change=self._wake.set,
            on_ended=controller.process_ended,
            rng=rng,
        )

    async def run(self) -> None:
        """Keep the objects until cancelled. Never raises because of the API server."""
        stop_listening = self._controller.view.on_change(self._on_change)
        self._controller.surroundings_outdated()
        backoff = Backoff(self._rng)
        try:
            while True:
                self._wake.clear()
                delay_s = await self._try_pass(backoff)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._wake.wait()
        finally:
            stop_listening()

    def _on_change(self, change: Change) -> None:
        # A status says nothing new.
        if change.kind == CLUSTER and (
            change.old is None or _generation(change.old) != _generation(change.new)
        ):
            self._wake.set()
            # Or the status would say that all is done, of a spec at which nobody has looked yet.
            self._controller.surroundings_outdated()

    async def _try_pass(self, backoff: Backoff) -> float:
        """Look and write once; return how long to wait for the next pass."""
        try:
            patient = await self._pass()
        except (ApiRefusal, Unavailable) as error:
            logger.warning("the objects of Cluster %s are not in order yet: %s", self._cluster_name, error)
        except Exception:
            logger.exception("a look at the objects of Cluster %s failed", self._cluster_name)
        else:
            backoff.reset()
            return RESYNC_S if patient else _IMPATIENT_S
        delay_s = backoff.next_s()
        # Also a floor: changes that arrive all the time must not turn a failure into a busy loop.
        await asyncio.sleep(delay_s)
        return 0.0

    async def _pass(self) -> bool:
        """Return whether nothing is awaited that no watch tells of."""
        cluster = self._controller.view.cluster
        if cluster is None or cluster.meta.deletion_timestamp is not None:
            return True
        observed = await self._observe()
        blueprint = blueprint_of(cluster, self._namespace, self._settings, observed, self.pods.pods.values())
        await self._ensure_token(blueprint)
        desired = children(blueprint)
        await self._find_strangers(desired, observed)
        steps = plan(desired, observed, cluster.uid)
        blocked = [step for step in steps if isinstance(step, Blocked)]
        for step in steps:
            await self._carry_out(step, observed)
        placed = await self._place(blueprint, observed)
        stateful_set = observed.get(("StatefulSet", blueprint.set_name))
        growing = await grow_volumes(self._client, blueprint, self._notify)
        rolling = await self._rolling.step(stateful_set, self.pods.pods.values())
        troubles = outside_troubles(blueprint, blocked, self.pods.pods.values())
        self._show(blueprint, observed, (*troubles, *growing, *rolling.troubles))
        return placed and rolling.done and not any(one.leaving for one in blocked)

    async def _observe(self) -> dict[Key, Object]:
        labels = {LABEL_CLUSTER: self._cluster_name}
        # No TaskGroup: one that fails leaves its task marked as being cancelled, and then Python before 3.11.3 takes a
        # timeout of `run` for the cancellation of all (CPython issue 102780).
        lists = await asyncio.gather(
            *(self._client.list(kind, self._namespace, labels) for kind in LISTED_KINDS),
            return_exceptions=True,
        )
        found: dict[Key, Object] = {}
        for outcome in lists:
            if isinstance(outcome, BaseException):
                raise outcome  # they mostly failed for one reason
            found |= {key_of(obj): obj for obj in outcome[0]}
        return found

    async def _find_strangers(self, desired: list[Object], observed: dict[Key, Object]) -> None:
        """Look up what the label did not show: objects of others that stand where ours should be."""
        for obj in desired:
            if key_of(obj) not in observed:
                kind, name = key_of(obj)
                found = await self._client.get(kind, self._namespace, name)
                if found is not None:
                    observed[key_of(obj)] = {**found, "kind": kind}

    async def _ensure_token(self, blueprint: Blueprint) -> None:
        """Make the secret between brokers where there is none; it is never changed or logged.

        The operator may create Secrets and not read them, so it tries: at first, and while a pod may be waiting for it.
        """
        pods = self.pods.pods.values()
        if self._token_tried and len(pods) >= blueprint.replicas and all(is_ready(pod) for pod in pods):
            return
        self._token_tried = True
        created = await self._client.create(token_secret(blueprint, new_token()))
        if created is not None:
            logger.info("made the Secret %s", blueprint.token_secret)

    async def _carry_out(self, step: Step, observed: dict[Key, Object]) -> None:
        match step:
            case Apply(obj, reason):
                kind, name = key_of(obj)
                stored = await self._client.apply(obj)
                observed[kind, name] = {**stored, "kind": kind}
                logger.info("applied %s %s/%s (%s)", kind, self._namespace, name, reason)
                if kind == "StatefulSet" and reason == "missing":
                    message = f"started {obj['spec']['replicas']} brokers as StatefulSet {name}"
                    self._notify(Notice(CLUSTER, self._cluster_name, "BrokersStarted", message))
            case Remove(kind, name, uid):
                await self._client.delete(kind, self._namespace, name, uid)
                observed.pop((kind, name), None)
                logger.info("removed %s %s/%s, no longer needed", kind, self._namespace, name)
            case Blocked():
                pass  # becomes part of the status

    async def _place(self, blueprint: Blueprint, observed: dict[Key, Object]) -> bool:
        """Tell brokers what only the operator knows of their place; return whether all of it is known."""
        services = {name: obj for (kind, name), obj in observed.items() if kind == "Service"}
        nodes: dict[str, Object | None] = {}
        complete = True
        for pod in list(self.pods.pods.values()):
            broker_id, node_name = broker_id_of(pod), (pod.get("spec") or {}).get("nodeName")
            if broker_id is None or not node_name or pod["metadata"].get("deletionTimestamp"):
                continue
            if needs_node(blueprint) and node_name not in nodes:
                nodes[node_name] = await self._client.get("Node", "", node_name)
            wanted = placement(blueprint, broker_id, nodes.get(node_name), services)
            current = (pod["metadata"].get("annotations") or {}).get(ANNOTATION_PLACEMENT, "{}")
            if wanted is None or wanted.count('"host"') < sum(one.external for one in blueprint.listeners):
                complete = False
            if wanted is not None and wanted != current:
                await self._annotate(pod, wanted)
        return complete

    async def _annotate(self, pod: Object, wanted: str) -> None:
        metadata = pod["metadata"]
        patch = {"metadata": {"uid": metadata["uid"], "annotations": {ANNOTATION_PLACEMENT: wanted}}}
        try:
            await self._client.merge("Pod", self._namespace, metadata["name"], patch)
        except ApiRefusal as refusal:
            if refusal.code not in (404, 409):  # it is another pod by now
                raise
        else:
            logger.info("the place of pod %s/%s: %s", self._namespace, metadata["name"], wanted)

    def _show(self, blueprint: Blueprint, observed: dict[Key, Object], troubles: tuple[Trouble, ...]) -> None:
        services = {name: obj for (kind, name), obj in observed.items() if kind == "Service"}
        listeners = listener_statuses(blueprint, services, self.pods.pods.values())
        self._controller.surroundings(cluster_bootstrap(blueprint), troubles, listeners)


def _generation(obj: object) -> int | None:
    return obj.meta.generation if isinstance(obj, Cluster) else None
