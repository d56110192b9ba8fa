"""Records against bytes that Apache Kafka 4.2's own classes wrote (`data/records.txt`: name, key, value in hex)."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strandline_broker.group.records import (
    GroupKey,
    GroupValue,
    MemberValue,
    OffsetKey,
    OffsetValue,
    decode_group_value,
    decode_key,
    decode_offset_value,
    encode_group_key,
    encode_group_value,
    encode_offset_key,
    encode_offset_value,
)
from strandline_broker.wire.errors import DecodeError, EncodeError

_KAFKA = {
    name: (bytes.fromhex(key) if key != "-" else b"", bytes.fromhex(value) if value != "null" else None)
    for name, key, value in (
        line.split() for line in (Path(__file__).parent / "data" / "records.txt").read_text().splitlines()
    )
}
_TOPIC_ID = UUID("01234567-89ab-cdef-8899-aabbccddeeff")
_AT = 1_700_000_000_123
_OFFSETS = {
    "written-offset-0": OffsetValue(42, 7, "méta", _AT, -1, _TOPIC_ID),
    "written-offset-1": OffsetValue(0, -1, "", _AT),
    "written-offset-2": OffsetValue(42, 7, "m", _AT, 1_700_000_009_999, _TOPIC_ID),
}
_MEMBER = MemberValue("client-1", "inst", "client", "/10.0.0.1", 60_000, 10_000, b"\x01\x02\x03", b"\x09\x08")
_GROUPS = {
    "written-group-empty": GroupValue("", 0, None, None, _AT, ()),
    "written-group-member": GroupValue("consumer", 1, "range", "client-1", _AT, (_MEMBER,)),
}


@pytest.mark.parametrize("name", _OFFSETS)
def test_offsets_are_written_as_by_kafka(name: str) -> None:
    key, value = _KAFKA[name]
    assert encode_offset_key("group", "topic", 3) == key
    assert encode_offset_value(_OFFSETS[name]) == value


@pytest.mark.parametrize("name", _GROUPS)
def test_groups_are_written_as_by_kafka(name: str) -> None:
    assert (encode_group_key("group"), encode_group_value(_GROUPS[name])) == _KAFKA[name]


def test_tombstones_are_written_as_by_kafka() -> None:
    assert _KAFKA["written-offset-tombstone"] == (encode_offset_key("group", "topic", 3), None)
    assert _KAFKA["written-group-tombstone"] == (encode_group_key("grüp"), None)


@pytest.mark.parametrize("version", range(5))
def test_every_version_of_an_offset_is_read(version: int) -> None:
    value = _KAFKA[f"offset-v{version}"][1]
    assert value is not None
    assert decode_offset_value(value) == OffsetValue(
        42,
        7 if version >= 3 else -1,
        "m",
        _AT,
        1_700_000_009_999 if version == 1 else -1,
        _TOPIC_ID if version == 4 else UUID(int=0),
    )


@pytest.mark.parametrize("version", range(5))
def test_every_version_of_a_group_is_read(version: int) -> None:
    value, empty = _KAFKA[f"group-v{version}"][1], _KAFKA[f"group-empty-v{version}"][1]
    assert value is not None
    assert empty is not None
    first = _MEMBER._replace(
        group_instance_id="inst" if version >= 3 else None, rebalance_timeout_ms=60_000 if version else -1
    )
    second = MemberValue("client-2", None, "", "h", 5 if version else -1, 6, b"", b"")
    at = _AT if version >= 2 else -1
    assert decode_group_value(value) == GroupValue("consumer", 5, "range", "client-1", at, (first, second))
    assert decode_group_value(empty) == GroupValue("", 0, None, None, -1, ())


def test_keys() -> None:
    assert decode_key(encode_offset_key("g", "t", 7)) == OffsetKey("g", "t", 7)
    assert decode_key(b"\x00\x00" + encode_offset_key("g", "t", 7)[2:]) == OffsetKey("g", "t", 7)
    assert decode_key(encode_group_key("")) == GroupKey("")
    for other in (3, 5, 8, 17, 99):
        assert decode_key(other.to_bytes(2, "big") + b"whatever") is None


def test_unknown_versions_and_too_long_strings_are_refused() -> None:
    with pytest.raises(DecodeError):
        decode_offset_value(b"\x00\x05" + bytes(30))
    with pytest.raises(DecodeError):
        decode_group_value(b"\xff\xff" + bytes(30))
    with pytest.raises(EncodeError):
        encode_group_key("x" * 40_000)


@given(st.sampled_from(sorted(_KAFKA)), st.data())
def test_broken_bytes_are_refused_and_nothing_else_happens(name: str, data: st.DataObject) -> None:
    key, value = _KAFKA[name]
    for whole, decoders in ((key, [decode_key]), (value or b"", [decode_offset_value, decode_group_value])):
        bad = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
        if bad:
            bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
        for decode in decoders:
            try:
                decode(bytes(bad))
            except DecodeError:
                pass


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    for decode in (decode_key, decode_offset_value, decode_group_value):
        try:
            decode(data)
        except DecodeError:
            pass


_TEXT = st.text(max_size=20)
_INT32 = st.integers(-(2**31), 2**31 - 1)
_INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.builds(OffsetValue, _INT64, _INT32, _TEXT, _INT64, st.just(-1), st.uuids()))
def test_offsets_survive(value: OffsetValue) -> None:
    assert decode_offset_value(encode_offset_value(value)) == value


_MEMBERS = st.builds(
    MemberValue,
    _TEXT,
    st.none() | _TEXT,
    _TEXT,
    _TEXT,
    _INT32,
    _INT32,
    st.binary(max_size=9),
    st.binary(max_size=9),
)


@given(
    st.builds(
        GroupValue,
        _TEXT,
        _INT32,
        st.none() | _TEXT,
        st.none() | _TEXT,
        _INT64,
        st.lists(_MEMBERS, max_size=3).map(tuple),
    )
)
def test_groups_survive(value: GroupValue) -> None:
    assert decode_group_value(encode_group_value(value)) == value
