"""Staying in a group and leaving it: Heartbeat, LeaveGroup, sessions that end.

Source: Kafka 4.2, `GroupMetadataManager` (classicGroupHeartbeat, classicGroupLeave, expireClassicGroupMemberHeartbeat).
"""

from __future__ import annotations

from strandline_broker.errors import ErrorCode
from strandline_broker.group import rebalance, replies
from strandline_broker.group.classic_group import ClassicGroup
from strandline_broker.group.effects import Ticket
from strandline_broker.group.outbox import Outbox
from strandline_broker.group.requests import HeartbeatRequest, LeaveRequest, LeavingMember
from strandline_broker.group.states import GroupState


def heartbeat(group: ClassicGroup, request: HeartbeatRequest, out: Outbox) -> ErrorCode:
    """Renew a member's session and tell it whether to rejoin."""
    error = group.validate_member(request.member_id, request.group_instance_id)
    if error is not ErrorCode.NONE:
        return error
    if request.generation_id != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    rebalance.renew_session(group, group.members[request.member_id], out)
    if group.state is GroupState.PREPARING_REBALANCE:
        return ErrorCode.REBALANCE_IN_PROGRESS
    return ErrorCode.NONE


def leave(group: ClassicGroup, ticket: Ticket, request: LeaveRequest, out: Outbox) -> None:
    """Let members go; the answer waits for the record, if the group is empty now."""
    answers = [(leaver, _leave_one(group, leaver, out)) for leaver in request.members]
    left = [leaver for leaver, error in answers if error is ErrorCode.NONE]
    if left:
        names = ", ".join(leaver.member_id or str(leaver.group_instance_id) for leaver in left)
        reasons = {leaver.reason for leaver in left if leaver.reason}
        why = f"{names} left; client reason: {'; '.join(sorted(reasons)) or 'not provided'}"
        if group.state in (GroupState.STABLE, GroupState.COMPLETING_REBALANCE):
            rebalance.rebalance_or_complete(group, why, out)
        else:
            rebalance.complete_if_all_joined(group, out)
    body = replies.leave(
        ((leaver.member_id, leaver.group_instance_id, error) for leaver, error in answers),
        request.api_version,
    )
    out.reply_when_committed(ticket, body, replies.leave_error)


def _leave_one(group: ClassicGroup, leaver: LeavingMember, out: Outbox) -> ErrorCode:
    member_id = leaver.member_id
    if not member_id:
        # Administrators name static members by instance id alone.
        instance_id = leaver.group_instance_id
        if instance_id is None or instance_id not in group.static_members:
            return ErrorCode.UNKNOWN_MEMBER_ID
        member_id = group.static_members[instance_id]
    elif member_id not in group.pending_join:
        error = group.validate_member(member_id, leaver.group_instance_id)
        if error is not ErrorCode.NONE:
            return error
    rebalance.remove_member(group, member_id, out)
    return ErrorCode.NONE


def on_session_timer(group: ClassicGroup, member_id: str, out: Outbox) -> None:
    """Drop a member whose session deadline has passed, unless it is parked and cannot send heartbeats."""
    member = group.members.get(member_id)
    if member is None:
        if member_id not in group.pending_join:
            return
    elif member.has_satisfied_heartbeat:
        return
    rebalance.remove_member(group, member_id, out)
    out.note(f"group {group.group_id}: session of member {member_id} expired")
    if group.state in (GroupState.STABLE, GroupState.COMPLETING_REBALANCE):
        if member is not None:
            rebalance.rebalance_or_complete(group, f"session of member {member_id} expired", out)
    elif group.state is GroupState.PREPARING_REBALANCE and group.has_all_members_joined:
        rebalance.complete(group, out)
