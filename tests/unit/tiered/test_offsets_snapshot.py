from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.tiered.manifest_support import NOW_MS, TOPIC_ID
from tests.unit.tiered.test_manifest_format import golden

from strandline_tiered.envelope import FormatError, UnsupportedVersion, seal
from strandline_tiered.keys import MAX_PARTITION, OffsetsName
from strandline_tiered.offsets_snapshot import (
    MAGIC,
    CommittedOffset,
    OffsetsEncoder,
    OffsetsSnapshot,
    TopicPartition,
    decode_offsets,
    encode_offsets,
    encode_topic,
)

SNAPSHOT = OffsetsSnapshot(
    partition=17,
    name=OffsetsName(4, 2),
    end_offset=123,
    groups={
        "billing": {
            TopicPartition("orders", 0): CommittedOffset(1000, 4, "", NOW_MS, -1, TOPIC_ID),
            TopicPartition("orders", 11): CommittedOffset(0, -1, "m", NOW_MS, NOW_MS + 1),
        },
        "a/b c": {TopicPartition("x", 2): CommittedOffset(1 << 60, 0, "\u00e9", NOW_MS)},
    },
    written_at_ms=NOW_MS,
)

OFFSETS = st.builds(
    CommittedOffset,
    st.integers(0, (1 << 63) - 1),
    st.integers(-1, 1 << 31),
    st.text(max_size=5),
    st.integers(-1, 1 << 50),
    st.integers(-1, 1 << 50),
    st.none() | st.uuids(),
)
WHERE = st.builds(TopicPartition, st.text(max_size=5), st.integers(0, MAX_PARTITION))
GROUPS = st.dictionaries(
    st.text(max_size=5), st.dictionaries(WHERE, OFFSETS, min_size=1, max_size=4), max_size=3
)


def test_the_bytes_never_change() -> None:
    assert encode_offsets(SNAPSHOT) == golden("offsets-v1.hex")
    assert decode_offsets(golden("offsets-v1.hex")) == SNAPSHOT


@settings(max_examples=60, deadline=None)
@given(GROUPS)
def test_what_is_encoded_is_decoded_again(groups: dict[str, dict[TopicPartition, CommittedOffset]]) -> None:
    snapshot = OffsetsSnapshot(3, OffsetsName(1, 1), 5, groups)
    data = encode_offsets(snapshot)
    assert decode_offsets(data) == snapshot
    assert encode_offsets(decode_offsets(data)) == data


def test_a_large_snapshot_comes_in_parts() -> None:
    groups = {
        f"g{number:05}": {TopicPartition("t", 0): CommittedOffset(number, 1, "m" * 50, NOW_MS)}
        for number in range(8000)
    }
    encoder = OffsetsEncoder(3, OffsetsName(1, 2), 9, written_at_ms=NOW_MS)
    for group, offsets in groups.items():
        encoder.add_group(group, [encode_topic("t", {0: offsets[TopicPartition("t", 0)]})])
    parts = encoder.finish()
    assert len(parts) > 3
    assert max(map(len, parts)) < 300 << 10
    snapshot = OffsetsSnapshot(3, OffsetsName(1, 2), 9, groups, NOW_MS)
    assert decode_offsets(b"".join(parts)) == snapshot
    assert b"".join(parts) == encode_offsets(snapshot)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    damaged = bytearray(encode_offsets(SNAPSHOT))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FormatError):
        decode_offsets(bytes(damaged))


def offsets(*values: Any, partition: str = "0") -> dict[str, Any]:
    return {"g": {"t": {partition: list(values)}}}


@pytest.mark.parametrize(
    "groups",
    [
        [],
        {"g": []},
        {"g": {}},
        {"g": {"t": {}}},
        {"g": {"t": {"0": {}}}},
        offsets(1, 0, "", 5, -1),
        offsets(1, 0, "", 5, -1, None, None),
        offsets(-1, 0, "", 5, -1, None),
        offsets(1, -2, "", 5, -1, None),
        offsets(1, 0, None, 5, -1, None),
        offsets(1, 0, "", "5", -1, None),
        offsets(1, 0, "", 5, 1.5, None),
        offsets(1, 0, "", 5, -1, "orders"),
        offsets(1, 0, "", 5, -1, 7),
        offsets(1, 0, "", 5, -1, None, partition="00"),
        offsets(1, 0, "", 5, -1, None, partition="-1"),
        offsets(1, 0, "", 5, -1, None, partition="2147483648"),
        offsets(1, 0, "", 5, -1, None, partition="\u0663"),
    ],
    ids=str,
)
def test_groups_that_cannot_be_are_refused(groups: object) -> None:
    fields = orjson.loads(encode_offsets(SNAPSHOT)[16:])
    with pytest.raises(FormatError):
        decode_offsets(seal(MAGIC, 1, orjson.dumps(fields | {"groups": groups})))


@pytest.mark.parametrize(
    "change", [{"partition": 1 << 31}, {"leaderEpoch": 1 << 31}, {"sequence": 1 << 31}], ids=str
)
def test_names_out_of_range_are_refused(change: dict[str, int]) -> None:
    fields = orjson.loads(encode_offsets(SNAPSHOT)[16:])
    with pytest.raises(FormatError, match="out of range"):
        decode_offsets(seal(MAGIC, 1, orjson.dumps(fields | change)))


def test_a_later_version_is_refused() -> None:
    with pytest.raises(UnsupportedVersion, match="SLGO of version 9"):
        decode_offsets(seal(MAGIC, 9, b"{}"))
