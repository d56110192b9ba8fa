"""LeaveGroup (key 13), versions 0-5.

Differences from Kafka: none known.

Version notes: v0-2 name one member, v3 several, by id or by group instance id (KIP-345), v4 flexible, v5 reason (KIP-800).
"""

from __future__ import annotations

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.request import Request
from strandline_broker.api.support.tickets import Ticket
from strandline_broker.errors import ErrorCode
from strandline_broker.group import replies
from strandline_broker.group.requests import LeaveRequest, LeavingMember
from strandline_broker.wire.api_keys import ApiKey

KEY = ApiKey.LEAVE_GROUP

_FIRST_WITH_MEMBERS = 3


def handle(broker: BrokerApi, request: Request) -> Ticket:
    """Let members leave at once, without their session timeouts."""
    body = request.body
    ticket = Ticket(request, replies.leave_error)
    members: tuple[LeavingMember, ...]
    if request.version < _FIRST_WITH_MEMBERS:
        members = (LeavingMember(body.member_id),)
    else:
        members = tuple(
            LeavingMember(member.member_id, member.group_instance_id, getattr(member, "reason", None))
            for member in body.members
        )
    leave = LeaveRequest(body.group_id, members, request.version)
    if not leave.group_id:
        ticket.refuse(ErrorCode.INVALID_GROUP_ID)
    else:
        broker.groups.run(
            leave.group_id, ticket, lambda shard, now_ms: shard.leave_group(ticket, leave, now_ms)
        )
    return ticket
