"""From what is there to what is to be built: the parts of a Cluster's objects that depend on the past. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from strandline_broker.cluster.model import Cluster, Object
from strandline_operator.kubernetes.blueprint import Blueprint
from strandline_operator.kubernetes.settings import OperatorSettings


def blueprint_of(
    cluster: Cluster,
    namespace: str,
    settings: OperatorSettings,
    observed: Mapping[tuple[str, str], Object],
    pods: Iterable[Object],
) -> Blueprint:
    """Return what to build.

    Never fewer brokers than there are: removing one that was not drained loses its replicas, also when somebody deleted
    the StatefulSet and its pods are all that remembers the number.
    """
    first = Blueprint(cluster, namespace, settings, cluster.replicas)
    existing = observed.get(("StatefulSet", first.set_name))
    running = [
        int(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"])
        for pod in pods
        if "apps.kubernetes.io/pod-index" in (pod["metadata"].get("labels") or {})
    ]
    replicas = max(
        cluster.replicas,
        existing["spec"].get("replicas", 0) if existing is not None else 0,
        max(running, default=-1) + 1,
    )
    size = None
    if existing is not None:
        templates = existing["spec"].get("volumeClaimTemplates") or ()
        # Immutable in a StatefulSet: volumes grow by their own claims.
        size = next((one["spec"]["resources"]["requests"]["storage"] for one in templates), None)
    return Blueprint(cluster, namespace, settings, replicas, size)
