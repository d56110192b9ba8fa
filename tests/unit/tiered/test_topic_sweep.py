"""Deleted topics in a bucket: what goes, what stays, and that a sweep may end anywhere and be begun by anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

import pytest
from tests.unit.tiered.test_topic_manifest import MANIFEST, TOMBSTONE, TOPIC

from strandline_tiered.faulty_store import Fault, FaultyStore, Kind, ScriptedFaults
from strandline_tiered.keys import (
    ClaimName,
    ManifestName,
    PageName,
    SegmentName,
    TopicKeys,
    TopicManifestName,
)
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.object_store import Unavailable
from strandline_tiered.topic_manifest import FINAL, encode_topic_manifest, final_tombstone
from strandline_tiered.topic_store import load_newest_topic_manifest
from strandline_tiered.topic_sweep import sweep_purged

CLUSTER = TOPIC.cluster_id
OTHER = TopicKeys(CLUSTER, "kept", UUID(int=50))
PURGED = {TOPIC.topic_id}
LEFT = TOPIC.key(FINAL)


def fill(store: MemoryStore, topic: TopicKeys, segments: int = 3) -> None:
    store.objects[topic.key(MANIFEST.name)] = encode_topic_manifest(MANIFEST)
    for index in range(2):
        keys = topic.partition(index)
        store.objects[keys.key(ClaimName(4))] = b""
        store.objects[keys.key(ManifestName(4, 1))] = b"m"
        store.objects[keys.key(PageName(0, 4, UUID(int=1)))] = b"p"
        for number in range(segments):
            store.objects[keys.key(SegmentName(number, 4, UUID(int=1)))] = b"s"


def below(store: MemoryStore, topic: TopicKeys) -> list[str]:
    return sorted(key for key in store.objects if key.startswith(topic.prefix))


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_of_a_purged_topic_only_the_final_tombstone_stays() -> None:
    async def test() -> None:
        store = MemoryStore()
        fill(store, TOPIC)
        fill(store, OTHER)
        store.objects[TOPIC.key(TOMBSTONE.name)] = encode_topic_manifest(TOMBSTONE)
        store.objects[f"{TOPIC.prefix}notes"] = b"not ours"
        same_id_elsewhere = TOPIC._replace(cluster_id=UUID(int=77))
        fill(store, same_id_elsewhere)
        kept, elsewhere = below(store, OTHER), below(store, same_id_elsewhere)
        assert await sweep_purged(store, CLUSTER, PURGED) == 14
        assert below(store, TOPIC) == [f"{TOPIC.prefix}notes", LEFT]
        assert below(store, OTHER) == kept
        assert below(store, same_id_elsewhere) == elsewhere
        assert await load_newest_topic_manifest(store, TOPIC) == final_tombstone(TOPIC)

    run(test())


def test_nothing_is_swept_without_a_purged_id() -> None:
    async def test() -> None:
        store = MemoryStore()
        fill(store, TOPIC)
        store.objects[TOPIC.key(TOMBSTONE.name)] = encode_topic_manifest(TOMBSTONE)
        before = dict(store.objects)
        assert await sweep_purged(store, CLUSTER, set()) == 0
        assert await sweep_purged(store, CLUSTER, {OTHER.topic_id}) == 0
        assert store.objects == before

    run(test())


def test_thousands_of_objects_go_in_several_requests() -> None:
    async def test() -> None:
        store = MemoryStore()
        fill(store, TOPIC, segments=1700)
        assert await sweep_purged(store, CLUSTER, PURGED) == 2 * 1703 + 1
        assert below(store, TOPIC) == [LEFT]

    run(test())


def test_a_topic_that_was_never_in_the_bucket_is_not_brought_there() -> None:
    async def test() -> None:
        store = MemoryStore()
        assert await sweep_purged(store, CLUSTER, PURGED) == 0
        assert not store.objects

    run(test())


def test_what_lands_late_goes_the_next_time_and_brings_nothing_back() -> None:
    async def test() -> None:
        store = MemoryStore()
        fill(store, TOPIC)
        await sweep_purged(store, CLUSTER, PURGED)
        late = [
            TOPIC.key(TopicManifestName(900, 1)),
            TOPIC.partition(1).key(SegmentName(9, 5, UUID(int=3))),
            TOPIC.partition(1).key(ClaimName(9)),
        ]
        store.objects |= {late[0]: encode_topic_manifest(MANIFEST), late[1]: b"", late[2]: b""}
        newest = await load_newest_topic_manifest(store, TOPIC)
        assert newest is not None
        assert newest.deleted_at_ms is not None, "it stays deleted whatever lands"
        assert await sweep_purged(store, CLUSTER, PURGED) == 3
        assert below(store, TOPIC) == [LEFT]

    run(test())


def test_where_nothing_landed_a_sweep_only_lists() -> None:
    async def test() -> None:
        store = MemoryStore()
        fill(store, TOPIC)
        await sweep_purged(store, CLUSTER, PURGED)
        refusing = FaultyStore(
            store, ScriptedFaults([Fault(Kind.REFUSED)] * 9, operations=("put", "delete", "get"))
        )
        assert await sweep_purged(refusing, CLUSTER, PURGED) == 0

    run(test())


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.LOST_ANSWER])
@pytest.mark.parametrize("at", range(6))
def test_a_sweep_that_ends_after_any_request_is_finished_by_the_next(at: int, kind: Kind) -> None:
    """Of list (topics), put (tombstone), list (topic), delete, list (rest), delete: the next finds what is left."""

    async def test() -> None:
        store = MemoryStore()
        fill(store, TOPIC, segments=600)
        faults = [None] * at + [Fault(kind)]
        failing = FaultyStore(store, ScriptedFaults(faults, operations=("put", "list", "delete")))
        with pytest.raises(Unavailable):
            await sweep_purged(failing, CLUSTER, PURGED)
        if at >= 2:
            assert LEFT in store.objects, "before anything is deleted, everybody knows that it is"
        else:
            assert len(below(store, TOPIC)) >= 2 * 603 + 1, "nothing goes before that"
        await sweep_purged(store, CLUSTER, PURGED)
        assert below(store, TOPIC) == [LEFT]

    run(test())


def test_two_that_sweep_at_once_do_no_harm() -> None:
    async def test() -> None:
        store = MemoryStore()
        fill(store, TOPIC, segments=600)
        fill(store, OTHER)
        kept = below(store, OTHER)
        await asyncio.gather(*(sweep_purged(FaultyStore(store), CLUSTER, PURGED) for _ in range(2)))
        assert below(store, TOPIC) == [LEFT]
        assert below(store, OTHER) == kept

    run(test())
