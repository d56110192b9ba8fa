"""What only the operator knows of a broker's place: its rack and the addresses by which it is reached from outside.

A pod cannot read its node's labels, and should not be allowed to. The operator, which may, writes them into an annotation
of the pod; the broker finds it as a file (downward API) and follows its changes (ADR 0008). Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from strandline_broker.cluster.model import Object
from strandline_operator.kubernetes.blueprint import Blueprint
from strandline_operator.kubernetes.listeners import LOAD_BALANCER, NODE_PORT, ClientListener
from strandline_operator.kubernetes.network import broker_service_name

ANNOTATION_PLACEMENT: Final = "strandline.io/placement"
# In this order: clients outside come by the first that a node has.
_ADDRESS_TYPES: Final = ("ExternalIP", "ExternalDNS", "InternalIP", "Hostname")


def needs_node(blueprint: Blueprint) -> bool:
    """Say whether a broker's place depends on its node."""
    return bool(blueprint.cluster.spec.get("rack")) or any(
        listener.type == NODE_PORT and listener.advertised_host is None for listener in blueprint.listeners
    )


def placement(
    blueprint: Blueprint, broker_id: int, node: Object | None, services: Mapping[str, Object]
) -> str | None:
    """Return the annotation for a broker's pod on `node`; None while it cannot be told.

    `services` are the Cluster's Services by name. What has no address yet is left out and comes later.
    """
    if needs_node(blueprint) and node is None:
        return None
    found: dict[str, Any] = {}
    rack = blueprint.cluster.spec.get("rack")
    if rack:
        assert node is not None
        key = rack.get("topologyKey", "topology.kubernetes.io/zone")
        found["rack"] = (node["metadata"].get("labels") or {}).get(key, "")
    advertised = {}
    for listener in blueprint.listeners:
        if listener.external:
            service = services.get(broker_service_name(blueprint, listener, broker_id))
            address = _address(listener, broker_id, service, node)
            if address:
                advertised[listener.name] = address
    if advertised:
        found["advertised"] = advertised
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def _address(
    listener: ClientListener, broker_id: int, service: Object | None, node: Object | None
) -> dict[str, Any] | None:
    if service is None:
        return None
    host = listener.advertised_host_of(broker_id)
    port: int | None
    if listener.type == LOAD_BALANCER:
        host, port = host or balancer_host(service), listener.port
    else:
        host, port = host or (node_address(node) if node is not None else None), _node_port(service)
    return {"host": host, "port": port} if host and port else None


def balancer_host(service: Object) -> str | None:
    """Return the address that a load balancer got, None while it has none."""
    for entry in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
        host = entry.get("hostname") or entry.get("ip")
        if host:
            return str(host)
    return None


def _node_port(service: Object) -> int | None:
    port = service["spec"]["ports"][0].get("nodePort")
    return int(port) if port else None


def node_address(node: Object) -> str | None:
    """Return the address by which clients outside reach a node."""
    addresses = {
        entry["type"]: entry["address"] for entry in (node.get("status") or {}).get("addresses") or ()
    }
    return next((addresses[kind] for kind in _ADDRESS_TYPES if kind in addresses), None)
