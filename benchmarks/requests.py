"""The few Kafka requests that the raw clients send, as bytes made by hand.

Deliberately independent of the product's codec: a mistake there must not measure itself. Layouts are those of
the message schemas of Apache Kafka 4.2; versions are ones that common clients send.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import crc32c

CLIENT_ID = b"strandline-benchmark"

_PRODUCE, _FETCH, _METADATA, _CREATE_TOPICS, _ALTER_REASSIGNMENTS = 0, 1, 3, 19, 45
_PRODUCE_VERSION = 9  # flexible, topics by name: what librdkafka's and kafka-python's generation sends
_FETCH_VERSION = 11  # the last one that is neither flexible nor wants topic ids (from 13 on)
_METADATA_VERSION = 4
_CREATE_TOPICS_VERSION = 4
_ALTER_REASSIGNMENTS_VERSION = 0
_REQUEST_TIMEOUT_MS = 30_000

TOPIC_ALREADY_EXISTS = 36
NOT_YET_LEADER = (3, 5, 6)
"""UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER: ask again."""


class Batch(NamedTuple):
    """One encoded record batch (magic 2, uncompressed, no producer id) and the number of its records."""

    data: bytes
    records: int


def _varint(value: int) -> bytes:
    zigzag = (value << 1) ^ (value >> 63)
    return _uvarint(zigzag & 0xFFFFFFFFFFFFFFFF)


def _uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _compact(text: bytes) -> bytes:
    return _uvarint(len(text) + 1) + text


def _string(text: bytes) -> bytes:
    return struct.pack(">h", len(text)) + text


def batch(values: list[bytes], timestamp_ms: int) -> Batch:
    """Return a record batch with these values, without keys and headers."""
    records = bytearray()
    for index, value in enumerate(values):
        body = b"\0\0" + _varint(index) + b"\x01" + _varint(len(value)) + value + b"\0"
        records += _varint(len(body)) + body
    last = len(values) - 1
    # From the attributes on: what the checksum covers (DefaultRecordBatch).
    covered = struct.pack(">hiqqqhii", 0, last, timestamp_ms, timestamp_ms, -1, -1, -1, len(values)) + records
    data = struct.pack(">qiibI", 0, 9 + len(covered), -1, 2, crc32c.crc32c(covered)) + covered
    return Batch(data, len(values))


def produce(topic: bytes, partition: int, data: bytes, correlation_id: int) -> bytes:
    """Return a framed Produce v9 request with acks=all for one partition."""
    # fmt: off
    body = (
        b"\0"  # no transactional id
        + struct.pack(">hi", -1, _REQUEST_TIMEOUT_MS)
        + b"\x02" + _compact(topic)
        + b"\x02" + struct.pack(">i", partition) + _uvarint(len(data) + 1) + data + b"\0"
        + b"\0\0"
    )
    # fmt: on
    return _framed(_PRODUCE, _PRODUCE_VERSION, correlation_id, body, flexible=True)


class ProduceAnswer(NamedTuple):
    """Where a Produce v9 answer for one partition keeps its fields, counted from the correlation id."""

    size: int
    """Length of the whole frame with its prefix, when there are no errors."""
    error_at: int


def produce_answer(topic: bytes) -> ProduceAnswer:
    """Return the layout of the answers to `produce(topic, ...)`."""
    error_at = 4 + 1 + 1 + len(_compact(topic)) + 1 + 4
    size = 4 + error_at + 2 + 3 * 8 + 1 + 1 + 1 + 1 + 4 + 1
    return ProduceAnswer(size, error_at)


def fetch(
    topic: bytes,
    offsets: Mapping[int, int],
    correlation_id: int,
    *,
    max_wait_ms: int,
    max_bytes: int,
    partition_max_bytes: int,
) -> bytes:
    """Return a framed Fetch v11 request of a consumer, from these offsets by partition, without a session."""
    body = struct.pack(">iiiibii", -1, max_wait_ms, 1, max_bytes, 0, 0, -1)
    body += struct.pack(">i", 1) + _string(topic) + struct.pack(">i", len(offsets))
    for partition, offset in offsets.items():
        body += struct.pack(">iiqqi", partition, -1, offset, -1, partition_max_bytes)
    body += struct.pack(">i", 0) + _string(b"")  # nothing forgotten, no rack
    return _framed(_FETCH, _FETCH_VERSION, correlation_id, body)


def alter_reassignments(topic: bytes, targets: Mapping[int, Sequence[int]], correlation_id: int) -> bytes:
    """Return a framed AlterPartitionReassignments v0 request for replicas by partition of one topic."""
    # fmt: off
    body = struct.pack(">i", _REQUEST_TIMEOUT_MS) + b"\x02" + _compact(topic) + _uvarint(len(targets) + 1)
    for partition, replicas in targets.items():
        body += (struct.pack(">i", partition) + _uvarint(len(replicas) + 1)
                 + b"".join(struct.pack(">i", replica) for replica in replicas) + b"\0")
    # fmt: on
    return _framed(
        _ALTER_REASSIGNMENTS, _ALTER_REASSIGNMENTS_VERSION, correlation_id, body + b"\0\0", flexible=True
    )


def alter_reassignments_error(frame: bytes) -> int:
    """Return the first error code of an AlterPartitionReassignments v0 answer for one topic with one partition."""
    at = 4 + 1 + 4  # correlation id, tags of the header, throttle time
    (code,) = struct.unpack_from(">h", frame, at)
    at += 2
    at += 1 + max(frame[at] - 1, 0)  # compact message, null or short
    if code or frame[at] <= 1:
        return int(code)
    at += 1
    at += frame[at]  # compact name: its length plus one, so this is the count of partitions
    at += 1 + 4
    return int(struct.unpack_from(">h", frame, at)[0])


def metadata(topic: bytes, correlation_id: int) -> bytes:
    """Return a framed Metadata v4 request for one topic, without creating it."""
    body = struct.pack(">i", 1) + _string(topic) + b"\0"
    return _framed(_METADATA, _METADATA_VERSION, correlation_id, body)


def metadata_of_all(correlation_id: int) -> bytes:
    """Return a framed Metadata v4 request for all topics."""
    return _framed(_METADATA, _METADATA_VERSION, correlation_id, struct.pack(">i", -1) + b"\0")


def leaders(frame: bytes) -> list[tuple[int, int]] | None:
    """Return (error code, leader) per partition of a Metadata v4 answer, None if the topic has an error."""
    at = 4 + 4  # correlation id, throttle time
    (brokers,) = struct.unpack_from(">i", frame, at)
    at += 4
    for _ in range(brokers):
        at = after_string(frame, at + 4) + 4
        at = after_string(frame, at)
    at = after_string(frame, at) + 4  # cluster id, controller id
    at += 4  # topics: the one that was asked for
    (error,) = struct.unpack_from(">h", frame, at)
    at = after_string(frame, at + 2) + 1
    if error:
        return None
    (count,) = struct.unpack_from(">i", frame, at)
    at += 4
    found = []
    for _ in range(count):
        code, _partition, leader = struct.unpack_from(">hii", frame, at)
        found.append((code, leader))
        at += 10
        for _ in range(2):  # replicas, in-sync replicas
            at += 4 + 4 * struct.unpack_from(">i", frame, at)[0]
    return found


def create_topic(topic: bytes, partitions: int, correlation_id: int) -> bytes:
    """Return a framed CreateTopics v4 request, replication factor 1."""
    body = (
        struct.pack(">i", 1) + _string(topic) + struct.pack(">ih", partitions, 1) + struct.pack(">ii", 0, 0)
    )
    body += struct.pack(">i", _REQUEST_TIMEOUT_MS) + b"\0"
    return _framed(_CREATE_TOPICS, _CREATE_TOPICS_VERSION, correlation_id, body)


def create_topic_error(frame: bytes) -> tuple[int, str]:
    """Return error code and message of a CreateTopics v4 answer for one topic."""
    at = after_string(frame, 4 + 4 + 4)
    code, length = struct.unpack_from(">hh", frame, at)
    return code, frame[at + 4 : at + 4 + max(length, 0)].decode(errors="replace")


def _framed(key: int, version: int, correlation_id: int, body: bytes, *, flexible: bool = False) -> bytes:
    header = (
        struct.pack(">hhi", key, version, correlation_id) + _string(CLIENT_ID) + (b"\0" if flexible else b"")
    )
    return struct.pack(">i", len(header) + len(body)) + header + body


def after_string(frame: bytes, at: int) -> int:
    """Return the position behind a string with a length of two bytes, which may be null."""
    length: int = struct.unpack_from(">h", frame, at)[0]
    return at + 2 + max(length, 0)
