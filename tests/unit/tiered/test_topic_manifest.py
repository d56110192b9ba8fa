from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.tiered.manifest_support import CLUSTER, NOW_MS, TOPIC_ID
from tests.unit.tiered.test_manifest_format import golden

from strandline_tiered.envelope import FormatError, UnsupportedVersion, seal
from strandline_tiered.keys import (
    MAX_EPOCH,
    MAX_SEQUENCE,
    ClaimName,
    ManifestName,
    SegmentName,
    TopicKeys,
    TopicManifestName,
    parse_key,
)
from strandline_tiered.topic_manifest import (
    MAGIC,
    TopicManifest,
    decode_topic_manifest,
    encode_topic_manifest,
    final_tombstone,
    says_the_same,
    swept,
)

TOPIC = TopicKeys(CLUSTER, "orders", TOPIC_ID)
MANIFEST = TopicManifest(
    topic="orders",
    topic_id=TOPIC_ID,
    name=TopicManifestName(4, 2),
    topic_epoch=7,
    partitions=12,
    replicas=3,
    config={"retention.ms": "-1", "min.insync.replicas": "2"},
    written_at_ms=NOW_MS,
)
TOMBSTONE = replace(MANIFEST, name=TopicManifestName(4, 3), deleted_at_ms=NOW_MS)

MANIFESTS = st.builds(
    TopicManifest,
    topic=st.text("abc._-", min_size=1, max_size=20),
    topic_id=st.uuids(),
    name=st.builds(TopicManifestName, st.integers(0, MAX_EPOCH), st.integers(0, MAX_SEQUENCE)),
    topic_epoch=st.integers(0, 1 << 60),
    partitions=st.integers(1, 1 << 20),
    replicas=st.integers(1, 10),
    config=st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=4),
    deleted_at_ms=st.none() | st.integers(0, 1 << 50),
    written_at_ms=st.integers(0, 1 << 50),
)


def test_the_bytes_never_change() -> None:
    assert encode_topic_manifest(TOMBSTONE) == golden("topic-manifest-v1.hex")
    assert decode_topic_manifest(golden("topic-manifest-v1.hex")) == TOMBSTONE


@settings(max_examples=60, deadline=None)
@given(MANIFESTS)
def test_what_is_encoded_is_decoded_again(manifest: TopicManifest) -> None:
    data = encode_topic_manifest(manifest)
    assert decode_topic_manifest(data) == manifest
    assert encode_topic_manifest(decode_topic_manifest(data)) == data


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    damaged = bytearray(encode_topic_manifest(MANIFEST))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FormatError):
        decode_topic_manifest(bytes(damaged))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"partitions": 0}, "no integer from 1 on"),
        ({"partitions": True}, "no integer"),
        ({"partitions": "12"}, "no integer"),
        ({"partitions": 1 << 40}, "out of range"),
        ({"sequence": -1}, "no integer from 0 on"),
        ({"leaderEpoch": 1 << 31}, "out of range"),
        ({"topicId": TOPIC_ID.hex}, "no UUID"),
        ({"topicId": 5}, "no string"),
        ({"config": []}, "no object"),
        ({"config": {"a": 1}}, "no string"),
        ({"deletedAtMs": "now"}, "no integer"),
        ({"topic": None}, "no string"),
        ({"more": 1}, "unknown fields more"),
    ],
    ids=str,
)
def test_fields_that_cannot_be_are_refused(change: dict[str, object], problem: str) -> None:
    fields = orjson.loads(encode_topic_manifest(MANIFEST)[16:])
    with pytest.raises(FormatError, match=problem):
        decode_topic_manifest(seal(MAGIC, 1, orjson.dumps(fields | change)))
    for name in change:
        fields.pop(name, None)
    if "more" not in change:
        with pytest.raises(FormatError, match="no field"):
            decode_topic_manifest(seal(MAGIC, 1, orjson.dumps(fields)))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"{}", b"\xff"])
def test_bodies_that_are_no_objects_are_refused(body: bytes) -> None:
    with pytest.raises(FormatError):
        decode_topic_manifest(seal(MAGIC, 1, body))


def test_a_later_version_is_refused() -> None:
    with pytest.raises(UnsupportedVersion, match="SLTM of version 2"):
        decode_topic_manifest(seal(MAGIC, 2, b"{}"))


def test_what_changes_from_writer_to_writer_is_no_change_of_the_topic() -> None:
    later = replace(MANIFEST, name=TopicManifestName(9, 9), topic_epoch=12, written_at_ms=1)
    assert says_the_same(later, MANIFEST)
    changes: list[dict[str, Any]] = [
        {"partitions": 13},
        {"replicas": 1},
        {"config": {}},
        {"deleted_at_ms": 5},
        {"topic_id": UUID(int=9)},
        {"topic": "other"},
    ]
    for change in changes:
        assert not says_the_same(replace(later, **change), MANIFEST)


def test_nothing_stands_above_a_final_tombstone() -> None:
    final = final_tombstone(TOPIC)
    assert final.deleted_at_ms is not None
    assert final.name >= TopicManifestName(MAX_EPOCH, MAX_SEQUENCE)
    key = TOPIC.key(final.name)
    assert parse_key(key) == (TOPIC, None, final.name)
    assert decode_topic_manifest(encode_topic_manifest(final)) == final
    assert all(key > TOPIC.key(name) for name in (MANIFEST.name, TopicManifestName(MAX_EPOCH, 5)))


def test_a_sweep_leaves_the_final_tombstone_and_what_is_not_ours() -> None:
    partition = TOPIC.partition(0)
    ours = [
        TOPIC.key(MANIFEST.name),
        TOPIC.key(TOMBSTONE.name),
        partition.key(ManifestName(4, 1)),
        partition.key(ClaimName(4)),
        partition.key(SegmentName(0, 4, UUID(int=1))),
        TOPIC.partition(11).key(SegmentName(5, 3, UUID(int=2))),
    ]
    others = [
        TOPIC.key(final_tombstone(TOPIC).name),
        TOPIC.prefix + "readme.txt",
        TOPIC._replace(topic_id=UUID(int=8)).key(MANIFEST.name),
        TOPIC._replace(topic="order").partition(0).key(ClaimName(4)),
    ]
    assert swept(TOPIC, [*ours, *others]) == ours
