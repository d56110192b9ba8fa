"""Records of `__consumer_offsets`, byte for byte as Kafka writes them, so that Kafka's own formatters read ours.

A key is an int16 record type and the fields that name the subject; a value is an int16 version and the fields of that
version; a missing value (tombstone) deletes. Written by the state machines of this package, read back by
`GroupShard.replay`.

| key type | subject | value versions read | written, as by Kafka 4.2 |
|---|---|---|---|
| 0, 1 | group, topic, partition | 0-4 | 4; 1 when the client asked for a retention of its own |
| 2 | group | 0-4 | 3 |

Every other type (KIP-848 members, share and streams groups) is passed over.

Source: Kafka 4.2, `GroupCoordinatorRecordHelpers`, `OffsetCommitKey/Value.json`, `GroupMetadataKey/Value.json`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from uuid import UUID

from strandline_broker.group.requests import ZERO_UUID
from strandline_broker.wire import primitives as p
from strandline_broker.wire.errors import DecodeError, EncodeError

_LEGACY_OFFSET_KEY = 0
_OFFSET_KEY = 1
_GROUP_KEY = 2
_GROUP_VALUE_VERSION = 3
_FIRST_FLEXIBLE_VERSION = 4
_TOPIC_ID_TAG = 0
#: The longest string of these records, in bytes of UTF-8.
MAX_STRING_BYTES = 0x7FFF

_OFFSET_V3_HEAD = struct.Struct(">hqi")
_OFFSET_V1_HEAD = struct.Struct(">hq")
_TWO_INT64 = struct.Struct(">qq")
_TWO_INT32 = struct.Struct(">ii")


class OffsetKey(NamedTuple):
    """Whose offset a record holds."""

    group_id: str
    topic: str
    partition: int


class GroupKey(NamedTuple):
    """Which group a record describes."""

    group_id: str


class OffsetValue(NamedTuple):
    """A committed offset. `expire_timestamp_ms` is -1 unless the client chose a retention (OffsetCommit before 5)."""

    offset: int
    leader_epoch: int
    metadata: str
    commit_timestamp_ms: int
    expire_timestamp_ms: int = -1
    topic_id: UUID = ZERO_UUID


class MemberValue(NamedTuple):
    """One member of a group; `rebalance_timeout_ms` is -1 in records of version 0."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    assignment: bytes


class GroupValue(NamedTuple):
    """A group after a completed rebalance. A timestamp of -1 means unknown (versions 0 and 1)."""

    protocol_type: str
    generation: int
    protocol: str | None
    leader: str | None
    current_state_timestamp_ms: int
    members: tuple[MemberValue, ...]


def encode_offset_key(group_id: str, topic: str, partition: int) -> bytes:
    """Encode an OffsetCommitKey."""
    return p.INT16.pack(_OFFSET_KEY) + _string(group_id) + _string(topic) + p.INT32.pack(partition)


def encode_offset_value(value: OffsetValue) -> bytes:
    """Encode an OffsetCommitValue, version 4, or 1 if it has an expiry of its own."""
    if value.expire_timestamp_ms != -1:
        head = _OFFSET_V1_HEAD.pack(1, value.offset)
        return (
            head
            + _string(value.metadata)
            + _TWO_INT64.pack(value.commit_timestamp_ms, value.expire_timestamp_ms)
        )
    head = _OFFSET_V3_HEAD.pack(_FIRST_FLEXIBLE_VERSION, value.offset, value.leader_epoch)
    metadata = value.metadata.encode()
    tags = b"\x00" if value.topic_id == ZERO_UUID else b"\x01\x00\x10" + value.topic_id.bytes
    return (
        head + p.encode_uvarint(len(metadata) + 1) + metadata + p.INT64.pack(value.commit_timestamp_ms) + tags
    )


def encode_group_key(group_id: str) -> bytes:
    """Encode a GroupMetadataKey."""
    return p.INT16.pack(_GROUP_KEY) + _string(group_id)


def encode_group_value(value: GroupValue) -> bytes:
    """Encode a GroupMetadataValue, version 3."""
    parts = [
        p.INT16.pack(_GROUP_VALUE_VERSION),
        _string(value.protocol_type),
        p.INT32.pack(value.generation),
        _nullable_string(value.protocol),
        _nullable_string(value.leader),
        p.INT64.pack(value.current_state_timestamp_ms),
        p.INT32.pack(len(value.members)),
    ]
    for member in value.members:
        parts += (
            _string(member.member_id),
            _nullable_string(member.group_instance_id),
            _string(member.client_id),
            _string(member.client_host),
            _TWO_INT32.pack(member.rebalance_timeout_ms, member.session_timeout_ms),
            p.INT32.pack(len(member.subscription)),
            member.subscription,
            p.INT32.pack(len(member.assignment)),
            member.assignment,
        )
    return b"".join(parts)


