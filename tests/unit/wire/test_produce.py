from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.wire import oracle

from strandline_broker.wire.errors import DecodeError, EncodeError
from strandline_broker.wire.header import decode_request_header
from strandline_broker.wire.produce import MAX_PARTITIONS, decode_produce, encode_produce_response

VERSIONS = range(3, 14)
INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(min_size=1, max_size=300, alphabet="abc.-_é")
IDS = st.binary(min_size=16, max_size=16).filter(any)


def expected_request(entity: Any) -> tuple[Any, ...]:
    by_id = type(entity).__version__ >= 13
    return (
        entity.transactional_id,
        entity.acks,
        entity.timeout // datetime.timedelta(milliseconds=1),
        [
            (
                oracle.topic_id(topic.topic_id) if by_id else topic.name,
                [(p.index, p.records) for p in topic.partition_data],
            )
            for topic in entity.topic_data
        ],
    )


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_requests_of_every_version_are_read_as_kio_wrote_them(version: int, data: st.DataObject) -> None:
    entity = data.draw(oracle.entities(oracle.request_schema(0, version)))
    frame = oracle.request_frame(entity)
    header = decode_request_header(frame)
    request = decode_produce(frame, header.body_offset, version)
    topics = [
        (key, [(i, None if r is None else bytes(r)) for i, r in partitions])
        for key, partitions in request.topics
    ]
    assert (request.transactional_id, request.acks, request.timeout_ms, topics) == expected_request(entity)


def produce_frame(version: int, records: bytes | None) -> tuple[memoryview, int]:
    schema = oracle.request_schema(0, version)
    types = oracle.types_beside(schema)
    topic = {"topic_id": None} if version >= 13 else {"name": "t"}
    entity = schema(
        transactional_id=None,
        acks=-1,
        timeout=datetime.timedelta(seconds=30),
        topic_data=(
            types["TopicProduceData"](
                **topic, partition_data=(types["PartitionProduceData"](index=3, records=records),)
            ),
        ),
    )
    frame = oracle.request_frame(entity)
    return frame, decode_request_header(frame).body_offset


@pytest.mark.parametrize("version", VERSIONS)
def test_records_are_writable_slices_of_the_frame(version: int) -> None:
    frame, body = produce_frame(version, bytes(range(200)))
    records = decode_produce(frame, body, version).topics[0][1][0][1]
    assert records is not None
    records[0] = 99
    assert bytes(frame).count(bytes([99, 1, 2, 3])) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_null_and_empty_records_differ(version: int) -> None:
    for records in (None, b""):
        frame, body = produce_frame(version, records)
        ((_, ((_, found),)),) = decode_produce(frame, body, version).topics
        assert found == records


@pytest.mark.parametrize("version", VERSIONS)
def test_every_truncation_is_a_decode_error(version: int) -> None:
    frame, body = produce_frame(version, b"x" * 150)
    for end in range(body, len(frame)):
        with pytest.raises(DecodeError):
            decode_produce(frame[:end], body, version)


@pytest.mark.parametrize("version", [3, 9])
def test_absurd_counts_are_refused_before_anything_is_allocated(version: int) -> None:
    count = b"\xff\xff\xff\xff\x0f" if version >= 9 else b"\x7f\xff\xff\xff"
    start = b"\x00" if version >= 9 else b"\xff\xff"
    frame = memoryview(bytearray(start + b"\xff\xff\x00\x00\x00\x01" + count + bytes(MAX_PARTITIONS)))
    with pytest.raises(DecodeError, match="more than"):
        decode_produce(frame, 0, version)


PARTITION = st.tuples(INT32, st.integers(-1, 133), INT64, st.just(-1) | st.integers(0, 2**41), INT64)
DETAILS = st.tuples(
    st.none() | oracle.TEXT,
    st.lists(st.tuples(INT32, st.none() | oracle.TEXT), max_size=3).map(tuple),
    st.none() | st.tuples(INT32, INT32),
)
DETAILED = st.builds(lambda p, d, n: p + d[:n], PARTITION, DETAILS, st.integers(0, 3))
ENDPOINTS = st.lists(st.tuples(INT32, oracle.TEXT, INT32, st.none() | oracle.TEXT), max_size=3)


def kio_response(version: int, topics: Any, throttle: int, endpoints: Any) -> bytes:
    schema = oracle.response_schema(0, version)
    types = oracle.types_beside(schema)

    def partition(fields: tuple[Any, ...]) -> Any:
        index, error, base_offset, append_time, log_start, *details = fields
        defaults: list[Any] = [None, (), None]
        message, errors, leader = details + defaults[len(details) :]
        values: dict[str, Any] = {
            "index": index,
            "error_code": oracle.ErrorCode(error),
            "base_offset": base_offset,
        }
        values["log_append_time"] = (
            None if append_time == -1 else datetime.datetime.fromtimestamp(append_time / 1000, tz=oracle.UTC)
        )
        if version >= 5:
            values["log_start_offset"] = log_start
        if version >= 8:
            kind = types["BatchIndexAndErrorMessage"]
            values["error_message"] = message
            values["record_errors"] = tuple(
                kind(batch_index=i, batch_index_error_message=m) for i, m in errors
            )
        if version >= 10 and leader is not None:
            values["current_leader"] = types["LeaderIdAndEpoch"](leader_id=leader[0], leader_epoch=leader[1])
        return types["PartitionProduceResponse"](**values)

    def topic(key: Any, partitions: Any) -> Any:
        name = {"topic_id": uuid.UUID(bytes=key)} if version >= 13 else {"name": key}
        return types["TopicProduceResponse"](
            **name, partition_responses=tuple(partition(p) for p in partitions)
        )

    values: dict[str, Any] = {
        "responses": tuple(topic(*entry) for entry in topics),
        "throttle_time": datetime.timedelta(milliseconds=throttle),
    }
    if version >= 10:
        values["node_endpoints"] = tuple(
            types["NodeEndpoint"](node_id=n, host=h, port=p, rack=r) for n, h, p, r in endpoints
        )
    return oracle.response_frame(schema(**values), 77)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), throttle=INT32, endpoints=ENDPOINTS)
def test_responses_of_every_version_equal_kio_byte_for_byte(
    version: int, data: st.DataObject, throttle: int, endpoints: Any
) -> None:
    keys: st.SearchStrategy[Any] = IDS if version >= 13 else NAMES
    topics = data.draw(st.lists(st.tuples(keys, st.lists(DETAILED, max_size=3)), max_size=3))
    ours = encode_produce_response(version, 77, topics, throttle, endpoints)
    assert ours == kio_response(version, topics, throttle, endpoints)


def test_counts_that_need_two_bytes() -> None:
    topics = [(f"topic-{i}" * 30, [(p, 0, i, -1, 0) for p in range(130)]) for i in range(130)]
    for version in (8, 12):
        assert encode_produce_response(version, 77, topics) == kio_response(version, topics, 0, ())


def test_what_does_not_fit_the_version_is_our_bug() -> None:
    with pytest.raises(EncodeError):
        encode_produce_response(13, 1, [("name", [])])
    with pytest.raises(EncodeError):
        encode_produce_response(12, 1, [(bytes(16), [])])
    with pytest.raises(EncodeError):
        encode_produce_response(5, 1, [(bytes(16), [])])
    with pytest.raises(EncodeError):
        encode_produce_response(9, 1, [("t", [(0, 99999, 0, -1, 0)])])
