"""Heartbeat (key 12), versions 0-4.

Differences from Kafka: none known. While the group is being loaded the answer is NONE: its members shall stay.

Version notes: v3 static membership (KIP-345), v4 flexible.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.tickets import Ticket
from strandline_broker.errors import ErrorCode
from strandline_broker.group import replies
from strandline_broker.group.requests import HeartbeatRequest
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.HEARTBEAT


def handle(broker: BrokerApi, request: Request) -> Ticket:
    """Keep a member's session alive, and tell it of a rebalance."""
    body = request.body
    ticket = Ticket(request, _refusal)
    if not body.group_id:
        ticket.refuse(ErrorCode.INVALID_GROUP_ID)
        return ticket
    heartbeat = HeartbeatRequest(
        group_id=body.group_id,
        member_id=body.member_id,
        generation_id=body.generation_id,
        group_instance_id=getattr(body, "group_instance_id", None),
    )
    broker.groups.run(
        heartbeat.group_id, ticket, lambda shard, now_ms: shard.heartbeat(ticket, heartbeat, now_ms)
    )
    return ticket


def _refusal(code: ErrorCode) -> Mapping[str, Any]:
    return replies.error_only(ErrorCode.NONE if code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS else code)
