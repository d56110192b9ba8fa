"""Topic manifests and offset snapshots in a bucket: the greatest counts, the others go, and nothing is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.tiered.test_offsets_snapshot import SNAPSHOT
from tests.unit.tiered.test_topic_manifest import MANIFEST, TOMBSTONE, TOPIC

from strandline_tiered.envelope import FormatError, UnsupportedVersion, seal
from strandline_tiered.keys import ManifestName, OffsetsName, PartitionKeys, SegmentName, TopicKeys
from strandline_tiered.keys import TopicManifestName as Name
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.newest import superseded
from strandline_tiered.object_store import ObjectInfo, Unavailable
from strandline_tiered.offsets_snapshot import MAGIC as OFFSETS_MAGIC
from strandline_tiered.offsets_snapshot import encode_offsets
from strandline_tiered.offsets_store import collect_offsets, load_newest_offsets, write_offsets
from strandline_tiered.topic_manifest import encode_topic_manifest
from strandline_tiered.topic_store import (
    FEW_KEYS,
    collect_topic_manifests,
    list_topics,
    load_newest_topic_manifest,
    write_topic_manifest,
)

KEYS = PartitionKeys(UUID(int=1), "__consumer_offsets", UUID(int=2), SNAPSHOT.partition)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


# -- what goes ------------------------------------------------------------------------------------------------------------


def test_the_newest_and_the_one_before_it_are_kept() -> None:
    names = [OffsetsName(3, 9), OffsetsName(4, 1), OffsetsName(2, 50), OffsetsName(4, 2)]
    assert superseded(names, OffsetsName(4, 2)) == [OffsetsName(2, 50), OffsetsName(3, 9)]
    assert superseded(names[:1], OffsetsName(4, 1)) == []
    assert superseded([], OffsetsName(4, 1)) == []


@given(st.sets(st.builds(OffsetsName, st.integers(0, 3), st.integers(0, 5))), st.data())
def test_the_greatest_is_never_deleted_nor_what_is_above_ones_own(
    names: set[OffsetsName], data: st.DataObject
) -> None:
    stored = data.draw(st.builds(OffsetsName, st.integers(0, 3), st.integers(0, 5)))
    there = names | {stored}
    left = there - set(superseded(there, stored))
    assert max(left) == max(there)
    assert {name for name in there if name >= stored} <= left
    assert len([name for name in left if name <= stored]) <= 2


# -- snapshots of offsets -----------------------------------------------------------------------------------------------


def test_the_newest_snapshot_is_found_whoever_wrote_it_last() -> None:
    async def test() -> None:
        store = MemoryStore()
        assert await load_newest_offsets(store, KEYS) is None
        newest = replace(SNAPSHOT, name=OffsetsName(10, 1))
        for snapshot in (newest, SNAPSHOT, replace(SNAPSHOT, name=OffsetsName(9, 7))):
            await write_offsets(store, KEYS, snapshot)
        other = KEYS._replace(partition=SNAPSHOT.partition + 1)
        await write_offsets(store, other, replace(newest, partition=other.partition, name=OffsetsName(99, 1)))
        store.objects[KEYS.key(ManifestName(11, 1))] = b""
        assert await load_newest_offsets(store, KEYS) == newest

    run(test())


def test_a_damaged_newest_snapshot_is_an_error_that_names_it() -> None:
    async def test() -> None:
        store = MemoryStore()
        await write_offsets(store, KEYS, SNAPSHOT)
        newest = KEYS.key(OffsetsName(5, 1))
        store.objects[newest] = encode_offsets(replace(SNAPSHOT, name=OffsetsName(5, 1)))[:-1]
        with pytest.raises(FormatError, match=newest):
            await load_newest_offsets(store, KEYS)
        store.objects[newest] = seal(OFFSETS_MAGIC, 2, b"{}")
        with pytest.raises(UnsupportedVersion, match=newest):
            await load_newest_offsets(store, KEYS)

    run(test())


@pytest.mark.parametrize("change", [{"name": OffsetsName(4, 3)}, {"partition": SNAPSHOT.partition + 1}])
def test_a_snapshot_that_calls_itself_something_else_is_an_error(change: dict[str, Any]) -> None:
    async def test() -> None:
        store = MemoryStore()
        store.objects[KEYS.key(SNAPSHOT.name)] = encode_offsets(replace(SNAPSHOT, **change))
        with pytest.raises(FormatError, match="calls itself"):
            await load_newest_offsets(store, KEYS)

    run(test())


class _Collected(MemoryStore):
    """In which, after each listing, somebody replaces what was listed."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.next = SNAPSHOT

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        async for info in super().list(prefix, after=after):
            yield info
        if self.times:
            self.times -= 1
            self.objects.clear()
            self.next = replace(self.next, name=OffsetsName(4, self.next.name.sequence + 1))
            await write_offsets(self, KEYS, self.next)


