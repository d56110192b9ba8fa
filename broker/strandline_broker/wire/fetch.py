"""Fetch requests and responses, versions 4 to 18, written out by hand.

A response is a list of parts in sending order: bytes of ours, records, bytes of ours, ... Records may be
anything with a length, such as a range of a file that goes out through sendfile; they are never read or
copied here.

Versions: 5 adds the log start offset, 7 fetch sessions (KIP-227), 9 the leader epoch, 11 the rack
(KIP-392), 12 is flexible and reports divergence (KIP-595), 13 carries topic ids (KIP-516), 15 moves the
replica id into a tagged field (KIP-903), 16 names the current leader (KIP-951). Source: Apache Kafka,
`FetchRequest.json`, `FetchResponse.json`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from strandline_broker.seams.disk import FileSlice
from strandline_broker.wire.errors import DecodeError, EncodeError
from strandline_broker.wire.primitives import (
    INT32,
    MALFORMED,
    encode_compact_string,
    encode_string,
    encode_uvarint,
    read_compact_nullable_string,
    read_compact_string,
    read_string,
    read_tagged_fields,
    read_uvarint,
    skip_tagged_fields,
)
from strandline_broker.wire.produce import (
    MAX_PARTITIONS,
    NodeEndpoint,
    TopicKey,
    encode_node_endpoints,
)

FIRST_FLEXIBLE: Final = 12
FIRST_WITH_TOPIC_IDS: Final = 13
FIRST_WITH_REPLICA_STATE: Final = 15


class TierNews(NamedTuple):
    """What a leader tells a follower of a tiered partition, in a tagged field of our own (docs/formats.md)."""

    tiered_through: int
    """Below this offset local segments may be deleted; a new replica begins here."""
    local_log_start: int
    """First offset that the leader has on its disk."""
    segment_key: str
    """The segment object that ends at `tiered_through`; empty for none."""


FetchPartition = tuple[int, int, int, int, int, int]
"""(index, current leader epoch, fetch offset, last fetched epoch, log start offset, max bytes)"""

_REPLICA_STATE_TAG: Final = 1
_INT16_AT = struct.Struct(">h").unpack_from
_INT32_AT = INT32.unpack_from
_REPLICA_STATE = struct.Struct(">iq").unpack_from
_LIMITS_V4 = struct.Struct(">iiiib").unpack_from
_LIMITS_V7 = struct.Struct(">iiiibii").unpack_from
_LIMITS_V15 = struct.Struct(">iiibii").unpack_from
_PARTITION_V4 = struct.Struct(">iqi")
_PARTITION_V5 = struct.Struct(">iqqi")
_PARTITION_V9 = struct.Struct(">iiqqi")
_PARTITION_V12 = struct.Struct(">iiqiqi").unpack_from
_pack_int32 = INT32.pack


class FetchRequest:
    """A decoded Fetch request. Fields that a version lacks have the defaults of the schema."""

    __slots__ = (
        "forgotten",
        "isolation_level",
        "max_bytes",
        "max_wait_ms",
        "min_bytes",
        "rack_id",
        "replica_epoch",
        "replica_id",
        "session_epoch",
        "session_id",
        "topics",
    )

    def __init__(
        self,
        replica_id: int,
        replica_epoch: int,
        max_wait_ms: int,
        min_bytes: int,
        max_bytes: int,
        isolation_level: int,
        session_id: int,
        session_epoch: int,
        topics: list[tuple[TopicKey, list[FetchPartition]]],
        forgotten: list[tuple[TopicKey, list[int]]],
        rack_id: str,
    ) -> None:
        self.replica_id = replica_id
        self.replica_epoch = replica_epoch
        self.max_wait_ms = max_wait_ms
        self.min_bytes = min_bytes
        self.max_bytes = max_bytes
        self.isolation_level = isolation_level
        self.session_id = session_id
        self.session_epoch = session_epoch
        self.topics = topics
        self.forgotten = forgotten
        self.rack_id = rack_id


def decode_fetch(frame: memoryview, body_offset: int, version: int) -> FetchRequest:
    """Decode the body of a Fetch request of version 4 to 18. Raises DecodeError."""
    try:
        if version >= FIRST_FLEXIBLE:
            return _decode_flexible(frame, body_offset, version)
        return _decode_legacy(frame, body_offset, version)
    except MALFORMED as error:
        raise DecodeError(f"malformed Fetch request: {error}") from error


def _decode_flexible(frame: memoryview, pos: int, version: int) -> FetchRequest:
    replica_id = replica_epoch = -1
    limits: tuple[int, int, int, int, int, int]
    if version >= FIRST_WITH_REPLICA_STATE:
        limits = _LIMITS_V15(frame, pos)
        pos += 21
    else:
        (replica_id,) = _INT32_AT(frame, pos)
        limits = _LIMITS_V15(frame, pos + 4)
        pos += 25
    topic_count, pos = read_uvarint(frame, pos)
    budget = MAX_PARTITIONS
    if not 0 < topic_count <= budget:
        raise _bad_count(topic_count - 1)
    topics: list[tuple[TopicKey, list[FetchPartition]]] = []
    for _ in range(topic_count - 1):
        key, pos = _read_key(frame, pos, version)
        count, pos = read_uvarint(frame, pos)
        if not 0 < count <= budget:
            raise _bad_count(count - 1)
        budget -= count
        partitions: list[FetchPartition] = []
        for _ in range(count - 1):
            partitions.append(_PARTITION_V12(frame, pos))
            pos += 32
            # From version 17 on a partition may carry a directory id and a high watermark, of use to KRaft
            # only.
            pos = pos + 1 if frame[pos] == 0 else skip_tagged_fields(frame, pos)
        topics.append((key, partitions))
        pos = pos + 1 if frame[pos] == 0 else skip_tagged_fields(frame, pos)
    forgotten, pos = _read_forgotten_flexible(frame, pos, version, budget)
    if frame[pos] == 1:
        rack_id = ""
        pos += 1
    else:
        rack_id, pos = read_compact_string(frame, pos)
    if frame[pos] != 0:
        tags, pos = read_tagged_fields(frame, pos)
        if 0 in tags:
            read_compact_nullable_string(tags[0], 0)  # the cluster id, of use to KRaft only
        if version >= FIRST_WITH_REPLICA_STATE and _REPLICA_STATE_TAG in tags:
            replica_id, replica_epoch = _REPLICA_STATE(tags[_REPLICA_STATE_TAG])
            skip_tagged_fields(tags[_REPLICA_STATE_TAG], 12)
    return FetchRequest(replica_id, replica_epoch, *limits, topics, forgotten, rack_id)


def _read_forgotten_flexible(
    frame: memoryview, pos: int, version: int, budget: int
) -> tuple[list[tuple[TopicKey, list[int]]], int]:
    forgotten: list[tuple[TopicKey, list[int]]] = []
    if frame[pos] == 1:
        return forgotten, pos + 1
    topic_count, pos = read_uvarint(frame, pos)
    _check_count(topic_count - 1, budget)
    for _ in range(topic_count - 1):
        key, pos = _read_key(frame, pos, version)
        count, pos = read_uvarint(frame, pos)
        _check_count(count - 1, min(budget, (len(frame) - pos) // 4))
        budget -= count
        forgotten.append((key, list(struct.unpack_from(f">{count - 1}i", frame, pos))))
        pos = skip_tagged_fields(frame, pos + 4 * (count - 1))
    return forgotten, pos


def _read_key(frame: memoryview, pos: int, version: int) -> tuple[TopicKey, int]:
    if version >= FIRST_WITH_TOPIC_IDS:
        end = pos + 16
        if end > len(frame):
            raise DecodeError("topic id exceeds the request")
        return bytes(frame[pos:end]), end
    return read_compact_string(frame, pos)


def _decode_legacy(frame: memoryview, pos: int, version: int) -> FetchRequest:
    session_id, session_epoch = 0, -1
    if version >= 7:
        (
            replica_id, max_wait_ms, min_bytes, max_bytes, isolation_level, session_id, session_epoch
        ) = _LIMITS_V7(frame, pos)  # fmt: skip
        pos += 25
    else:
        replica_id, max_wait_ms, min_bytes, max_bytes, isolation_level = _LIMITS_V4(frame, pos)
        pos += 17
    (topic_count,) = _INT32_AT(frame, pos)
    pos += 4
    budget = MAX_PARTITIONS
    _check_count(topic_count, budget)
    topics: list[tuple[TopicKey, list[FetchPartition]]] = []
    for _ in range(topic_count):
        name, pos = read_string(frame, pos)
        (count,) = _INT32_AT(frame, pos)
        _check_count(count, budget)
        budget -= count
        partitions, pos = _read_partitions_legacy(frame, pos + 4, version, count)
        topics.append((name, partitions))
    forgotten: list[tuple[TopicKey, list[int]]] = []
    if version >= 7:
        (topic_count,) = _INT32_AT(frame, pos)
        pos += 4
        _check_count(topic_count, budget)
        for _ in range(topic_count):
            name, pos = read_string(frame, pos)
            (count,) = _INT32_AT(frame, pos)
            pos += 4
            _check_count(count, min(budget, (len(frame) - pos) // 4))
            budget -= count
            forgotten.append((name, list(struct.unpack_from(f">{count}i", frame, pos))))
            pos += 4 * count
    rack_id = ""
    if version >= 11:
        rack_id, pos = read_string(frame, pos)
    return FetchRequest(
        replica_id,
        -1,
        max_wait_ms,
        min_bytes,
        max_bytes,
        isolation_level,
        session_id,
        session_epoch,
        topics,
        forgotten,
        rack_id,
    )


def _read_partitions_legacy(
    frame: memoryview, pos: int, version: int, count: int
) -> tuple[list[FetchPartition], int]:
    partitions: list[FetchPartition] = []
    layout = _PARTITION_V9 if version >= 9 else _PARTITION_V5 if version >= 5 else _PARTITION_V4
    step = layout.size
    unpack = layout.unpack_from
    epoch = log_start = -1
    for _ in range(count):
        if version >= 9:
            index, epoch, offset, log_start, max_bytes = unpack(frame, pos)
        elif version >= 5:
            index, offset, log_start, max_bytes = unpack(frame, pos)
        else:
            index, offset, max_bytes = unpack(frame, pos)
        partitions.append((index, epoch, offset, -1, log_start, max_bytes))
        pos += step
    return partitions, pos


def _check_count(count: int, budget: int) -> None:
    if not 0 <= count <= budget:
        raise _bad_count(count)


def _bad_count(count: int) -> DecodeError:
    if count < 0:
        return DecodeError("null or negative array")
    return DecodeError(f"{count} entries are more than the request holds or {MAX_PARTITIONS}")


# --- responses ---

Part = bytes | memoryview | FileSlice


# Before the records: index, error, high watermark, last stable offset, log start offset, aborted
# transactions, preferred replica, length of the records. In flexible versions both lengths are varints; the
# records' has its own struct for each size.
_FIXED_V12 = struct.Struct(">ihqqq").pack
_ONE_BYTE_V12 = struct.Struct(">ihqqqBiB").pack
_TWO_BYTES_V12 = struct.Struct(">ihqqqBiBB").pack
_THREE_BYTES_V12 = struct.Struct(">ihqqqBiBBB").pack
_FIXED_V4 = struct.Struct(">ihqq").pack
_ABORTED_FLEXIBLE = struct.Struct(">qqB").pack
_ABORTED_LEGACY = struct.Struct(">qq").pack
_PREFIX_FLEXIBLE = struct.Struct(">iiBihi").pack
_PREFIX_V7 = struct.Struct(">iiihi").pack
_PREFIX_V4 = struct.Struct(">iii").pack
_DIVERGING_TAG = struct.Struct(">BBiqB").pack
_LEADER_TAG = struct.Struct(">BBiiB").pack
_SNAPSHOT_TAG = struct.Struct(">BBqiB").pack
TIER_TAG: Final = 10_000
"""Far above what Kafka may ever use; only the listener between brokers carries it."""
_TIER_TAG = encode_uvarint(TIER_TAG)
_TIER_NEWS = struct.Struct(">qq").pack
_DEFAULT_PAIR: Final = (-1, -1)
_NO_DETAILS: Final[tuple[Any, ...]] = (None, None, None, None)
_NULL_ARRAY: Final = b"\xff\xff\xff\xff"
_ONE_BYTE: Final = (b"\x00", b"\x01", b"\x02", b"\x03", b"\x04")


def encode_fetch_response(
    version: int,
    correlation_id: int,
    error_code: int,
    session_id: int,
    topics: Sequence[tuple[TopicKey, Sequence[tuple[Any, ...]]]],
    throttle_time_ms: int = 0,
    node_endpoints: Sequence[NodeEndpoint] = (),
) -> list[Part]:
    """Encode a whole response frame as parts in sending order; the first begins with the length prefix.

    A partition is `(index, error code, high watermark, last stable offset, log start offset, [(producer id,
    first offset), ...] | None, preferred read replica or -1, records | None)`, optionally followed by
    `(epoch, end offset) | None` where logs diverge, `(leader id, leader epoch) | None`, a snapshot `(end
    offset, epoch) | None` and `TierNews | None`. Records that are None are sent as empty, never as null, as
    Kafka does; records with a length of 0 are no part of the result.
    """
    try:
        if version >= FIRST_FLEXIBLE:
            parts, size = _encode_flexible(version, topics, node_endpoints)
            size += sum(map(len, parts[::2])) + 15
            prefix = _PREFIX_FLEXIBLE(size, correlation_id, 0, throttle_time_ms, error_code, session_id)
        else:
            parts, size = _encode_legacy(version, topics)
            size += sum(map(len, parts[::2]))
            if version >= 7:
                prefix = _PREFIX_V7(size + 14, correlation_id, throttle_time_ms, error_code, session_id)
            else:
                prefix = _PREFIX_V4(size + 8, correlation_id, throttle_time_ms)
    except (struct.error, IndexError, TypeError, ValueError, AttributeError) as error:
        raise EncodeError(f"Fetch response, version {version}: {error}") from error
    parts[0] = prefix + parts[0]  # type: ignore[operator]
    return parts


def _encode_flexible(
    version: int,
    topics: Sequence[tuple[TopicKey, Sequence[tuple[Any, ...]]]],
    node_endpoints: Sequence[NodeEndpoint],
) -> tuple[list[Part], int]:
    """Return the parts, alternating between bytes and records, and the total length of the records."""
    parts: list[Part] = []
    records_size = 0
    small: list[bytes] = []  # what was encoded since the last records, without `tail`
    tail = encode_uvarint(len(topics) + 1)
    for key, partitions in topics:
        if version < FIRST_WITH_TOPIC_IDS:
            name = encode_compact_string(key)
        elif type(key) is bytes and len(key) == 16:
            name = key
        else:
            raise EncodeError(f"version {version} carries topic ids of 16 bytes, not {key!r}")
        tail += name + encode_uvarint(len(partitions) + 1)
        for partition in partitions:
            if len(partition) == 8:
                index, error, high, stable, start, aborted, preferred, records = partition
                tags = b"\x00"
            else:
                index, error, high, stable, start, aborted, preferred, records = partition[:8]
                tags = _encode_partition_tags(partition)
            size = 1 if records is None else len(records) + 1
            if aborted:
                fixed = _FIXED_V12(index, error, high, stable, start) + _encode_aborted_flexible(aborted)
                fixed += _pack_int32(preferred) + encode_uvarint(size)
            else:
                count = 0 if aborted is None else 1
                if size < 0x80:
                    fixed = _ONE_BYTE_V12(index, error, high, stable, start, count, preferred, size)
                elif size < 0x200000:
                    low, middle, top = size & 0x7F | 0x80, size >> 7 & 0x7F, size >> 14
                    if top:
                        middle |= 0x80
                        fixed = _THREE_BYTES_V12(
                            index, error, high, stable, start, count, preferred, low, middle, top
                        )
                    else:
                        fixed = _TWO_BYTES_V12(
                            index, error, high, stable, start, count, preferred, low, middle
                        )
                else:
                    fixed = _FIXED_V12(index, error, high, stable, start)
                    fixed += _ONE_BYTE[count] + _pack_int32(preferred) + encode_uvarint(size)
            if size == 1:
                small.append(tail + fixed)
            else:
                if small:
                    small.append(tail)
                    tail = b"".join(small)
                    small.clear()
                parts.append(tail + fixed)
                parts.append(records)
                records_size += size - 1
            tail = tags
        tail += b"\x00"
    small.append(tail)
    small.append(encode_node_endpoints(node_endpoints) if node_endpoints and version >= 16 else b"\x00")
    parts.append(b"".join(small))
    return parts, records_size


def _encode_aborted_flexible(aborted: Sequence[tuple[int, int]]) -> bytes:
    parts = [encode_uvarint(len(aborted) + 1)]
    for producer_id, first_offset in aborted:
        parts.append(_ABORTED_FLEXIBLE(producer_id, first_offset, 0))
    return b"".join(parts)


def _encode_partition_tags(partition: tuple[Any, ...]) -> bytes:
    """Encode the tagged fields of a partition; what equals the schema's default is left out."""
    diverging, leader, snapshot, tier = (partition + _NO_DETAILS[len(partition) - 8 :])[8:]
    parts = []
    if diverging is not None and diverging != _DEFAULT_PAIR:
        parts.append(_DIVERGING_TAG(0, 13, *diverging, 0))
    if leader is not None and leader != _DEFAULT_PAIR:
        parts.append(_LEADER_TAG(1, 9, *leader, 0))
    if snapshot is not None and snapshot != _DEFAULT_PAIR:
        parts.append(_SNAPSHOT_TAG(2, 13, *snapshot, 0))
    if tier is not None:
        body = _TIER_NEWS(tier[0], tier[1]) + encode_compact_string(tier[2]) + b"\x00"
        parts.append(_TIER_TAG + encode_uvarint(len(body)) + body)
    return _ONE_BYTE[len(parts)] + b"".join(parts)


def _encode_legacy(
    version: int, topics: Sequence[tuple[TopicKey, Sequence[tuple[Any, ...]]]]
) -> tuple[list[Part], int]:
    parts: list[Part] = []
    records_size = 0
    pending = [_pack_int32(len(topics))]
    append = pending.append
    for key, partitions in topics:
        append(encode_string(key))
        append(_pack_int32(len(partitions)))
        for partition in partitions:
            index, error, high, stable, start, aborted, preferred, records = partition[:8]
            size = 0 if records is None else len(records)
            if version >= 5:
                append(_FIXED_V12(index, error, high, stable, start))
            else:
                append(_FIXED_V4(index, error, high, stable))
            if aborted is None:
                append(_NULL_ARRAY)
            else:
                append(_pack_int32(len(aborted)))
                for entry in aborted:
                    append(_ABORTED_LEGACY(*entry))
            if version >= 11:
                append(_pack_int32(preferred))
            append(_pack_int32(size))
            if size:
                parts.append(b"".join(pending))
                parts.append(records)
                pending.clear()
                records_size += size
    if pending:
        parts.append(b"".join(pending))
    return parts, records_size
