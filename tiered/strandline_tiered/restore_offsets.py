"""What becomes of committed group offsets when a cluster is restored: clamped, and placed as the new cluster looks. Pure.

Who uses it: `strandline tier restore`. A group may have read further than what was uploaded: its offset is moved to the
restored end, with the leader epoch of the last restored record, so that it reads on with what is written there next.
Offsets of topics that are not restored are left out, as are those of an earlier topic of the same name.

A commit counts as made when the new cluster was made: otherwise groups that were away longer than
`offsets.retention.minutes` would lose their offsets at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from strandline_tiered.epochs import NO_EPOCH, History, epoch_at
from strandline_tiered.keys import OffsetsName, TopicKeys
from strandline_tiered.offsets_snapshot import CommittedOffset, OffsetsSnapshot, TopicPartition
from strandline_tiered.restore_found import FoundTopic
from strandline_tiered.restore_plan import CONSUMER_OFFSETS, Choice, TopicPlan

DEFAULT_PARTITIONS = 50
"""Partitions of `__consumer_offsets` where nothing says otherwise (`offsets.topic.num.partitions`)."""


class RestoredEnd(NamedTuple):
    """How far a partition is restored. `topic_id`: None for a topic that gets a new id."""

    end_offset: int
    epochs: History
    topic_id: UUID | None


@dataclass(frozen=True, slots=True)
class GroupReport:
    """What became of the offsets of one group: taken over, of these moved to the restored end, and left out."""

    group: str
    restored: int
    clamped: int
    left_out: int


@dataclass(frozen=True, slots=True)
class OffsetsPlan:
    """`__consumer_offsets` of the new cluster; `keys` is None where the bucket has nothing of it.

    `snapshots`: one for each partition, in the epoch in which the partitions are made.
    """

    keys: TopicKeys | None = None
    leader_epoch: int = 0
    snapshots: tuple[OffsetsSnapshot, ...] = ()
    groups: tuple[GroupReport, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class _Count:
    restored: int = 0
    clamped: int = 0
    left_out: int = 0
    offsets: dict[TopicPartition, CommittedOffset] = field(default_factory=dict)


def plan_offsets(
    found: Sequence[FoundTopic],
    topics: Sequence[TopicPlan],
    *,
    target: UUID,
    choice: Choice,
    partition_of: Callable[[str, int], int],
    restored_at_ms: int,
) -> OffsetsPlan:
    """Return the snapshots of the new cluster.

    `topics`: what is restored. `partition_of(group, count)`: where a group belongs. `restored_at_ms`: when the new
    cluster was made; the same each time the plan is made.
    """
    candidates = [
        topic
        for topic in found
        if topic.keys.topic == CONSUMER_OFFSETS
        and not topic.is_deleted
        and topic.label not in choice.left_out
    ]
    if not candidates:
        return OffsetsPlan()
    if len(candidates) > 1:
        labels = ", ".join(topic.label for topic in candidates)
        return OffsetsPlan(
            problems=(
                f"{len(candidates)} topics are called {CONSUMER_OFFSETS}; leave out all but one: {labels}",
            )
        )
    (topic,) = candidates
    problems = tuple(text for text in (topic.problem, *(one.problem for one in topic.partitions)) if text)
    if problems:
        return OffsetsPlan(problems=problems)
    snapshots = [one.offsets for one in topic.partitions if one.offsets is not None]
    groups = _clamp(snapshots, _ends(topics), restored_at_ms)
    known = topic.manifest.partitions if topic.manifest is not None else DEFAULT_PARTITIONS
    count = max(known, *(one.keys.partition + 1 for one in topic.partitions), 1)
    epoch = 1 + max((topic.highest_epoch, *(one.highest_epoch for one in topic.partitions)))
    written_at_ms = max((one.written_at_ms for one in snapshots), default=0)
    placed: list[dict[str, Mapping[TopicPartition, CommittedOffset]]] = [{} for _ in range(count)]
    for group, counted in groups.items():
        if counted.offsets:
            placed[partition_of(group, count)][group] = counted.offsets
    return OffsetsPlan(
        TopicKeys(target, CONSUMER_OFFSETS, topic.keys.topic_id),
        epoch,
        tuple(
            OffsetsSnapshot(number, OffsetsName(epoch, 1), 0, offsets, written_at_ms)
            for number, offsets in enumerate(placed)
        ),
        tuple(
            GroupReport(group, one.restored, one.clamped, one.left_out)
            for group, one in sorted(groups.items())
        ),
    )


def _ends(topics: Sequence[TopicPlan]) -> dict[TopicPartition, RestoredEnd]:
    ends: dict[TopicPartition, RestoredEnd] = {}
    for topic in topics:
        for partition in topic.partitions:
            manifest = partition.manifest
            ends[TopicPartition(topic.keys.topic, partition.keys.partition)] = RestoredEnd(
                manifest.end_offset, manifest.epochs, topic.keys.topic_id
            )
        if not topic.partitions:
            for number in range(topic.manifest.partitions):
                ends[TopicPartition(topic.keys.topic, number)] = RestoredEnd(0, (), None)
    return ends


def _clamp(
    snapshots: Sequence[OffsetsSnapshot], ends: Mapping[TopicPartition, RestoredEnd], restored_at_ms: int
) -> dict[str, _Count]:
    groups: dict[str, _Count] = {}
    for snapshot in snapshots:
        for group, offsets in snapshot.groups.items():
            count = groups.setdefault(group, _Count())
            for where, committed in offsets.items():
                end = ends.get(where)
                if end is None or not _is_of(committed, end):
                    count.left_out += 1
                    continue
                new = clamped(committed, end)
                count.restored += 1
                count.clamped += new.offset != committed.offset
                committed_at_ms = max(new.committed_at_ms, restored_at_ms)
                count.offsets[where] = new._replace(committed_at_ms=committed_at_ms)
    return groups


def _is_of(committed: CommittedOffset, end: RestoredEnd) -> bool:
    """Whether an offset was committed for the topic that is restored, as far as that is known."""
    return None in (committed.topic_id, end.topic_id) or committed.topic_id == end.topic_id


def clamped(committed: CommittedOffset, end: RestoredEnd) -> CommittedOffset:
    """Return a committed offset that does not lie above the restored end."""
    committed = committed._replace(topic_id=end.topic_id if committed.topic_id is not None else None)
    if committed.offset <= end.end_offset:
        return committed
    epoch = epoch_at(end.epochs, end.end_offset - 1) if end.end_offset else NO_EPOCH
    return committed._replace(offset=end.end_offset, leader_epoch=epoch)
