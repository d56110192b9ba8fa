"""A follower's side of Fetch, versions 15 to 18: requests out, responses in; `wire.fetch` is the leader's side.

Records are never copied: they are slices of the response, and as writable and as short-lived as it is. What only
consumers or KRaft need (isolation level, aborted transactions, preferred replicas, snapshots, endpoints) is sent as the
schema's default and skipped in answers.

Source: Apache Kafka, `FetchRequest.json`, `FetchResponse.json`; KIP-595 (divergence), KIP-903 (replica state), KIP-951
(current leader).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from strandline_broker.wire.errors import DecodeError, EncodeError
from strandline_broker.wire.fetch import TIER_TAG, FetchPartition, TierNews
from strandline_broker.wire.primitives import (
    MALFORMED,
    Buffer,
    encode_compact_string,
    encode_uvarint,
    read_compact_string,
    read_tagged_fields,
    read_uvarint,
    skip_tagged_fields,
)
from strandline_broker.wire.produce import MAX_PARTITIONS

FIRST_VERSION: Final = 15
LAST_VERSION: Final = 18

_TOPIC_ID_BYTES: Final = 16
# Maximal wait, minimal bytes, maximal bytes, isolation level, session id, session epoch.
_LIMITS = struct.Struct(">iiiBii").pack
_PARTITION = struct.Struct(">iiqiqiB").pack
# One tagged field, number 1, of 13 bytes: replica id, replica epoch, no tagged fields.
_REPLICA_STATE = struct.Struct(">BBBiqB").pack
_NO_REPLICA: Final = (-1, -1)

# Throttle time, error, session id.
_RESPONSE = struct.Struct(">ihi").unpack_from
# Index, error, high watermark, last stable offset, log start offset, aborted transactions, preferred replica, and the
# first byte of the records' length.
_FETCHED = struct.Struct(">ihqqqBiB").unpack_from
_PREFERRED_BYTES: Final = 4
_DIVERGING_TAG: Final = 0
_LEADER_TAG: Final = 1
_DIVERGING = struct.Struct(">iq").unpack_from
_LEADER = struct.Struct(">ii").unpack_from
_TIER_NEWS = struct.Struct(">qq").unpack_from
_DEFAULT_PAIR: Final = (-1, -1)


class FetchedPartition(NamedTuple):
    """What a leader answers for one partition."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    error_code: int
    high_watermark: int
    log_start_offset: int
    diverging: tuple[int, int] | None
    """(epoch, end offset) of the last epoch that leader and follower may have in common, where their logs part."""
    leader: tuple[int, int] | None
    """(broker id, epoch) of the leader, where the one that answers is not."""
    records: memoryview
    """Whole batches, perhaps followed by the start of another one; empty where there are none."""
    tier: TierNews | None = None
    """What the leader of a tiered partition says of the bucket, where that is news."""


class FetchResponse(NamedTuple):
    """A decoded Fetch response: topics in the leader's order, each with its id of 16 bytes."""

    error_code: int
    session_id: int
    topics: list[tuple[bytes, list[FetchedPartition]]]


def encode_fetch_request(
    version: int,
    *,
    replica_id: int,
    replica_epoch: int,
    max_wait_ms: int,
    min_bytes: int,
    max_bytes: int,
    session_id: int,
    session_epoch: int,
    topics: Sequence[tuple[bytes, Sequence[FetchPartition]]],
    forgotten: Sequence[tuple[bytes, Sequence[int]]],
    rack_id: str = "",
) -> bytes:
    """Return the body of a Fetch request, of version 15 to 18; topics are named by their ids of 16 bytes.

    Raises EncodeError.
    """
    _check_version(version, EncodeError)
    try:
        parts = [
            _LIMITS(max_wait_ms, min_bytes, max_bytes, 0, session_id, session_epoch),
            encode_uvarint(len(topics) + 1),
        ]
        append = parts.append
        for topic_id, partitions in topics:
            append(_checked_id(topic_id))
            append(encode_uvarint(len(partitions) + 1))
            for index, epoch, offset, last_epoch, log_start, partition_max_bytes in partitions:
                append(_PARTITION(index, epoch, offset, last_epoch, log_start, partition_max_bytes, 0))
            append(b"\x00")
        append(encode_uvarint(len(forgotten) + 1))
        for topic_id, indexes in forgotten:
            append(_checked_id(topic_id))
            append(encode_uvarint(len(indexes) + 1))
            append(struct.pack(f">{len(indexes)}iB", *indexes, 0))
        append(encode_compact_string(rack_id))
        if (replica_id, replica_epoch) == _NO_REPLICA:
            append(b"\x00")
        else:
            append(_REPLICA_STATE(1, 1, 13, replica_id, replica_epoch, 0))
    except (struct.error, TypeError, ValueError) as error:
        raise EncodeError(f"Fetch request, version {version}: {error}") from error
    return b"".join(parts)


