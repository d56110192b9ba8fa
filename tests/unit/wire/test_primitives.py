from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kio.serial import readers, writers

from strandline_broker.wire import primitives as p
from strandline_broker.wire.errors import DecodeError, EncodeError

UINT32 = st.integers(0, 2**32 - 1)


def written(write: Any, value: object) -> bytes:
    buffer = io.BytesIO()
    write(buffer, value)
    return buffer.getvalue()


@given(UINT32, st.binary(max_size=3))
def test_unsigned_varints(value: int, rest: bytes) -> None:
    data = p.encode_uvarint(value)
    assert data == written(writers.write_unsigned_varint, value)
    assert p.read_uvarint(data + rest, 0) == (value, len(data))


@given(st.integers(-(2**31), 2**31 - 1))
def test_signed_varints(value: int) -> None:
    data = p.encode_varint(value)
    assert data == written(writers.write_signed_varint, value)
    assert p.read_varint(data, 0) == (value, len(data))


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_varlongs(value: int) -> None:
    data = p.encode_varint(value)
    assert data == written(writers.write_signed_varlong, value)
    assert p.read_varlong(data, 0) == (value, len(data)) == readers.read_signed_varlong(data, 0)


@given(st.none() | st.text(max_size=200))
def test_strings(value: str | None) -> None:
    compact = p.encode_compact_nullable_string(value)
    assert compact == written(writers.write_nullable_compact_string, value)
    assert p.read_compact_nullable_string(compact, 0) == (value, len(compact))
    legacy = p.encode_nullable_string(value)
    assert legacy == written(writers.write_nullable_legacy_string, value)
    assert p.read_nullable_string(legacy, 0) == (value, len(legacy))
    for data, read in ((compact, p.read_compact_string), (legacy, p.read_string)):
        if value is None:
            with pytest.raises(DecodeError):
                read(data, 0)
        else:
            assert read(data, 0) == (value, len(data))


@given(st.dictionaries(UINT32, st.binary(max_size=9), max_size=5))
def test_tagged_fields(fields: dict[int, bytes]) -> None:
    data = p.encode_uvarint(len(fields))
    for tag, content in fields.items():
        data += p.encode_uvarint(tag) + p.encode_uvarint(len(content)) + content
    assert p.skip_tagged_fields(data, 0) == len(data)
    assert p.read_tagged_fields(data, 0) == (fields, len(data))


def test_a_tag_may_appear_once() -> None:
    with pytest.raises(DecodeError, match="twice"):
        p.read_tagged_fields(b"\x02\x01\x00\x01\x00", 0)


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff\x10", b"\xff\xff\xff\xff\xff\x00", b"\x80\x80\x80\x80\x80\x01"]
)
def test_varints_of_more_than_32_bits_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        p.read_uvarint(data, 0)


@pytest.mark.parametrize("data", [b"\xff" * 10 + b"\x00", b"\xff" * 9 + b"\x02"])
def test_varlongs_of_more_than_64_bits_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        p.read_varlong(data, 0)


def test_strings_beyond_the_format_are_our_bug() -> None:
    for encode in (p.encode_string, p.encode_compact_string):
        with pytest.raises(EncodeError):
            encode("x" * 32768)


def test_the_correlation_id_of_a_cached_frame_is_replaced() -> None:
    assert p.with_correlation_id(b"\0\0\0\x06\1\2\3\4ab", -2) == b"\0\0\0\x06\xff\xff\xff\xfeab"
