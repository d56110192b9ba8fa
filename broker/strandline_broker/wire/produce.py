"""Produce requests and responses, versions 3 to 13: the hottest codec, written out by hand.

Records are never copied: the decoded request holds slices of the frame, which stay writable so that the log
can patch offsets in place. They are valid as long as the frame is.

Versions: 5 adds the log start offset to answers, 8 record errors and a message, 9 is flexible, 10 names the
current leader (KIP-951), 13 carries topic ids instead of names (KIP-516). Source: Apache Kafka,
`ProduceRequest.json`, `ProduceResponse.json`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from strandline_broker.wire.errors import DecodeError, EncodeError
from strandline_broker.wire.primitives import (
    INT32,
    MALFORMED,
    encode_compact_nullable_string,
    encode_compact_string,
    encode_nullable_string,
    encode_string,
    encode_uvarint,
    read_compact_nullable_string,
    read_nullable_string,
    read_uvarint,
    skip_tagged_fields,
)

FIRST_FLEXIBLE: Final = 9
FIRST_WITH_TOPIC_IDS: Final = 13
MAX_PARTITIONS: Final = 200_000
"""Partitions accepted in one request. A frame of tiny entries would otherwise expand twentyfold in memory."""

TopicKey = str | bytes
"""A topic name, or from version 13 on a topic id of 16 bytes."""
ProducePartition = tuple[int, memoryview | None]
NodeEndpoint = tuple[int, str, int, str | None]
"""(node id, host, port, rack or None)"""

_NO_LEADER: Final = (-1, -1)
_NO_DETAILS: Final[tuple[Any, ...]] = (None, (), None)
_ACKS_TIMEOUT = struct.Struct(">hi").unpack_from
_INDEX_AND_LENGTH = struct.Struct(">iBBB").unpack_from
_INT16_AT = struct.Struct(">h").unpack_from
_INT32_AT = INT32.unpack_from
_PARTITION_V3 = struct.Struct(">ihqq").pack
_PARTITION_V5 = struct.Struct(">ihqqq").pack
_PARTITION_V9 = struct.Struct(">ihqqqBBB").pack
_PREFIX = struct.Struct(">ii").pack
_PREFIX_FLEXIBLE = struct.Struct(">iiB").pack
_LEADER_TAG = struct.Struct(">BBBiiB").pack
_pack_int32 = INT32.pack


class ProduceRequest:
    """A decoded Produce request. `timeout_ms` is how long the leader may wait for the in-sync replicas."""

    __slots__ = ("acks", "timeout_ms", "topics", "transactional_id")

    def __init__(
        self,
        transactional_id: str | None,
        acks: int,
        timeout_ms: int,
        topics: list[tuple[TopicKey, list[ProducePartition]]],
    ) -> None:
        self.transactional_id = transactional_id
        self.acks = acks
        self.timeout_ms = timeout_ms
        self.topics = topics


def decode_produce(frame: memoryview, body_offset: int, version: int) -> ProduceRequest:
    """Decode the body of a Produce request of version 3 to 13. Raises DecodeError."""
    try:
        if version >= FIRST_FLEXIBLE:
            return _decode_flexible(frame, body_offset, version)
        return _decode_legacy(frame, body_offset)
    except MALFORMED as error:
        raise DecodeError(f"malformed Produce request: {error}") from error


def _decode_flexible(frame: memoryview, pos: int, version: int) -> ProduceRequest:
    size = len(frame)
    if frame[pos] == 0:
        transactional_id = None
        pos += 1
    else:
        transactional_id, pos = read_compact_nullable_string(frame, pos)
    acks, timeout_ms = _ACKS_TIMEOUT(frame, pos)
    topic_count, pos = read_uvarint(frame, pos + 6)
    budget = MAX_PARTITIONS
    if not 0 < topic_count <= budget:
        raise _bad_count(topic_count - 1)
    topics: list[tuple[TopicKey, list[ProducePartition]]] = []
    key: TopicKey
    for _ in range(topic_count - 1):
        if version >= FIRST_WITH_TOPIC_IDS:
            end = pos + 16
            key = bytes(frame[pos:end])
        else:
            length = frame[pos]
            pos += 1
            if length > 0x7F:
                length, pos = read_uvarint(frame, pos - 1)
            if length == 0:
                raise DecodeError("null topic name")
            end = pos + length - 1
            key = str(frame[pos:end], "utf-8")
        if end > size:
            raise DecodeError("topic exceeds the request")
        count = frame[end]
        pos = end + 1
        if count > 0x7F:
            count, pos = read_uvarint(frame, end)
        if not 0 < count <= budget:
            raise _bad_count(count - 1)
        budget -= count
        partitions: list[ProducePartition] = []
        for _ in range(count - 1):
            index, low, middle, high = _INDEX_AND_LENGTH(frame, pos)
            if low > 0x7F and middle > 0x7F and high <= 0x7F:  # 16 KB to 2 MB: the usual batch
                length = low & 0x7F | (middle & 0x7F) << 7 | high << 14
                pos += 7
            else:
                length, pos = read_uvarint(frame, pos + 4)
            if length == 0:
                partitions.append((index, None))
                end = pos
            else:
                end = pos + length - 1
                if end > size:
                    raise DecodeError("records exceed the request")
                partitions.append((index, frame[pos:end]))
            pos = end + 1 if frame[end] == 0 else skip_tagged_fields(frame, end)
        topics.append((key, partitions))
        pos = pos + 1 if frame[pos] == 0 else skip_tagged_fields(frame, pos)
    if frame[pos] != 0:
        skip_tagged_fields(frame, pos)
    return ProduceRequest(transactional_id, acks, timeout_ms, topics)


def _decode_legacy(frame: memoryview, pos: int) -> ProduceRequest:
    size = len(frame)
    transactional_id, pos = read_nullable_string(frame, pos)
    acks, timeout_ms = _ACKS_TIMEOUT(frame, pos)
    (topic_count,) = _INT32_AT(frame, pos + 6)
    pos += 10
    budget = MAX_PARTITIONS
    if not 0 <= topic_count <= budget:
        raise _bad_count(topic_count)
    topics: list[tuple[TopicKey, list[ProducePartition]]] = []
    for _ in range(topic_count):
        (length,) = _INT16_AT(frame, pos)
        pos += 2
        end = pos + length
        if length < 0 or end > size:
            raise DecodeError(f"topic name of {length} bytes")
        name = str(frame[pos:end], "utf-8")
        (count,) = _INT32_AT(frame, end)
        pos = end + 4
        if not 0 <= count <= budget:
            raise _bad_count(count)
        budget -= count
        partitions: list[ProducePartition] = []
        for _ in range(count):
            (index,) = _INT32_AT(frame, pos)
            (length,) = _INT32_AT(frame, pos + 4)
            pos += 8
            if length == -1:
                partitions.append((index, None))
                continue
            end = pos + length
            if length < 0 or end > size:
                raise DecodeError(f"records of {length} bytes where {size - pos} are left")
            partitions.append((index, frame[pos:end]))
            pos = end
        topics.append((name, partitions))
    return ProduceRequest(transactional_id, acks, timeout_ms, topics)


def _bad_count(count: int) -> DecodeError:
    if count < 0:
        return DecodeError("null or negative array")
    return DecodeError(f"more than {MAX_PARTITIONS} partitions in one request")


def encode_produce_response(
    version: int,
    correlation_id: int,
    topics: Sequence[tuple[TopicKey, Sequence[Sequence[Any]]]],
    throttle_time_ms: int = 0,
    node_endpoints: Sequence[NodeEndpoint] = (),
) -> bytes:
    """Encode a whole response frame, length prefix and header included.

    A partition is `(index, error code, base offset, log append time in ms or -1, log start offset)`,
    optionally followed by `error message | None, ((batch index, message | None), ...), (leader id, leader
    epoch) | None`. What a version cannot carry is left out. `topics` has names up to version 12, ids of 16
    bytes from 13 on.
    """
    try:
        if version >= FIRST_FLEXIBLE:
            return _encode_flexible(version, correlation_id, topics, throttle_time_ms, node_endpoints)
        return _encode_legacy(version, correlation_id, topics, throttle_time_ms)
    except (struct.error, IndexError, TypeError, AttributeError) as error:
        raise EncodeError(f"Produce response, version {version}: {error}") from error


def _encode_flexible(
    version: int,
    correlation_id: int,
    topics: Sequence[tuple[TopicKey, Sequence[Sequence[Any]]]],
    throttle_time_ms: int,
    node_endpoints: Sequence[NodeEndpoint],
) -> bytes:
    parts = [encode_uvarint(len(topics) + 1)]
    append = parts.append
    for key, partitions in topics:
        append(_encode_key(version, key))
        append(encode_uvarint(len(partitions) + 1))
        for partition in partitions:
            if len(partition) == 5:
                append(_PARTITION_V9(*partition, 1, 0, 0))
            else:
                append(_PARTITION_V5(*partition[:5]))
                append(_encode_details(version, partition))
        append(b"\x00")
    append(_pack_int32(throttle_time_ms))
    if node_endpoints and version >= 10:
        append(encode_node_endpoints(node_endpoints))
    else:
        append(b"\x00")
    body = b"".join(parts)
    return _PREFIX_FLEXIBLE(len(body) + 5, correlation_id, 0) + body


def _encode_details(version: int, partition: Sequence[Any]) -> bytes:
    """Encode record errors, message and leader of a partition for flexible versions."""
    message, errors, leader = (*partition, *_NO_DETAILS[len(partition) - 5 :])[5:]
    parts = [encode_uvarint(len(errors) + 1)]
    for batch_index, text in errors:
        parts += (_pack_int32(batch_index), encode_compact_nullable_string(text), b"\x00")
    parts.append(encode_compact_nullable_string(message))
    if version >= 10 and leader is not None and leader != _NO_LEADER:
        parts.append(_LEADER_TAG(1, 0, 9, *leader, 0))
    else:
        parts.append(b"\x00")
    return b"".join(parts)


def encode_node_endpoints(node_endpoints: Sequence[NodeEndpoint]) -> bytes:
    """Encode a block of tagged fields with the brokers that a response names as leaders (KIP-951; tag 0)."""
    parts = [encode_uvarint(len(node_endpoints) + 1)]
    for node_id, host, port, rack in node_endpoints:
        parts += (_pack_int32(node_id), encode_compact_string(host), _pack_int32(port))
        parts += (encode_compact_nullable_string(rack), b"\x00")
    field = b"".join(parts)
    return b"\x01\x00" + encode_uvarint(len(field)) + field


def _encode_key(version: int, key: TopicKey) -> bytes:
    if version >= FIRST_WITH_TOPIC_IDS:
        if type(key) is not bytes or len(key) != 16:
            raise EncodeError(f"version {version} carries topic ids of 16 bytes, not {key!r}")
        return key
    if type(key) is not str:
        raise EncodeError(f"version {version} carries topic names, not {key!r}")
    return encode_compact_string(key)


def _encode_legacy(
    version: int,
    correlation_id: int,
    topics: Sequence[tuple[TopicKey, Sequence[Sequence[Any]]]],
    throttle_time_ms: int,
) -> bytes:
    parts = [_pack_int32(len(topics))]
    append = parts.append
    for key, partitions in topics:
        if type(key) is not str:
            raise EncodeError(f"version {version} carries topic names, not {key!r}")
        append(encode_string(key))
        append(_pack_int32(len(partitions)))
        for partition in partitions:
            if version < 5:
                append(_PARTITION_V3(*partition[:4]))
                continue
            append(_PARTITION_V5(*partition[:5]))
            if version < 8:
                continue
            message, errors, _ = (*partition, *_NO_DETAILS[len(partition) - 5 :])[5:]
            append(_pack_int32(len(errors)))
            for batch_index, text in errors:
                parts += (_pack_int32(batch_index), encode_nullable_string(text))
            append(encode_nullable_string(message))
    append(_pack_int32(throttle_time_ms))
    body = b"".join(parts)
    return _PREFIX(len(body) + 4, correlation_id) + body