def _checked_id(topic_id: bytes) -> bytes:
    if type(topic_id) is not bytes or len(topic_id) != _TOPIC_ID_BYTES:
        raise EncodeError(f"a topic id has 16 bytes, not {topic_id!r}")
    return topic_id


def _check_version(version: int, error: type[EncodeError] | type[DecodeError]) -> None:
    if not FIRST_VERSION <= version <= LAST_VERSION:
        raise error(f"followers fetch with versions {FIRST_VERSION} to {LAST_VERSION}, not {version}")


def decode_fetch_response(body: memoryview, version: int) -> FetchResponse:
    """Decode the body of a Fetch response of version 15 to 18; bytes behind it are refused. Raises DecodeError."""
    _check_version(version, DecodeError)
    try:
        return _decode(body)
    except MALFORMED as error:
        raise DecodeError(f"malformed Fetch response: {error}") from error


def _decode(body: memoryview) -> FetchResponse:
    size = len(body)
    _, error_code, session_id = _RESPONSE(body, 0)
    topic_count, pos = read_uvarint(body, 10)
    budget = MAX_PARTITIONS
    if not 0 < topic_count <= budget:
        raise _bad_count(topic_count - 1)
    topics: list[tuple[bytes, list[FetchedPartition]]] = []
    for _ in range(topic_count - 1):
        end = pos + _TOPIC_ID_BYTES
        if end > size:
            raise DecodeError("topic id exceeds the response")
        topic_id = bytes(body[pos:end])
        count, pos = read_uvarint(body, end)
        if not 0 < count <= budget:
            raise _bad_count(count - 1)
        budget -= count
        partitions: list[FetchedPartition] = []
        for _ in range(count - 1):
            index, error, high, _, start, aborted, _, length = _FETCHED(body, pos)
            pos += 36
            if aborted > 1:
                length, pos = _skip_aborted(body, pos - 6)
            elif length > 0x7F:
                length, pos = read_uvarint(body, pos - 1)
            end = pos + length - 1 if length else pos  # null records are none
            if end > size:
                raise DecodeError(f"records of {length - 1} bytes where {size - pos} are left")
            records = body[pos:end]
            if body[end] == 0:
                diverging = leader = tier = None
                pos = end + 1
            else:
                diverging, leader, tier, pos = _read_partition_tags(body, end)
            partitions.append(
                _new(FetchedPartition, (index, error, high, start, diverging, leader, records, tier))
            )
        topics.append((topic_id, partitions))
        pos = pos + 1 if body[pos] == 0 else skip_tagged_fields(body, pos)
    pos = skip_tagged_fields(body, pos)
    if pos != size:
        raise DecodeError(f"{size - pos} bytes behind the Fetch response")
    return FetchResponse(error_code, session_id, topics)


_new = tuple.__new__


def _skip_aborted(body: memoryview, pos: int) -> tuple[int, int]:
    """Skip the aborted transactions and the preferred replica; return the records' length and where they begin."""
    count, pos = read_uvarint(body, pos)
    for _ in range(count - 1):
        pos = skip_tagged_fields(body, pos + 16)  # producer id, first offset
    return read_uvarint(body, pos + _PREFERRED_BYTES)


def _read_partition_tags(
    body: memoryview, pos: int
) -> tuple[tuple[int, int] | None, tuple[int, int] | None, TierNews | None, int]:
    """Return (diverging, leader, tier, position behind the tagged fields); pairs that say nothing are None."""
    tags, pos = read_tagged_fields(body, pos)
    pairs: list[tuple[int, int] | None] = []
    for tag, unpack, fixed in ((_DIVERGING_TAG, _DIVERGING, 12), (_LEADER_TAG, _LEADER, 8)):
        field = tags.get(tag)
        if field is None:
            pairs.append(None)
            continue
        pair = unpack(field)
        if skip_tagged_fields(field, fixed) != len(field):
            raise DecodeError(f"bytes are left in tagged field {tag} of a partition")
        pairs.append(None if pair == _DEFAULT_PAIR else pair)
    return pairs[0], pairs[1], _read_tier(tags[TIER_TAG]) if TIER_TAG in tags else None, pos


def _read_tier(field: Buffer) -> TierNews:
    tiered_through, local_log_start = _TIER_NEWS(field)
    segment_key, end = read_compact_string(field, 16)
    if skip_tagged_fields(field, end) != len(field):
        raise DecodeError(f"bytes are left in tagged field {TIER_TAG} of a partition")
    return TierNews(tiered_through, local_log_start, segment_key)


def _bad_count(count: int) -> DecodeError:
    if count < 0:
        return DecodeError("null array")
    return DecodeError(f"{count} entries are more than {MAX_PARTITIONS}")
