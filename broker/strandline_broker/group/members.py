"""One member of a classic group.

Source: Kafka 4.2, `ClassicGroupMember`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from strandline_broker.group.effects import Ticket
from strandline_broker.group.records import MemberValue

#: (name, metadata) pairs in order of preference.
Protocols = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """A parked request."""

    ticket: Ticket
    api_version: int


@dataclass(slots=True, eq=False)
class Member:
    """Identity, capabilities, assignment and parked requests of a member.

    `awaiting_join` is set through `ClassicGroup` only, which counts. `is_new`: joined, and has not been answered yet.
    """

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    protocol_type: str
    protocols: Protocols
    assignment: bytes = b""
    awaiting_join: Waiter | None = None
    awaiting_sync: Waiter | None = None
    is_new: bool = False

    @property
    def has_satisfied_heartbeat(self) -> bool:
        """Whether a passed session deadline is no sign of death: a parked member cannot send heartbeats.

        New members are no exception: a client that gave up and retries with no member id would leave them behind.
        """
        if self.is_new:
            return False
        return self.awaiting_join is not None or self.awaiting_sync is not None

    def metadata(self, protocol: str) -> bytes:
        """Return the member's metadata for `protocol`, which it must support."""
        for name, metadata in self.protocols:
            if name == protocol:
                return metadata
        raise AssertionError(f"member {self.member_id} does not support the chosen protocol {protocol!r}")

    def vote(self, candidates: Collection[str]) -> str:
        """Return the protocol this member likes best among `candidates`, of which it supports at least one."""
        for name, _ in self.protocols:
            if name in candidates:
                return name
        raise AssertionError(f"member {self.member_id} supports none of {sorted(candidates)}")

    def to_record(self, protocol: str, assignment: bytes) -> MemberValue:
        """Return what the log keeps of this member."""
        return MemberValue(
            self.member_id,
            self.group_instance_id,
            self.client_id,
            self.client_host,
            self.rebalance_timeout_ms,
            self.session_timeout_ms,
            self.metadata(protocol),
            assignment,
        )

    @staticmethod
    def from_record(value: MemberValue, protocol_type: str, protocol: str | None) -> Member:
        """Return the member that the log describes; of its protocols only the chosen one is known."""
        timeout_ms = value.rebalance_timeout_ms
        return Member(
            value.member_id,
            value.group_instance_id,
            value.client_id,
            value.client_host,
            value.session_timeout_ms if timeout_ms == -1 else timeout_ms,
            value.session_timeout_ms,
            protocol_type,
            ((protocol or "", value.subscription),),
            value.assignment,
        )