def decode_key(key: bytes) -> OffsetKey | GroupKey | None:
    """Decode a record key; None for record types that are not ours. Raises DecodeError (a ValueError)."""
    try:
        (kind,) = p.INT16.unpack_from(key)
        if kind in (_LEGACY_OFFSET_KEY, _OFFSET_KEY):
            group_id, pos = p.read_string(key, 2)
            topic, pos = p.read_string(key, pos)
            (partition,) = p.INT32.unpack_from(key, pos)
            return OffsetKey(group_id, topic, partition)
        if kind == _GROUP_KEY:
            return GroupKey(p.read_string(key, 2)[0])
    except p.MALFORMED as error:
        raise DecodeError(f"broken key in the offsets topic: {error}") from error
    return None


def decode_offset_value(data: bytes) -> OffsetValue:
    """Decode an OffsetCommitValue of versions 0-4. Raises DecodeError (a ValueError)."""
    try:
        version = _version(data)
        (offset,) = p.INT64.unpack_from(data, 2)
        pos = 10
        leader_epoch = expire_timestamp_ms = -1
        if version >= 3:
            (leader_epoch,) = p.INT32.unpack_from(data, pos)
            pos += 4
        read_string = p.read_compact_string if version >= _FIRST_FLEXIBLE_VERSION else p.read_string
        metadata, pos = read_string(data, pos)
        (commit_timestamp_ms,) = p.INT64.unpack_from(data, pos)
        if version == 1:
            (expire_timestamp_ms,) = p.INT64.unpack_from(data, pos + 8)
        topic_id = ZERO_UUID
        if version >= _FIRST_FLEXIBLE_VERSION:
            tag = p.read_tagged_fields(data, pos + 8)[0].get(_TOPIC_ID_TAG)
            if tag is not None:
                if len(tag) != 16:
                    raise DecodeError(f"topic id of {len(tag)} bytes")
                topic_id = UUID(bytes=bytes(tag))
    except p.MALFORMED as error:
        raise DecodeError(f"broken offset in the offsets topic: {error}") from error
    return OffsetValue(offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms, topic_id)


def decode_group_value(data: bytes) -> GroupValue:
    """Decode a GroupMetadataValue of versions 0-4. Raises DecodeError (a ValueError)."""
    try:
        version = _version(data)
        flexible = version >= _FIRST_FLEXIBLE_VERSION
        read_string = p.read_compact_string if flexible else p.read_string
        read_nullable = p.read_compact_nullable_string if flexible else p.read_nullable_string
        protocol_type, pos = read_string(data, 2)
        (generation,) = p.INT32.unpack_from(data, pos)
        protocol, pos = read_nullable(data, pos + 4)
        leader, pos = read_nullable(data, pos)
        timestamp_ms = -1
        if version >= 2:
            (timestamp_ms,) = p.INT64.unpack_from(data, pos)
            pos += 8
        count, pos = p.read_compact_length(data, pos) if flexible else p.read_array_length(data, pos, 18)
        members = []
        for _ in range(count):
            member, pos = _decode_member(data, pos, version)
            members.append(member)
    except p.MALFORMED as error:
        raise DecodeError(f"broken group in the offsets topic: {error}") from error
    return GroupValue(protocol_type, generation, protocol, leader, timestamp_ms, tuple(members))


def _decode_member(data: bytes, pos: int, version: int) -> tuple[MemberValue, int]:
    flexible = version >= _FIRST_FLEXIBLE_VERSION
    read_string = p.read_compact_string if flexible else p.read_string
    read_nullable = p.read_compact_nullable_string if flexible else p.read_nullable_string
    member_id, pos = read_string(data, pos)
    instance_id = None
    if version >= 3:
        instance_id, pos = read_nullable(data, pos)
    client_id, pos = read_string(data, pos)
    client_host, pos = read_string(data, pos)
    rebalance_timeout_ms = -1
    if version >= 1:
        (rebalance_timeout_ms,) = p.INT32.unpack_from(data, pos)
        pos += 4
    (session_timeout_ms,) = p.INT32.unpack_from(data, pos)
    subscription, pos = _read_bytes(data, pos + 4, flexible=flexible)
    assignment, pos = _read_bytes(data, pos, flexible=flexible)
    if flexible:
        pos = p.skip_tagged_fields(data, pos)
    member = MemberValue(
        member_id,
        instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms,
        session_timeout_ms,
        subscription,
        assignment,
    )
    return member, pos


def _read_bytes(data: bytes, pos: int, *, flexible: bool) -> tuple[bytes, int]:
    length, pos = p.read_compact_length(data, pos) if flexible else p.read_array_length(data, pos, 1)
    if length < 0:
        raise DecodeError("null where bytes must be")
    return bytes(data[pos : pos + length]), pos + length


def _version(data: bytes) -> int:
    (version,) = p.INT16.unpack_from(data)
    if not 0 <= version <= 4:
        raise DecodeError(f"value of unknown version {version} in the offsets topic")
    return int(version)


def _string(value: str) -> bytes:
    # Not primitives.encode_string: its cache is for names that many responses share.
    data = value.encode()
    if len(data) > MAX_STRING_BYTES:
        raise EncodeError(f"string of {len(data)} bytes exceeds {MAX_STRING_BYTES}")
    return p.INT16.pack(len(data)) + data


def _nullable_string(value: str | None) -> bytes:
    return b"\xff\xff" if value is None else _string(value)
