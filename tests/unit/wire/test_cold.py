from __future__ import annotations

import dataclasses
import datetime
import subprocess
import sys
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.schema.index import api_key_map, schema_name_map
from tests.unit.wire import oracle

from strandline_broker.errors import ErrorCode
from strandline_broker.wire import cold, schema_types
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.errors import DecodeError, EncodeError, UnsupportedVersion
from strandline_broker.wire.header import decode_request_header
from strandline_broker.wire.registry import KAFKA_RANGES

MESSAGES = [(e.key, v) for e in KAFKA_RANGES for v in range(e.min_version, e.max_version + 1)]


def same(ours: Any, theirs: Any) -> bool:
    """Equal field by field; kio's error codes equal ours by number."""
    return bool(oracle.plain(ours) == oracle.plain(theirs))


@pytest.mark.parametrize(("key", "version"), MESSAGES, ids=lambda value: getattr(value, "name", str(value)))
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_every_version_of_every_api_agrees_with_kio(key: ApiKey, version: int, data: st.DataObject) -> None:
    request = data.draw(oracle.entities(oracle.request_schema(key, version)))
    frame = oracle.request_frame(request, 5, "client")
    decoded = cold.decode_request(key, version, frame, decode_request_header(frame).body_offset)
    assert same(decoded, request)
    assert cold.encode_request(key, version, 5, "client", oracle.plain(request))[4:] == bytes(frame)

    response = data.draw(oracle.entities(oracle.response_schema(key, version)))
    expected = without_nulls(key, response)
    theirs = oracle.response_frame(expected, 5)
    assert cold.encode_response(key, version, 5, oracle.plain(expected)) == theirs
    correlation_id, decoded = cold.decode_response(key, version, memoryview(theirs)[4:])
    assert correlation_id == 5
    assert same(decoded, expected)


def without_nulls(key: ApiKey, response: Any) -> Any:
    """Apply the rule that some arrays are never null, which kio does not know."""

    def fix(entity: Any, names: tuple[str, ...]) -> Any:
        return dataclasses.replace(
            entity, **{n: getattr(entity, n) or () for n in names if hasattr(entity, n)}
        )

    if key == ApiKey.CREATE_TOPICS:
        return dataclasses.replace(response, topics=tuple(fix(t, ("configs",)) for t in response.topics))
    if key == ApiKey.DESCRIBE_TOPIC_PARTITIONS:
        names = ("eligible_leader_replicas", "last_known_elr")
        topics = tuple(
            dataclasses.replace(t, partitions=tuple(fix(p, names) for p in t.partitions))
            for t in response.topics
        )
        return dataclasses.replace(response, topics=topics)
    return response


@pytest.mark.parametrize(("key", "version"), MESSAGES, ids=lambda value: getattr(value, "name", str(value)))
def test_an_empty_body_takes_the_defaults_of_the_schema(key: ApiKey, version: int) -> None:
    frame = cold.encode_response(key, version, 5, {})
    entity = oracle.read_response(key, version, frame)
    for field in dataclasses.fields(entity):
        if field.default is not dataclasses.MISSING:
            assert getattr(entity, field.name) == field.default


def test_kio_knows_every_api_and_version_of_the_registry() -> None:
    for entry in KAFKA_RANGES:
        versions = schema_name_map[api_key_map[entry.key]]
        assert set(range(entry.min_version, entry.max_version + 1)) <= set(versions)


def test_a_length_beyond_the_message_allocates_nothing() -> None:
    for count in (b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x07", b"\x80\x80\x80\x08"):
        with pytest.raises(DecodeError):
            cold.decode_request(ApiKey.LIST_OFFSETS, 7, memoryview(b"\0\0\0\0\0" + count + bytes(40)), 0)
    with pytest.raises(DecodeError):
        cold.decode_request(ApiKey.LIST_OFFSETS, 1, memoryview(b"\0\0\0\0\x7f\xff\xff\xff" + bytes(40)), 0)


def test_array_elements_of_a_message_are_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_types, "MAX_ELEMENTS", 100)

    def decode(topics: int) -> Any:
        body = {"topics": [{"name": "t", "partitions": [{"partition_index": 0}] * 30}] * topics}
        frame = memoryview(cold.encode_request(ApiKey.LIST_OFFSETS, 7, 1, None, body))[4:]
        return cold.decode_request(ApiKey.LIST_OFFSETS, 7, frame, decode_request_header(frame).body_offset)

    assert len(decode(3).topics) == 3
    with pytest.raises(DecodeError, match="array of 30 elements"):
        decode(4)


