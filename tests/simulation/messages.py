"""The requests of simulated clients, written out by hand in old, plain versions: a schedule sends thousands of them.

Deliberately independent of the product's codec, as `benchmarks.requests` is. Layouts are those of Apache Kafka's message
schemas. Rare requests go through `wire.cold` (admin.py).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

PRODUCE, FETCH, LIST_OFFSETS, METADATA = 0, 1, 2, 3
OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 8, 9, 10
JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP = 11, 12, 13, 14
INIT_PRODUCER_ID = 22

_PRODUCE_VERSION, _FETCH_VERSION, _LIST_OFFSETS_VERSION, _METADATA_VERSION = 8, 11, 5, 8
_i16 = struct.Struct(">h").pack
_i32 = struct.Struct(">i").pack
_i64 = struct.Struct(">q").pack
_NUMBERS = {
    size: struct.Struct(f">{letter}").unpack_from for size, letter in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))
}
_HEADER = struct.Struct(">hhi").pack
_FETCH_LIMITS = struct.Struct(">iiiibii").pack
_FETCH_PARTITION = struct.Struct(">iiqqi").pack
_PRODUCED = struct.Struct(">ihqqq").unpack_from
_FETCHED = struct.Struct(">ihqqq").unpack_from


class Reader:
    """Reads an answer, after its correlation id, from front to back."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 4

    def number(self, size: int) -> int:
        """Return a signed integer of so many bytes."""
        start = self.position
        self.position = start + size
        number: int = _NUMBERS[size](self.data, start)[0]
        return number

    def string(self) -> str:
        """Return a string; null is empty."""
        return self._bytes(self.number(2)).decode()

    def blob(self) -> bytes:
        """Return bytes; null is empty."""
        return self._bytes(self.number(4))

    def _bytes(self, length: int) -> bytes:
        if length <= 0:
            return b""
        start = self.position
        self.position = start + length
        return self.data[start : start + length]

    def numbers(self, size: int = 4) -> list[int]:
        """Return an array of integers."""
        return [self.number(size) for _ in range(self.number(4))]


def _string(text: str | None) -> bytes:
    if text is None:
        return b"\xff\xff"
    data = text.encode()
    return _i16(len(data)) + data


def _blob(data: bytes) -> bytes:
    return _i32(len(data)) + data


def _frame(key: int, version: int, correlation_id: int, client: str, body: bytes) -> bytes:
    head = _HEADER(key, version, correlation_id) + _string(client)
    return _i32(len(head) + len(body)) + head + body


# -- produce and fetch ---------------------------------------------------------------------------------------------


class Produced(NamedTuple):
    """The answer for one partition."""

    error: int
    base_offset: int


def produce(
    correlation_id: int, client: str, topic: str, partition: int, batch: bytes, acks: int, timeout_ms: int
) -> bytes:
    """Return a request with one batch."""
    body = (
        b"\xff\xff" + _i16(acks) + _i32(timeout_ms) + _i32(1) + _string(topic) + _i32(1) + _i32(partition)
    ) + _blob(batch)
    return _frame(PRODUCE, _PRODUCE_VERSION, correlation_id, client, body)


def read_produced(answer: bytes) -> Produced:
    """Decode the answer to `produce`."""
    name_length = int.from_bytes(answer[8:10], "big")
    _, error, base_offset, _, _ = _PRODUCED(answer, 14 + name_length)
    return Produced(error, base_offset)


class FetchFrom(NamedTuple):
    """One partition of a fetch."""

    partition: int
    leader_epoch: int
    offset: int


class Fetched(NamedTuple):
    """What came for one partition."""

    topic: str
    partition: int
    error: int
    high_watermark: int
    log_start: int
    records: memoryview


def fetch(
    correlation_id: int,
    client: str,
    topics: Sequence[tuple[str, Sequence[FetchFrom]]],
    *,
    max_wait_ms: int,
    max_bytes: int,
) -> bytes:
    """Return a consumer's fetch without a session."""
    parts = [_FETCH_LIMITS(-1, max_wait_ms, 1, max_bytes, 0, 0, -1), _i32(len(topics))]
    for topic, wanted in topics:
        parts += (_string(topic), _i32(len(wanted)))
        parts += (_FETCH_PARTITION(w.partition, w.leader_epoch, w.offset, -1, max_bytes) for w in wanted)
    parts += (_i32(0), _string(""))
    return _frame(FETCH, _FETCH_VERSION, correlation_id, client, b"".join(parts))


