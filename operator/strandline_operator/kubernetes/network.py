"""Services, NetworkPolicy and PodDisruptionBudget of the brokers, and the names that pods need of them.

- headless: DNS names of pods, also of those that are not ready, because brokers must find each other to become it;
- bootstrap: what clients inside the Kubernetes cluster connect to first;
- one per broker, and one to begin with, for each listener of type NodePort or LoadBalancer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from strandline_broker.cluster.model import LABEL_CLUSTER, Object
from strandline_operator.kubernetes.blueprint import Blueprint, bounded_name
from strandline_operator.kubernetes.listeners import CLUSTER_IP, NODE_PORT, ClientListener

HTTP_PORT_NAME: Final = "http"
POD_NAME_LABEL: Final = "statefulset.kubernetes.io/pod-name"
LABEL_LISTENER: Final = "strandline.io/listener"
LABEL_BROKER: Final = "strandline.io/broker-id"


def service_account_name(blueprint: Blueprint) -> str:
    """Return the name of the brokers' identity."""
    return blueprint.set_name


def broker_service_name(blueprint: Blueprint, listener: ClientListener, broker_id: int) -> str:
    """Return the name of one broker's Service for one external listener."""
    return bounded_name(f"{blueprint.pod_name(broker_id)}-{listener.slug}")


def services(blueprint: Blueprint) -> Iterator[Object]:
    """Yield all Services."""
    yield _headless(blueprint)
    yield _service(blueprint, blueprint.bootstrap_service, CLUSTER_IP, blueprint.listeners)
    for listener in blueprint.listeners:
        if not listener.external:
            continue
        name = bounded_name(f"{blueprint.bootstrap_service}-{listener.slug}")
        yield _service(blueprint, name, listener.type, (listener,))
        for broker_id in range(blueprint.replicas):
            yield _of_broker(blueprint, listener, broker_id)


def _headless(blueprint: Blueprint) -> Object:
    ports = [_port(listener) for listener in blueprint.listeners]
    ports.append(_named_port("inter-broker", blueprint.internal_port))
    ports.append(_named_port(HTTP_PORT_NAME, blueprint.http_port))
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": blueprint.selector(),
        "ports": ports,
    }
    return blueprint.object("v1", "Service", blueprint.headless_service, spec=spec)


def _service(blueprint: Blueprint, name: str, kind: str, listeners: tuple[ClientListener, ...]) -> Object:
    spec: dict[str, Any] = {
        "type": kind,
        "selector": blueprint.selector(),
        "ports": [_port(listener) for listener in listeners],
    }
    return blueprint.object("v1", "Service", name, spec=spec)


def _of_broker(blueprint: Blueprint, listener: ClientListener, broker_id: int) -> Object:
    pod = blueprint.pod_name(broker_id)
    service = _service(
        blueprint, broker_service_name(blueprint, listener, broker_id), listener.type, (listener,)
    )
    service["metadata"]["labels"] |= {LABEL_LISTENER: listener.name, LABEL_BROKER: str(broker_id)}
    spec = service["spec"]
    spec["selector"] = {LABEL_CLUSTER: blueprint.name, POD_NAME_LABEL: pod}
    # Clients were sent to this broker and no other: it says itself if it cannot serve them.
    spec["publishNotReadyAddresses"] = True
    if listener.type == NODE_PORT and listener.advertised_host is None:
        # What is advertised is the pod's own node: no second hop.
        spec["externalTrafficPolicy"] = "Local"
    return service


def _port(listener: ClientListener) -> dict[str, Any]:
    return _named_port(f"kafka-{listener.slug}"[:63].rstrip("-"), listener.port)


def _named_port(name: str, port: int) -> dict[str, Any]:
    return {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}


def disruption_budget(blueprint: Blueprint) -> Object:
    """Return the budget: a drain of nodes may take one broker at a time, when all others are ready."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": blueprint.selector()}}
    return blueprint.object("policy/v1", "PodDisruptionBudget", blueprint.set_name, spec=spec)


def network_policy(blueprint: Blueprint) -> Object:
    """Return the policy: only brokers of this Cluster reach the port between brokers; the others stay open."""
    open_ports = [*(listener.port for listener in blueprint.listeners), blueprint.http_port]
    spec = {
        "podSelector": {"matchLabels": blueprint.selector()},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"ports": [{"port": port, "protocol": "TCP"} for port in open_ports]},
            {
                "from": [{"podSelector": {"matchLabels": blueprint.selector()}}],
                "ports": [{"port": blueprint.internal_port, "protocol": "TCP"}],
            },
        ],
    }
    return blueprint.object("networking.k8s.io/v1", "NetworkPolicy", blueprint.set_name, spec=spec)
