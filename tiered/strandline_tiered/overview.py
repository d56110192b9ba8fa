"""What is in a bucket, one summary for each partition: clusters, topics, offsets, bytes, times.

Who uses it: `strandline tier ls`. It only reads: the listing, and of each partition and topic the greatest manifest.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from uuid import UUID

from strandline_tiered.bucket_reads import read_manifest, read_topic_manifest, scan
from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import TopicKeys
from strandline_tiered.listing import Listing, PartitionListing, TopicListing
from strandline_tiered.manifest import NO_TIMESTAMP
from strandline_tiered.object_store import NoSuchObject, ObjectStore
from strandline_tiered.topic_manifest import TopicManifest
from strandline_tiered.workers import for_each

AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class PartitionOverview:
    """One partition. Offsets [start_offset, end_offset) can be read; -1 and empty where there is no manifest.

    `size`: bytes of log; `object_bytes`: of the objects that the manifest names; `listed_bytes`: of all `objects` that are
    there. `max_timestamp`, `written_at_ms`: ms since 1970, -1 for none. `problem`: why the manifest cannot be read.
    """

    partition: int
    objects: int
    listed_bytes: int
    claims: tuple[int, ...]
    manifest: str = ""
    start_offset: int = -1
    end_offset: int = -1
    high_watermark: int = -1
    entries: int = 0
    size: int = 0
    object_bytes: int = 0
    max_timestamp: int = NO_TIMESTAMP
    written_at_ms: int = NO_TIMESTAMP
    offsets: str = ""
    problem: str = ""


@dataclass(slots=True)
class TopicOverview:
    """One topic. `manifest` is None where there is none, or `problem` says why it cannot be read."""

    keys: TopicKeys
    manifest: TopicManifest | None = None
    problem: str = ""
    partitions: list[PartitionOverview] = field(default_factory=list)


async def read_overview(
    store: ObjectStore, *, cluster_id: UUID | None = None, topic: str | None = None, at_once: int = AT_ONCE
) -> list[TopicOverview]:
    """Return the topics of one cluster or of all, in the order of keys. Raises Refused, Unavailable."""
    topics: dict[TopicKeys, TopicOverview] = {}

    async def look(listing: Listing) -> None:
        keys = TopicKeys(*listing.keys[:3])
        overview = topics.setdefault(keys, TopicOverview(keys))
        if isinstance(listing, PartitionListing):
            overview.partitions.append(await _partition(store, listing))
        else:
            await _topic(store, listing, overview)

    async with contextlib.aclosing(scan(store, cluster_id=cluster_id, topic=topic)) as listings:
        await for_each(listings, look, at_once=at_once)
    for overview in topics.values():
        overview.partitions.sort(key=lambda one: one.partition)
    return [topics[keys] for keys in sorted(topics)]


async def _topic(store: ObjectStore, listing: TopicListing, overview: TopicOverview) -> None:
    if listing.manifest is None:
        return
    try:
        overview.manifest = await read_topic_manifest(store, listing.keys, listing.manifest)
    except (FormatError, NoSuchObject) as error:
        overview.problem = f"{listing.manifest}: {error}"


async def _partition(store: ObjectStore, listing: PartitionListing) -> PartitionOverview:
    name = listing.manifest
    known = PartitionOverview(
        partition=listing.keys.partition,
        objects=len(listing.sizes),
        listed_bytes=sum(listing.sizes.values()),
        claims=listing.claims,
        manifest="" if name is None else str(name),
        offsets="" if listing.offsets is None else str(listing.offsets),
    )
    if name is None:
        return known
    try:
        manifest = await read_manifest(store, listing.keys, name)
    except (FormatError, NoSuchObject) as error:
        return replace(known, problem=str(error))
    return replace(
        known,
        start_offset=manifest.log_start,
        end_offset=manifest.end_offset,
        high_watermark=manifest.high_watermark,
        entries=manifest.entry_count,
        size=manifest.size,
        object_bytes=manifest.object_bytes,
        max_timestamp=max((part.max_timestamp for part in manifest.parts), default=NO_TIMESTAMP),
        written_at_ms=manifest.written_at_ms,
    )