def read_fetched(answer: bytes) -> list[Fetched]:
    """Decode the answer to `fetch`."""
    view = memoryview(answer)
    reader = Reader(answer)
    reader.position = 14
    fetched: list[Fetched] = []
    for _ in range(reader.number(4)):
        topic = reader.string()
        for _ in range(reader.number(4)):
            index, error, high_watermark, _, start = _FETCHED(answer, reader.position)
            reader.position += 30
            for _ in range(max(0, reader.number(4))):
                reader.position += 16
            reader.position += 4
            length = max(0, reader.number(4))
            records = view[reader.position : reader.position + length]
            reader.position += length
            fetched.append(Fetched(topic, index, error, high_watermark, start, records))
    return fetched


class FoundOffset(NamedTuple):
    """The answer to a lookup: -1 for nothing."""

    error: int
    timestamp: int
    offset: int


def list_offsets(
    correlation_id: int, client: str, topic: str, partition: int, leader_epoch: int, timestamp: int
) -> bytes:
    """Ask for the first offset whose record is not before a time (ms), or for a special one."""
    body = _i32(-1) + b"\0" + _i32(1) + _string(topic) + _i32(1) + _i32(partition) + _i32(leader_epoch)
    return _frame(LIST_OFFSETS, _LIST_OFFSETS_VERSION, correlation_id, client, body + _i64(timestamp))


def read_found(answer: bytes) -> FoundOffset:
    """Decode the answer to `list_offsets`."""
    reader = Reader(answer)
    reader.number(4)
    reader.number(4)
    reader.string()
    reader.number(4)
    reader.number(4)
    return FoundOffset(reader.number(2), reader.number(8), reader.number(8))


# -- metadata ------------------------------------------------------------------------------------------------------


class Leader(NamedTuple):
    """Who leads a partition, as some broker knows it."""

    broker: int
    epoch: int


class Metadata(NamedTuple):
    """Brokers by id, and leaders by topic and partition."""

    brokers: dict[int, tuple[str, int]]
    leaders: dict[tuple[str, int], Leader]


def metadata(correlation_id: int, client: str) -> bytes:
    """Ask for all topics."""
    return _frame(METADATA, _METADATA_VERSION, correlation_id, client, _i32(-1) + b"\0\0\0")


def read_metadata(answer: bytes) -> Metadata:
    """Decode the answer to `metadata`."""
    reader = Reader(answer)
    reader.number(4)
    brokers: dict[int, tuple[str, int]] = {}
    for _ in range(reader.number(4)):
        node = reader.number(4)
        brokers[node] = (reader.string(), reader.number(4))
        reader.string()
    reader.string()
    reader.number(4)
    leaders: dict[tuple[str, int], Leader] = {}
    for _ in range(reader.number(4)):
        reader.number(2)
        topic = reader.string()
        reader.number(1)
        for _ in range(reader.number(4)):
            reader.number(2)
            index, broker, epoch = reader.number(4), reader.number(4), reader.number(4)
            for _ in range(3):
                reader.numbers()
            leaders[topic, index] = Leader(broker, epoch)
        reader.number(4)
    return Metadata(brokers, leaders)


# -- producers' ids and groups -------------------------------------------------------------------------------------


def init_producer_id(correlation_id: int, client: str) -> bytes:
    """Ask for a producer id."""
    return _frame(INIT_PRODUCER_ID, 1, correlation_id, client, _string(None) + _i32(60_000))


def read_producer_id(answer: bytes) -> tuple[int, int, int]:
    """Return (error, producer id, epoch)."""
    reader = Reader(answer)
    reader.number(4)
    return reader.number(2), reader.number(8), reader.number(2)


def find_coordinator(correlation_id: int, client: str, group: str) -> bytes:
    """Ask who coordinates a group."""
    return _frame(FIND_COORDINATOR, 2, correlation_id, client, _string(group) + b"\0")


def read_coordinator(answer: bytes) -> tuple[int, int]:
    """Return (error, broker id)."""
    reader = Reader(answer)
    reader.number(4)
    error = reader.number(2)
    reader.string()
    return error, reader.number(4)


