"""Looks into a bucket from outside: lists it, and loads what the names say.

Who uses it: `strandline tier`, and what it is made of. Brokers have `BucketEffects`, which belongs to a leader epoch.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from uuid import UUID

from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import (
    MANIFESTS,
    ManifestName,
    OffsetsName,
    PartitionKeys,
    TopicKeys,
    TopicManifestName,
    cluster_prefix,
    parse_key,
)
from strandline_tiered.listing import Grouping, Listing
from strandline_tiered.manifest import Entry, Manifest, PageRef
from strandline_tiered.manifest_format import decode_manifest, load_page
from strandline_tiered.object_store import ObjectStore
from strandline_tiered.offsets_snapshot import OffsetsSnapshot, decode_offsets
from strandline_tiered.topic_manifest import TopicManifest, decode_topic_manifest


async def scan(
    store: ObjectStore, *, cluster_id: UUID | None = None, topic: str | None = None
) -> AsyncGenerator[Listing, None]:
    """Yield what a bucket holds, of all clusters and topics or of those that are named, partition by partition.

    One pass over the listing; no more than one partition is kept. Raises Refused, Unavailable.
    """
    prefix = "" if cluster_id is None else cluster_prefix(cluster_id)
    if cluster_id is not None and topic is not None:
        prefix += f"{topic}-"
    grouping = Grouping()
    async for info in store.list(prefix):
        for listing in grouping.add(info.key, info.size):
            if topic is None or listing.keys.topic == topic:
                yield listing
    for listing in grouping.end():
        if topic is None or listing.keys.topic == topic:
            yield listing


async def read_manifest(store: ObjectStore, keys: PartitionKeys, name: ManifestName) -> Manifest:
    """Return a manifest. Raises FormatError (also for one of another partition or name), ObjectStoreError."""
    manifest = decode_manifest(await store.get(keys.key(name)))
    if manifest.name != name:
        raise FormatError(f"it calls itself {manifest.name}")
    if (manifest.topic_id, manifest.partition) != (keys.topic_id, keys.partition):
        raise FormatError(f"it is of {manifest.topic_id}, partition {manifest.partition}")
    return manifest


async def newest_manifest(store: ObjectStore, keys: PartitionKeys) -> ManifestName | None:
    """Return the name of the greatest manifest that is there now. Raises ObjectStoreError."""
    found = [keys.parse(info.key) async for info in store.list(f"{keys.prefix}{MANIFESTS}")]
    return max((name for name in found if isinstance(name, ManifestName)), default=None)


async def read_page(store: ObjectStore, keys: PartitionKeys, page: PageRef) -> tuple[Entry, ...]:
    """Return the entries of a page. Raises FormatError, ObjectStoreError."""
    return load_page(page, await store.get(page.key(keys)))


async def read_topic_manifest(store: ObjectStore, keys: TopicKeys, name: TopicManifestName) -> TopicManifest:
    """Return a topic manifest. Raises FormatError (also for one of another topic or name), ObjectStoreError."""
    manifest = decode_topic_manifest(await store.get(keys.key(name)))
    if manifest.name != name:
        raise FormatError(f"it calls itself {manifest.name}")
    if (manifest.topic, manifest.topic_id) != (keys.topic, keys.topic_id):
        raise FormatError(f"it is of {manifest.topic}, {manifest.topic_id}")
    return manifest


async def read_offsets(store: ObjectStore, keys: PartitionKeys, name: OffsetsName) -> OffsetsSnapshot:
    """Return a snapshot of group offsets. Raises FormatError (also for one of another partition), ObjectStoreError."""
    snapshot = decode_offsets(await store.get(keys.key(name)))
    if (snapshot.name, snapshot.partition) != (name, keys.partition):
        raise FormatError(f"it calls itself {snapshot.name} of partition {snapshot.partition}")
    return snapshot


async def clusters(store: ObjectStore) -> AsyncGenerator[UUID, None]:
    """Yield the ids of clusters that have objects. Raises Refused, Unavailable."""
    after = ""
    while True:
        found: UUID | None = None
        async for info in store.list("", after=after):
            parsed = parse_key(info.key)
            if parsed is not None:
                found = parsed.topic.cluster_id
                break
        if found is None:
            return
        yield found
        # Behind everything of this cluster: the names there begin with letters, digits, dots, dashes and underscores.
        after = f"{cluster_prefix(found)}~"