def test_fields_that_a_version_lacks_are_dropped() -> None:
    body = {
        "throttle_time": 7,
        "error_code": ErrorCode.NONE,
        "coordinators": [{"key": "g", "node_id": 1, "host": "h", "port": 2}],
        "node_id": 1,
        "host": "h",
        "port": 2,
    }
    for version in range(7):
        entity = oracle.read_response(10, version, cold.encode_response(10, version, 5, body))
        assert (entity.coordinators[0].host if version >= 4 else entity.host) == "h"


@pytest.mark.parametrize(
    "body",
    [
        {"throtle_time": 1},
        {"coordinators": [{"kee": "g"}]},
        {"coordinators": [{"key": None}]},
        {"coordinators": None},
        {"coordinators": "abc"},
        {"coordinators": [1]},
        {"coordinators": [{"port": 2**31}]},
        {"coordinators": [{"port": "9092"}]},
        {"coordinators": [{"host": 5}]},
        {"throttle_time": "soon"},
    ],
)
def test_what_does_not_fit_the_schema_is_named(body: dict[str, Any]) -> None:
    with pytest.raises(EncodeError, match="find_coordinator response version 6"):
        cold.encode_response(ApiKey.FIND_COORDINATOR, 6, 5, body)


def test_a_misspelt_field_is_found_in_old_versions_too() -> None:
    with pytest.raises(EncodeError, match="'hosst'"):
        cold.encode_response(ApiKey.FIND_COORDINATOR, 0, 5, {"hosst": "h"})


def test_arrays_that_clients_iterate_over_are_never_null() -> None:
    topic = {"name": "t", "topic_id": None}
    entity = oracle.read_response(19, 7, cold.encode_response(19, 7, 5, {"topics": [topic]}))
    assert entity.topics[0].configs == ()
    body = {"topics": [topic | {"partitions": [{"partition_index": 1}]}]}
    (partition,) = oracle.read_response(75, 0, cold.encode_response(75, 0, 5, body)).topics[0].partitions
    assert (partition.eligible_leader_replicas, partition.last_known_elr) == ((), ())
    with pytest.raises(EncodeError, match="configs"):
        cold.encode_response(19, 7, 5, {"topics": [topic | {"configs": None}]})


def test_values_are_taken_in_every_shape_that_handlers_have() -> None:
    topic_id = uuid.UUID(int=7)
    for value in (topic_id, topic_id.bytes):
        frame = cold.encode_response(19, 7, 5, {"topics": [{"name": "t", "topic_id": value}]})
        assert oracle.read_response(19, 7, frame).topics[0].topic_id == topic_id
    for throttle in (1500, datetime.timedelta(seconds=1.5)):
        frame = cold.encode_response(19, 7, 5, {"throttle_time": throttle})
        assert oracle.read_response(19, 7, frame).throttle_time == datetime.timedelta(seconds=1.5)
    for code in (ErrorCode.INVALID_CONFIG, 40):
        frame = cold.encode_response(19, 7, 5, {"topics": [{"name": "t", "error_code": code}]})
        assert oracle.read_response(19, 7, frame).topics[0].error_code == 40


def test_error_codes_of_decoded_responses_are_ours() -> None:
    frame = cold.encode_response(10, 0, 5, {"error_code": ErrorCode.NOT_COORDINATOR})
    code = cold.decode_response(10, 0, frame[4:])[1].error_code
    assert type(code) is ErrorCode
    unknown = cold.encode_response(10, 0, 5, {"error_code": 999})
    assert cold.decode_response(10, 0, unknown[4:])[1].error_code is ErrorCode.UNKNOWN_SERVER_ERROR


def test_durations_beyond_a_timedelta_are_clamped() -> None:
    body = {"retention_time": 2**63 - 1}
    frame = memoryview(cold.encode_request(8, 2, 5, None, body))[4:]
    entity = cold.decode_request(8, 2, frame, decode_request_header(frame).body_offset)
    assert entity.retention_time > datetime.timedelta(days=10**8)


@pytest.mark.parametrize(("key", "version"), [(4, 0), (2, 0), (2, 99), (999, 0), (-1, 0)])
def test_unknown_messages_are_unsupported(key: int, version: int) -> None:
    with pytest.raises(UnsupportedVersion):
        cold.decode_request(key, version, memoryview(b""), 0)


def test_importing_the_module_does_not_load_kio() -> None:
    program = "import sys, strandline_broker.wire.cold; assert 'kio' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_warming_up_compiles_the_newest_versions() -> None:
    cold.warm_up(KAFKA_RANGES)
