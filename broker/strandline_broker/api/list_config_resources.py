"""ListConfigResources (key 74), versions 0-1 (KIP-1142; version 0 was ListClientMetricsResources).

Differences from Kafka: there are no loggers and no client metrics to list.

Version notes: v0 lists client metrics only, v1 what is asked for, or everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.brokers import live_brokers
from strandline_broker.api.support.config_resources import ResourceType
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.LIST_CONFIG_RESOURCES


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """List what has configurations, by kind."""
    known: set[int] = {ResourceType.CLIENT_METRICS} if request.version == 0 else set(ResourceType)
    kinds = set(getattr(request.body, "resource_types", ())) or known
    if not kinds <= known:
        return {"error_code": ErrorCode.UNSUPPORTED_VERSION, "config_resources": []}
    listener = request.connection.listener.name
    return {
        "error_code": ErrorCode.NONE,
        "config_resources": [
            {"resource_name": name, "resource_type": int(kind)}
            for kind in sorted(kinds)
            for name in _names(broker, ResourceType(kind), listener)
        ],
    }


def _names(broker: BrokerApi, kind: ResourceType, listener: str) -> Iterator[str]:
    view = broker.view
    if kind is ResourceType.TOPIC:
        yield from sorted(view.topics)
    elif kind is ResourceType.BROKER:
        yield from (str(address.broker_id) for address in live_brokers(view, listener))
    elif kind is ResourceType.GROUP and view.state is not None:
        yield from sorted(view.state.group_configs)
