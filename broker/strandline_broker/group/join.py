"""JoinGroup: who may join, who gets a member id first, and what joining sets off.

Source: Kafka 4.2, `GroupMetadataManager.classicGroupJoinToClassicGroup` and below; KIP-394 (member id first),
KIP-345 (static members, see `static_members`), KIP-800 (reasons).
"""

from __future__ import annotations

import random

from strandline_broker.errors import ErrorCode
from strandline_broker.group import rebalance, replies, static_members
from strandline_broker.group.classic_group import ClassicGroup
from strandline_broker.group.effects import Ticket
from strandline_broker.group.members import Member, Protocols, Waiter
from strandline_broker.group.outbox import Outbox
from strandline_broker.group.records import MAX_STRING_BYTES
from strandline_broker.group.requests import UNKNOWN_MEMBER_ID, JoinRequest
from strandline_broker.group.states import GroupState
from strandline_broker.seams.randomness import new_uuid

#: From this version on a dynamic member must ask for a member id before it joins (KIP-394).
_KNOWN_MEMBER_ID_REQUIRED = 4
#: Members that hold an id but have not joined with it yet; a bound for clients that ask and never come back.
MAX_PENDING_MEMBERS = 10_000
_UUID_LENGTH = 36
_MAX_NAME_BYTES = MAX_STRING_BYTES - _UUID_LENGTH - 1


def check(request: JoinRequest, min_session_timeout_ms: int, max_session_timeout_ms: int) -> ErrorCode:
    """Return what is wrong with a request whatever the group's state, or NONE."""
    if not request.group_id or len(request.group_id.encode()) > MAX_STRING_BYTES:
        return ErrorCode.INVALID_GROUP_ID
    if not min_session_timeout_ms <= request.session_timeout_ms <= max_session_timeout_ms:
        return ErrorCode.INVALID_SESSION_TIMEOUT
    if len((request.group_instance_id or "").encode()) > _MAX_NAME_BYTES:
        return ErrorCode.INVALID_REQUEST
    names = [request.protocol_type, *(name for name, _ in request.protocols)]
    if any(len(name.encode()) > MAX_STRING_BYTES for name in names):
        return ErrorCode.INVALID_REQUEST
    return ErrorCode.NONE


def join(group: ClassicGroup, ticket: Ticket, request: JoinRequest, rng: random.Random, out: Outbox) -> None:
    """Answer or park one JoinGroup."""
    if not _has_room(group, request.member_id, out.config.max_size):
        if request.member_id:
            rebalance.remove_member(group, request.member_id, out)
        _refuse(ticket, request, UNKNOWN_MEMBER_ID, ErrorCode.GROUP_MAX_SIZE_REACHED, out)
    elif not group.supports(request.protocol_type, request.protocols):
        _refuse(ticket, request, request.member_id, ErrorCode.INCONSISTENT_GROUP_PROTOCOL, out)
    elif request.member_id == UNKNOWN_MEMBER_ID:
        _join_new(group, ticket, request, rng, out)
    else:
        _join_known(group, ticket, request, out)


def unique_protocols(protocols: Protocols) -> Protocols:
    """Drop repeated names; the first one counts."""
    first: dict[str, bytes] = {}
    for name, metadata in protocols:
        first.setdefault(name, metadata)
    return tuple(first.items()) if len(first) < len(protocols) else protocols


def _refuse(ticket: Ticket, request: JoinRequest, member_id: str, error: ErrorCode, out: Outbox) -> None:
    out.reply(ticket, replies.for_join_version(replies.join_error(member_id, error), request.api_version))


def _has_room(group: ClassicGroup, member_id: str, max_size: int) -> bool:
    if not member_id and len(group.pending_join) >= MAX_PENDING_MEMBERS:
        return False
    if group.state is GroupState.EMPTY:
        return True
    member = group.members.get(member_id)
    if group.state is GroupState.PREPARING_REBALANCE:
        # Who waits already counts, not who is a member: the last to rejoin are left out of a group that is too large.
        waiting = member is not None and member.awaiting_join is not None
        return waiting or group.awaiting_join_count < max_size
    return member is not None or len(group.members) < max_size


