"""JoinGroup (key 11), versions 0-9.

Differences from Kafka: none known. The answer waits until the group's next generation is formed.

Version notes: v1 rebalance timeout (KIP-62; the session timeout before), v4 MEMBER_ID_REQUIRED for members without
an id (KIP-394), v5 static membership (KIP-345), v6 flexible, v7 protocol type in the answer (KIP-559), v8 reason
(KIP-800), v9 skip assignment (KIP-814).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.tickets import Ticket
from strandline_broker.errors import ErrorCode
from strandline_broker.group import replies
from strandline_broker.group.requests import JoinRequest
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.JOIN_GROUP


def handle(broker: BrokerApi, request: Request) -> Ticket:
    """Let a member join, and answer with its generation."""
    body = request.body

    def refusal(code: ErrorCode) -> Mapping[str, Any]:
        return replies.for_join_version(replies.join_error(body.member_id, code), request.version)

    ticket = Ticket(request, refusal)
    if not body.group_id:
        ticket.refuse(ErrorCode.INVALID_GROUP_ID)
        return ticket
    join = JoinRequest(
        group_id=body.group_id,
        member_id=body.member_id,
        session_timeout_ms=request.milliseconds("session_timeout", -1),
        rebalance_timeout_ms=request.milliseconds("rebalance_timeout", -1),
        protocol_type=body.protocol_type,
        protocols=tuple((protocol.name, protocol.metadata) for protocol in body.protocols),
        group_instance_id=getattr(body, "group_instance_id", None),
        client_id=request.client_id or "",
        client_host=f"/{request.connection.peer[0]}",
        reason=getattr(body, "reason", None),
        api_version=request.version,
    )
    broker.groups.run(join.group_id, ticket, lambda shard, now_ms: shard.join_group(ticket, join, now_ms))
    return ticket
