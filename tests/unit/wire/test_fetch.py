from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.wire import oracle

from strandline_broker.wire.errors import DecodeError, EncodeError
from strandline_broker.wire.fetch import decode_fetch, encode_fetch_response
from strandline_broker.wire.header import decode_request_header
from strandline_broker.wire.produce import MAX_PARTITIONS

VERSIONS = range(4, 19)
INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(min_size=1, max_size=300, alphabet="abc.-_é")
IDS = st.binary(min_size=16, max_size=16).filter(any)


def key_of(entity: Any, version: int) -> Any:
    return oracle.topic_id(entity.topic_id) if version >= 13 else entity.topic


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_requests_of_every_version_are_read_as_kio_wrote_them(version: int, data: st.DataObject) -> None:
    entity = data.draw(oracle.entities(oracle.request_schema(1, version)))
    frame = oracle.request_frame(entity)
    request = decode_fetch(frame, decode_request_header(frame).body_offset, version)
    replica = entity.replica_state if version >= 15 else entity
    assert request.replica_id == replica.replica_id
    assert request.replica_epoch == getattr(replica, "replica_epoch", -1)
    assert request.max_wait_ms == entity.max_wait // datetime.timedelta(milliseconds=1)
    for name, default in [
        ("min_bytes", None),
        ("max_bytes", 0x7FFFFFFF),
        ("isolation_level", 0),
        ("session_id", 0),
        ("session_epoch", -1),
        ("rack_id", ""),
    ]:
        assert getattr(request, name) == getattr(entity, name, default)
    assert request.topics == [
        (
            key_of(topic, version),
            [
                (
                    p.partition,
                    getattr(p, "current_leader_epoch", -1),
                    p.fetch_offset,
                    getattr(p, "last_fetched_epoch", -1),
                    getattr(p, "log_start_offset", -1),
                    p.partition_max_bytes,
                )
                for p in topic.partitions
            ],
        )
        for topic in entity.topics
    ]
    assert request.forgotten == [
        (key_of(topic, version), list(topic.partitions))
        for topic in getattr(entity, "forgotten_topics_data", ())
    ]


def sample_frame(version: int) -> tuple[memoryview, int]:
    schema = oracle.request_schema(1, version)
    types = oracle.types_beside(schema)
    key = {"topic_id": uuid.UUID(int=5)} if version >= 13 else {"topic": "topic"}
    values: dict[str, Any] = {"max_wait": datetime.timedelta(milliseconds=500), "min_bytes": 1}
    values["topics"] = (
        types["FetchTopic"](
            **key, partitions=(types["FetchPartition"](partition=3, fetch_offset=5, partition_max_bytes=9),)
        ),
    )
    if version < 15:
        values["replica_id"] = -1
    else:
        values["replica_state"] = types["ReplicaState"](replica_id=3, replica_epoch=4)
    if version >= 7:
        values["forgotten_topics_data"] = (types["ForgottenTopic"](**key, partitions=(1, 2)),)
    if version >= 11:
        values["rack_id"] = "rack"
    frame = oracle.request_frame(schema(**values))
    return frame, decode_request_header(frame).body_offset


@pytest.mark.parametrize("version", VERSIONS)
def test_every_truncation_is_a_decode_error(version: int) -> None:
    frame, body = sample_frame(version)
    decode_fetch(frame, body, version)
    for end in range(body, len(frame)):
        with pytest.raises(DecodeError):
            decode_fetch(frame[:end], body, version)


@pytest.mark.parametrize("version", [4, 12])
def test_absurd_counts_are_refused_before_anything_is_allocated(version: int) -> None:
    start = bytes(25 if version >= 7 else 17)
    count = b"\xff\xff\xff\xff\x0f" if version >= 12 else b"\x7f\xff\xff\xff"
    with pytest.raises(DecodeError, match="more than"):
        decode_fetch(memoryview(start + count + bytes(MAX_PARTITIONS)), 0, version)


