from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias
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
)
from strandline_tiered.topic_manifest import (
    MAGIC,
    TopicManifest,
    decode_topic_manifest,
    encode_topic_manifest,
    may_sweep,
    may_sweep_again,
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

Listed: TypeAlias = TopicManifestName | ManifestName | ClaimName

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


def test_a_sweep_needs_an_own_tombstone_and_no_successor() -> None:
    listed: list[Listed] = [
        MANIFEST.name,
        TOMBSTONE.name,
        ClaimName(4),
        ManifestName(4, 9),
        ManifestName(3, 1),
    ]
    assert may_sweep(TOMBSTONE, listed, 4)
    assert not may_sweep(replace(TOMBSTONE, deleted_at_ms=None), listed, 4)
    assert not may_sweep(TOMBSTONE, listed, 5), "a new leader writes it again first"
    successors: list[Listed] = [
        ClaimName(5),
        ManifestName(5, 1),
        TopicManifestName(5, 1),
        TopicManifestName(4, 4),
    ]
    for later in successors:
        assert not may_sweep(TOMBSTONE, [*listed, later], 4)


def test_what_lands_after_the_purge_is_swept_by_anybody() -> None:
    assert may_sweep_again(TOMBSTONE, is_purged=True)
    assert not may_sweep_again(TOMBSTONE, is_purged=False)
    assert not may_sweep_again(MANIFEST, is_purged=True)


def test_a_sweep_leaves_the_tombstone_and_what_is_not_ours() -> None:
    partition = TOPIC.partition(0)
    ours = [
        TOPIC.key(MANIFEST.name),
        partition.key(ManifestName(4, 1)),
        partition.key(ClaimName(4)),
        partition.key(SegmentName(0, 4, UUID(int=1))),
        TOPIC.partition(11).key(SegmentName(5, 3, UUID(int=2))),
    ]
    others = [
        TOPIC.key(TOMBSTONE.name),
        TOPIC.prefix + "readme.txt",
        TOPIC._replace(topic_id=UUID(int=8)).key(MANIFEST.name),
        TOPIC._replace(topic="order").partition(0).key(ClaimName(4)),
    ]
    assert swept(TOPIC, [*ours, *others]) == ours
