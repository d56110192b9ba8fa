"""Where clients connect first, one answer for each listener: what the Cluster's status says about it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from strandline_broker.cluster.model import Object
from strandline_operator.kubernetes.blueprint import Blueprint, bounded_name
from strandline_operator.kubernetes.listeners import CLUSTER_IP, LOAD_BALANCER, ClientListener
from strandline_operator.kubernetes.placement import ANNOTATION_PLACEMENT, balancer_host

# Clients try one address after the other; more than so many only make the status long.
_MAX_ADDRESSES: Final = 3


def listener_statuses(
    blueprint: Blueprint, services: Mapping[str, Object], pods: Iterable[Object]
) -> tuple[dict[str, Any], ...]:
    """Return name, type and bootstrap addresses of each listener; no addresses while there are none.

    `services` are the Cluster's Services by name. A listener of type NodePort is reached at the nodes of the first pods.
    """
    advertised = [_advertised(pod) for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))]
    found = []
    for listener in blueprint.listeners:
        status: dict[str, Any] = {"name": listener.name, "type": listener.type}
        addresses = _addresses(blueprint, listener, services, advertised)
        if addresses:
            status["bootstrap"] = ",".join(addresses)
        found.append(status)
    return tuple(found)


def cluster_bootstrap(blueprint: Blueprint) -> str:
    """Return the address for clients inside the Kubernetes cluster: of one listener, because protocols may differ."""
    inside = [listener for listener in blueprint.listeners if listener.type == CLUSTER_IP]
    return _inside(blueprint, (inside or list(blueprint.listeners))[0])


def _addresses(
    blueprint: Blueprint,
    listener: ClientListener,
    services: Mapping[str, Object],
    advertised: Iterable[Mapping[str, Any]],
) -> list[str]:
    if listener.type == CLUSTER_IP:
        return [_inside(blueprint, listener)]
    if listener.type == LOAD_BALANCER:
        service = services.get(bounded_name(f"{blueprint.bootstrap_service}-{listener.slug}"))
        host = balancer_host(service) if service is not None else None
        return [f"{host}:{listener.port}"] if host else []
    places = (place.get(listener.name) for place in advertised)
    found = dict.fromkeys(f"{place['host']}:{place['port']}" for place in places if place)
    return list(found)[:_MAX_ADDRESSES]


def _inside(blueprint: Blueprint, listener: ClientListener) -> str:
    return f"{blueprint.bootstrap_service}.{blueprint.namespace}.svc:{listener.port}"


def _advertised(pod: Object) -> Mapping[str, Any]:
    """Return the addresses outside by listener that the pod was told (`placement`)."""
    text = (pod["metadata"].get("annotations") or {}).get(ANNOTATION_PLACEMENT, "{}")
    try:
        found: Mapping[str, Any] = json.loads(text).get("advertised", {})
    except (ValueError, AttributeError):
        return {}  # somebody wrote it over; the operator writes it anew
    return found
