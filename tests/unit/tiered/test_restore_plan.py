"""What a restore decides: which objects, which manifests, which epochs; and what stands in its way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

import pytest
from tests.unit.tiered.bucket_support import (
    NEW,
    OFFSETS,
    OLD,
    ORDERS,
    WRITTEN_MS,
    put_partition,
    put_topic,
)

from strandline_tiered.epochs import EpochStart
from strandline_tiered.keys import (
    ManifestName,
    PartitionKeys,
    SegmentName,
    TopicKeys,
    TopicManifestName,
)
from strandline_tiered.manifest import Entry, PageRef, check
from strandline_tiered.manifest_format import decode_manifest, decode_page, encode_manifest, load_page
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.restore_found import FoundPartition, FoundTopic
from strandline_tiered.restore_plan import Choice, Tiers, TopicsPlan, plan_topics
from strandline_tiered.restore_reading import read_cluster

NEW_ORDERS = TopicKeys(NEW, ORDERS.topic, ORDERS.topic_id)


def tiers(config: Mapping[str, str]) -> Tiers:
    if config.get("cleanup.policy") == "compact":
        return Tiers.NEVER
    return Tiers.SWITCHED_OFF if config.get("remote.storage.enable") == "false" else Tiers.YES


def read(store: MemoryStore) -> list[FoundTopic]:
    return asyncio.run(read_cluster(store, OLD))


def plan(found: list[FoundTopic], *topics: str, left_out: tuple[str, ...] = ()) -> TopicsPlan:
    return plan_topics(found, target=NEW, choice=Choice(frozenset(topics), frozenset(left_out)), tiers=tiers)


def fill(store: MemoryStore, *, paged: int = 0, log_start: int = 0, high_watermark: int = 80) -> None:
    async def work() -> None:
        await put_partition(
            store, ORDERS.partition(0), (0, 20, 45, 60), epoch=4, claims=(5, 9), high_watermark=71
        )
        await put_partition(
            store,
            ORDERS.partition(1),
            (0, 30, 40, 50, 80),
            epoch=6,
            sequence=3,
            paged=paged,
            log_start=log_start,
            high_watermark=high_watermark,
        )
        await put_topic(store, ORDERS, 3, epoch=12, config={"retention.ms": "-1"})

    asyncio.run(work())


def test_each_partition_gets_copies_a_manifest_and_an_epoch_above_all_names() -> None:
    store = MemoryStore()
    fill(store)
    result = plan(read(store))
    assert (result.problems, result.notes, result.skipped) == ((), (), ())
    (topic,) = result.topics
    assert (topic.keys, topic.manifest.name) == (NEW_ORDERS, TopicManifestName(13, 1))
    assert (topic.manifest.partitions, topic.manifest.replicas, topic.manifest.topic_epoch) == (3, 3, 0)
    assert (dict(topic.manifest.config), topic.manifest.written_at_ms) == ({"retention.ms": "-1"}, WRITTEN_MS)
    zero, one, two = topic.partitions
    # Of partition 0 the epochs of topic manifests count as well.
    assert [one.leader_epoch for one in topic.partitions] == [13, 7, 1]
    assert (zero.manifest.name, zero.manifest.end_offset, zero.manifest.high_watermark) == (
        ManifestName(13, 1),
        60,
        60,
    )
    assert (zero.former_high_watermark, zero.gap, one.gap) == (71, 11, 0)
    assert (two.manifest.end_offset, two.former_high_watermark, two.copies) == (0, -1, ())
    for partition in topic.partitions:
        check(partition.manifest)
        assert decode_manifest(encode_manifest(partition.manifest)) == partition.manifest
    old = ORDERS.partition(0)
    assert [copy.source for copy in zero.copies] == [
        key for key in sorted(store.objects) if key.startswith(old.prefix) and key.endswith(".seg")
    ]
    for copy in zero.copies:
        assert copy.target == copy.source.replace(str(OLD), str(NEW))
        assert copy.entry in zero.manifest.parts
    assert zero.object_bytes == sum(len(store.objects[copy.source]) for copy in zero.copies)


def test_pages_are_carried_over_byte_by_byte() -> None:
    store = MemoryStore()
    fill(store, paged=3)
    partition = plan(read(store)).topics[0].partitions[1]
    (page, tail) = partition.manifest.parts
    assert isinstance(page, PageRef)
    assert isinstance(tail, Entry)
    ((key, data),) = partition.pages.items()
    assert key == partition.keys.key(page.name)
    assert data == store.objects[key.replace(str(NEW), str(OLD))]
    assert load_page(page, data)[2].end_offset == 50
    assert len(partition.copies) == 4


def test_what_lies_below_the_log_start_is_left_behind() -> None:
    for paged, left in ((0, 2), (2, 2), (3, 4)):
        store = MemoryStore()
        fill(store, log_start=42, paged=paged)
        partition = plan(read(store)).topics[0].partitions[1]
        assert (partition.manifest.log_start, partition.manifest.end_offset) == (42, 80)
        # A page that holds the log start is carried over whole.
        assert len(partition.copies) == left
        check(partition.manifest)


def test_a_partition_whose_records_are_all_deleted_goes_on_where_it_was() -> None:
    store = MemoryStore()
    fill(store, log_start=95, high_watermark=99)
    partition = plan(read(store)).topics[0].partitions[1]
    manifest = partition.manifest
    assert (manifest.log_start, manifest.end_offset, manifest.parts) == (95, 95, ())
    assert (partition.copies, partition.gap) == ((), 4)
    check(manifest)


def test_objects_of_other_origins_become_its_own() -> None:
    store = MemoryStore()
    fill(store, paged=2)
    topic = read(store)[0]
    other = PartitionKeys(UUID(int=9), "elsewhere", UUID(int=10), 3).prefix
    partition = topic.partitions[1]
    assert partition.manifest is not None
    page, *rest = partition.manifest.parts
    assert isinstance(page, PageRef)
    foreign_page = replace(page, origin=other)
    foreign = replace(
        partition,
        manifest=replace(partition.manifest, parts=(foreign_page, *rest)),
        pages={page.name: tuple(replace(entry, origin=other) for entry in partition.pages[page.name])},
    )
    planned = plan([replace(topic, partitions=(topic.partitions[0], foreign))]).topics[0].partitions[1]
    assert [copy.source.startswith(other) for copy in planned.copies] == [True, True, False, False]
    assert all(copy.target.startswith(planned.keys.prefix) for copy in planned.copies)
    (data,) = planned.pages.values()
    assert [entry.origin for entry in decode_page(data)] == ["", ""]
    assert not any(part.origin for part in planned.manifest.parts)
    check(planned.manifest)


def test_the_same_bucket_gives_the_same_plan() -> None:
    store = MemoryStore()
    fill(store, paged=2)
    assert plan(read(store)) == plan(read(store))


def bare(
    keys: TopicKeys, *, config: Mapping[str, str] | None = None, deleted_at_ms: int | None = None
) -> FoundTopic:
    """Return a topic of one partition without objects."""

    async def work() -> FoundTopic:
        store = MemoryStore()
        manifest = await put_topic(store, keys, 1, config=config, deleted_at_ms=deleted_at_ms)
        return FoundTopic(keys, manifest.name.leader_epoch, manifest)

    return asyncio.run(work())


def named(name: str, number: int = 1) -> TopicKeys:
    return TopicKeys(OLD, name, UUID(int=number))


def test_deleted_and_unwanted_topics_are_skipped() -> None:
    found = [bare(named("a"), deleted_at_ms=1), bare(named("b", 2)), bare(named("c", 3)), bare(OFFSETS)]
    result = plan(found)
    assert [topic.keys.topic for topic in result.topics] == ["b", "c"]
    assert result.skipped == ((found[0].label, "it is deleted"),)
    result = plan(found, "b", "a")
    assert [topic.keys.topic for topic in result.topics] == ["b"]
    assert (found[2].label, "it was not asked for") in result.skipped
    assert [topic.keys.topic for topic in plan(found, left_out=("b",)).topics] == ["c"]
    assert plan(found, "nothing").problems == ("there is no topic nothing in the bucket",)


def test_two_topics_of_one_name_have_to_be_told_apart() -> None:
    found = [bare(named("a", 1)), bare(named("a", 2)), bare(named("b", 3))]
    result = plan(found)
    assert result.topics == ()
    assert "2 topics are called a" in result.problems[0]
    assert plan(found, left_out=(found[0].label,)).topics[0].keys.topic_id == UUID(int=2)
    assert [topic.keys.topic_id.int for topic in plan(found, found[1].label).topics] == [2]


def test_of_compacted_topics_only_the_definition_is_there() -> None:
    result = plan([bare(named("a"), config={"cleanup.policy": "compact"})])
    assert result.topics[0].partitions == ()
    assert result.notes == ("a: restored empty, it is compacted",)


def test_records_of_a_topic_whose_tiering_was_switched_off_can_be_read_again() -> None:
    store = MemoryStore()
    fill(store)
    asyncio.run(
        put_topic(store, ORDERS, 2, epoch=20, config={"remote.storage.enable": "false", "segment.ms": "1"})
    )
    result = plan(read(store))
    assert dict(result.topics[0].manifest.config) == {"segment.ms": "1"}
    assert "remote.storage.enable=false is left out" in result.notes[0]
    empty = plan([bare(named("a"), config={"remote.storage.enable": "false"})]).topics[0]
    assert (empty.partitions, empty.manifest.config) == ((), {"remote.storage.enable": "false"})


def test_what_cannot_be_read_stands_in_the_way_unless_it_is_left_out() -> None:
    store = MemoryStore()
    fill(store)
    asyncio.run(put_topic(store, named("other"), 1))
    key = next(key for key in store.objects if key.startswith(ORDERS.prefix) and key.endswith(".manifest"))
    store.objects[key] = store.objects[key][:-1]
    result = plan(read(store))
    assert result.topics == ()
    assert len(result.problems) == 1
    assert key in result.problems[0]
    assert [topic.keys.topic for topic in plan(read(store), left_out=("orders",)).topics] == ["other"]


def test_a_topic_without_a_manifest_has_no_known_configuration() -> None:
    found = FoundTopic(ORDERS, 0, None, (FoundPartition(ORDERS.partition(0), 3),))
    assert "has no topic manifest" in plan([found]).problems[0]


def test_objects_that_nothing_names_raise_the_epoch_and_are_not_copied() -> None:
    store = MemoryStore()
    fill(store)
    late = ORDERS.partition(1).key(SegmentName(80, 31, UUID(int=3)))
    store.objects[late] = b"late"
    partition = plan(read(store)).topics[0].partitions[1]
    assert partition.leader_epoch == 32
    assert late not in [copy.source for copy in partition.copies]


@pytest.mark.parametrize("log_start", [0, 42])
def test_epochs_of_records_stay(log_start: int) -> None:
    store = MemoryStore()
    history = (EpochStart(2, 0), EpochStart(4, 35), EpochStart(6, 50))
    asyncio.run(
        put_partition(store, ORDERS.partition(0), (0, 40, 80), epoch=6, history=history, log_start=log_start)
    )
    asyncio.run(put_topic(store, ORDERS, 1))
    manifest = plan(read(store)).topics[0].partitions[0].manifest
    assert manifest.epochs == history[1 if log_start else 0 :]