class Joined(NamedTuple):
    """The answer to a join; `members` is filled for the leader only."""

    error: int
    generation: int
    leader: str
    member: str
    members: list[str]


def join_group(
    correlation_id: int, client: str, group: str, member: str, *, session_ms: int, rebalance_ms: int
) -> bytes:
    """Join with the one protocol there is."""
    body = _string(group) + _i32(session_ms) + _i32(rebalance_ms) + _string(member) + _string(None)
    body += _string("consumer") + _i32(1) + _string("range") + _blob(b"")
    return _frame(JOIN_GROUP, 5, correlation_id, client, body)


def read_joined(answer: bytes) -> Joined:
    """Decode the answer to `join_group`."""
    reader = Reader(answer)
    reader.number(4)
    error, generation = reader.number(2), reader.number(4)
    reader.string()
    leader, member = reader.string(), reader.string()
    members = []
    for _ in range(reader.number(4)):
        members.append(reader.string())
        reader.string()
        reader.blob()
    return Joined(error, generation, leader, member, members)


def sync_group(
    correlation_id: int, client: str, group: str, generation: int, member: str, assignments: dict[str, bytes]
) -> bytes:
    """Give (as the leader) or ask for (as a member) an assignment."""
    body = _string(group) + _i32(generation) + _string(member) + _string(None) + _i32(len(assignments))
    for name, assignment in assignments.items():
        body += _string(name) + _blob(assignment)
    return _frame(SYNC_GROUP, 3, correlation_id, client, body)


def read_synced(answer: bytes) -> tuple[int, bytes]:
    """Return (error, assignment)."""
    reader = Reader(answer)
    reader.number(4)
    return reader.number(2), reader.blob()


def heartbeat(correlation_id: int, client: str, group: str, generation: int, member: str) -> bytes:
    """Say that a member lives."""
    body = _string(group) + _i32(generation) + _string(member) + _string(None)
    return _frame(HEARTBEAT, 3, correlation_id, client, body)


def leave_group(correlation_id: int, client: str, group: str, member: str) -> bytes:
    """Leave."""
    return _frame(LEAVE_GROUP, 2, correlation_id, client, _string(group) + _string(member))


def read_error(answer: bytes) -> int:
    """Return the error of an answer that holds nothing else (heartbeat, leave)."""
    reader = Reader(answer)
    reader.number(4)
    return reader.number(2)


def offset_commit(
    correlation_id: int,
    client: str,
    group: str,
    generation: int,
    member: str,
    topic: str,
    offsets: dict[int, int],
) -> bytes:
    """Commit offsets of one topic."""
    body = _string(group) + _i32(generation) + _string(member) + _string(None) + _i32(1) + _string(topic)
    body += _i32(len(offsets))
    for partition, offset in offsets.items():
        body += _i32(partition) + _i64(offset) + _i32(-1) + _string("")
    return _frame(OFFSET_COMMIT, 7, correlation_id, client, body)


def read_committed(answer: bytes) -> dict[int, int]:
    """Return the error of each partition."""
    reader = Reader(answer)
    reader.number(4)
    errors: dict[int, int] = {}
    for _ in range(reader.number(4)):
        reader.string()
        for _ in range(reader.number(4)):
            partition = reader.number(4)
            errors[partition] = reader.number(2)
    return errors


def offset_fetch(
    correlation_id: int, client: str, group: str, topic: str, partitions: Sequence[int]
) -> bytes:
    """Ask for committed offsets of one topic."""
    body = _string(group) + _i32(1) + _string(topic) + _i32(len(partitions))
    body += b"".join(map(_i32, partitions))
    return _frame(OFFSET_FETCH, 5, correlation_id, client, body)


def read_offsets(answer: bytes) -> tuple[int, dict[int, int]]:
    """Return (error, offset per partition; -1 where none is committed)."""
    reader = Reader(answer)
    reader.number(4)
    offsets: dict[int, int] = {}
    error = 0
    for _ in range(reader.number(4)):
        reader.string()
        for _ in range(reader.number(4)):
            partition = reader.number(4)
            offsets[partition] = reader.number(8)
            reader.number(4)
            reader.string()
            error = error or reader.number(2)
    return error or reader.number(2), offsets
