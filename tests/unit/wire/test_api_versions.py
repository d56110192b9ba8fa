from __future__ import annotations

import datetime
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.wire import oracle

from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.api_versions import (
    ClientSoftware,
    Features,
    answer_api_versions,
    decode_api_versions,
    encode_api_versions_response,
    is_valid_software,
)
from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.header import decode_request_header
from strandline_broker.wire.registry import KAFKA_RANGES, Registry

VERSIONS = range(5)
INT16 = st.integers(0, 2**15 - 1)
FEATURES = st.builds(
    Features,
    st.lists(st.tuples(oracle.TEXT, INT16, INT16), max_size=3),
    st.lists(st.tuples(oracle.TEXT, INT16), max_size=3),
    st.integers(-1, 2**63 - 1),
)
CLIENT = ClientSoftware("apache-kafka-java", "4.2.0")


def kio_response(version: int, error: int, ranges: Any, features: Features, throttle: int) -> bytes:
    schema = oracle.response_schema(18, version)
    types = oracle.types_beside(schema)
    values: dict[str, Any] = {
        "error_code": oracle.ErrorCode(error),
        "api_keys": tuple(
            types["ApiVersion"](api_key=int(r.key), min_version=r.advertised_min, max_version=r.max_version)
            for r in ranges
        ),
    }
    if version >= 1:
        values["throttle_time"] = datetime.timedelta(milliseconds=throttle)
    if version >= 3:
        values["finalized_features_epoch"] = features.finalized_epoch
        values["supported_features"] = tuple(
            types["SupportedFeatureKey"](name=n, min_version=low, max_version=high)
            for n, low, high in features.supported
            if version >= 4 or low > 0
        )
        values["finalized_features"] = tuple(
            types["FinalizedFeatureKey"](name=n, max_version_level=level, min_version_level=level)
            for n, level in features.finalized
            if level
        )
    return oracle.response_frame(schema(**values), 77)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=40, deadline=None)
@given(
    keys=st.sets(st.sampled_from(list(ApiKey))), features=FEATURES, error=st.integers(-1, 133), throttle=INT16
)
def test_responses_of_every_version_equal_kio_byte_for_byte(
    version: int, keys: set[ApiKey], features: Features, error: int, throttle: int
) -> None:
    ranges = Registry(keys).ranges
    ours = encode_api_versions_response(version, 77, error, ranges, features, throttle)
    assert ours == kio_response(version, error, ranges, features, throttle)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_requests_are_read_as_kio_wrote_them(version: int, data: st.DataObject) -> None:
    entity = data.draw(oracle.entities(oracle.request_schema(18, version)))
    frame = oracle.request_frame(entity)
    software = decode_api_versions(frame, decode_request_header(frame).body_offset, version)
    expected = (entity.client_software_name, entity.client_software_version) if version >= 3 else ("", "")
    assert software == expected


def test_every_truncation_is_a_decode_error() -> None:
    frame = oracle.body_frame(
        oracle.request_schema(18, 3)(client_software_name="abc", client_software_version="1")
    )
    for end in range(len(frame)):
        with pytest.raises(DecodeError):
            decode_api_versions(frame[:end], 0, 3)


@pytest.mark.parametrize("version", [-1, 5, 99, 32767])
def test_an_unknown_version_is_answered_in_version_0_with_the_whole_list(version: int) -> None:
    ranges = Registry(ApiKey).ranges
    software = decode_api_versions(memoryview(b"anything"), 0, version)
    frame = answer_api_versions(version, 5, software, ranges)
    answer = oracle.read_response(18, 0, frame)
    assert answer.error_code == ErrorCode.UNSUPPORTED_VERSION
    assert len(answer.api_keys) == len(KAFKA_RANGES)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_known_version_is_answered_with_the_list_and_without_claims(version: int) -> None:
    answer = oracle.read_response(
        18, version, answer_api_versions(version, 5, CLIENT, Registry(ApiKey).ranges)
    )
    assert answer.error_code == ErrorCode.NONE
    assert {(k.api_key, k.min_version, k.max_version) for k in answer.api_keys} == {
        (r.key, r.advertised_min, r.max_version) for r in KAFKA_RANGES
    }
    if version >= 3:
        assert (answer.supported_features, answer.finalized_features) == ((), ())
        assert answer.finalized_features_epoch == -1


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize(
    "software", [("", "1"), ("a b", "1"), ("-a", "1"), ("a", "1."), ("a\n", "1"), ("é", "1")]
)
def test_a_client_that_misdescribes_itself_gets_invalid_request(
    version: int, software: tuple[str, str]
) -> None:
    frame = answer_api_versions(version, 5, ClientSoftware(*software), Registry(ApiKey).ranges)
    assert oracle.read_response(18, version, frame).error_code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("name", ["a", "librdkafka", "apache-kafka-java", "kafka.js", "0", "a..-b"])
def test_usual_names_are_valid(name: str) -> None:
    assert is_valid_software(ClientSoftware(name, "v2.3.0-RC1"))


def test_the_header_of_the_answer_is_always_version_0() -> None:
    for version in VERSIONS:
        frame = answer_api_versions(version, 0x01020304, CLIENT, ())
        assert struct.unpack_from(">iih", frame) == (len(frame) - 4, 0x01020304, 0)
