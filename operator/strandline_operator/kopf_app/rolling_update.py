"""Restarts brokers one by one until all run what their Cluster asks for, as `kubernetes.rolling` decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from strandline_broker.cluster.model import CLUSTER, Object
from strandline_operator.controller.actions import Notice
from strandline_operator.controller.conditions import Reason, Trouble
from strandline_operator.controller.loop import Controller
from strandline_operator.kopf_app.pods import broker_id_of, is_idle, is_ready
from strandline_operator.kubernetes.client import KubernetesClient
from strandline_operator.kubernetes.rolling import BrokerPod, Restart, Wait, is_settled, next_restart


@dataclass(frozen=True, slots=True)
class Progress:
    """What came of one look. `done`: no more looks are needed until something changes."""

    done: bool
    troubles: tuple[Trouble, ...] = ()


class RollingUpdate:
    """One per Cluster; `step` in every pass over its objects."""

    def __init__(
        self,
        client: KubernetesClient,
        controller: Controller,
        namespace: str,
        cluster_name: str,
        notify: Callable[[Notice], None],
    ) -> None:
        self._client = client
        self._controller = controller
        self._namespace = namespace
        self._cluster_name = cluster_name
        self._notify = notify
        # UID of the pod that was replaced last: until the watch shows that it goes, nothing more is decided.
        self._replaced = ""
        self._troubles: tuple[Trouble, ...] = ()

    async def step(self, stateful_set: Object | None, pods: Iterable[Object]) -> Progress:
        """Restart a broker if one is due. Raises ApiRefusal, Unavailable."""
        if stateful_set is None:
            return Progress(done=True)
        known = [
            BrokerPod(broker_id, pod, is_ready(pod), is_idle(pod))
            for pod in pods
            if (broker_id := broker_id_of(pod)) is not None
        ]
        if not is_settled(stateful_set):
            message = "the new pod template has not been taken up yet"
            return Progress(
                done=False, troubles=(Trouble(Reason.APPLYING, message, ready=True, own_condition=False),)
            )
        if any(one.pod["metadata"]["uid"] == self._replaced and not one.leaving for one in known):
            return Progress(done=False, troubles=self._troubles)
        outcome = next_restart(
            stateful_set, known, self._controller.view.partition_sets(), self._controller.live()
        )
        match outcome:
            case Restart():
                return await self._restart(outcome)
            case Wait(reason):
                return Progress(done=False, troubles=(_trouble(reason),))
            case None:
                return Progress(done=True)

    async def _restart(self, restart: Restart) -> Progress:
        metadata = restart.pod["metadata"]
        if restart.gentle:
            going = await self._client.evict(self._namespace, metadata["name"], metadata["uid"])
        else:
            going = await self._client.delete("Pod", self._namespace, metadata["name"], metadata["uid"])
        if not going:
            reason = f"the disruption budget does not let broker {restart.broker_id} go now"
            return Progress(done=False, troubles=(_trouble(reason),))
        self._replaced = metadata["uid"]
        message = f"restarting broker {restart.broker_id}: {restart.reason}"
        self._notify(Notice(CLUSTER, self._cluster_name, "BrokerRestarted", message))
        self._troubles = (_trouble(message),)
        return Progress(done=False, troubles=self._troubles)


def _trouble(message: str) -> Trouble:
    # The Cluster serves all the while.
    return Trouble(Reason.ROLLING_UPDATE, message, ready=True)