def test_a_snapshot_that_was_collected_after_it_was_listed_is_looked_for_again() -> None:
    async def test() -> None:
        store = _Collected(times=3)
        await write_offsets(store, KEYS, SNAPSHOT)
        assert await load_newest_offsets(store, KEYS) == replace(SNAPSHOT, name=OffsetsName(4, 5))
        store = _Collected(times=1000)
        await write_offsets(store, KEYS, SNAPSHOT)
        with pytest.raises(Unavailable, match="was gone each time"):
            await load_newest_offsets(store, KEYS)

    run(test())


def test_snapshots_that_are_superseded_are_collected_and_nothing_else() -> None:
    async def test() -> None:
        store = MemoryStore()
        names = [
            OffsetsName(2, 8),
            OffsetsName(3, 1),
            OffsetsName(4, 1),
            OffsetsName(4, 2),
            OffsetsName(5, 1),
        ]
        for name in names:
            await write_offsets(store, KEYS, replace(SNAPSHOT, name=name))
        others = [KEYS.key(ManifestName(1, 1)), KEYS.key(SegmentName(0, 1, UUID(int=3)))]
        store.objects |= dict.fromkeys(others, b"")
        assert await collect_offsets(store, KEYS, OffsetsName(4, 2)) == 2
        assert set(store.objects) == {*others, *(KEYS.key(name) for name in names[2:])}

    run(test())


# -- topic manifests ----------------------------------------------------------------------------------------------------


def test_the_newest_topic_manifest_is_found_and_older_ones_are_collected() -> None:
    async def test() -> None:
        store = MemoryStore()
        assert await load_newest_topic_manifest(store, TOPIC) is None
        for manifest in (TOMBSTONE, MANIFEST, replace(MANIFEST, name=Name(3, 9))):
            await write_topic_manifest(store, TOPIC, manifest)
        assert await load_newest_topic_manifest(store, TOPIC) == TOMBSTONE
        assert await collect_topic_manifests(store, TOPIC, TOMBSTONE.name) == 1
        assert set(store.objects) == {TOPIC.key(TOMBSTONE.name), TOPIC.key(MANIFEST.name)}

    run(test())


@pytest.mark.parametrize(
    "wrong", [replace(MANIFEST, topic="other"), replace(MANIFEST, topic_id=UUID(int=7)), TOMBSTONE]
)
def test_a_topic_manifest_of_something_else_is_an_error(wrong: Any) -> None:
    async def test() -> None:
        store = MemoryStore()
        store.objects[TOPIC.key(MANIFEST.name)] = encode_topic_manifest(wrong)
        with pytest.raises(FormatError, match="calls itself"):
            await load_newest_topic_manifest(store, TOPIC)
        store.objects[TOPIC.key(MANIFEST.name)] = b"nonsense that is long enough"
        with pytest.raises(FormatError, match=TOPIC.key(MANIFEST.name)):
            await load_newest_topic_manifest(store, TOPIC)

    run(test())


class _Counted(MemoryStore):
    listed = 0

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        async for info in super().list(prefix, after=after):
            self.listed += 1
            yield info


def test_every_topic_of_a_cluster_is_listed_once_and_large_ones_are_skipped_through() -> None:
    async def test() -> None:
        store = _Counted()
        cluster = UUID(int=1)
        # One whose name begins as another's whole prefix does, on either side of it.
        large = TopicKeys(cluster, "large", UUID(int=5))
        topics = [
            TopicKeys(cluster, "a", UUID(int=4)),
            TopicKeys(cluster, f"large-{large.topic_id}", UUID(int=6)),
            large,
            TopicKeys(cluster, f"large-{large.topic_id}0", UUID(int=6)),
            TopicKeys(cluster, "z", UUID(int=4)),
        ]
        for topic in topics:
            store.objects[topic.partition(0).key(SegmentName(0, 1, UUID(int=3)))] = b""
        for number in range(5000):
            store.objects[large.partition(number % 7).key(SegmentName(number, 1, UUID(int=3)))] = b""
        store.objects[f"{UUID(int=1)}/topics/stray"] = b""
        other = TopicKeys(UUID(int=2), "other", UUID(int=4))
        store.objects[other.key(Name(1, 1))] = b""
        found = [listing async for listing in list_topics(store, cluster)]
        assert [listing.topic for listing in found] == topics
        assert [listing.is_whole for listing in found] == [topic is not large for topic in topics]
        assert [len(listing.keys) for listing in found] == [
            FEW_KEYS if topic is large else 1 for topic in topics
        ]
        assert store.listed < FEW_KEYS + 10

    run(test())
