"""Snapshots of committed group offsets: with them a bucket alone brings consumers back to where they were (invariant 6).

Who uses it: the coordinator of each partition of `__consumer_offsets`, which writes one now and then, under its leader
epoch and the next sequence, and restore. Pure.

The topic itself is compacted and stays local. A snapshot is cut at the last stable offset: it holds what is committed, and
nothing of transactions that are not decided. Each is whole; the greatest (epoch, sequence) counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias
from uuid import UUID

import orjson

from strandline_tiered import json_body
from strandline_tiered.envelope import FormatError, header_of
from strandline_tiered.keys import MAX_EPOCH, MAX_PARTITION, MAX_SEQUENCE, OffsetsName

MAGIC = b"SLGO"
VERSION = 1

_NONE = -1
_PART_BYTES = 256 << 10
_PARTITION = re.compile("0|[1-9][0-9]{0,9}")


class CommittedOffset(NamedTuple):
    """Where a group is in a partition.

    `leader_epoch`: of the last record read, -1 if unknown. Times in ms since 1970; `expires_at_ms` is -1 unless the client
    chose a time. `topic_id`: None if it is not known.
    """

    offset: int
    leader_epoch: int
    metadata: str
    committed_at_ms: int
    expires_at_ms: int = _NONE
    topic_id: UUID | None = None


class TopicPartition(NamedTuple):
    """A partition of a topic, by name, as groups commit."""

    topic: str
    partition: int


Groups: TypeAlias = Mapping[str, Mapping[TopicPartition, CommittedOffset]]


@dataclass(frozen=True, slots=True)
class OffsetsSnapshot:
    """Offsets of the groups of one partition of `__consumer_offsets`.

    `end_offset`: the offset of that partition at which it is cut. `written_at_ms`: the wall clock, which decides nothing.
    """

    partition: int
    name: OffsetsName
    end_offset: int
    groups: Groups
    written_at_ms: int = 0


def encode_offsets(snapshot: OffsetsSnapshot) -> bytes:
    """Return the object's bytes."""
    encoder = OffsetsEncoder(
        snapshot.partition, snapshot.name, snapshot.end_offset, written_at_ms=snapshot.written_at_ms
    )
    for group, offsets in sorted(snapshot.groups.items()):
        topics: dict[str, dict[int, CommittedOffset]] = {}
        for where, committed in offsets.items():
            topics.setdefault(where.topic, {})[where.partition] = committed
        encoder.add_group(group, [encode_topic(topic, topics[topic]) for topic in sorted(topics)])
    return b"".join(encoder.finish())


def encode_topic(topic: str, offsets: Mapping[int, CommittedOffset]) -> bytes:
    """Return a topic of a group by its partitions, for `OffsetsEncoder.add_group`."""
    partitions = {
        str(partition): [*committed[:-1], None if committed.topic_id is None else str(committed.topic_id)]
        for partition, committed in offsets.items()
    }
    return orjson.dumps(topic) + b":" + orjson.dumps(partitions, option=orjson.OPT_SORT_KEYS)


class OffsetsEncoder:
    """Encodes a snapshot piece by piece, for who must not be busy for long; byte for byte as `encode_offsets` does.

    Its memory is that of the object.
    """

    def __init__(self, partition: int, name: OffsetsName, end_offset: int, *, written_at_ms: int) -> None:
        """See `OffsetsSnapshot`."""
        self._open = bytearray(b'{"endOffset":%d,"groups":{' % end_offset)
        self._end = b'},"leaderEpoch":%d,"partition":%d,"sequence":%d,"writtenAtMs":%d}' % (
            name.leader_epoch,
            partition,
            name.sequence,
            written_at_ms,
        )
        self._parts: list[bytes] = []
        self._is_first = True

    def add_group(self, group: str, topics: Iterable[bytes]) -> None:
        """Take the next group, in ascending order, with what `encode_topic` made of its topics, in ascending order."""
        head = b"%s%s:{" % (b"" if self._is_first else b",", orjson.dumps(group))
        self._is_first = False
        self._open += head + b",".join(topics) + b"}"
        if len(self._open) >= _PART_BYTES:
            self._close_part()

    def finish(self) -> tuple[bytes, ...]:
        """Return the object in parts."""
        self._open += self._end
        self._close_part()
        return header_of(MAGIC, VERSION, self._parts), *self._parts

    def _close_part(self) -> None:
        self._parts.append(bytes(self._open))
        self._open.clear()


def decode_offsets(data: bytes) -> OffsetsSnapshot:
    """Return the snapshot in an object. Raises FormatError, of which UnsupportedVersion is one."""
    fields = json_body.decode(MAGIC, VERSION, data)
    snapshot = OffsetsSnapshot(
        partition=fields.number("partition"),
        name=OffsetsName(fields.number("leaderEpoch"), fields.number("sequence")),
        end_offset=fields.number("endOffset"),
        groups={group: _offsets(group, topics) for group, topics in fields.mapping("groups").items()},
        written_at_ms=fields.number("writtenAtMs"),
    )
    fields.end()
    in_range = (
        snapshot.partition <= MAX_PARTITION
        and snapshot.name.leader_epoch <= MAX_EPOCH
        and snapshot.name.sequence <= MAX_SEQUENCE
    )
    if not in_range:
        raise FormatError(f"SLGO: {snapshot.name} of partition {snapshot.partition} is out of range")
    return snapshot


def _offsets(group: str, topics: object) -> dict[TopicPartition, CommittedOffset]:
    offsets: dict[TopicPartition, CommittedOffset] = {}
    for topic, partitions in _object(topics, group).items():
        for text, committed in _object(partitions, f"{group}.{topic}").items():
            where = f"{group}.{topic}.{text}"
            if not _PARTITION.fullmatch(text) or int(text) > MAX_PARTITION:
                raise FormatError(f"SLGO.{where}: no partition")
            if not isinstance(committed, list) or len(committed) != len(CommittedOffset._fields):
                raise FormatError(f"SLGO.{where}: {committed!r} is no committed offset")
            offset, leader_epoch, metadata, committed_at_ms, expires_at_ms, topic_id = committed
            if not isinstance(metadata, str):
                raise FormatError(f"SLGO.{where}: metadata {metadata!r}")
            offsets[TopicPartition(topic, int(text))] = CommittedOffset(
                json_body.number(offset, where),
                json_body.number(leader_epoch, where, least=_NONE),
                metadata,
                json_body.number(committed_at_ms, where, least=_NONE),
                json_body.number(expires_at_ms, where, least=_NONE),
                None if topic_id is None else json_body.uuid(topic_id, where),
            )
    return offsets


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict) or not value:
        raise FormatError(f"SLGO.{where}: {value!r} is no object with content")
    return value
