"""A classic group: its members, generation and state, and what must hold between them.

Data and the operations that keep it consistent; when to do what is decided in `rebalance`, `join`, `sync` and
`membership`. A request that is parked with a member is answered here and nowhere else, so that it is answered once.

Source: Kafka 4.2, `ClassicGroup`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from strandline_broker.errors import ErrorCode
from strandline_broker.group import replies
from strandline_broker.group.members import Member, Protocols, Waiter
from strandline_broker.group.outbox import Outbox
from strandline_broker.group.protocol_selection import (
    CONSUMER_PROTOCOL_TYPE,
    ProtocolCounts,
    select_protocol,
    subscribed_topics,
)
from strandline_broker.group.records import GroupValue, encode_group_key, encode_group_value
from strandline_broker.group.states import PREVIOUS_STATES, GroupState


@dataclass(slots=True, eq=False)
class ClassicGroup:
    """One group.

    `readable`: a record of it is committed, so lists and descriptions show it. `initial_wait`: while the first members
    of an empty group gather, (length of the present wait, time that is left for further ones), in milliseconds.
    `predecessor`: the group that this one replaced while the deletion of that one was on its way to the log.
    """

    group_id: str
    state: GroupState = GroupState.EMPTY
    previous_state: GroupState = GroupState.DEAD
    state_timestamp_ms: int = -1
    generation: int = 0
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader_id: str | None = None
    members: dict[str, Member] = field(default_factory=dict)
    static_members: dict[str, str] = field(default_factory=dict)
    pending_join: set[str] = field(default_factory=set)
    pending_sync: set[str] = field(default_factory=set)
    subscribed_topics: frozenset[str] | None = None
    new_member_added: bool = False
    initial_wait: tuple[int, int] | None = None
    readable: bool = False
    predecessor: ClassicGroup | None = None
    awaiting_join_count: int = 0
    _protocols: ProtocolCounts = field(default_factory=ProtocolCounts)

    # -- what holds ----------------------------------------------------------------------------------------------

    @property
    def uses_consumer_protocol(self) -> bool:
        """Whether members' metadata can be read as consumers' subscriptions."""
        return self.protocol_type == CONSUMER_PROTOCOL_TYPE

    @property
    def has_all_members_joined(self) -> bool:
        """Whether nobody is missing for the next generation."""
        return len(self.members) == self.awaiting_join_count and not self.pending_join

    @property
    def rebalance_timeout_ms(self) -> int:
        """The longest time any member asked for."""
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def is_subscribed_to(self, topic: str) -> bool:
        """Whether a member may be reading `topic`; yes for consumers whose subscription cannot be read."""
        if self.subscribed_topics is not None:
            return topic in self.subscribed_topics
        return self.uses_consumer_protocol

    def supports(self, protocol_type: str, protocols: Protocols) -> bool:
        """Whether a member with these protocols can be in this group with the others."""
        if self.state is GroupState.EMPTY:
            return bool(protocol_type) and bool(protocols)
        return self.protocol_type == protocol_type and self._protocols.any_supported_by_all(
            protocols, len(self.members)
        )

    def validate_member(self, member_id: str, group_instance_id: str | None) -> ErrorCode:
        """Return UNKNOWN_MEMBER_ID or FENCED_INSTANCE_ID if the pair names no member, else NONE."""
        if group_instance_id is not None:
            existing = self.static_members.get(group_instance_id)
            if existing is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if existing != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        return ErrorCode.NONE if member_id in self.members else ErrorCode.UNKNOWN_MEMBER_ID

    def select_protocol(self) -> str:
        """Return the protocol that the next generation would use."""
        return select_protocol(self.members.values(), self._protocols.supported_by_all(len(self.members)))

    # -- members -------------------------------------------------------------------------------------------------

    def add(self, member: Member, waiter: Waiter | None = None) -> None:
        """Take in a member whose protocols this group supports; the first becomes leader."""
        assert member.member_id not in self.members, "member ids are unique"
        if member.group_instance_id is not None:
            assert member.group_instance_id not in self.static_members, "one member per group instance id"
            self.static_members[member.group_instance_id] = member.member_id
        if not self.members:
            self.protocol_type = member.protocol_type
        if self.leader_id is None:
            self.leader_id = member.member_id
        self.members[member.member_id] = member
        self._protocols.add(member.protocols)
        self._set_join_waiter(member, waiter)
        self.pending_join.discard(member.member_id)

    def update(self, member: Member, protocols: Protocols, timeouts_ms: tuple[int, int]) -> None:
        """Change a member's protocols and its (rebalance, session) timeouts."""
        self._protocols.remove(member.protocols)
        member.protocols = protocols
        self._protocols.add(protocols)
        member.rebalance_timeout_ms, member.session_timeout_ms = timeouts_ms

    def remove(self, member_id: str, out: Outbox) -> None:
        """Let a member (or one that only asked for an id) go; its parked requests get UNKNOWN_MEMBER_ID."""
        member = self.members.get(member_id)
        if member is not None:
            self.answer_join(member, out, replies.join_error("", ErrorCode.UNKNOWN_MEMBER_ID))
            self.answer_sync(member, out, replies.sync_error(ErrorCode.UNKNOWN_MEMBER_ID))
            del self.members[member_id]
            self._protocols.remove(member.protocols)
            if member.group_instance_id is not None:
                del self.static_members[member.group_instance_id]
        if self.leader_id == member_id:
            self.leader_id = next(iter(self.members), None)
        self.pending_join.discard(member_id)
        self.pending_sync.discard(member_id)

    def rename_static(self, group_instance_id: str, new_member_id: str, out: Outbox) -> Member:
        """Give a static member a new member id (KIP-345); whoever waits under the old one is fenced."""
        old_member_id = self.static_members[group_instance_id]
        member = self.members.pop(old_member_id)
        self.answer_join(member, out, replies.join_error(old_member_id, ErrorCode.FENCED_INSTANCE_ID))
        self.answer_sync(member, out, replies.sync_error(ErrorCode.FENCED_INSTANCE_ID))
        member.member_id = new_member_id
        member.is_new = False
        self.members[new_member_id] = member
        self.static_members[group_instance_id] = new_member_id
        if self.leader_id == old_member_id:
            self.leader_id = new_member_id
        if old_member_id in self.pending_sync:
            self.pending_sync.remove(old_member_id)
            self.pending_sync.add(new_member_id)
        return member

    def elect_joined_leader(self) -> bool:
        """Make sure that the leader is one who joined this time; False if nobody did."""
        if self.leader_id is None:
            return False
        if self.members[self.leader_id].awaiting_join is not None:
            return True
        for member in self.members.values():
            if member.awaiting_join is not None:
                self.leader_id = member.member_id
                return True
        return False

    # -- parked requests -----------------------------------------------------------------------------------------

    def park_join(self, member: Member, waiter: Waiter, out: Outbox) -> None:
        """Keep a JoinGroup until the next generation; an earlier one of the same member is sent back to retry."""
        self.answer_join(member, out, replies.join_error(member.member_id, ErrorCode.REBALANCE_IN_PROGRESS))
        self._set_join_waiter(member, waiter)

    def park_sync(self, member: Member, waiter: Waiter, out: Outbox) -> None:
        """Keep a SyncGroup until the assignment is known; an earlier one of the same member is sent back to retry."""
        self.answer_sync(member, out, replies.sync_error(ErrorCode.REBALANCE_IN_PROGRESS))
        member.awaiting_sync = waiter

    def answer_join(self, member: Member, out: Outbox, body: replies.MutableBody) -> bool:
        """Answer the member's parked JoinGroup, if there is one."""
        waiter = member.awaiting_join
        if waiter is None:
            return False
        self._set_join_waiter(member, None)
        out.reply(waiter.ticket, replies.for_join_version(body, waiter.api_version))
        return True

    def answer_sync(self, member: Member, out: Outbox, body: replies.MutableBody) -> bool:
        """Answer the member's parked SyncGroup, if there is one."""
        waiter = member.awaiting_sync
        if waiter is None:
            return False
        member.awaiting_sync = None
        out.reply(waiter.ticket, body)
        return True

    def _set_join_waiter(self, member: Member, waiter: Waiter | None) -> None:
        self.awaiting_join_count += (waiter is not None) - (member.awaiting_join is not None)
        member.awaiting_join = waiter

    # -- generations ---------------------------------------------------------------------------------------------

    def transition_to(self, state: GroupState, now_ms: int) -> None:
        """Enter a state that may follow the present one."""
        assert self.state in PREVIOUS_STATES[state], f"{self.group_id}: from {self.state} to {state}"
        self.previous_state = self.state
        self.state = state
        self.state_timestamp_ms = now_ms

    def init_next_generation(self, now_ms: int) -> None:
        """Begin a generation of whoever is a member now."""
        self.generation += 1
        self.protocol_name = self.select_protocol() if self.members else None
        self.subscribed_topics = self.compute_subscribed_topics()
        self.pending_sync.clear()
        self.transition_to(GroupState.COMPLETING_REBALANCE if self.members else GroupState.EMPTY, now_ms)

    def compute_subscribed_topics(self) -> frozenset[str] | None:
        """Return the topics that members of this generation read; None when that cannot be known."""
        if not self.uses_consumer_protocol:
            return None
        if not self.members:
            return frozenset()
        if self.protocol_name is None:
            return None
        protocol = self.protocol_name
        return subscribed_topics(member.metadata(protocol) for member in self.members.values())

    def assignments(self) -> dict[str, bytes]:
        """Return each member's assignment."""
        return {member_id: member.assignment for member_id, member in self.members.items()}

    def write(self, assignments: Mapping[str, bytes], out: Outbox) -> None:
        """Append the group as it is, with the given assignments; it is readable when they are committed."""
        protocol = self.protocol_name
        members = tuple(
            member.to_record(protocol, assignments.get(member.member_id, b""))
            for member in self.members.values()
            if protocol is not None
        )
        value = GroupValue(
            self.protocol_type or "",
            self.generation,
            protocol,
            self.leader_id,
            self.state_timestamp_ms,
            members,
        )
        out.record(encode_group_key(self.group_id), encode_group_value(value))
        out.when_committed(self._became_readable)

    def _became_readable(self, out: Outbox) -> None:
        self.readable = True
        self.predecessor = None
