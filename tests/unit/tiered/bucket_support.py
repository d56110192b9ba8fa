"""Buckets for tests: partitions with sound segment objects of real batches, manifests, pages, topic manifests, offsets."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from uuid import UUID, uuid5

from tests.unit.tiered.store_contract import FileLike

from strandline_broker.wire.batch import Record, build_batch
from strandline_tiered.content import pieces
from strandline_tiered.epochs import EpochStart, History, history_of
from strandline_tiered.keys import (
    ClaimName,
    ManifestName,
    OffsetsName,
    PartitionKeys,
    SegmentName,
    TopicKeys,
    TopicManifestName,
)
from strandline_tiered.manifest import Entry, Manifest, empty_manifest
from strandline_tiered.manifest_events import LogStartRaised, Spilled, Stamped, Uploaded, apply
from strandline_tiered.manifest_format import encode_manifest, make_page
from strandline_tiered.object_store import ObjectStore
from strandline_tiered.offsets_snapshot import (
    CommittedOffset,
    OffsetsSnapshot,
    TopicPartition,
    encode_offsets,
)
from strandline_tiered.segment_object import Companions, SegmentInfo, build
from strandline_tiered.topic_manifest import TopicManifest, encode_topic_manifest

OLD = UUID("0a0b0c0d-0000-4000-8000-000000000001")
NEW = UUID("0a0b0c0d-0000-4000-8000-000000000002")
ORDERS = TopicKeys(OLD, "orders", UUID("11111111-2222-4333-8444-555555555555"))
OFFSETS = TopicKeys(OLD, "__consumer_offsets", UUID("99999999-2222-4333-8444-555555555555"))
FIRST_MS = 1_700_000_000_000
WRITTEN_MS = FIRST_MS + 1_000_000


def record_value(offset: int) -> bytes:
    """Return what is written at an offset: of two hundred bytes, so that blocks hold many."""
    return b"record %010d " % offset + bytes([offset % 251]) * 180


def log_of(start: int, end: int, epoch: int, per_batch: int = 5) -> bytes:
    """Return the batches of records [start, end), as a log has them."""
    log = bytearray()
    for first in range(start, end, per_batch):
        numbers = range(first, min(first + per_batch, end))
        records = [Record(n, FIRST_MS + n, None, record_value(n), ()) for n in numbers]
        log += build_batch(records, base_offset=first, leader_epoch=epoch)
    return bytes(log)


def segment(
    keys: PartitionKeys, start: int, end: int, epoch: int, *, base: int | None = None
) -> tuple[Entry, bytes]:
    """Return an entry for records [start, end) of a segment that begins at `base`, and the object."""
    base = start if base is None else base
    log = log_of(base, end, epoch)
    info = SegmentInfo(keys.topic_id, keys.partition, epoch, base, end, FIRST_MS + base, FIRST_MS + end - 1)
    companions = Companions(
        time_index=struct.pack(">qI", FIRST_MS + end - 1, end - 1 - base),
        epochs=history_of([(epoch, 0)]),
        producers=b"producers",
    )
    made = build(info, FileLike(log), companions)
    data = b"".join(pieces(made))
    name = SegmentName(base, epoch, uuid5(keys.topic_id, f"{keys.partition} {base} {end} {epoch}"))
    entry = Entry(
        start_offset=start,
        end_offset=end,
        name=name,
        object_bytes=len(data),
        log_bytes=len(log),
        start_position=0,
        base_timestamp=info.base_timestamp,
        max_timestamp=info.max_timestamp,
    )
    return entry, data


async def put_partition(
    store: ObjectStore,
    keys: PartitionKeys,
    bounds: Sequence[int],
    *,
    epoch: int = 4,
    sequence: int = 1,
    paged: int = 0,
    high_watermark: int | None = None,
    log_start: int = 0,
    claims: Sequence[int] = (),
    history: History | None = None,
) -> Manifest:
    """Store segments between the offsets of `bounds`, the first `paged` of them in a page, and their manifest."""
    history = history if history is not None else (EpochStart(epoch, 0),)
    manifest = empty_manifest(keys.topic_id, keys.partition, bounds[0])
    for start, end in pairwise(bounds):
        entry, data = segment(keys, start, end, epoch)
        await store.put(keys.key(entry.name), (data,))
        manifest = apply(manifest, Uploaded(entry, history))
    if paged:
        page, page_data = make_page(manifest.entries[:paged], epoch, UUID(int=paged))
        await store.put(keys.key(page.name), (page_data,))
        manifest = apply(manifest, Spilled(page))
    high_watermark = manifest.end_offset if high_watermark is None else high_watermark
    if log_start:
        manifest = apply(manifest, LogStartRaised(log_start))
    manifest = apply(manifest, Stamped(ManifestName(epoch, sequence), high_watermark, WRITTEN_MS))
    await store.put(keys.key(manifest.name), (encode_manifest(manifest),))
    for claim in claims:
        await store.put(keys.key(ClaimName(claim)), ())
    return manifest


async def put_topic(
    store: ObjectStore,
    keys: TopicKeys,
    partitions: int,
    *,
    replicas: int = 3,
    config: Mapping[str, str] | None = None,
    epoch: int = 4,
    sequence: int = 1,
    deleted_at_ms: int | None = None,
) -> TopicManifest:
    """Store a topic manifest."""
    name = TopicManifestName(epoch, sequence)
    manifest = TopicManifest(
        keys.topic,
        keys.topic_id,
        name,
        3,
        partitions,
        replicas,
        dict(config or {}),
        deleted_at_ms,
        WRITTEN_MS,
    )
    await store.put(keys.key(name), (encode_topic_manifest(manifest),))
    return manifest


async def put_offsets(
    store: ObjectStore,
    partition: int,
    groups: Mapping[str, Mapping[tuple[str, int], int]],
    *,
    topic_id: UUID | None = None,
    epoch: int = 2,
    sequence: int = 1,
) -> OffsetsSnapshot:
    """Store a snapshot of committed offsets: group, (topic, partition), offset."""
    snapshot = OffsetsSnapshot(
        partition,
        OffsetsName(epoch, sequence),
        17,
        {
            group: {
                TopicPartition(*where): CommittedOffset(offset, 4, "", FIRST_MS, topic_id=topic_id)
                for where, offset in offsets.items()
            }
            for group, offsets in groups.items()
        },
        WRITTEN_MS,
    )
    await store.put(OFFSETS.partition(partition).key(snapshot.name), (encode_offsets(snapshot),))
    return snapshot
