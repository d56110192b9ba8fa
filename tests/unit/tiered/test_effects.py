"""What the tiering protocol asks of a bucket, done in one: each effect, and what it answers when that goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

from strandline_tiered.effects import BucketEffects
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind, ScriptedFaults
from strandline_tiered.keys import ClaimName, ManifestName, Name, PartitionKeys, SegmentName
from strandline_tiered.manifest import Entry, empty_manifest
from strandline_tiered.manifest_events import Stamped, Uploaded, apply
from strandline_tiered.manifest_format import encode_manifest
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.protocol_messages import (
    Damaged,
    Delete,
    Deleted,
    Failed,
    ListAll,
    Listed,
    ListManifests,
    Look,
    ManifestRead,
    NotFound,
    PageRead,
    PageStored,
    PutClaim,
    PutManifest,
    PutPage,
    ReadManifest,
    ReadPage,
    Stored,
)

KEYS = PartitionKeys(UUID(int=1), "t", UUID(int=2), 3)
EPOCH = 5
ENTRY = Entry(0, 10, SegmentName(0, EPOCH, UUID(int=9)), 100, 90, 0, 1, 2)
MANIFEST = apply(
    apply(empty_manifest(KEYS.topic_id, 3, 0), Uploaded(ENTRY)), Stamped(ManifestName(EPOCH, 1), 10, 7)
)


def run(test: Callable[[BucketEffects, MemoryStore, FaultyStore], Coroutine[Any, Any, None]]) -> None:
    store = MemoryStore()
    faulty = FaultyStore(store)
    asyncio.run(test(BucketEffects(faulty, KEYS, EPOCH, lambda: UUID(int=77)), store, faulty))


def test_a_claim_is_an_empty_object() -> None:
    async def test(bucket: BucketEffects, store: MemoryStore, _: FaultyStore) -> None:
        effect = PutClaim(ClaimName(EPOCH))
        assert await bucket.carry_out(effect) == Stored(effect)
        assert store.objects == {KEYS.key(ClaimName(EPOCH)): b""}

    run(test)


def test_a_manifest_is_read_as_it_was_written() -> None:
    async def test(bucket: BucketEffects, store: MemoryStore, _: FaultyStore) -> None:
        effect = PutManifest(MANIFEST)
        assert await bucket.carry_out(effect) == Stored(effect)
        assert await bucket.carry_out(ReadManifest(MANIFEST.name)) == ManifestRead(MANIFEST.name, MANIFEST)
        missing = ReadManifest(ManifestName(EPOCH, 2))
        assert await bucket.carry_out(missing) == NotFound(missing)
        store.objects[KEYS.key(missing.name)] = encode_manifest(MANIFEST)
        assert isinstance(await bucket.carry_out(missing), Damaged), "it calls itself something else"
        store.objects[KEYS.key(MANIFEST.name)] = b"nothing"
        assert isinstance(await bucket.carry_out(ReadManifest(MANIFEST.name)), Damaged)

    run(test)


def test_lists_show_what_the_protocol_asked_for() -> None:
    async def test(bucket: BucketEffects, store: MemoryStore, _: FaultyStore) -> None:
        own, older, newer = ManifestName(EPOCH, 9), ManifestName(4, 1), ManifestName(6, 1)
        names: list[Name] = [ClaimName(4), ClaimName(EPOCH), ClaimName(6), older, own, newer, ENTRY.name]
        for name in names:
            store.objects[KEYS.key(name)] = b""
        store.objects[KEYS.prefix + "manifests/somebody's"] = b""
        store.objects[KEYS._replace(partition=30).key(older)] = b""
        manifests = (older, ClaimName(4), own, ClaimName(EPOCH), newer, ClaimName(6))
        assert await bucket.carry_out(ListManifests()) == Listed(ListManifests(), manifests)
        look = Look(own)
        assert await bucket.carry_out(look) == Listed(look, (newer, ClaimName(6)))
        answer = await bucket.carry_out(ListAll())
        assert isinstance(answer, Listed)
        assert set(answer.names) == set(names)

    run(test)


def test_a_page_is_read_as_it_was_written() -> None:
    async def test(bucket: BucketEffects, store: MemoryStore, _: FaultyStore) -> None:
        stored = await bucket.carry_out(PutPage((ENTRY,)))
        assert isinstance(stored, PageStored)
        assert (stored.page.name.leader_epoch, stored.page.name.object_id) == (EPOCH, UUID(int=77))
        read = ReadPage(stored.page)
        assert await bucket.carry_out(read) == PageRead(stored.page, (ENTRY,))
        key = KEYS.key(stored.page.name)
        store.objects[key] = store.objects[key][:-1] + b"x"
        assert isinstance(await bucket.carry_out(read), Damaged)
        del store.objects[key]
        assert await bucket.carry_out(read) == NotFound(read)

    run(test)


def test_what_is_deleted_is_gone() -> None:
    async def test(bucket: BucketEffects, store: MemoryStore, _: FaultyStore) -> None:
        await bucket.carry_out(PutClaim(ClaimName(EPOCH)))
        names = (ClaimName(EPOCH), ENTRY.name)
        assert await bucket.carry_out(Delete(names)) == Deleted(names)
        assert store.objects == {}

    run(test)


def test_a_failure_is_an_answer_and_remembered_until_something_succeeds() -> None:
    async def test(bucket: BucketEffects, _: MemoryStore, faulty: FaultyStore) -> None:
        faulty.plan = ScriptedFaults(
            [Fault(Kind.UNAVAILABLE)] * 3, operations=("put", "list", "get", "delete")
        )
        for effect in (PutClaim(ClaimName(EPOCH)), ListManifests(), ReadManifest(MANIFEST.name)):
            assert await bucket.carry_out(effect) == Failed(effect)
            assert bucket.last_failure is not None
        assert isinstance(await bucket.carry_out(ListManifests()), Listed)
        assert bucket.last_failure is None

    run(test)