def _join_new(
    group: ClassicGroup, ticket: Ticket, request: JoinRequest, rng: random.Random, out: Outbox
) -> None:
    instance_id = request.group_instance_id
    prefix = request.client_id if instance_id is None else instance_id
    member_id = f"{_shorten(prefix)}-{new_uuid(rng)}"
    if instance_id is not None:
        if instance_id in group.static_members:
            static_members.rejoin(group, ticket, request, member_id, out)
        else:
            _add(group, ticket, request, member_id, out)
    elif request.api_version >= _KNOWN_MEMBER_ID_REQUIRED:
        group.pending_join.add(member_id)
        out.arm(rebalance.session_key(group, member_id), request.session_timeout_ms)
        _refuse(ticket, request, member_id, ErrorCode.MEMBER_ID_REQUIRED, out)
    else:
        _add(group, ticket, request, member_id, out)


def _join_known(group: ClassicGroup, ticket: Ticket, request: JoinRequest, out: Outbox) -> None:
    member_id = request.member_id
    if member_id in group.pending_join:
        if request.group_instance_id is not None:
            # Static members never get an id in advance.
            _refuse(ticket, request, member_id, ErrorCode.UNKNOWN_SERVER_ERROR, out)
        else:
            _add(group, ticket, request, member_id, out)
        return
    error = group.validate_member(member_id, request.group_instance_id)
    if error is not ErrorCode.NONE:
        _refuse(ticket, request, member_id, error, out)
        return
    member = group.members[member_id]
    reason = _why_rebalance(group, member, request)
    if reason is None:
        # The answer to an earlier JoinGroup may have been lost: repeat it.
        body = replies.join_success(group, member_id)
        if group.state is GroupState.STABLE:
            body["members"] = []
        out.reply(ticket, replies.for_join_version(body, request.api_version))
        return
    group.update(member, request.protocols, (request.rebalance_timeout_ms, request.session_timeout_ms))
    group.park_join(member, Waiter(ticket, request.api_version), out)
    rebalance.rebalance_or_complete(group, reason, out)


def _why_rebalance(group: ClassicGroup, member: Member, request: JoinRequest) -> str | None:
    """Return why a member's JoinGroup asks for a new generation, or None if it does not."""
    client_reason = request.reason or "not provided"
    if group.state is GroupState.PREPARING_REBALANCE:
        return f"member {member.member_id} rejoins; client reason: {client_reason}"
    if group.state is GroupState.STABLE and group.leader_id == member.member_id:
        # Leaders ask for rebalances that show in no member's metadata, such as new partitions.
        return f"leader {member.member_id} rejoins; client reason: {client_reason}"
    if member.protocols != request.protocols:
        return f"member {member.member_id} has new metadata; client reason: {client_reason}"
    return None


def _add(group: ClassicGroup, ticket: Ticket, request: JoinRequest, member_id: str, out: Outbox) -> None:
    member = Member(
        member_id,
        request.group_instance_id,
        request.client_id,
        request.client_host,
        request.rebalance_timeout_ms,
        request.session_timeout_ms,
        request.protocol_type,
        request.protocols,
        is_new=True,
    )
    if group.state is GroupState.PREPARING_REBALANCE and group.previous_state is GroupState.EMPTY:
        group.new_member_added = True
    group.add(member, Waiter(ticket, request.api_version))
    # A new member knows no id and so sends no heartbeats, and a lost connection goes unnoticed while its request is
    # parked. Clients that give up and try again must not fill the group with such members for ever.
    out.arm(rebalance.session_key(group, member_id), out.config.new_member_join_timeout_ms)
    reason = request.reason or "not provided"
    rebalance.rebalance_or_complete(group, f"new member {member_id}; client reason: {reason}", out)


def _shorten(prefix: str) -> str:
    data = prefix.encode()
    return prefix if len(data) <= _MAX_NAME_BYTES else data[:_MAX_NAME_BYTES].decode(errors="ignore")
