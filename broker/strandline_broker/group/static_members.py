"""Static members (KIP-345): a restarted client takes its place back by its group instance id, without a rebalance.

Source: Kafka 4.2, `GroupMetadataManager.updateStaticMemberThenRebalanceOrCompleteJoin`; KIP-814 (a leader that comes
back is told the members, and to leave the assignment as it is).
"""

from __future__ import annotations

from dataclasses import dataclass

from strandline_broker.errors import ErrorCode
from strandline_broker.group import rebalance, replies
from strandline_broker.group.classic_group import ClassicGroup
from strandline_broker.group.effects import Ticket
from strandline_broker.group.members import Member, Protocols, Waiter
from strandline_broker.group.outbox import Outbox
from strandline_broker.group.requests import UNKNOWN_MEMBER_ID, JoinRequest
from strandline_broker.group.states import GroupState

#: JoinGroup has SkipAssignment from this version on (KIP-814).
_SKIP_ASSIGNMENT = 9


@dataclass(frozen=True, slots=True)
class _Before:
    """What a rejoin changed, for the case that it cannot be written down."""

    member_id: str
    leader_id: str | None
    protocols: Protocols
    timeouts_ms: tuple[int, int]


def rejoin(
    group: ClassicGroup, ticket: Ticket, request: JoinRequest, new_member_id: str, out: Outbox
) -> None:
    """Let a client with the instance id of a member, joining without a member id, be that member from now on."""
    instance_id = request.group_instance_id
    assert instance_id is not None
    old_member_id = group.static_members[instance_id]
    old = group.members[old_member_id]
    before = _Before(
        old_member_id, group.leader_id, old.protocols, (old.rebalance_timeout_ms, old.session_timeout_ms)
    )
    out.cancel(rebalance.session_key(group, old_member_id))
    member = group.rename_static(instance_id, new_member_id, out)
    group.update(member, request.protocols, (request.rebalance_timeout_ms, request.session_timeout_ms))
    waiter = Waiter(ticket, request.api_version)
    group.park_join(member, waiter, out)
    rebalance.renew_session(group, member, out)
    out.note(
        f"group {group.group_id}: static member {instance_id} is now {new_member_id}, was {old_member_id}"
    )
    reason = f"static member {instance_id} rejoins; client reason: {request.reason or 'not provided'}"
    if group.state is GroupState.STABLE and group.select_protocol() == group.protocol_name:
        _write_new_id(group, member, waiter, before, out)
    elif group.state is GroupState.PREPARING_REBALANCE:
        rebalance.complete_if_all_joined(group, out)
    else:
        # Stable: its metadata changes the choice of protocol. Completing: the leader assigns to the old id as we speak.
        rebalance.prepare(group, reason, out)


def _write_new_id(group: ClassicGroup, member: Member, waiter: Waiter, before: _Before, out: Outbox) -> None:
    def still_waits() -> bool:
        # Otherwise a rebalance has begun meanwhile, and answers (or has answered) this request.
        return group.state is GroupState.STABLE and member.awaiting_join is waiter

    def written(out: Outbox) -> None:
        if not still_waits():
            return
        is_leader = group.leader_id == member.member_id
        body = replies.join_success(group, member.member_id, skip_assignment=is_leader)
        if waiter.api_version < _SKIP_ASSIGNMENT:
            # Naming the leader by its old id keeps an old client from assigning anew.
            body |= {"leader": before.leader_id or "", "members": [], "skip_assignment": False}
        group.answer_join(member, out, body)

    def failed(error: ErrorCode, out: Outbox) -> None:
        if not still_waits():
            return
        body = replies.join_success(group, member.member_id)
        body |= {
            "error_code": error,
            "member_id": UNKNOWN_MEMBER_ID,
            "leader": before.leader_id or "",
            "members": [],
        }
        group.answer_join(member, out, body)
        group.update(member, before.protocols, before.timeouts_ms)
        out.cancel(rebalance.session_key(group, member.member_id))
        assert member.group_instance_id is not None
        group.rename_static(member.group_instance_id, before.member_id, out)
        rebalance.renew_session(group, member, out)

    group.write(group.assignments(), out)
    out.when_committed(written)
    out.when_failed(failed)
