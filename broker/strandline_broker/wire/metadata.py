"""Metadata, versions 0 to 13: what clients ask right after ApiVersions, and the largest answer without data.

Encoding thousands of partitions takes milliseconds, so callers cache: the bytes of a topic (`encode_topic`)
for as long as the topic does not change, and whole frames, which fit another request once the correlation
id is replaced (`with_correlation_id`).

Versions: 0 asks for all topics with an empty list, later ones with null; 1 adds rack, controller and
internal topics, 2 the cluster id, 4 whether a missing topic may be created, 5 offline replicas, 7 leader
epochs, 8 authorized operations, 9 is flexible, 10 adds topic ids, 12 lets clients ask by id, 13 has an
error for the whole response. Source: Apache Kafka, `MetadataRequest.json`, `MetadataResponse.json`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from strandline_broker.wire.errors import DecodeError, EncodeError
from strandline_broker.wire.primitives import (
    INT16,
    INT32,
    MALFORMED,
    NO_UUID,
    encode_compact_nullable_string,
    encode_compact_string,
    encode_nullable_string,
    encode_string,
    encode_uvarint,
    read_array_length,
    read_compact_length,
    read_compact_nullable_string,
    read_compact_string,
    read_string,
    skip_tagged_fields,
)

FIRST_FLEXIBLE: Final = 9
FIRST_WITH_TOPIC_IDS: Final = 10
MAX_TOPICS: Final = 200_000
"""Topics accepted in one request; a frame of tiny entries would otherwise expand many times in memory."""
OPERATIONS_NOT_ASKED: Final = -(1 << 31)
"""Authorized operations where the client did not ask for them."""

_ID_SIZE: Final = 16
_FLAG = struct.Struct(">?").pack
_PARTITION_V7 = struct.Struct(">hiii").pack
_PARTITION_V0 = struct.Struct(">hii").pack


class MetadataRequest(NamedTuple):
    """A decoded request."""

    topics: list[tuple[bytes, str | None]] | None
    """(topic id, name) of each topic asked for, or None for all.

    The id is zero bytes unless version 10 or later sent one; the name is None only where an id is given.
    """
    allow_auto_topic_creation: bool
    include_cluster_authorized_operations: bool
    include_topic_authorized_operations: bool


class MetadataBroker(NamedTuple):
    """A broker as clients reach it through the listener they asked on."""

    node_id: int
    host: str
    port: int
    rack: str | None = None


class MetadataPartition(NamedTuple):
    """A partition; `leader_id` is -1 while there is no leader."""

    error_code: int
    partition: int
    leader_id: int
    leader_epoch: int
    replicas: Sequence[int]
    isr: Sequence[int]
    offline_replicas: Sequence[int] = ()


class MetadataTopic(NamedTuple):
    """A topic.

    `name` is None only for an id that is not known, `topic_id` zero bytes only for a name that is not.
    """

    error_code: int
    name: str | None
    topic_id: bytes
    is_internal: bool
    partitions: Sequence[MetadataPartition]
    authorized_operations: int = OPERATIONS_NOT_ASKED


def decode_metadata(frame: memoryview, body_offset: int, version: int) -> MetadataRequest:
    """Decode the body of a Metadata request of version 0 to 13. Raises DecodeError."""
    try:
        if version >= FIRST_FLEXIBLE:
            topics, pos = _read_topics_flexible(frame, body_offset, version)
        else:
            topics, pos = _read_topics_legacy(frame, body_offset, version)
        allow = frame[pos] != 0 if version >= 4 else True
        pos += version >= 4
        cluster_operations = topic_operations = False
        if 8 <= version <= 10:
            cluster_operations = frame[pos] != 0
            pos += 1
        if version >= 8:
            topic_operations = frame[pos] != 0
            pos += 1
        if version >= FIRST_FLEXIBLE:
            skip_tagged_fields(frame, pos)
    except MALFORMED as error:
        raise DecodeError(f"malformed Metadata request: {error}") from error
    return MetadataRequest(topics, allow, cluster_operations, topic_operations)


_Topics = list[tuple[bytes, str | None]]


def _read_topics_flexible(frame: memoryview, pos: int, version: int) -> tuple[_Topics | None, int]:
    count, pos = read_compact_length(frame, pos)
    if count < 0:
        return None, pos
    if count > MAX_TOPICS:
        raise DecodeError(f"{count} topics in one request")
    topics: _Topics = []
    topic_id = NO_UUID
    name: str | None
    for _ in range(count):
        if version >= FIRST_WITH_TOPIC_IDS:
            topic_id = bytes(frame[pos : pos + _ID_SIZE])
            name, pos = read_compact_nullable_string(frame, pos + _ID_SIZE)
        else:
            name, pos = read_compact_string(frame, pos)
        pos = skip_tagged_fields(frame, pos)
        topics.append((topic_id, name))
    return topics, pos


def _read_topics_legacy(frame: memoryview, pos: int, version: int) -> tuple[_Topics | None, int]:
    count, pos = read_array_length(frame, pos, element_size=2)
    if count < 0 and version == 0:
        raise DecodeError("null array")
    if count < 0 or (count == 0 and version == 0):
        return None, pos
    if count > MAX_TOPICS:
        raise DecodeError(f"{count} topics in one request")
    topics: _Topics = []
    for _ in range(count):
        name, pos = read_string(frame, pos)
        topics.append((NO_UUID, name))
    return topics, pos


def encode_metadata_response(
    version: int,
    correlation_id: int,
    brokers: Iterable[MetadataBroker],
    cluster_id: str | None,
    controller_id: int,
    topics: Iterable[MetadataTopic | bytes],
    *,
    cluster_authorized_operations: int = OPERATIONS_NOT_ASKED,
    error_code: int = 0,
    throttle_time_ms: int = 0,
) -> bytes:
    """Encode a whole response frame, length prefix and header included.

    `topics` may hold what `encode_topic` returned for the same version. Raises EncodeError.
    """
    try:
        broker_list = [_encode_broker(version, broker) for broker in brokers]
        topic_list = [topic if isinstance(topic, bytes) else encode_topic(version, topic) for topic in topics]
        flexible = version >= FIRST_FLEXIBLE
        parts = [INT32.pack(correlation_id)]
        if flexible:
            parts.append(b"\x00")
        if version >= 3:
            parts.append(INT32.pack(throttle_time_ms))
        parts.append(_count(version, len(broker_list)))
        parts += broker_list
        if version >= 2:
            parts.append(
                encode_compact_nullable_string(cluster_id) if flexible else encode_nullable_string(cluster_id)
            )
        if version >= 1:
            parts.append(INT32.pack(controller_id))
        parts.append(_count(version, len(topic_list)))
        parts += topic_list
        if 8 <= version <= 10:
            parts.append(INT32.pack(cluster_authorized_operations))
        if version >= 13:
            parts.append(INT16.pack(error_code))
        if flexible:
            parts.append(b"\x00")
        return INT32.pack(sum(map(len, parts))) + b"".join(parts)
    except struct.error as error:
        raise EncodeError(f"Metadata response, version {version}: {error}") from error


def encode_topic(version: int, topic: MetadataTopic) -> bytes:
    """Encode one topic for responses of one version, to be cached. Raises EncodeError."""
    try:
        flexible = version >= FIRST_FLEXIBLE
        parts = [INT16.pack(topic.error_code)]
        if version >= 12:
            parts.append(encode_compact_nullable_string(topic.name))
        else:
            # Before version 12 the name cannot be null, nor can a client ask by id.
            name = topic.name or ""
            parts.append(encode_compact_string(name) if flexible else encode_string(name))
        if version >= FIRST_WITH_TOPIC_IDS:
            if len(topic.topic_id) != _ID_SIZE:
                raise EncodeError(f"topic id of {len(topic.topic_id)} bytes")
            parts.append(topic.topic_id)
        if version >= 1:
            parts.append(_FLAG(topic.is_internal))
        parts.append(_count(version, len(topic.partitions)))
        if flexible:
            parts += [_encode_partition_flexible(partition) for partition in topic.partitions]
        else:
            parts += [_encode_partition_legacy(version, partition) for partition in topic.partitions]
        if version >= 8:
            parts.append(INT32.pack(topic.authorized_operations))
        if flexible:
            parts.append(b"\x00")
        return b"".join(parts)
    except struct.error as error:
        raise EncodeError(f"Metadata topic, version {version}: {error}") from error


def _encode_broker(version: int, broker: MetadataBroker) -> bytes:
    node_id, host, port, rack = broker
    if version >= FIRST_FLEXIBLE:
        data = INT32.pack(node_id) + encode_compact_string(host) + INT32.pack(port)
        return data + encode_compact_nullable_string(rack) + b"\x00"
    data = INT32.pack(node_id) + encode_string(host) + INT32.pack(port)
    return data + encode_nullable_string(rack) if version >= 1 else data


def _encode_partition_flexible(partition: MetadataPartition) -> bytes:
    error_code, index, leader_id, leader_epoch, replicas, isr, offline = partition
    counts = len(replicas), len(isr), len(offline)
    if max(counts) < 0x7F:
        a, b, c = counts
        layout = f">hiiiB{a}iB{b}iB{c}iB"
        return struct.pack(
            layout,
            error_code,
            index,
            leader_id,
            leader_epoch,
            a + 1,
            *replicas,
            b + 1,
            *isr,
            c + 1,
            *offline,
            0,
        )
    parts = [_PARTITION_V7(error_code, index, leader_id, leader_epoch)]
    for nodes in (replicas, isr, offline):
        parts += (encode_uvarint(len(nodes) + 1), struct.pack(f">{len(nodes)}i", *nodes))
    parts.append(b"\x00")
    return b"".join(parts)


def _encode_partition_legacy(version: int, partition: MetadataPartition) -> bytes:
    error_code, index, leader_id, leader_epoch, replicas, isr, offline = partition
    if version >= 7:
        data = _PARTITION_V7(error_code, index, leader_id, leader_epoch)
    else:
        data = _PARTITION_V0(error_code, index, leader_id)
    for nodes in (replicas, isr, offline) if version >= 5 else (replicas, isr):
        data += struct.pack(f">i{len(nodes)}i", len(nodes), *nodes)
    return data


def _count(version: int, count: int) -> bytes:
    return encode_uvarint(count + 1) if version >= FIRST_FLEXIBLE else INT32.pack(count)
