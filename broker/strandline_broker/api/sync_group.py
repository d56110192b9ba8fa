"""SyncGroup (key 14), versions 0-5.

Differences from Kafka: none known. The answer waits until the leader's assignment is committed.

Version notes: v3 static membership (KIP-345), v4 flexible, v5 protocol type and name, which must be there (KIP-559).
"""

from __future__ import annotations

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.tickets import Ticket
from strandline_broker.errors import ErrorCode
from strandline_broker.group import replies
from strandline_broker.group.requests import SyncRequest
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.SYNC_GROUP

_FIRST_WITH_PROTOCOL = 5


def handle(broker: BrokerApi, request: Request) -> Ticket:
    """Take the leader's assignment; answer each member with its own."""
    body = request.body
    ticket = Ticket(request, replies.sync_error)
    sync = SyncRequest(
        group_id=body.group_id,
        member_id=body.member_id,
        generation_id=body.generation_id,
        group_instance_id=getattr(body, "group_instance_id", None),
        protocol_type=getattr(body, "protocol_type", None),
        protocol_name=getattr(body, "protocol_name", None),
        assignments=tuple((entry.member_id, entry.assignment) for entry in body.assignments),
        api_version=request.version,
    )
    if not sync.group_id:
        ticket.refuse(ErrorCode.INVALID_GROUP_ID)
    elif request.version >= _FIRST_WITH_PROTOCOL and None in (sync.protocol_type, sync.protocol_name):
        ticket.refuse(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    else:
        broker.groups.run(sync.group_id, ticket, lambda shard, now_ms: shard.sync_group(ticket, sync, now_ms))
    return ticket
