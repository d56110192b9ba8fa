"""One partition of `__consumer_offsets` as a state machine: every group and offset that hashes to it.

The only entrance to this package for the coordinator layer. Pure: no clock, no I/O; every input carries `now_ms`
and the answer is an `Effects`.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from strandline_broker.errors import ErrorCode
from strandline_broker.group.config import GroupConfig
from strandline_broker.group.effects import Body, Effects, Ticket, TimerKey
from strandline_broker.group.requests import (
    CommitRequest,
    DeleteOffsetsRequest,
    FetchOffsetsRequest,
    HeartbeatRequest,
    JoinRequest,
    LeaveRequest,
    SyncRequest,
)


class GroupShard:
    """Groups and committed offsets of one `__consumer_offsets` partition.

    Bodies of replies are complete response bodies of their API, but for `fetch_offsets` (one entry of `groups`),
    `describe_group` (one entry of `groups`), `list_groups` (the entries of `groups`) and `delete_group`
    (one entry of `results`).
    """

    def __init__(self, config: GroupConfig, rng: random.Random) -> None: ...

    # -- loading -------------------------------------------------------------------------------------------------

    def replay(
        self, key: bytes, value: bytes | None, *, offset: int, timestamp_ms: int, producer_id: int = -1
    ) -> None:
        """Take one record of the log, in order; records of types that are not ours are passed over.

        Raises ValueError when the bytes of a known record type are broken.
        """

    def replay_end_transaction(self, producer_id: int, *, committed: bool) -> None:
        """Take a control record: pending offsets of `producer_id` become committed, or vanish."""

    def loaded(self, now_ms: int) -> Effects:
        """End loading: members get a fresh session, oversized groups a rebalance, the expiry sweep its timer."""
        raise NotImplementedError

    def unload(self) -> list[Ticket]:
        """Leadership is lost: forget everything; return every ticket without an answer (NOT_COORDINATOR).

        That includes the tickets in `committed` of appends without an outcome; their tokens mean nothing afterwards.
        """
        raise NotImplementedError

    # -- requests ------------------------------------------------------------------------------------------------

    def join_group(self, ticket: Ticket, request: JoinRequest, now_ms: int) -> Effects:
        raise NotImplementedError

    def sync_group(self, ticket: Ticket, request: SyncRequest, now_ms: int) -> Effects:
        raise NotImplementedError

    def heartbeat(self, ticket: Ticket, request: HeartbeatRequest, now_ms: int) -> Effects:
        raise NotImplementedError

    def leave_group(self, ticket: Ticket, request: LeaveRequest, now_ms: int) -> Effects:
        raise NotImplementedError

    def commit_offsets(self, ticket: Ticket, request: CommitRequest, now_ms: int) -> Effects:
        raise NotImplementedError

    def delete_offsets(self, ticket: Ticket, request: DeleteOffsetsRequest, now_ms: int) -> Effects:
        raise NotImplementedError

    def delete_group(self, ticket: Ticket, group_id: str, now_ms: int) -> Effects:
        """Delete an empty group and its offsets; the ticket gets `{"group_id", "error_code"}`."""
        raise NotImplementedError

    def fetch_offsets(self, request: FetchOffsetsRequest) -> Body:
        """Committed offsets: `{"group_id", "topics": [...], "error_code"}` (v8+ shape; topics carry name and id)."""
        raise NotImplementedError

    def describe_group(self, group_id: str, api_version: int = 6) -> Body:
        """One entry of DescribeGroups' `groups`, without authorized operations."""
        raise NotImplementedError

    def list_groups(self, states: Collection[str] = (), types: Collection[str] = ()) -> list[dict[str, Any]]:
        """Entries of ListGroups; filters match in any case, empty ones match all."""
        raise NotImplementedError

    # -- outcomes, time, topics ----------------------------------------------------------------------------------

    def append_committed(self, token: object, now_ms: int) -> Effects:
        raise NotImplementedError

    def append_failed(self, token: object, error: ErrorCode, now_ms: int) -> Effects:
        raise NotImplementedError

    def on_timer(self, key: TimerKey, now_ms: int) -> Effects:
        raise NotImplementedError

    def expire_offsets(self, now_ms: int) -> Effects:
        raise NotImplementedError

    def partitions_deleted(self, topics: Collection[str], now_ms: int) -> Effects:
        """Topics are gone: tombstones for their offsets in every group."""
        raise NotImplementedError
