"""Walks over a bucket for `strandline tier scrub`: what no manifest needs, partition by partition."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from uuid import UUID

from strandline_tiered.bucket_reads import read_manifest, read_page, scan
from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import Name, PartitionKeys
from strandline_tiered.listing import Listing, PartitionListing
from strandline_tiered.manifest import Manifest, PageRef
from strandline_tiered.object_store import NoSuchObject, ObjectStore
from strandline_tiered.scrub_report import leftovers
from strandline_tiered.workers import for_each

AT_ONCE = 16


async def report_leftovers(
    store: ObjectStore,
    report: Callable[[dict[str, Any]], None],
    *,
    cluster_id: UUID | None,
    topic: str | None,
) -> tuple[int, int]:
    """Report each object that no manifest needs; return their number and bytes. Raises Refused, Unavailable."""
    count = total = 0

    async def look(listing: Listing) -> None:
        nonlocal count, total
        if not isinstance(listing, PartitionListing) or listing.manifest is None:
            return
        try:
            manifest = await read_manifest(store, listing.keys, listing.manifest)
            named = await _named(store, listing.keys, manifest)
        except (FormatError, NoSuchObject) as error:
            problem = f"a sound manifest, and pages, to judge by: {error}"
            report({"key": listing.keys.key(listing.manifest), "size": 0, "waitsFor": problem})
            return
        for name, size, waits_for in leftovers(listing, manifest, named):
            count, total = count + 1, total + size
            report({"key": listing.keys.key(name), "size": size, "waitsFor": waits_for})

    async with contextlib.aclosing(scan(store, cluster_id=cluster_id, topic=topic)) as listings:
        await for_each(listings, look, at_once=AT_ONCE)
    return count, total


async def _named(store: ObjectStore, keys: PartitionKeys, manifest: Manifest) -> set[Name]:
    named: set[Name] = set()
    for part in manifest.parts:
        named.add(part.name)
        if isinstance(part, PageRef):
            named.update(entry.name for entry in await read_page(store, keys, part))
    return named
