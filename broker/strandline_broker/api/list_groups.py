"""ListGroups (key 16), versions 0-5.

Differences from Kafka: none known. A client asks every broker; each answers for the groups that it coordinates.

Version notes: v3 flexible, v4 filter by state (KIP-518), v5 group type (KIP-848).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.LIST_GROUPS


def handle(broker: BrokerApi, request: Request) -> Mapping[str, Any]:
    """Answer with all groups of this broker."""
    states = getattr(request.body, "states_filter", ())
    types = getattr(request.body, "types_filter", ())
    groups: list[dict[str, Any]] = []
    try:
        for shard in broker.groups.shards():
            groups += shard.list_groups(states, types)
    except KafkaError as error:
        return {"error_code": error.code, "groups": []}
    return {"error_code": ErrorCode.NONE, "groups": groups}
