"""Damage of every kind is found and named; what a leader may do meanwhile is no damage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.unit.tiered.bucket_support import (
    OFFSETS,
    OLD,
    ORDERS,
    log_of,
    put_offsets,
    put_partition,
    put_topic,
    segment,
)

from strandline_operator.cli.batch_check import BatchCheck
from strandline_tiered.keys import ClaimName
from strandline_tiered.manifest import Manifest
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.segment_object import BLOCK_BYTES
from strandline_tiered.verify import Finding, Totals, Verifier

KEYS = ORDERS.partition(0)
BOUNDS = (0, 20, 45, 60, 90)


def verified(store: MemoryStore, *, deep: bool = False, at_once: int = 3) -> tuple[list[Finding], Totals]:
    findings: list[Finding] = []
    verifier = Verifier(store, findings.append, log_check=BatchCheck if deep else None, at_once=at_once)
    return findings, asyncio.run(verifier.run())


def damaged(store: MemoryStore, *, deep: bool = False) -> list[tuple[str, str]]:
    findings, totals = verified(store, deep=deep)
    found = [(finding.key, finding.meaning) for finding in findings if finding.is_damage]
    assert totals.damaged == len(found)
    return found


def bucket(paged: int = 2) -> tuple[MemoryStore, Manifest]:
    async def fill() -> tuple[MemoryStore, Manifest]:
        store = MemoryStore()
        manifest = await put_partition(store, KEYS, BOUNDS, paged=paged, claims=(4,))
        await put_partition(store, ORDERS.partition(1), (7, 30))
        await put_topic(store, ORDERS, 2)
        await put_offsets(store, 3, {"readers": {("orders", 0): 12}})
        await put_topic(store, OFFSETS, 50)
        return store, manifest

    return asyncio.run(fill())


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("at_once", [1, 16])
def test_a_sound_bucket_has_no_findings(deep: bool, at_once: int) -> None:
    store, _ = bucket()
    findings, totals = verified(store, deep=deep, at_once=at_once)
    assert findings == []
    assert (totals.topics, totals.partitions, totals.manifests) == (2, 3, 2)
    assert (totals.pages, totals.segments, totals.offsets) == (1, 5, 1)
    assert (totals.bytes_read > 0) == deep


def key_of(store: MemoryStore, start: int) -> str:
    (key,) = [key for key in store.objects if key.startswith(f"{KEYS.prefix}{start:020}-")]
    return key


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("harm", "meaning"),
    [
        (lambda data: None, "missing segment, offsets 20 to 44 cannot be read"),
        (lambda data: data[:-1], "it is shorter than"),
        (lambda data: data + b"x", "it is longer than"),
        (lambda data: b"", "it is shorter than"),
        (lambda data: flipped(data, len(data) - 1), "does not end with the magic"),
        (lambda data: flipped(data, len(data) - 100), "the footer does not fit its checksum"),
    ],
)
def test_a_segment_that_is_not_as_its_entry_says_is_damage(
    harm: Callable[[bytes], bytes | None], meaning: str
) -> None:
    store, _ = bucket()
    key = key_of(store, 20)
    data = harm(store.objects.pop(key))
    if data is not None:
        store.objects[key] = data
    for deep in (False, True):
        ((found, said),) = damaged(store, deep=deep)
        assert found == key
        assert meaning in said
        assert "offsets 20 to 44 cannot be read" in said


def test_a_segment_in_the_place_of_another_is_damage() -> None:
    store, _ = bucket()
    store.objects[key_of(store, 20)] = segment(ORDERS.partition(9), 20, 45, 4)[1]
    ((_, said),) = damaged(store)
    assert "its partition: 9; the manifest says 0" in said


def test_only_a_deep_check_sees_a_flipped_bit_in_the_log() -> None:
    store, _ = bucket()
    key = key_of(store, 45)
    store.objects[key] = flipped(store.objects[key], 300)
    assert damaged(store) == []
    ((found, said),) = damaged(store, deep=True)
    assert found == key
    assert "do not fit their checksum" in said


def test_batches_are_checked_for_themselves() -> None:
    """The block checksums are right: the log was wrong when it was uploaded."""
    entry, _ = segment(KEYS, 0, 20, 4)
    log = log_of(0, 20, 4)
    at = len(log_of(0, 5, 4))
    cases = {
        flipped(log, at + 80): "does not fit its checksum",
        log[at:] + log[:at]: "where",
        log[:-1]: "ends within the batch",
        log_of(0, 10, 4) + log_of(10, 20, 3): "is of leader epoch 3, after 4",
        log_of(0, 20, 5): "is of leader epoch 5",
        flipped(log, 16): "there is no batch at 0",
    }
    for wrong, meaning in cases.items():
        for step in (7, len(wrong)):
            with pytest.raises(Exception, match=meaning):
                feed(BatchCheck(entry), wrong, step)
    for step in (1, 61, 1000, len(log)):
        feed(BatchCheck(entry), log, step)


def feed(check: BatchCheck, log: bytes, step: int) -> None:
    for start in range(0, len(log), step):
        check.feed(memoryview(log)[start : start + step])
    check.end()


def test_a_deep_check_reads_several_blocks() -> None:
    async def fill() -> MemoryStore:
        store = MemoryStore()
        await put_partition(store, KEYS, (0, 15_000))
        return store

    store = asyncio.run(fill())
    key = key_of(store, 0)
    assert len(store.objects[key]) > 2 * BLOCK_BYTES
    assert damaged(store, deep=True) == []
    store.objects[key] = flipped(store.objects[key], 2 * BLOCK_BYTES + 5)
    assert len(damaged(store, deep=True)) == 1


def test_damaged_and_missing_pages_say_what_is_lost() -> None:
    store, manifest = bucket()
    key = KEYS.key(manifest.parts[0].name)
    data = store.objects.pop(key)
    assert damaged(store) == [(key, "missing page, which segments hold offsets 0 to 44 is lost")]
    store.objects[key] = flipped(data, 40)
    ((_, said),) = damaged(store)
    assert "damaged page, which segments hold offsets 0 to 44 is lost" in said


@pytest.mark.parametrize("at", [2, 20, 60])
def test_manifests_that_cannot_be_read_are_damage(at: int) -> None:
    store, manifest = bucket()
    for key in (
        KEYS.key(manifest.name),
        *(key for key in store.objects if key.endswith((".topic", ".offsets"))),
    ):
        whole = store.objects[key]
        store.objects[key] = flipped(whole, at)
        assert [found for found, _ in damaged(store)] == [key]
        store.objects[key] = whole


def test_what_a_successor_changed_meanwhile_is_looked_at_again() -> None:
    """The manifest that was listed names objects that its successor has given up, and deleted."""

    class Racing(MemoryStore):
        async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
            data = await super().get(key, start, end)
            if key == KEYS.key(old.name) and newer is not None:
                await put_partition(self, KEYS, (60, 90), epoch=4, sequence=9)
                self.objects.pop(key_of(self, 0), None)
            return data

    store = Racing()
    newer = None
    old = asyncio.run(put_partition(store, KEYS, BOUNDS))
    newer = True
    findings, totals = verified(store)
    assert not [finding for finding in findings if finding.is_damage]
    assert totals.segments == 1


def test_unreferenced_objects_are_listed_and_are_no_damage() -> None:
    async def add(store: MemoryStore) -> str:
        entry, data = segment(KEYS, 90, 120, 6)
        await store.put(KEYS.key(entry.name), (data,))
        await store.put(KEYS.key(ClaimName(6)), ())
        return KEYS.key(entry.name)

    store, _ = bucket()
    key = asyncio.run(add(store))
    findings, totals = verified(store)
    assert [(finding.key, finding.is_damage) for finding in findings] == [(key, False)]
    assert "of leader epoch 6" in findings[0].meaning
    assert (totals.unreferenced, totals.damaged) == (1, 0)


def test_deleted_topics_and_those_without_a_manifest_are_noted() -> None:
    async def fill() -> MemoryStore:
        store = MemoryStore()
        await put_partition(store, KEYS, (0, 5))
        await put_topic(store, OFFSETS, 2, deleted_at_ms=5)
        return store

    findings, totals = verified(asyncio.run(fill()))
    deleted = f"{OFFSETS.prefix}topic/0000000004-0000000001.topic"
    assert {finding.key for finding in findings} == {ORDERS.prefix, deleted}
    assert totals.damaged == 0


def test_only_what_is_asked_for_is_looked_at() -> None:
    store, _ = bucket()
    store.objects[key_of(store, 0)] = b"short"

    async def run(topic: str) -> Totals:
        return await Verifier(store, lambda _: None).run(cluster_id=OLD, topic=topic)

    assert asyncio.run(run("__consumer_offsets")).damaged == 0
    assert asyncio.run(run("orders")).damaged == 1
    assert asyncio.run(run("order")).partitions == 0
