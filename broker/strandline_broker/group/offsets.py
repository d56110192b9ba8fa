"""Offsets of every group of a shard: what is committed, what is on its way to the log, what waits for a transaction.

Readers see committed offsets only. Whoever decides what to write next (deletions, expiry) looks at the newest ones,
committed or not.

Source: Kafka 4.2, `OffsetMetadataManager`; pending appends take the place of its timeline snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from strandline_broker.group.outbox import Outbox
from strandline_broker.group.records import OffsetKey, OffsetValue, encode_offset_key, encode_offset_value

#: topic -> partition -> (order of writing, offset)
_Topics: TypeAlias = "dict[str, dict[int, tuple[int, OffsetValue]]]"


class Cut:
    """A table as it was at one moment, to be taken group by group while the table goes on changing.

    A group that is about to change is kept aside first, so a change costs at most a copy of its group, once.
    """

    __slots__ = ("_kept", "_untouched")

    def __init__(self, groups: dict[str, _Topics]) -> None:
        self._untouched = groups.copy()
        self._kept: dict[str, _Topics] = {}

    def about_to_change(self, group_id: str) -> None:
        """Keep a group aside, as it is still."""
        topics = self._untouched.pop(group_id, None)
        if topics is not None:
            self._kept[group_id] = _copy(topics)

    def take(self) -> tuple[str, _Topics] | None:
        """Return one more group with (order, offset) by topic and partition, in no order; None when that was all."""
        if self._kept:
            return self._kept.popitem()
        if not self._untouched:
            return None
        group_id, topics = self._untouched.popitem()
        return group_id, _copy(topics)


def _copy(topics: _Topics) -> _Topics:
    return {topic: partitions.copy() for topic, partitions in topics.items()}


class OffsetTable:
    """Offsets by group, topic and partition, each with its place in the order of writing.

    `changes` counts what was put or removed.
    """

    __slots__ = ("_cut", "_groups", "changes", "count")

    def __init__(self) -> None:
        self._groups: dict[str, _Topics] = {}
        self._cut: Cut | None = None
        self.count = 0
        self.changes = 0

    def cut(self) -> Cut:
        """Return the table as it is now. One at a time: an earlier cut that was not taken whole yet is of no use then."""
        self._cut = Cut(self._groups)
        return self._cut

    def _note_change(self, group_id: str) -> None:
        self.changes += 1
        if self._cut is not None:
            self._cut.about_to_change(group_id)

    def get(self, key: OffsetKey) -> tuple[int, OffsetValue] | None:
        """Return (order, offset) or None."""
        topics = self._groups.get(key.group_id)
        partitions = None if topics is None else topics.get(key.topic)
        return None if partitions is None else partitions.get(key.partition)

    def put(self, key: OffsetKey, order: int, value: OffsetValue) -> None:
        """Set an offset."""
        self._note_change(key.group_id)
        partitions = self._groups.setdefault(key.group_id, {}).setdefault(key.topic, {})
        self.count += key.partition not in partitions
        partitions[key.partition] = order, value

    def remove(self, key: OffsetKey) -> None:
        """Remove an offset if it is there, and what it leaves empty."""
        topics = self._groups.get(key.group_id, {})
        partitions = topics.get(key.topic)
        if partitions is None or key.partition not in partitions:
            return
        self._note_change(key.group_id)
        del partitions[key.partition]
        self.count -= 1
        if not partitions:
            del topics[key.topic]
            if not topics:
                del self._groups[key.group_id]

    def of_group(self, group_id: str) -> _Topics:
        """Return {topic: {partition: (order, offset)}}; not to be changed."""
        return self._groups.get(group_id, {})

    def groups(self) -> list[str]:
        """Return the ids of groups that have offsets."""
        return list(self._groups)

    def items(self) -> Iterator[tuple[OffsetKey, int, OffsetValue]]:
        """Iterate over everything."""
        for group_id, topics in self._groups.items():
            for topic, partitions in topics.items():
                for partition, (order, value) in partitions.items():
                    yield OffsetKey(group_id, topic, partition), order, value


class OffsetStore:
    """Committed offsets of a shard and the changes that are not committed yet."""

    __slots__ = ("_in_flight", "_order", "_transactions", "committed")

    def __init__(self) -> None:
        self.committed = OffsetTable()
        # group -> key -> changes on their way to the log, oldest first; None removes.
        self._in_flight: dict[str, dict[OffsetKey, list[tuple[int, OffsetValue | None]]]] = {}
        # producer id -> offsets that its open transaction holds.
        self._transactions: dict[int, OffsetTable] = {}
        self._order = 0

    # -- reading -------------------------------------------------------------------------------------------------

    def is_unstable(self, key: OffsetKey) -> bool:
        """Whether another value than the committed one may come out of appends or transactions under way."""
        return key in self._in_flight.get(key.group_id, ()) or self.in_transaction(key)

    def in_transaction(self, key: OffsetKey) -> bool:
        """Whether an open transaction holds an offset of this partition."""
        return any(table.get(key) is not None for table in self._transactions.values())

    def newest(self, key: OffsetKey) -> OffsetValue | None:
        """Return the offset as it will be when everything on its way has arrived."""
        changes = self._in_flight.get(key.group_id, {}).get(key)
        if changes:
            return changes[-1][1]
        found = self.committed.get(key)
        return None if found is None else found[1]

    def keys_of_group(self, group_id: str) -> list[OffsetKey]:
        """Return where the group has an offset, newest state, open transactions included."""
        keys = dict.fromkeys(
            OffsetKey(group_id, topic, partition)
            for topic, partitions in self.committed.of_group(group_id).items()
            for partition in partitions
        )
        keys |= dict.fromkeys(self._in_flight.get(group_id, ()))
        for table in self._transactions.values():
            for topic, partitions in table.of_group(group_id).items():
                keys |= dict.fromkeys(OffsetKey(group_id, topic, partition) for partition in partitions)
        return [key for key in keys if self.newest(key) is not None or self.in_transaction(key)]

    def keys_of_topics(self, topics: Iterable[str]) -> list[OffsetKey]:
        """Return where any group has an offset of one of these topics, newest state, open transactions included."""
        wanted = set(topics)
        keys = dict.fromkeys(
            key for changes in self._in_flight.values() for key in changes if key.topic in wanted
        )
        for table in (self.committed, *self._transactions.values()):
            for group_id in table.groups():
                found = table.of_group(group_id)
                for topic in wanted & found.keys():
                    keys |= dict.fromkeys(OffsetKey(group_id, topic, partition) for partition in found[topic])
        return [key for key in keys if self.newest(key) is not None or self.in_transaction(key)]

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, key: OffsetKey, value: OffsetValue | None, out: Outbox) -> None:
        """Append an offset, or its removal; readers see it when it is committed."""
        self._order += 1
        change = self._order, value
        self._in_flight.setdefault(key.group_id, {}).setdefault(key, []).append(change)
        out.record(encode_offset_key(*key), None if value is None else encode_offset_value(value))
        out.append.offsets.append((key, change))

    def committed_changes(self, changes: Iterable[tuple[OffsetKey, tuple[int, OffsetValue | None]]]) -> None:
        """Let the changes of a committed append take effect."""
        for key, change in changes:
            self._arrived(key, change)
            order, value = change
            if value is None:
                self._remove(key)
            else:
                self.committed.put(key, order, value)

    def failed_changes(self, changes: Iterable[tuple[OffsetKey, tuple[int, OffsetValue | None]]]) -> None:
        """Forget the changes of an append that was not written."""
        for key, change in changes:
            self._arrived(key, change)

    def _arrived(self, key: OffsetKey, change: tuple[int, OffsetValue | None]) -> None:
        group = self._in_flight[key.group_id]
        changes = group[key]
        changes.remove(change)
        if not changes:
            del group[key]
            if not group:
                del self._in_flight[key.group_id]

    def _remove(self, key: OffsetKey) -> None:
        self.committed.remove(key)
        for producer_id, table in list(self._transactions.items()):
            table.remove(key)
            if not table.count:
                del self._transactions[producer_id]

    # -- replaying -----------------------------------------------------------------------------------------------

    def replay(self, key: OffsetKey, value: OffsetValue | None, order: int, producer_id: int) -> None:
        """Take a record of the log; `order` is its offset there."""
        self._order = max(self._order, order)
        if value is None:
            self._remove(key)
        elif producer_id < 0:
            self.committed.put(key, order, value)
        else:
            self._transactions.setdefault(producer_id, OffsetTable()).put(key, order, value)

    def end_transaction(self, producer_id: int, *, committed: bool) -> None:
        """Close a transaction; of offsets written inside and outside of it, the last written wins."""
        table = self._transactions.pop(producer_id, None)
        if table is None or not committed:
            return
        for key, order, value in table.items():
            current = self.committed.get(key)
            if current is None or order > current[0]:
                self.committed.put(key, order, value)
