"""Reads from a bucket what a restore decides by: everything that manifests of the lost cluster say.

Who uses it: `strandline tier restore`. It only reads. In memory are the manifests of all partitions with their pages, some
hundred bytes for each segment in the bucket, and the committed offsets of all groups.
"""

from __future__ import annotations

import contextlib
from uuid import UUID

from strandline_tiered.bucket_reads import (
    newest_manifest,
    read_manifest,
    read_page,
    scan,
)
from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import ManifestName, PageName, PartitionKeys, TopicKeys
from strandline_tiered.listing import Listing, PartitionListing, TopicListing
from strandline_tiered.manifest import Entry, Manifest, PageRef
from strandline_tiered.object_store import NoSuchObject, ObjectStore
from strandline_tiered.offsets_store import load_newest_offsets
from strandline_tiered.restore_found import FoundPartition, FoundTopic
from strandline_tiered.topic_manifest import TopicManifest
from strandline_tiered.topic_store import load_newest_topic_manifest
from strandline_tiered.workers import for_each

AT_ONCE = 16
_ATTEMPTS = 5
"""Manifests of one partition that are tried while its leader, which should not run any more, writes newer ones."""


async def read_cluster(store: ObjectStore, cluster_id: UUID, *, at_once: int = AT_ONCE) -> list[FoundTopic]:
    """Return the topics of a cluster, by key; none where there is no such cluster. Raises Refused, Unavailable.

    What cannot be read is the `problem` of its partition or topic.
    """
    partitions: dict[TopicKeys, list[FoundPartition]] = {}
    topics: dict[TopicKeys, FoundTopic] = {}

    async def look(listing: Listing) -> None:
        if isinstance(listing, PartitionListing):
            found = await _partition(store, listing)
            partitions.setdefault(TopicKeys(*listing.keys[:3]), []).append(found)
        else:
            topics[listing.keys] = await _topic(store, listing)

    async with contextlib.aclosing(scan(store, cluster_id=cluster_id)) as listings:
        await for_each(listings, look, at_once=at_once)
    return [
        FoundTopic(
            keys,
            topic.highest_epoch,
            topic.manifest,
            tuple(sorted(partitions.get(keys, ()), key=lambda one: one.keys.partition)),
            topic.problem,
        )
        for keys, topic in sorted(topics.items())
    ]


async def _topic(store: ObjectStore, listing: TopicListing) -> FoundTopic:
    manifest: TopicManifest | None = None
    problem = ""
    if listing.manifest is not None:
        try:
            manifest = await load_newest_topic_manifest(store, listing.keys)
        except FormatError as error:
            problem = f"damaged topic manifest: {error}"
    return FoundTopic(listing.keys, listing.highest_epoch, manifest, problem=problem)


async def _partition(store: ObjectStore, listing: PartitionListing) -> FoundPartition:
    keys = listing.keys
    where = keys.prefix
    try:
        manifest, pages = await _manifest(store, keys, listing.manifest)
        if listing.offsets is not None:
            where = keys.key(listing.offsets)
            offsets = await load_newest_offsets(store, keys)
        else:
            offsets = None
    except (FormatError, NoSuchObject) as error:
        return FoundPartition(keys, listing.highest_epoch, problem=f"{where}: {error}")
    return FoundPartition(keys, listing.highest_epoch, manifest, pages, offsets)


async def _manifest(
    store: ObjectStore, keys: PartitionKeys, name: ManifestName | None
) -> tuple[Manifest | None, dict[PageName, tuple[Entry, ...]]]:
    """Return the greatest manifest and the entries of its pages. Raises FormatError, NoSuchObject, with the key."""
    for attempt in range(_ATTEMPTS):
        if name is None:
            return None, {}
        try:
            manifest = await read_manifest(store, keys, name)
            pages = [part for part in manifest.parts if isinstance(part, PageRef)]
            return manifest, {page.name: await read_page(store, keys, page) for page in pages}
        except FormatError as error:
            raise FormatError(f"{keys.key(name)}: {error}") from error
        except NoSuchObject:
            newer = await newest_manifest(store, keys)
            if newer is None or newer == name or attempt + 1 == _ATTEMPTS:
                raise
            name = newer
    raise AssertionError("the last attempt returned or raised")
