from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kio.schema.request_header import v1, v2
from tests.unit.wire import oracle

from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.header import RequestHeader, decode_request_header
from strandline_broker.wire.registry import request_header_version

INT16 = st.integers(-(2**15), 2**15 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)


@given(st.integers(0, 100), INT16, INT32, st.none() | oracle.TEXT, st.binary(max_size=5))
def test_headers_are_read_as_kio_wrote_them(
    key: int, version: int, correlation_id: int, client_id: str | None, body: bytes
) -> None:
    flexible = request_header_version(key, version) == 2
    schema = v2.RequestHeader if flexible else v1.RequestHeader
    data = oracle.write(
        schema(
            request_api_key=key,  # type: ignore[arg-type]
            request_api_version=version,  # type: ignore[arg-type]
            correlation_id=correlation_id,  # type: ignore[arg-type]
            client_id=client_id,
        )
    )
    expected = RequestHeader(key, version, correlation_id, client_id, len(data))
    assert decode_request_header(memoryview(data + body)) == expected


def test_tagged_fields_of_the_header_are_skipped() -> None:
    data = struct.pack(">hhih", 0, 9, 1, -1) + b"\x02" + b"\x00\x03abc" + b"\x05\x01x"
    assert decode_request_header(memoryview(data + b"body")).body_offset == len(data)


def test_a_client_id_that_is_not_utf8_is_a_label_all_the_same() -> None:
    data = struct.pack(">hhih", 3, 0, 1, 2) + b"\xff\xfe"
    assert decode_request_header(memoryview(data)).client_id == "\ufffd\ufffd"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(9),
        struct.pack(">hhih", 3, 0, 1, 5) + b"abcd",
        struct.pack(">hhih", 3, 0, 1, -2),
        struct.pack(">hhih", 3, 0, 1, -32768),
        struct.pack(">hhih", 3, 9, 1, -1),
        struct.pack(">hhih", 3, 9, 1, -1) + b"\x01",
        struct.pack(">hhih", 3, 9, 1, -1) + b"\x01\x00\x05abcd",
        struct.pack(">hhih", 3, 9, 1, -1) + b"\xff\xff\xff\xff\x0f",
        struct.pack(">hhih", 3, 9, 1, -1) + b"\xff\xff\xff\xff\xff\x00",
    ],
)
def test_broken_headers_are_decode_errors(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_request_header(memoryview(data))
