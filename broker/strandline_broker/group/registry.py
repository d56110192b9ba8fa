"""The groups of a shard by id, with those whose creation or deletion is still on its way to the log.

Writers see a group from the moment it is made until the moment its deletion is decided; readers from its first committed
record until its tombstone is committed.
"""

from __future__ import annotations

from collections.abc import Iterator

from strandline_broker.errors import ErrorCode
from strandline_broker.group import rebalance, replies
from strandline_broker.group.classic_group import ClassicGroup
from strandline_broker.group.members import Member
from strandline_broker.group.outbox import Outbox
from strandline_broker.group.records import GroupValue, encode_group_key
from strandline_broker.group.states import GroupState


class GroupRegistry:
    """Groups of one shard."""

    __slots__ = ("_deleting", "_groups")

    def __init__(self) -> None:
        self._groups: dict[str, ClassicGroup] = {}
        # Groups whose tombstone is on its way, oldest first: an id may be deleted and used again several times.
        self._deleting: dict[str, list[ClassicGroup]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def get(self, group_id: str) -> ClassicGroup | None:
        """Return the group as writers see it."""
        return self._groups.get(group_id)

    def ids(self) -> list[str]:
        """Return the ids of all groups that writers see."""
        return list(self._groups)

    def all(self) -> Iterator[ClassicGroup]:
        """Iterate over the groups that writers see."""
        return iter(self._groups.values())

    def get_readable(self, group_id: str) -> ClassicGroup | None:
        """Return the group as readers see it."""
        group = self._groups.get(group_id)
        if group is not None and group.readable:
            return group
        return next((group for group in self._deleting.get(group_id, ()) if group.readable), None)

    def all_readable(self) -> Iterator[ClassicGroup]:
        """Iterate over the groups that readers see."""
        for group_id in dict.fromkeys((*self._groups, *self._deleting)):
            group = self.get_readable(group_id)
            if group is not None:
                yield group

    def has_offsets(self, group_id: str) -> None:
        """Take note that an offset is committed: its group exists for readers, unless it is about to be deleted."""
        deleting = self._deleting.get(group_id)
        if deleting:
            deleting[0].readable = True  # tombstones without an outcome are younger than this offset
        elif group_id in self._groups:
            self._groups[group_id].readable = True
        else:
            self._groups[group_id] = ClassicGroup(group_id, readable=True)

    # -- creating ------------------------------------------------------------------------------------------------

    def create(self, group_id: str, now_ms: int) -> ClassicGroup:
        """Make an empty group; the caller appends a record of it and tells `created` or `not_created`."""
        group = ClassicGroup(group_id, state_timestamp_ms=now_ms)
        self._groups[group_id] = group
        return group

    def create_with_record(self, group_id: str, out: Outbox) -> ClassicGroup:
        """Make an empty group and write it down."""
        group = self.create(group_id, out.now_ms)
        group.write({}, out)
        out.when_failed(lambda error, out: self.not_created(group, error, out))
        return group

    def create_simple(self, group_id: str, out: Outbox) -> ClassicGroup:
        """Make a group that exists by its offsets alone, which this input appends."""
        group = self.create(group_id, out.now_ms)
        out.when_failed(lambda error, out: self.not_created(group, error, out))
        return group

    def not_created(self, group: ClassicGroup, error: ErrorCode, out: Outbox) -> None:
        """Drop a group whose first record was not written, unless it has written another one since."""
        if self._groups.get(group.group_id) is not group or group.readable or group.generation:
            return
        for member in list(group.members.values()):
            group.answer_join(member, out, replies.join_error("", error))
            out.cancel(rebalance.session_key(group, member.member_id))
        for member_id in group.pending_join:
            out.cancel(rebalance.session_key(group, member_id))
        out.cancel(rebalance.join_key(group))
        group.transition_to(GroupState.DEAD, out.now_ms)
        del self._groups[group.group_id]
        if group.predecessor is not None:
            self._groups[group.group_id] = group.predecessor

    # -- deleting ------------------------------------------------------------------------------------------------

    def delete(self, group: ClassicGroup, out: Outbox) -> None:
        """Write a tombstone for an empty group; whoever asks for an id next finds it gone."""
        assert group.state is GroupState.EMPTY, group.state
        group_id = group.group_id
        for member_id in group.pending_join:
            out.cancel(rebalance.session_key(group, member_id))
        group.pending_join.clear()
        out.record(encode_group_key(group_id), None)
        del self._groups[group_id]
        self._deleting.setdefault(group_id, []).append(group)

        def deleted(out: Outbox) -> None:
            deleting = self._deleting[group_id]
            deleting.remove(group)
            if not deleting:
                del self._deleting[group_id]

        def not_deleted(error: ErrorCode, out: Outbox) -> None:
            deleted(out)
            # A group that is not readable by now was never written: what it replaced is what the log has.
            survivor = group if group.readable else group.predecessor
            successors = [*self._deleting.get(group_id, ()), *filter(None, [self._groups.get(group_id)])]
            if successors:
                successors[0].predecessor = survivor
            elif survivor is not None:
                self._groups[group_id] = survivor

        out.when_committed(deleted)
        out.when_failed(not_deleted)

    # -- replaying -----------------------------------------------------------------------------------------------

    def replay(self, group_id: str, value: GroupValue | None) -> None:
        """Take a group record of the log."""
        if value is None:
            self._groups.pop(group_id, None)
            return
        group = ClassicGroup(
            group_id,
            GroupState.STABLE if value.members else GroupState.EMPTY,
            state_timestamp_ms=value.current_state_timestamp_ms,
            generation=value.generation,
            protocol_type=value.protocol_type or None,
            protocol_name=value.protocol,
            leader_id=value.leader,
            readable=True,
        )
        for member in value.members:
            group.add(Member.from_record(member, value.protocol_type, value.protocol))
        group.subscribed_topics = group.compute_subscribed_topics()
        self._groups[group_id] = group
