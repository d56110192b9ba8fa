from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.wire import oracle

from strandline_broker.wire.errors import DecodeError, EncodeError
from strandline_broker.wire.fetch import TierNews, decode_fetch, encode_fetch_response
from strandline_broker.wire.fetch_client import (
    decode_fetch_response,
    encode_fetch_request,
)
from strandline_broker.wire.produce import MAX_PARTITIONS

VERSIONS = range(15, 19)
HEADER_BYTES = 9
"""Length prefix, correlation id and the empty tagged fields of a response header."""
INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
IDS = st.binary(min_size=16, max_size=16).filter(any)
DEFAULT = (-1, -1)


def either(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly a few of them; sometimes so many that the count takes two bytes."""
    return st.lists(values, max_size=3) | st.lists(values, min_size=128, max_size=130)


REQUESTS = st.fixed_dictionaries(
    {
        "replica_id": INT32,
        "replica_epoch": INT64,
        "max_wait_ms": INT32,
        "min_bytes": INT32,
        "max_bytes": INT32,
        "session_id": INT32,
        "session_epoch": INT32,
        "topics": st.lists(
            st.tuples(IDS, either(st.tuples(INT32, INT32, INT64, INT32, INT64, INT32))), max_size=3
        ),
        "forgotten": st.lists(st.tuples(IDS, either(INT32)), max_size=3),
        "rack_id": oracle.TEXT,
    }
)


def kio_request(version: int, fields: dict[str, Any]) -> bytes:
    schema = oracle.request_schema(1, version)
    types = oracle.types_beside(schema)
    partition_fields = (
        "partition",
        "current_leader_epoch",
        "fetch_offset",
        "last_fetched_epoch",
        "log_start_offset",
        "partition_max_bytes",
    )
    values = {
        name: fields[name] for name in ("min_bytes", "max_bytes", "session_id", "session_epoch", "rack_id")
    }
    values["max_wait"] = datetime.timedelta(milliseconds=fields["max_wait_ms"])
    values["replica_state"] = types["ReplicaState"](
        replica_id=fields["replica_id"], replica_epoch=fields["replica_epoch"]
    )
    values["topics"] = tuple(
        types["FetchTopic"](
            topic_id=uuid.UUID(bytes=topic_id),
            partitions=tuple(
                types["FetchPartition"](**dict(zip(partition_fields, partition, strict=True)))
                for partition in partitions
            ),
        )
        for topic_id, partitions in fields["topics"]
    )
    values["forgotten_topics_data"] = tuple(
        types["ForgottenTopic"](topic_id=uuid.UUID(bytes=topic_id), partitions=tuple(indexes))
        for topic_id, indexes in fields["forgotten"]
    )
    return bytes(oracle.body_frame(schema(**values)))


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=25, deadline=None)
@given(fields=REQUESTS)
def test_requests_equal_kio_byte_for_byte_and_our_leader_reads_them(
    version: int, fields: dict[str, Any]
) -> None:
    body = encode_fetch_request(version, **fields)
    assert body == kio_request(version, fields)
    request = decode_fetch(memoryview(bytearray(body)), 0, version)
    for name, value in fields.items():
        assert getattr(request, name) == value
    assert request.isolation_level == 0


def test_what_is_no_replica_is_left_out_as_the_schema_says() -> None:
    fields: dict[str, Any] = {
        "max_wait_ms": 0,
        "min_bytes": 0,
        "max_bytes": 0,
        "session_id": 0,
        "session_epoch": 0,
        "topics": (),
        "forgotten": (),
    }
    without = encode_fetch_request(15, replica_id=-1, replica_epoch=-1, **fields)
    assert without[-1] == 0
    assert len(encode_fetch_request(15, replica_id=1, replica_epoch=-1, **fields)) == len(without) + 15


@pytest.mark.parametrize(
    "wrong",
    [
        {"replica_id": 2**31},
        {"topics": [("name", [])]},
        {"topics": [(bytes(15), [])]},
        {"topics": [(bytes(16), [(0, 0, 2**63, 0, 0, 0)])]},
        {"topics": [(bytes(16), [(0, 0)])]},
        {"forgotten": [(bytes(16), [2**31])]},
        {"forgotten": [(bytes(17), [0])]},
    ],
)
def test_what_does_not_fit_is_our_bug(wrong: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "replica_id": 1,
        "replica_epoch": 1,
        "max_wait_ms": 500,
        "min_bytes": 1,
        "max_bytes": 1,
        "session_id": 0,
        "session_epoch": 0,
        "topics": [(bytes(16), [(0, 0, 0, 0, 0, 0)])],
        "forgotten": [],
    }
    encode_fetch_request(17, **fields)
    with pytest.raises(EncodeError):
        encode_fetch_request(17, **fields | wrong)
    for version in (14, 19):
        with pytest.raises(EncodeError):
            encode_fetch_request(version, **fields)
        with pytest.raises(DecodeError):
            decode_fetch_response(memoryview(bytearray(20)), version)


def pair_or_none(epoch: int, other: int) -> tuple[int, int] | None:
    return None if (epoch, other) == DEFAULT else (epoch, other)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_responses_of_every_version_are_read_as_kio_wrote_them(version: int, data: st.DataObject) -> None:
    entity = data.draw(oracle.entities(oracle.response_schema(1, version)))
    response = decode_fetch_response(oracle.body_frame(entity), version)
    assert (response.error_code, response.session_id) == (entity.error_code, entity.session_id)
    assert response.topics == [
        (
            oracle.topic_id(topic.topic_id),
            [
                (
                    p.partition_index,
                    p.error_code,
                    p.high_watermark,
                    p.log_start_offset,
                    pair_or_none(p.diverging_epoch.epoch, p.diverging_epoch.end_offset),
                    pair_or_none(p.current_leader.leader_id, p.current_leader.leader_epoch),
                    memoryview(p.records or b""),
                    None,
                )
                for p in topic.partitions
            ],
        )
        for topic in entity.responses
    ]


PAIR = st.none() | st.tuples(INT32, INT64)
PARTITION = st.tuples(
    INT32,
    st.integers(-1, 133),
    INT64,
    INT64,
    INT64,
    st.none() | either(st.tuples(INT64, INT64)),
    INT32,
    st.none() | st.binary(max_size=3) | st.integers(100, 20_000).map(bytes),
)
DETAILED = st.builds(
    lambda partition, details: partition + details,
    PARTITION,
    st.just(()) | st.tuples(PAIR, st.none() | st.tuples(INT32, INT32), st.none() | st.tuples(INT64, INT32)),
)
ENDPOINTS = st.lists(st.tuples(INT32, oracle.TEXT, INT32, st.none() | oracle.TEXT), max_size=3)


def body_of(parts: list[Any]) -> memoryview:
    return memoryview(bytearray(b"".join(parts)))[HEADER_BYTES:]


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=25, deadline=None)
@given(
    topics=st.lists(st.tuples(IDS, st.lists(DETAILED, max_size=3)), max_size=3),
    error=st.integers(-1, 133),
    session=INT32,
    endpoints=ENDPOINTS,
)
def test_what_our_leader_answers_is_read(
    version: int, topics: Any, error: int, session: int, endpoints: Any
) -> None:
    body = body_of(encode_fetch_response(version, 7, error, session, topics, 3, endpoints))
    response = decode_fetch_response(body, version)
    assert (response.error_code, response.session_id) == (error, session)
    assert response.topics == [
        (topic_id, [seen(*entry) for entry in entries]) for topic_id, entries in topics
    ]


def seen(*fields: Any) -> tuple[Any, ...]:
    """What a follower sees of a partition as `encode_fetch_response` takes it."""
    index, code, high, _, start, _, _, records, *details = fields
    diverging, leader = (None if pair == DEFAULT else pair for pair in (*details, None, None)[:2])
    return index, code, high, start, diverging, leader, memoryview(records or b""), None


def sample() -> memoryview:
    full = (3, 0, 9, 9, 1, [(5, 6)], -1, b"records", (4, 7), (2, 8), (9, 9))
    plain = (4, 6, 9, 9, 1, None, -1, None)
    return body_of(
        encode_fetch_response(17, 7, 0, 5, [(bytes(15) + b"\1", [full, plain])], 0, [(1, "h", 9, None)])
    )


def test_records_are_slices_of_the_response() -> None:
    body = sample()
    ((_, (full, plain)),) = decode_fetch_response(body, 17).topics
    assert not full.records.readonly
    assert full.records.obj is body.obj
    full.records[0] = ord("R")
    assert b"Records" in bytes(body)
    assert len(plain.records) == 0


def test_every_truncation_and_every_surplus_is_a_decode_error() -> None:
    body = sample()
    for end in range(len(body)):
        with pytest.raises(DecodeError):
            decode_fetch_response(body[:end], 17)
    with pytest.raises(DecodeError, match="1 bytes behind"):
        decode_fetch_response(memoryview(bytes(body) + b"\0"), 17)


def test_a_tag_that_is_longer_than_its_struct_is_a_decode_error() -> None:
    partition = bytes(29) + b"\0" + bytes(4) + b"\1"
    for tags, refused in [
        (b"\x01\x00\x0d" + bytes(13), False),
        (b"\x01\x00\x0e" + bytes(14), True),
        (b"\x01\x01\x08" + bytes(8), True),
        (b"\x01\x01\x09" + bytes(9), False),
        (b"\x01\x02\x01\x07", False),
    ]:
        body = memoryview(bytes(10) + b"\x02" + bytes(16) + b"\x02" + b"\0" + partition + tags + b"\0\0")
        if refused:
            with pytest.raises(DecodeError):
                decode_fetch_response(body, 16)
        else:
            decode_fetch_response(body, 16)


def test_what_a_leader_says_of_the_bucket_comes_through() -> None:
    news = TierNews(1 << 40, 12, "x/00000000000000000012-0000000003-a.seg")
    rows = [
        (0, 0, 9, 9, 1, None, -1, b"records", None, None, None, news),
        (1, 109, 9, 9, 1, None, -1, b"", (4, 7), (2, 8), (9, 9), news._replace(segment_key="")),
        (2, 0, 9, 9, 1, None, -1, b"", None, None, None, None),
    ]
    body = body_of(encode_fetch_response(17, 7, 0, 5, [(bytes(15) + b"\1", rows)]))
    ((_, found),) = decode_fetch_response(body, 17).topics
    assert [row.tier for row in found] == [news, news._replace(segment_key=""), None]
    assert (found[1].diverging, found[1].leader) == ((4, 7), (2, 8))
    for end in range(len(body)):
        with pytest.raises(DecodeError):
            decode_fetch_response(body[:end], 17)


@pytest.mark.parametrize("count", [b"\xff\xff\xff\xff\x0f", b"\xc1\x9a\x0c", b"\0"])
def test_absurd_counts_are_refused_before_anything_is_allocated(count: bytes) -> None:
    for start in (bytes(10), bytes(10) + b"\x02" + bytes(16)):
        with pytest.raises(DecodeError, match=r"more than|null"):
            decode_fetch_response(memoryview(start + count + bytes(MAX_PARTITIONS)), 17)


def test_absurd_lengths_of_records_are_refused() -> None:
    start = bytes(10) + b"\x02" + bytes(16) + b"\x02" + bytes(30) + b"\0" + bytes(4)
    decode_fetch_response(memoryview(start + b"\x03ab\0\0\0"), 15)
    for length in (b"\x07", b"\xff\xff\xff\xff\x0f"):
        with pytest.raises(DecodeError, match="where 5 are left"):
            decode_fetch_response(memoryview(start + length + b"ab\0\0\0"), 15)
