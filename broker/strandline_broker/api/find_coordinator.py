"""FindCoordinator (key 10), versions 0-6.

Differences from Kafka: there are no transaction coordinators yet (UNSUPPORTED_VERSION, so that clients say so instead of
asking for ever) and no share coordinators (INVALID_REQUEST, as Kafka without share groups). The internal topic is made
with the cluster, not by the first request.

Version notes: v1 key type, v3 flexible, v4 several keys at once (KIP-699), v6 share coordinators (KIP-932).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.brokers import BrokerAddress, leader_endpoints
from strandline_broker.cluster.internal_topics import CONSUMER_OFFSETS
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.FIND_COORDINATOR

_GROUP, _TRANSACTION, _SHARE = 0, 1, 2
_FIRST_WITH_KEYS = 4
_FIRST_WITH_SHARE = 6
_NOBODY = BrokerAddress(-1, "", -1, None)


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Answer with the broker that leads each key's partition of the internal topic."""
    body = request.body
    if request.version < _FIRST_WITH_KEYS:
        return _entry(broker, request, body.key)
    return {"coordinators": [{"key": key, **_entry(broker, request, key)} for key in body.coordinator_keys]}


def _entry(broker: BrokerApi, request: Request, key: str) -> dict[str, Any]:
    error, message, found = ErrorCode.NONE, "", _NOBODY
    try:
        found = _find(broker, request, key)
    except KafkaError as refusal:
        error, message = refusal.code, refusal.message
    return {
        "error_code": error,
        "error_message": message,
        "node_id": found.broker_id,
        "host": found.host,
        "port": found.port,
    }


def _find(broker: BrokerApi, request: Request, key: str) -> BrokerAddress:
    key_type = getattr(request.body, "key_type", _GROUP)
    if key_type == _TRANSACTION:
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, "transactions are not supported yet")
    if key_type == _SHARE and request.version >= _FIRST_WITH_SHARE:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "share groups are not supported yet")
    if key_type != _GROUP:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"coordinator type {key_type} is not known")
    index = broker.groups.partition_of(key)
    topic = broker.view.topic_by_name(CONSUMER_OFFSETS)
    state = topic.partition(index) if topic is not None else None
    leaders = (state.leader,) if state is not None else ()
    addresses = leader_endpoints(broker.view, request.connection.listener.name, leaders)
    if not addresses:
        raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, "its partition has no leader just now")
    return addresses[0]
