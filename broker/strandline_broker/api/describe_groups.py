"""DescribeGroups (key 15), versions 0-6.

Differences from Kafka: none known. Without an authorizer everything that a group knows is an authorized operation.

Version notes: v3 authorized operations (KIP-430), v4 static membership, v5 flexible, v6 GROUP_ID_NOT_FOUND with a message
(KIP-1043; a dead group before).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support import operations
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.DESCRIBE_GROUPS


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Answer with state and members of groups."""
    wanted = getattr(request.body, "include_authorized_operations", False)
    allowed = operations.GROUP if wanted else operations.NOT_REQUESTED
    return {
        "groups": [_describe(broker, group_id, request.version, allowed) for group_id in request.body.groups]
    }


def _describe(broker: BrokerApi, group_id: str, version: int, allowed: int) -> Mapping[str, Any]:
    try:
        group = broker.groups.shard(group_id).describe_group(group_id, version)
    except KafkaError as error:
        return {
            "error_code": error.code,
            "error_message": error.message or None,
            "group_id": group_id,
            "group_state": "",
            "protocol_type": "",
            "protocol_data": "",
            "members": [],
        }
    if group["error_code"] is ErrorCode.NONE:
        return {**group, "authorized_operations": allowed}
    return group
