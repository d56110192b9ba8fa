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
from strandline_broker.wire.metadata import (
    MAX_TOPICS,
    MetadataBroker,
    MetadataPartition,
    MetadataTopic,
    decode_metadata,
    encode_metadata_response,
    encode_topic,
)
from strandline_broker.wire.primitives import with_correlation_id

VERSIONS = range(14)
INT32 = st.integers(-(2**31), 2**31 - 1)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_requests_of_every_version_are_read_as_kio_wrote_them(version: int, data: st.DataObject) -> None:
    entity = data.draw(oracle.entities(oracle.request_schema(3, version)))
    frame = oracle.request_frame(entity)
    request = decode_metadata(frame, decode_request_header(frame).body_offset, version)
    if entity.topics is None or (version == 0 and not entity.topics):
        assert request.topics is None
    else:
        assert request.topics == [
            (oracle.topic_id(getattr(t, "topic_id", None)), t.name) for t in entity.topics
        ]
    assert request.allow_auto_topic_creation == getattr(entity, "allow_auto_topic_creation", True)
    for name in ("include_cluster_authorized_operations", "include_topic_authorized_operations"):
        assert getattr(request, name) == getattr(entity, name, False)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_truncation_is_a_decode_error(version: int) -> None:
    schema = oracle.request_schema(3, version)
    topic = oracle.types_beside(schema)["MetadataRequestTopic"]
    topics = tuple(topic(name=name, **only(version, 10, topic_id=None)) for name in ("abc", "def"))
    flags = only(version, 8, include_topic_authorized_operations=True)
    if 8 <= version <= 10:
        flags["include_cluster_authorized_operations"] = True
    frame = oracle.body_frame(schema(topics=topics, **flags))
    assert decode_metadata(frame, 0, version).topics == [(bytes(16), "abc"), (bytes(16), "def")]
    for end in range(len(frame)):
        with pytest.raises(DecodeError):
            decode_metadata(frame[:end], 0, version)


@pytest.mark.parametrize(("version", "start"), [(1, b"\x00\x10\x00\x00"), (9, b"\x81\x80\x40")])
def test_absurd_counts_are_refused(version: int, start: bytes) -> None:
    with pytest.raises(DecodeError, match="topics in one request"):
        decode_metadata(memoryview(start + bytes(MAX_TOPICS * 20)), 0, version)


NODES = st.lists(INT32, max_size=4) | st.just(list(range(300)))
PARTITIONS = st.builds(MetadataPartition, st.integers(-1, 133), INT32, INT32, INT32, NODES, NODES, NODES)
TOPICS = st.builds(
    MetadataTopic,
    st.integers(-1, 133),
    oracle.TEXT | st.none(),
    st.binary(min_size=16, max_size=16),
    st.booleans(),
    st.lists(PARTITIONS, max_size=3),
    INT32,
)
BROKERS = st.builds(MetadataBroker, INT32, oracle.TEXT, INT32, st.none() | oracle.TEXT)


def only(version: int, first: int, **values: Any) -> dict[str, Any]:
    return values if version >= first else {}


def kio_response(
    version: int, brokers: Any, cluster_id: Any, controller: int, topics: Any, operations: int, error: int
) -> bytes:
    schema = oracle.response_schema(3, version)
    types = oracle.types_beside(schema)

    def partition(p: MetadataPartition) -> Any:
        return types["MetadataResponsePartition"](
            error_code=oracle.ErrorCode(p.error_code),
            partition_index=p.partition,
            leader_id=p.leader_id,
            replica_nodes=tuple(p.replicas),
            isr_nodes=tuple(p.isr),
            **only(version, 5, offline_replicas=tuple(p.offline_replicas)),
            **only(version, 7, leader_epoch=p.leader_epoch),
        )

    def topic(t: MetadataTopic) -> Any:
        return types["MetadataResponseTopic"](
            error_code=oracle.ErrorCode(t.error_code),
            name=t.name if version >= 12 else t.name or "",
            partitions=tuple(partition(p) for p in t.partitions),
            **only(version, 1, is_internal=t.is_internal),
            **only(version, 8, topic_authorized_operations=t.authorized_operations),
            **only(version, 10, topic_id=uuid.UUID(bytes=t.topic_id)),
        )

    values: dict[str, Any] = {
        "brokers": tuple(
            types["MetadataResponseBroker"](
                node_id=b.node_id, host=b.host, port=b.port, **only(version, 1, rack=b.rack)
            )
            for b in brokers
        ),
        "topics": tuple(topic(t) for t in topics),
    }
    values |= only(version, 1, controller_id=controller) | only(version, 2, cluster_id=cluster_id)
    values |= only(version, 3, throttle_time=datetime.timedelta(milliseconds=9))
    if 8 <= version <= 10:
        values["cluster_authorized_operations"] = operations
    values |= only(version, 13, error_code=oracle.ErrorCode(error))
    return oracle.response_frame(schema(**values), 77)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=25, deadline=None)
@given(
    brokers=st.lists(BROKERS, max_size=3),
    cluster_id=st.none() | oracle.TEXT,
    topics=st.lists(TOPICS, max_size=3),
    operations=INT32,
    error=st.integers(-1, 133),
)
def test_responses_of_every_version_equal_kio_byte_for_byte(
    version: int, brokers: Any, cluster_id: Any, topics: list[MetadataTopic], operations: int, error: int
) -> None:
    def encode(entries: Any, correlation_id: int) -> bytes:
        return encode_metadata_response(
            version,
            correlation_id,
            brokers,
            cluster_id,
            5,
            entries,
            cluster_authorized_operations=operations,
            error_code=error,
            throttle_time_ms=9,
        )

    expected = kio_response(version, brokers, cluster_id, 5, topics, operations, error)
    assert encode(topics, 77) == expected
    cached = [encode_topic(version, topic) for topic in topics]
    assert with_correlation_id(encode(cached, 1), 77) == expected


def test_what_does_not_fit_is_our_bug() -> None:
    good = MetadataTopic(0, "t", bytes(16), is_internal=False, partitions=[])
    for bad in (good._replace(topic_id=b"short"), good._replace(error_code=99999)):
        with pytest.raises(EncodeError):
            encode_topic(12, bad)
    with pytest.raises(EncodeError):
        encode_metadata_response(12, 1, [MetadataBroker(0, "h", 2**31)], None, 0, [])
