from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.tiered.manifest_support import CLUSTER, KEYS, TOPIC_ID

from strandline_tiered.keys import (
    MANIFESTS,
    MAX_EPOCH,
    MAX_OFFSET,
    MAX_PARTITION,
    MAX_SEQUENCE,
    ClaimName,
    ManifestName,
    Name,
    OffsetsName,
    PageName,
    ParsedKey,
    PartitionKeys,
    SegmentName,
    TopicKeys,
    TopicManifestName,
    parse_key,
    parse_name,
    parse_partition_prefix,
    parse_topic_manifest_name,
)
from strandline_tiered.object_store import check_key

OFFSETS = st.integers(0, MAX_OFFSET)
EPOCHS = st.integers(0, MAX_EPOCH)
SEQUENCES = st.integers(0, MAX_SEQUENCE)
MANIFEST_NAMES = st.builds(ManifestName, EPOCHS, SEQUENCES)
NAMES: st.SearchStrategy[Name] = st.one_of(
    st.builds(SegmentName, OFFSETS, EPOCHS, st.uuids()),
    st.builds(PageName, OFFSETS, EPOCHS, st.uuids()),
    MANIFEST_NAMES,
    st.builds(ClaimName, EPOCHS),
    st.builds(OffsetsName, EPOCHS, SEQUENCES),
)
TOPICS = st.text("abcXYZ019._-", min_size=1, max_size=249)
PARTITIONS = st.builds(PartitionKeys, st.uuids(), TOPICS, st.uuids(), st.integers(0, MAX_PARTITION))


def test_keys_look_as_the_design_says() -> None:
    prefix = f"{CLUSTER}/topics/orders-{TOPIC_ID}/"
    object_id = UUID(int=7)
    assert KEYS.prefix == f"{prefix}3/"
    assert KEYS.key(SegmentName(1234, 5, object_id)) == (
        f"{prefix}3/00000000000000001234-0000000005-00000000-0000-0000-0000-000000000007.seg"
    )
    assert KEYS.key(PageName(0, 5, object_id)) == (
        f"{prefix}3/pages/00000000000000000000-0000000005-00000000-0000-0000-0000-000000000007.page"
    )
    assert KEYS.key(ManifestName(5, 12)) == f"{prefix}3/manifests/0000000005-0000000012.manifest"
    assert KEYS.key(ClaimName(5)) == f"{prefix}3/manifests/0000000005.claim"
    assert KEYS.key(OffsetsName(5, 1)) == f"{prefix}3/offsets/0000000005-0000000001.offsets"
    topic = TopicKeys(CLUSTER, "orders", TOPIC_ID)
    assert topic.key(TopicManifestName(5, 2)) == f"{prefix}topic/0000000005-0000000002.topic"
    assert topic.partition(3) == KEYS


@settings(max_examples=60, deadline=None)
@given(PARTITIONS, NAMES)
def test_what_is_built_is_parsed_again(keys: PartitionKeys, name: Name) -> None:
    key = keys.key(name)
    check_key(key)
    assert keys.parse(key) == name
    assert parse_key(key) == ParsedKey(TopicKeys(*keys[:3]), keys.partition, name)
    assert parse_partition_prefix(keys.prefix) == keys
    assert type(keys.parse(key)) is type(name)


@settings(max_examples=60, deadline=None)
@given(PARTITIONS, EPOCHS, SEQUENCES)
def test_a_topic_manifest_is_parsed_again(keys: PartitionKeys, epoch: int, sequence: int) -> None:
    topic, name = TopicKeys(*keys[:3]), TopicManifestName(epoch, sequence)
    assert parse_key(topic.key(name)) == ParsedKey(topic, None, name)
    assert parse_topic_manifest_name(str(name)) == name
    assert keys.parse(topic.key(name)) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(MANIFEST_NAMES, unique=True, max_size=20))
def test_a_listing_has_manifests_in_the_order_of_truth(names: list[ManifestName]) -> None:
    listed = sorted((KEYS.key(name) for name in names), key=str.encode)
    assert [KEYS.parse(key) for key in listed] == sorted(names)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.builds(SegmentName, OFFSETS, EPOCHS, st.uuids()), unique=True, max_size=20))
def test_a_listing_has_segments_in_the_order_of_offsets(names: list[SegmentName]) -> None:
    listed = sorted((KEYS.key(name) for name in names), key=str.encode)
    assert [KEYS.parse(key) for key in listed] == sorted(names, key=lambda name: (*name[:2], str(name[2])))


@settings(max_examples=60, deadline=None)
@given(EPOCHS, EPOCHS, SEQUENCES)
def test_behind_an_epoch_a_listing_shows_exactly_what_higher_epochs_wrote(
    own: int, other: int, sequence: int
) -> None:
    for name in (ManifestName(other, sequence), ClaimName(other)):
        key = KEYS.key(name)
        assert key.startswith(KEYS.prefix + MANIFESTS)
        assert (key > KEYS.after_epoch(own)) == (other > own)


@settings(max_examples=60, deadline=None)
@given(NAMES, st.data())
def test_a_damaged_name_is_another_one_or_none(name: Name, data: st.DataObject) -> None:
    text = list(str(name))
    position = data.draw(st.integers(0, len(text) - 1))
    text[position] = data.draw(st.sampled_from("0123456789abcdefABCDEF-/.sx\n٣"))
    damaged = "".join(text)
    parsed = parse_name(damaged)
    assert parsed is None or str(parsed) == damaged


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_no_text_upsets_the_parsers(text: str) -> None:
    for parsed in (parse_name(text), parse_topic_manifest_name(text)):
        assert parsed is None or str(parsed) == text
    assert parse_key(text) is None
    assert parse_partition_prefix(text) is None


@pytest.mark.parametrize(
    "name",
    [
        "manifests/0000000005-0000000012.manifest.tmp",
        "manifests/5-12.manifest",
        "manifests/4294967296-0000000001.manifest",
        "99999999999999999999-0000000005-00000000-0000-0000-0000-000000000007.seg",
        "00000000000000001234-0000000005-00000000-0000-0000-0000-00000000000A.seg",
        "readme.txt",
        "",
    ],
)
def test_what_we_did_not_write_has_no_name(name: str) -> None:
    assert parse_name(name) is None


def test_a_topic_named_like_an_id_is_told_from_its_id() -> None:
    keys = PartitionKeys(CLUSTER, f"a-{UUID(int=1)}", UUID(int=2), 0)
    assert parse_key(keys.key(ClaimName(1))) == ParsedKey(TopicKeys(*keys[:3]), 0, ClaimName(1))


def test_partitions_have_one_spelling() -> None:
    assert parse_partition_prefix(KEYS.prefix.replace("/3/", "/03/")) is None
