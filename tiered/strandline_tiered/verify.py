"""Checks a bucket against itself: all that manifests refer to is there, whole, and says what they say.

Who uses it: `strandline tier verify`. It reads and never writes, needs no broker, and may run beside brokers: what looks
wrong because a leader wrote another manifest meanwhile is looked at again under that one.

Bounds: `at_once` partitions at a time, of each of which the names are held, and as many objects at a time in all of them,
with `READ_BYTES` of each in a deep check.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from strandline_tiered.bucket_reads import (
    newest_manifest,
    read_manifest,
    read_offsets,
    read_page,
    read_topic_manifest,
    scan,
)
from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import ManifestName, Name, OffsetsName, PageName, PartitionKeys, SegmentName
from strandline_tiered.listing import Listing, PartitionListing, TopicListing
from strandline_tiered.manifest import Entry, Manifest, PageRef
from strandline_tiered.object_store import NoSuchObject, ObjectStore
from strandline_tiered.segment_check import MakeLogCheck, check_deeply, check_segment
from strandline_tiered.workers import for_each

AT_ONCE = 16
_ATTEMPTS = 5
"""Manifests of one partition that are looked at before what is wrong counts although newer ones keep coming."""


class Finding(NamedTuple):
    """Something about one object: damage, or what is worth knowing. `meaning` is for people."""

    key: str
    meaning: str
    is_damage: bool = True


@dataclass(slots=True)
class Totals:
    """What was looked at. `bytes_read` counts the bodies that a deep check read."""

    topics: int = 0
    partitions: int = 0
    manifests: int = 0
    pages: int = 0
    segments: int = 0
    offsets: int = 0
    bytes_read: int = 0
    unreferenced: int = 0
    damaged: int = 0


@dataclass(slots=True)
class _Looked:
    """What one look at a partition found."""

    findings: list[Finding] = field(default_factory=list)
    referenced: set[Name] = field(default_factory=set)
    pages: int = 0
    segments: int = 0

    def damage(self, key: str, meaning: str) -> None:
        self.findings.append(Finding(key, meaning))


class Verifier:
    """One verification. `report` hears of every finding as it is made; `log_check` makes it a deep one."""

    def __init__(
        self,
        store: ObjectStore,
        report: Callable[[Finding], None],
        *,
        log_check: MakeLogCheck | None = None,
        at_once: int = AT_ONCE,
    ) -> None:
        self._store = store
        self._report = report
        self._log_check = log_check
        self._at_once = at_once
        self._objects = asyncio.Semaphore(at_once)
        self.totals = Totals()

    async def run(self, *, cluster_id: UUID | None = None, topic: str | None = None) -> Totals:
        """Check what is named, or everything. Raises Refused, Unavailable."""
        async with contextlib.aclosing(scan(self._store, cluster_id=cluster_id, topic=topic)) as listings:
            await for_each(listings, self._check, at_once=self._at_once)
        return self.totals

    async def _check(self, listing: Listing) -> None:
        if isinstance(listing, TopicListing):
            await self._check_topic(listing)
        else:
            await self._check_partition(listing)

    def _say(self, finding: Finding) -> None:
        self.totals.damaged += finding.is_damage
        self._report(finding)

    # -- topics --------------------------------------------------------------------------------------------------------

    async def _check_topic(self, listing: TopicListing) -> None:
        self.totals.topics += 1
        name = listing.manifest
        if name is None:
            meaning = "no topic manifest yet: a restore would not know the topic's configuration"
            self._say(Finding(listing.keys.prefix, meaning, is_damage=False))
            return
        key = listing.keys.key(name)
        try:
            manifest = await read_topic_manifest(self._store, listing.keys, name)
        except FormatError as error:
            self._say(Finding(key, f"damaged topic manifest, the topic's configuration is lost: {error}"))
            return
        except NoSuchObject:
            return  # a newer one has replaced it since it was listed
        if manifest.deleted_at_ms is not None:
            self._say(Finding(key, "the topic is deleted; its objects are to be swept", is_damage=False))
        elif listing.partitions and max(listing.partitions) >= manifest.partitions:
            meaning = (
                f"says {manifest.partitions} partitions, and partition {max(listing.partitions)} has objects"
            )
            self._say(Finding(key, meaning, is_damage=False))

    # -- partitions ----------------------------------------------------------------------------------------------------

    async def _check_partition(self, listing: PartitionListing) -> None:
        self.totals.partitions += 1
        name = listing.manifest
        looked = _Looked()
        for _ in range(_ATTEMPTS):
            if name is None:
                break
            looked = await self._look(listing.keys, name)
            newer = await newest_manifest(self._store, listing.keys) if looked.findings else None
            if newer is None or newer <= name:
                break
            name = newer
        self.totals.manifests += name is not None
        self.totals.pages += looked.pages
        self.totals.segments += looked.segments
        for finding in looked.findings:
            self._say(finding)
        await self._check_offsets(listing)
        if not any(finding.is_damage for finding in looked.findings):
            self._report_unreferenced(listing, looked.referenced)

    async def _look(self, keys: PartitionKeys, name: ManifestName) -> _Looked:
        looked = _Looked()
        key = keys.key(name)
        try:
            manifest = await read_manifest(self._store, keys, name)
        except FormatError as error:
            looked.damage(
                key, f"damaged manifest, nothing says what the partition has in the bucket: {error}"
            )
        except NoSuchObject:
            looked.damage(key, "the manifest was listed and is gone")
        else:
            await self._follow(keys, manifest, looked)
        return looked

    async def _follow(self, keys: PartitionKeys, manifest: Manifest, looked: _Looked) -> None:
        async def check(entry: Entry) -> None:
            async with self._objects:
                await self._check_entry(keys, entry, looked)

        await for_each(self._entries(keys, manifest, looked), check, at_once=self._at_once)
        looked.findings.sort()

    async def _entries(
        self, keys: PartitionKeys, manifest: Manifest, looked: _Looked
    ) -> AsyncIterator[Entry]:
        for part in manifest.parts:
            looked.referenced.add(part.name)
            if isinstance(part, Entry):
                yield part
                continue
            for entry in await self._page(keys, part, looked):
                looked.referenced.add(entry.name)
                yield entry

    async def _page(self, keys: PartitionKeys, page: PageRef, looked: _Looked) -> tuple[Entry, ...]:
        looked.pages += 1
        lost = f"which segments hold offsets {page.start_offset} to {page.end_offset - 1} is lost"
        try:
            return await read_page(self._store, keys, page)
        except FormatError as error:
            looked.damage(page.key(keys), f"damaged page, {lost}: {error}")
        except NoSuchObject:
            looked.damage(page.key(keys), f"missing page, {lost}")
        return ()

    async def _check_entry(self, keys: PartitionKeys, entry: Entry, looked: _Looked) -> None:
        looked.segments += 1
        lost = f"offsets {entry.start_offset} to {entry.end_offset - 1} cannot be read"
        try:
            if self._log_check is None:
                await check_segment(self._store, keys, entry)
            else:
                self.totals.bytes_read += await check_deeply(self._store, keys, entry, self._log_check)
        except FormatError as error:
            looked.damage(entry.key(keys), f"damaged segment, {lost}, or not all of them: {error}")
        except NoSuchObject:
            looked.damage(entry.key(keys), f"missing segment, {lost}")

    async def _check_offsets(self, listing: PartitionListing) -> None:
        for name in listing.sizes:
            if not isinstance(name, OffsetsName):
                continue
            is_newest = name == listing.offsets
            try:
                await read_offsets(self._store, listing.keys, name)
            except FormatError as error:
                meaning = f"damaged snapshot of group offsets{'' if is_newest else ', superseded'}: {error}"
                self._say(Finding(listing.keys.key(name), meaning, is_damage=is_newest))
            except NoSuchObject:
                continue  # newer ones replace older ones
            else:
                self.totals.offsets += 1

    def _report_unreferenced(self, listing: PartitionListing, referenced: set[Name]) -> None:
        for name in listing.sizes:
            if isinstance(name, SegmentName | PageName) and name not in referenced:
                self.totals.unreferenced += 1
                meaning = f"unreferenced, of leader epoch {name.leader_epoch}: not published yet, or to be collected"
                self._say(Finding(listing.keys.key(name), meaning, is_damage=False))
