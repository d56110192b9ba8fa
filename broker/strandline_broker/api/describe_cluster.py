"""DescribeCluster (key 60), versions 0-2.

Differences from Kafka: the controller id is the lowest live broker (every broker takes admin requests), not a
random one.

Version notes: v1 endpoint type (KIP-919; only brokers can be asked), v2 fenced brokers (KIP-1073).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support import operations
from strandline_broker.api.support.brokers import controller_id, is_live
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.DESCRIBE_CLUSTER

_BROKERS, _CONTROLLERS = 1, 2


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Answer with the cluster's id and brokers."""
    body = request.body
    endpoint_type = getattr(body, "endpoint_type", _BROKERS)
    if endpoint_type != _BROKERS:
        return _wrong_endpoint(endpoint_type)
    listener = request.connection.listener.name
    asked = body.include_cluster_authorized_operations
    return {
        "error_code": ErrorCode.NONE,
        "endpoint_type": _BROKERS,
        "cluster_id": broker.cluster_id,
        "controller_id": controller_id(broker.view, listener, broker.config.broker_id),
        "brokers": _brokers(broker, listener, fenced=getattr(body, "include_fenced_brokers", False)),
        "cluster_authorized_operations": operations.CLUSTER if asked else operations.NOT_REQUESTED,
    }


def _brokers(broker: BrokerApi, listener: str, *, fenced: bool) -> list[dict[str, Any]]:
    rows = []
    for broker_id, lease in sorted(broker.view.leases.items()):
        live = is_live(lease) or broker_id == broker.config.broker_id
        address = lease.listeners.get(listener)
        if address is None or not (live or fenced):
            continue
        rows.append(
            {
                "broker_id": broker_id,
                "host": address.host,
                "port": address.port,
                "rack": lease.rack,
                "is_fenced": not live,
            }
        )
    return rows


def _wrong_endpoint(endpoint_type: int) -> Mapping[str, Any]:
    if endpoint_type == _CONTROLLERS:
        error = ErrorCode.MISMATCHED_ENDPOINT_TYPE
        message = (
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
        )
    else:
        error = ErrorCode.UNSUPPORTED_ENDPOINT_TYPE
        message = f"Unsupported endpoint type {endpoint_type}"
    return {
        "error_code": error,
        "error_message": message,
        "endpoint_type": endpoint_type,
        "cluster_id": "",
        "brokers": [],
    }
