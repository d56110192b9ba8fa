"""From one generation of a group to the next: gathering members, then waiting for the assignment.

Functions over a `ClassicGroup` and the `Outbox` of the present input; see `states` for the picture.

Source: Kafka 4.2, `GroupMetadataManager` (prepareRebalance, completeClassicGroupJoin, expirePendingSync, ...).
"""

from __future__ import annotations

from collections.abc import Mapping

from strandline_broker.errors import ErrorCode
from strandline_broker.group import replies
from strandline_broker.group.classic_group import ClassicGroup
from strandline_broker.group.effects import TimerKey
from strandline_broker.group.members import Member
from strandline_broker.group.outbox import Outbox
from strandline_broker.group.states import PREVIOUS_STATES, GroupState

SESSION = "session"
JOIN = "join"
SYNC = "sync"


def session_key(group: ClassicGroup, member_id: str) -> TimerKey:
    """Timer of a member's (or pending member's) life."""
    return SESSION, group.group_id, member_id


def join_key(group: ClassicGroup) -> TimerKey:
    """Timer of the gathering phase."""
    return JOIN, group.group_id


def sync_key(group: ClassicGroup) -> TimerKey:
    """Timer of members that have joined but not synced."""
    return SYNC, group.group_id


def renew_session(group: ClassicGroup, member: Member, out: Outbox) -> None:
    """Let a member live for another session timeout."""
    out.arm(session_key(group, member.member_id), member.session_timeout_ms)


def remove_member(group: ClassicGroup, member_id: str, out: Outbox) -> None:
    """Let a member go, with its timer; what that means for the generation is the caller's next step."""
    group.remove(member_id, out)
    out.cancel(session_key(group, member_id))


def rebalance_or_complete(group: ClassicGroup, reason: str, out: Outbox) -> None:
    """Membership or metadata changed: begin a rebalance, or see whether the running one can end."""
    if group.state in PREVIOUS_STATES[GroupState.PREPARING_REBALANCE]:
        prepare(group, reason, out)
    else:
        complete_if_all_joined(group, out)


def prepare(group: ClassicGroup, reason: str, out: Outbox) -> None:
    """Begin to gather members for the next generation."""
    if group.state is GroupState.COMPLETING_REBALANCE:
        reset_assignments(group, ErrorCode.REBALANCE_IN_PROGRESS, out)
    group.pending_sync.clear()
    out.cancel(sync_key(group))
    initial = group.state is GroupState.EMPTY
    group.transition_to(GroupState.PREPARING_REBALANCE, out.now_ms)
    out.note(f"group {group.group_id}: preparing to rebalance generation {group.generation} ({reason})")
    if initial:
        # The group is new: give more members time to come before anyone gets partitions.
        delay_ms = out.config.initial_rebalance_delay_ms
        group.new_member_added = False
        group.initial_wait = delay_ms, max(group.rebalance_timeout_ms - delay_ms, 0)
        out.arm(join_key(group), delay_ms)
    elif group.has_all_members_joined:
        complete(group, out)
    else:
        out.arm(join_key(group), group.rebalance_timeout_ms)


def complete_if_all_joined(group: ClassicGroup, out: Outbox) -> None:
    """End the gathering phase if nobody is missing; the first one of an empty group runs its full time."""
    if (
        group.state is GroupState.PREPARING_REBALANCE
        and group.previous_state is not GroupState.EMPTY
        and group.has_all_members_joined
    ):
        complete(group, out)


def on_join_timer(group: ClassicGroup, out: Outbox) -> None:
    """End the gathering phase, or extend it because new members came to an empty group."""
    if group.state is not GroupState.PREPARING_REBALANCE:
        return
    wait = group.initial_wait
    if wait is None or not group.new_member_added or wait[1] == 0:
        complete(group, out)
        return
    group.new_member_added = False
    delay_ms, remaining_ms = wait
    next_delay_ms = min(out.config.initial_rebalance_delay_ms, remaining_ms)
    group.initial_wait = next_delay_ms, max(remaining_ms - delay_ms, 0)
    out.arm(join_key(group), next_delay_ms)


def complete(group: ClassicGroup, out: Outbox) -> None:
    """End the gathering phase: who has not come is out (static members stay until their session ends)."""
    out.cancel(join_key(group))
    missing = [member for member in group.members.values() if member.awaiting_join is None]
    for member in missing:
        if member.group_instance_id is None:
            remove_member(group, member.member_id, out)
            out.note(f"group {group.group_id}: member {member.member_id} did not rejoin in time")
    if not group.elect_joined_leader() and group.members:
        # Only static members, and none came back: wait until one does or their sessions end.
        group.initial_wait = None
        out.arm(join_key(group), group.rebalance_timeout_ms)
        return
    group.initial_wait = None
    group.init_next_generation(out.now_ms)
    if group.state is GroupState.EMPTY:
        out.note(f"group {group.group_id}: empty in generation {group.generation}")
        # Should this record be lost, the former generation comes back after a failover and its members expire: harmless.
        group.write({}, out)
        return
    out.note(
        f"group {group.group_id}: generation {group.generation} of {len(group.members)} members, "
        f"protocol {group.protocol_name}, leader {group.leader_id}"
    )
    for member in group.members.values():
        group.answer_join(member, out, replies.join_success(group, member.member_id))
        renew_session(group, member, out)
        member.is_new = False
        group.pending_sync.add(member.member_id)
    out.arm(sync_key(group), group.rebalance_timeout_ms)


def synced(group: ClassicGroup, member_id: str, out: Outbox) -> None:
    """Take note that a member has sent its SyncGroup."""
    group.pending_sync.discard(member_id)
    if not group.pending_sync:
        out.cancel(sync_key(group))


def on_sync_timer(group: ClassicGroup, out: Outbox) -> None:
    """Members that joined but never synced are out."""
    if group.state not in (GroupState.COMPLETING_REBALANCE, GroupState.STABLE) or not group.pending_sync:
        return
    missing = sorted(group.pending_sync)
    for member_id in missing:
        remove_member(group, member_id, out)
    prepare(group, f"members {', '.join(missing)} did not sync in time", out)


def set_assignments(group: ClassicGroup, assignments: Mapping[str, bytes], out: Outbox) -> None:
    """Hand the leader's assignment to everybody who waits for it."""
    assert group.state is GroupState.COMPLETING_REBALANCE, group.state
    for member in group.members.values():
        member.assignment = assignments.get(member.member_id, b"")
        if group.answer_sync(member, out, replies.sync_success(group, member)):
            renew_session(group, member, out)


def reset_assignments(group: ClassicGroup, error: ErrorCode, out: Outbox) -> None:
    """There is no assignment after all: tell everybody who waits for it."""
    assert group.state is GroupState.COMPLETING_REBALANCE, group.state
    for member in group.members.values():
        member.assignment = b""
        if group.answer_sync(member, out, replies.sync_error(error)):
            renew_session(group, member, out)