class Unreadable:
    """Records of which nothing but the length may be asked."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


PAIR = st.none() | st.just((-1, -1)) | st.tuples(INT32, INT64)
LEADER = st.none() | st.tuples(INT32, INT32)
SNAPSHOT = st.none() | st.tuples(INT64, INT32)
SIZES = st.sampled_from([0, 1, 126, 127, 128])
PARTITION = st.tuples(
    INT32,
    st.integers(-1, 133),
    INT64,
    INT64,
    INT64,
    st.none() | st.lists(st.tuples(INT64, INT64), max_size=3),
    INT32,
    st.none() | SIZES,
)
DETAILED = st.builds(
    lambda p, d, n: p + d[:n], PARTITION, st.tuples(PAIR, LEADER, SNAPSHOT), st.integers(0, 3)
)
ENDPOINTS = st.lists(st.tuples(INT32, oracle.TEXT, INT32, st.none() | oracle.TEXT), max_size=3)


def kio_response(version: int, error: int, session: int, topics: Any, throttle: int, endpoints: Any) -> bytes:
    schema = oracle.response_schema(1, version)
    types = oracle.types_beside(schema)

    def partition(fields: tuple[Any, ...]) -> Any:
        index, code, high, stable, start, aborted, preferred, records, *details = fields
        diverging, leader, snapshot = (*details, None, None, None)[:3]
        values: dict[str, Any] = {
            "partition_index": index,
            "error_code": oracle.ErrorCode(code),
            "high_watermark": high,
            "last_stable_offset": stable,
            "aborted_transactions": None
            if aborted is None
            else tuple(types["AbortedTransaction"](producer_id=p, first_offset=o) for p, o in aborted),
            "records": bytes(records or 0),
        }
        if version >= 5:
            values["log_start_offset"] = start
        if version >= 11:
            values["preferred_read_replica"] = preferred
        if version >= 12:
            if diverging is not None:
                values["diverging_epoch"] = types["EpochEndOffset"](
                    epoch=diverging[0], end_offset=diverging[1]
                )
            if leader is not None:
                values["current_leader"] = types["LeaderIdAndEpoch"](
                    leader_id=leader[0], leader_epoch=leader[1]
                )
            if snapshot is not None:
                values["snapshot_id"] = types["SnapshotId"](end_offset=snapshot[0], epoch=snapshot[1])
        return types["PartitionData"](**values)

    def topic(key: Any, partitions: Any) -> Any:
        name = {"topic_id": uuid.UUID(bytes=key)} if version >= 13 else {"topic": key}
        return types["FetchableTopicResponse"](**name, partitions=tuple(partition(p) for p in partitions))

    values: dict[str, Any] = {
        "responses": tuple(topic(*entry) for entry in topics),
        "throttle_time": datetime.timedelta(milliseconds=throttle),
    }
    if version >= 7:
        values |= {"error_code": oracle.ErrorCode(error), "session_id": session}
    if version >= 16:
        values["node_endpoints"] = tuple(
            types["NodeEndpoint"](node_id=n, host=h, port=p, rack=r) for n, h, p, r in endpoints
        )
    return oracle.response_frame(schema(**values), 77)


def with_unreadable_records(topics: Any) -> Any:
    return [
        (key, [(*p[:7], None if p[7] is None else Unreadable(p[7]), *p[8:]) for p in parts])
        for key, parts in topics
    ]


def joined(parts: list[Any]) -> bytes:
    return b"".join(bytes(len(part)) if isinstance(part, Unreadable) else part for part in parts)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), error=st.integers(-1, 133), session=INT32, throttle=INT32, endpoints=ENDPOINTS)
def test_responses_of_every_version_equal_kio_byte_for_byte(
    version: int, data: st.DataObject, error: int, session: int, throttle: int, endpoints: Any
) -> None:
    keys: st.SearchStrategy[Any] = IDS if version >= 13 else NAMES
    topics = data.draw(st.lists(st.tuples(keys, st.lists(DETAILED, max_size=3)), max_size=3))
    parts = encode_fetch_response(
        version, 77, error, session, with_unreadable_records(topics), throttle, endpoints
    )
    assert joined(parts) == kio_response(version, error, session, topics, throttle, endpoints)
    assert isinstance(parts[0], bytes)
    assert all(len(part) for part in parts)


@pytest.mark.parametrize("version", VERSIONS)
def test_parts_alternate_between_our_bytes_and_records(version: int) -> None:
    key: str | bytes = bytes(15) + b"\x01" if version >= 13 else "t"
    first, second = Unreadable(10), Unreadable(20)
    partitions: list[tuple[Any, ...]] = [
        (0, 0, 1, 1, 0, None, -1, first),
        (1, 0, 1, 1, 0, [], -1, None),
        (2, 0, 1, 1, 0, None, -1, second),
    ]
    parts = encode_fetch_response(version, 1, 0, 0, [(key, partitions)])
    assert [part for part in parts if isinstance(part, Unreadable)] == [first, second]
    assert len(parts) == (5 if version >= 12 else 4)


@pytest.mark.parametrize("size", [16382, 16383, 16384, 2097150, 2097151, 2097152])
def test_records_of_every_length_of_a_varint(size: int) -> None:
    topics: Any = [("t", [(0, 0, 1, 1, 0, aborted, -1, size) for aborted in (None, [], [(1, 2)])])]
    parts = encode_fetch_response(12, 77, 0, 0, with_unreadable_records(topics))
    assert joined(parts) == kio_response(12, 0, 0, topics, 0, ())


def test_what_does_not_fit_the_version_is_our_bug() -> None:
    wrong: list[tuple[int, str | bytes]] = [(13, "name"), (12, bytes(16)), (4, bytes(16))]
    for version, key in wrong:
        with pytest.raises(EncodeError):
            encode_fetch_response(version, 1, 0, 0, [(key, [])])
    with pytest.raises(EncodeError):
        encode_fetch_response(13, 1, 0, 0, [(bytes(16), [(0, 0, 2**63, 0, 0, None, -1, None)])])
