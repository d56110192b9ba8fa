"""Carries out what the tiering protocol asks of a bucket, and says what came of it.

Who uses it: the archiver of a broker, for everything but uploads and what concerns the local log. Nothing is retried here
beyond what the store itself does: a failure is the answer `Failed`, and its text in `last_failure`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from uuid import UUID

from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import MANIFESTS, Name, PartitionKeys
from strandline_tiered.manifest_format import decode_manifest, encode_manifest, load_page, make_page
from strandline_tiered.object_store import NoSuchObject, ObjectStore, ObjectStoreError
from strandline_tiered.protocol_messages import (
    Damaged,
    Delete,
    Deleted,
    Event,
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

BucketEffect: TypeAlias = (
    PutClaim | ListManifests | ReadManifest | PutPage | ReadPage | PutManifest | Look | ListAll | Delete
)
"""The effects that need nothing but the bucket."""


class BucketEffects:
    """What one leader epoch does in its partition's prefix. `new_id` makes the UUIDs of objects."""

    def __init__(
        self, store: ObjectStore, keys: PartitionKeys, leader_epoch: int, new_id: Callable[[], UUID]
    ) -> None:
        self._store = store
        self._keys = keys
        self._leader_epoch = leader_epoch
        self._new_id = new_id
        self.last_failure: ObjectStoreError | None = None
        """Why the last effect failed; None once one succeeded."""

    async def carry_out(self, effect: BucketEffect) -> Event:
        """Do it, and return what came of it."""
        try:
            event = await self._carry_out(effect)
        except ObjectStoreError as error:
            self.last_failure = error
            return Failed(effect)
        self.last_failure = None
        return event

    async def _carry_out(self, effect: BucketEffect) -> Event:
        store, keys = self._store, self._keys
        match effect:
            case PutClaim(name):
                await store.put(keys.key(name), ())
                return Stored(effect)
            case PutManifest(manifest):
                await store.put(keys.key(manifest.name), (encode_manifest(manifest),))
                return Stored(effect)
            case ListManifests():
                return Listed(effect, await self._list(MANIFESTS))
            case Look():
                return Listed(effect, await self._list(MANIFESTS, keys.after_epoch(self._leader_epoch)))
            case ListAll():
                return Listed(effect, await self._list(""))
            case ReadManifest(name):
                return await self._read_manifest(effect, keys.key(name))
            case PutPage(entries):
                page, data = make_page(entries, self._leader_epoch, self._new_id())
                await store.put(keys.key(page.name), (data,))
                return PageStored(page)
            case ReadPage(page):
                return await self._read_page(effect, page.key(keys))
            case Delete(names):
                await store.delete([keys.key(name) for name in names])
                return Deleted(names)

    async def _list(self, below: str, after: str = "") -> tuple[Name, ...]:
        keys = self._keys
        found = [
            keys.parse(info.key) async for info in self._store.list(f"{keys.prefix}{below}", after=after)
        ]
        return tuple(name for name in found if name is not None)

    async def _read_manifest(self, effect: ReadManifest, key: str) -> Event:
        try:
            manifest = decode_manifest(await self._store.get(key))
        except NoSuchObject:
            return NotFound(effect)
        except FormatError as error:
            return Damaged(effect, str(error))
        if manifest.name != effect.name:
            return Damaged(effect, f"calls itself {manifest.name}")
        return ManifestRead(effect.name, manifest)

    async def _read_page(self, effect: ReadPage, key: str) -> Event:
        try:
            return PageRead(effect.page, load_page(effect.page, await self._store.get(key)))
        except NoSuchObject:
            return NotFound(effect)
        except FormatError as error:
            return Damaged(effect, str(error))
