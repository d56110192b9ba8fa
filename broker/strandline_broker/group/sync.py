"""SyncGroup: the leader hands in the assignment, everybody gets their part once it is committed.

Source: Kafka 4.2, `GroupMetadataManager.classicGroupSyncToClassicGroup`.
"""

from __future__ import annotations

from strandline_broker.errors import ErrorCode
from strandline_broker.group import rebalance, replies
from strandline_broker.group.classic_group import ClassicGroup
from strandline_broker.group.effects import Ticket
from strandline_broker.group.members import Waiter
from strandline_broker.group.outbox import Outbox
from strandline_broker.group.requests import SyncRequest
from strandline_broker.group.states import GroupState


def sync(group: ClassicGroup, ticket: Ticket, request: SyncRequest, out: Outbox) -> None:
    """Answer or park one SyncGroup."""
    error = _check(group, request)
    if error is not ErrorCode.NONE:
        out.reply(ticket, replies.sync_error(error))
        return
    member = group.members[request.member_id]
    rebalance.synced(group, request.member_id, out)
    if group.state is GroupState.STABLE:
        out.reply(ticket, replies.sync_success(group, member))
        return
    group.park_sync(member, Waiter(ticket, request.api_version), out)
    if group.leader_id == request.member_id:
        _write_assignments(group, request, out)


def _check(group: ClassicGroup, request: SyncRequest) -> ErrorCode:
    if group.state is GroupState.EMPTY:
        return ErrorCode.UNKNOWN_MEMBER_ID
    error = group.validate_member(request.member_id, request.group_instance_id)
    if error is not ErrorCode.NONE:
        return error
    if request.generation_id != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    if _differs(request.protocol_type, group.protocol_type) or _differs(
        request.protocol_name, group.protocol_name
    ):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if group.state is GroupState.PREPARING_REBALANCE:
        return ErrorCode.REBALANCE_IN_PROGRESS
    return ErrorCode.NONE


def _differs(requested: str | None, chosen: str | None) -> bool:
    return requested is not None and chosen is not None and requested != chosen


def _write_assignments(group: ClassicGroup, request: SyncRequest, out: Outbox) -> None:
    assignments = dict(request.assignments)
    forgotten = [member_id for member_id in group.members if member_id not in assignments]
    if forgotten:
        out.note(f"group {group.group_id}: the leader assigned nothing to {', '.join(forgotten)}")

    def still_expected() -> bool:
        return group.state is GroupState.COMPLETING_REBALANCE and group.generation == request.generation_id

    def written(out: Outbox) -> None:
        if still_expected():
            rebalance.set_assignments(group, assignments, out)
            group.transition_to(GroupState.STABLE, out.now_ms)

    def failed(error: ErrorCode, out: Outbox) -> None:
        if still_expected():
            rebalance.reset_assignments(group, error, out)
            rebalance.rebalance_or_complete(group, f"{error.name} when storing the assignment", out)

    group.write(assignments, out)
    out.when_committed(written)
    out.when_failed(failed)
