"""One partition of `__consumer_offsets` as a state machine: every group and offset that hashes to it.

The only entrance to this package for the coordinator layer. Pure: no clock, no I/O; every input carries `now_ms`
and the answer is an `Effects`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from strandline_broker.errors import ErrorCode
from strandline_broker.group import (
    expiry,
    join,
    membership,
    offset_requests,
    rebalance,
    recovered_offsets,
    replies,
    sync,
)
from strandline_broker.group.config import GroupConfig
from strandline_broker.group.effects import Body, Effects, Ticket, TimerKey
from strandline_broker.group.offsets import Cut, OffsetStore
from strandline_broker.group.outbox import Append, Outbox, response_error
from strandline_broker.group.records import (
    MAX_STRING_BYTES,
    GroupKey,
    OffsetKey,
    decode_group_value,
    decode_key,
    decode_offset_value,
)
from strandline_broker.group.registry import GroupRegistry
from strandline_broker.group.requests import (
    CommitRequest,
    DeleteOffsetsRequest,
    FetchOffsetsRequest,
    HeartbeatRequest,
    JoinRequest,
    LeaveRequest,
    SyncRequest,
)
from strandline_broker.group.states import GroupState
from strandline_broker.group.timers import TimerTable
from strandline_tiered.offsets_snapshot import Groups

#: Timer keys of the shard's own work; those of groups are in `rebalance`.
EXPIRY: TimerKey = ("expiry",)
DELETED_TOPICS: TimerKey = ("deleted-topics",)

#: Housekeeping goes in slices, so that one batch stays small and no input keeps the event loop busy for long.
_SLICE_RECORDS = 500
_SLICE_GROUPS = 200


class GroupShard:
    """Groups and committed offsets of one `__consumer_offsets` partition.

    Bodies of replies are complete response bodies of their API, but for `fetch_offsets` (one entry of `groups`),
    `describe_group` (one entry of `groups`), `list_groups` (the entries of `groups`) and `delete_group`
    (one entry of `results`).
    """

    def __init__(self, config: GroupConfig, rng: random.Random) -> None:
        self.config = config
        self._rng = rng
        self._groups = GroupRegistry()
        self._offsets = OffsetStore()
        self._timers = TimerTable()
        self._appends: dict[Append, None] = {}
        self._to_sweep: deque[str] = deque()
        self._to_remove: deque[OffsetKey] = deque()

    # -- loading -------------------------------------------------------------------------------------------------

    def replay(
        self, key: bytes, value: bytes | None, *, offset: int, timestamp_ms: int, producer_id: int = -1
    ) -> None:
        """Take one record of the log, in order; records of types that are not ours are passed over.

        Raises ValueError when the bytes of a known record type are broken; the shard is then as before.
        """
        subject = decode_key(key)
        if isinstance(subject, OffsetKey):
            stored = None if value is None else decode_offset_value(value)
            if stored is not None:
                self._groups.has_offsets(subject.group_id)
            self._offsets.replay(subject, stored, offset, producer_id)
        elif isinstance(subject, GroupKey):
            self._groups.replay(subject.group_id, None if value is None else decode_group_value(value))

    def replay_end_transaction(self, producer_id: int, *, committed: bool) -> None:
        """Take a control record: pending offsets of `producer_id` become committed, or vanish."""
        self._offsets.end_transaction(producer_id, committed=committed)

    def lacking_offsets(self, groups: Groups) -> Iterator[tuple[bytes, bytes]]:
        """Yield the records of what a snapshot has and this log lacks, to be appended and replayed. Raises EncodeError."""
        return recovered_offsets.lacking(self._offsets, groups)

    def loaded(self, now_ms: int) -> Effects:
        """End loading: members get a fresh session, oversized groups a rebalance, the expiry sweep its timer."""
        out = self._outbox(now_ms)
        for group in self._groups.all():
            for member in group.members.values():
                rebalance.renew_session(group, member, out)
            if len(group.members) > self.config.max_size:
                rebalance.prepare(
                    group, f"{len(group.members)} members, {self.config.max_size} are allowed", out
                )
        out.arm(EXPIRY, self.config.offsets_retention_check_interval_ms)
        return self._finish(out)

    def unload(self) -> list[Ticket]:
        """Leadership is lost: forget everything; return every ticket without an answer (NOT_COORDINATOR).

        That includes the tickets in `committed` of appends without an outcome; their tokens mean nothing afterwards.
        """
        tickets = [ticket for append in self._appends for ticket, _ in append.tickets]
        for group in self._groups.all():
            for member in group.members.values():
                waiters = (member.awaiting_join, member.awaiting_sync)
                tickets += [waiter.ticket for waiter in waiters if waiter is not None]
        self._groups = GroupRegistry()
        self._offsets = OffsetStore()
        self._timers.clear()
        self._appends.clear()
        self._to_sweep.clear()
        self._to_remove.clear()
        return tickets

    # -- requests of members -------------------------------------------------------------------------------------

    def join_group(self, ticket: Ticket, request: JoinRequest, now_ms: int) -> Effects:
        """JoinGroup: answered at once, or parked until the next generation."""
        out = self._outbox(now_ms)
        error = join.check(request, self.config.min_session_timeout_ms, self.config.max_session_timeout_ms)
        group = self._groups.get(request.group_id)
        if error is ErrorCode.NONE and group is None and request.member_id:
            error = ErrorCode.UNKNOWN_MEMBER_ID
        if error is not ErrorCode.NONE:
            body = replies.join_error(request.member_id, error)
            out.reply(ticket, replies.for_join_version(body, request.api_version))
            return self._finish(out)
        if group is None:
            group = self._groups.create_with_record(request.group_id, out)
        timeout_ms = request.rebalance_timeout_ms
        request = replace(
            request,
            protocols=join.unique_protocols(request.protocols),
            rebalance_timeout_ms=request.session_timeout_ms if timeout_ms < 0 else timeout_ms,
        )
        join.join(group, ticket, request, self._rng, out)
        return self._finish(out)

    def sync_group(self, ticket: Ticket, request: SyncRequest, now_ms: int) -> Effects:
        """SyncGroup: answered at once, or parked until the leader's assignment is committed."""
        out = self._outbox(now_ms)
        group = self._groups.get(request.group_id)
        if not request.group_id:
            out.reply(ticket, replies.sync_error(ErrorCode.INVALID_GROUP_ID))
        elif group is None:
            out.reply(ticket, replies.sync_error(ErrorCode.UNKNOWN_MEMBER_ID))
        else:
            sync.sync(group, ticket, request, out)
        return self._finish(out)

    def heartbeat(self, ticket: Ticket, request: HeartbeatRequest, now_ms: int) -> Effects:
        """Heartbeat: always answered at once."""
        out = self._outbox(now_ms)
        group = self._groups.get(request.group_id)
        if not request.group_id:
            error = ErrorCode.INVALID_GROUP_ID
        elif group is None:
            error = ErrorCode.UNKNOWN_MEMBER_ID
        else:
            error = membership.heartbeat(group, request, out)
        out.reply(ticket, replies.error_only(error))
        return self._finish(out)

    def leave_group(self, ticket: Ticket, request: LeaveRequest, now_ms: int) -> Effects:
        """LeaveGroup: answered when the group's new state is committed, if that is written at all."""
        out = self._outbox(now_ms)
        group = self._groups.get(request.group_id)
        if not request.group_id:
            out.reply(ticket, replies.leave_error(ErrorCode.INVALID_GROUP_ID))
        elif group is None:
            unknown = ErrorCode.UNKNOWN_MEMBER_ID
            leavers = ((leaver.member_id, leaver.group_instance_id, unknown) for leaver in request.members)
            out.reply(ticket, replies.leave(leavers, request.api_version))
        else:
            membership.leave(group, ticket, request, out)
        return self._finish(out)

    # -- requests about offsets ----------------------------------------------------------------------------------

    def commit_offsets(self, ticket: Ticket, request: CommitRequest, now_ms: int) -> Effects:
        """OffsetCommit: answered when the offsets are committed."""
        out = self._outbox(now_ms)
        group = self._groups.get(request.group_id)
        error = offset_requests.check_commit(group, request)
        if len(request.group_id.encode()) > MAX_STRING_BYTES:
            error = ErrorCode.INVALID_GROUP_ID
        if error is not ErrorCode.NONE:
            out.reply(ticket, replies.commit_error(request, error))
            return self._finish(out)
        offset_requests.commit(group, self._offsets, ticket, request, out)
        if group is None and out.effects.records:
            self._groups.create_simple(request.group_id, out)
        return self._finish(out)

    def fetch_offsets(self, request: FetchOffsetsRequest) -> Body:
        """Return committed offsets: `{"group_id", "topics": [...], "error_code"}` (v8+ shape; topics carry name and id).

        With `require_stable`, partitions with offsets on their way get UNSTABLE_OFFSET_COMMIT: ask again soon.
        """
        return offset_requests.fetch(self._offsets, request)

    def delete_offsets(self, ticket: Ticket, request: DeleteOffsetsRequest, now_ms: int) -> Effects:
        """OffsetDelete: answered when the tombstones are committed."""
        out = self._outbox(now_ms)
        group = self._groups.get(request.group_id)
        error = offset_requests.check_delete(group) if request.group_id else ErrorCode.INVALID_GROUP_ID
        if group is None or error is not ErrorCode.NONE:
            out.reply(ticket, replies.delete_offsets_error(error))
        else:
            offset_requests.delete(group, self._offsets, ticket, request, out)
        return self._finish(out)

    @property
    def offset_changes(self) -> int:
        """How often committed offsets have changed, loading included."""
        return self._offsets.committed.changes

    def cut_offsets(self) -> Cut:
        """Return the committed offsets as they are now, to be taken group by group. An earlier cut is of no use then."""
        return self._offsets.committed.cut()

    # -- requests about groups -----------------------------------------------------------------------------------

    def delete_group(self, ticket: Ticket, group_id: str, now_ms: int) -> Effects:
        """Delete an empty group and its offsets; the ticket gets `{"group_id", "error_code"}`."""
        out = self._outbox(now_ms)

        def result(error: ErrorCode) -> Body:
            return {"group_id": group_id, "error_code": error}

        group = self._groups.get(group_id)
        if group is None:
            out.reply(ticket, result(ErrorCode.GROUP_ID_NOT_FOUND))
        elif group.state is not GroupState.EMPTY:
            out.reply(ticket, result(ErrorCode.NON_EMPTY_GROUP))
        else:
            for key in self._offsets.keys_of_group(group_id):
                self._offsets.write(key, None, out)
            self._groups.delete(group, out)
            out.reply_when_committed(ticket, result(ErrorCode.NONE), result)
        return self._finish(out)

    def describe_group(self, group_id: str, api_version: int = 6) -> Body:
        """One entry of DescribeGroups' `groups`, without authorized operations."""
        group = self._groups.get_readable(group_id)
        return replies.describe_missing(group_id, api_version) if group is None else replies.describe(group)

    def list_groups(self, states: Collection[str] = (), types: Collection[str] = ()) -> list[dict[str, Any]]:
        """Entries of ListGroups; filters match in any case, empty ones match all."""
        wanted_states = {state.strip().lower() for state in states}
        if types and "classic" not in {name.strip().lower() for name in types}:
            return []
        return [
            {
                "group_id": group.group_id,
                "protocol_type": group.protocol_type or "",
                "group_state": group.state.value,
                "group_type": "classic",
            }
            for group in self._groups.all_readable()
            if not wanted_states or group.state.value.lower() in wanted_states
        ]

    # -- outcomes of appends -------------------------------------------------------------------------------------

    def append_committed(self, token: object, now_ms: int) -> Effects:
        """Take the news that the records of the `Effects` with this token are committed; in the order of the appends."""
        out = self._outbox(now_ms)
        if isinstance(token, Append) and token in self._appends:
            del self._appends[token]
            self._offsets.committed_changes(token.offsets)
            for key, (_, value) in token.offsets:
                if value is not None:
                    self._groups.has_offsets(key.group_id)
            for callback in token.on_committed:
                callback(out)
        return self._finish(out)

    def append_failed(self, token: object, error: ErrorCode, now_ms: int) -> Effects:
        """Take the news that the records of the `Effects` with this token were not written; undo what depended on them."""
        out = self._outbox(now_ms)
        if isinstance(token, Append) and token in self._appends:
            del self._appends[token]
            self._offsets.failed_changes(token.offsets)
            error = response_error(error)
            for ticket, failure in token.tickets:
                out.reply(ticket, failure(error))
            for callback in token.on_failed:
                callback(error, out)
        return self._finish(out)

    # -- time and topics -----------------------------------------------------------------------------------------

    def on_timer(self, key: TimerKey, now_ms: int) -> Effects:
        """Take the news that a timer fired; early and cancelled ones do no harm."""
        out = self._outbox(now_ms)
        if not out.due(key):
            return self._finish(out)
        if key == EXPIRY:
            self._sweep(out)
        elif key == DELETED_TOPICS:
            self._remove_offsets(out)
        else:
            group = self._groups.get(key[1])
            if group is None:
                pass  # deleted meanwhile
            elif key[0] == rebalance.SESSION:
                membership.on_session_timer(group, key[2], out)
            elif key[0] == rebalance.JOIN:
                rebalance.on_join_timer(group, out)
            elif key[0] == rebalance.SYNC:
                rebalance.on_sync_timer(group, out)
        return self._finish(out)

    def expire_offsets(self, now_ms: int) -> Effects:
        """Begin a sweep over all groups now; what is too much for one step goes on by timer."""
        out = self._outbox(now_ms)
        self._to_sweep.clear()
        self._sweep(out)
        return self._finish(out)

    def partitions_deleted(self, topics: Collection[str], now_ms: int) -> Effects:
        """Remove the offsets of topics that are gone, in every group; what is too much for one step goes on by timer."""
        out = self._outbox(now_ms)
        self._to_remove.extend(self._offsets.keys_of_topics(topics))
        self._remove_offsets(out)
        return self._finish(out)

    def _sweep(self, out: Outbox) -> None:
        if not self._to_sweep:
            self._to_sweep.extend(self._groups.ids())
        for _ in range(min(_SLICE_GROUPS, len(self._to_sweep))):
            if len(out.effects.records) >= _SLICE_RECORDS:
                break
            group = self._groups.get(self._to_sweep.popleft())
            if group is None:
                continue
            emptied = expiry.expire_group(group, self._offsets, _SLICE_RECORDS, out)
            if emptied and group.state is GroupState.EMPTY:
                self._groups.delete(group, out)
            elif len(out.effects.records) >= _SLICE_RECORDS:
                self._to_sweep.appendleft(group.group_id)  # it may have more than fits into one batch
        out.arm(EXPIRY, 0 if self._to_sweep else self.config.offsets_retention_check_interval_ms)

    def _remove_offsets(self, out: Outbox) -> None:
        while self._to_remove and len(out.effects.records) < _SLICE_RECORDS:
            key = self._to_remove.popleft()
            if self._offsets.newest(key) is not None or self._offsets.in_transaction(key):
                self._offsets.write(key, None, out)
        if self._to_remove:
            out.arm(DELETED_TOPICS, 0)

    # -- outboxes ------------------------------------------------------------------------------------------------

    def _outbox(self, now_ms: int) -> Outbox:
        return Outbox(self.config, self._timers, now_ms)

    def _finish(self, out: Outbox) -> Effects:
        effects, append = out.finish()
        if append is not None:
            self._appends[append] = None
        return effects
