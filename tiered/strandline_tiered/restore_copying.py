"""Carries the bucket's part of a restore out: copies, then pages, then manifests, and says how far it is.

Who uses it: `strandline tier restore`. It writes below the new cluster's prefix only. What a former run left is looked at
and kept, so that an interrupted restore goes on; only what is damaged is copied again. A manifest comes when all that it
names is there.

Bounds: `at_once` partitions and as many objects at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from strandline_tiered.keys import TopicKeys
from strandline_tiered.manifest_format import encode_manifest
from strandline_tiered.object_copy import SegmentCopier
from strandline_tiered.object_store import ObjectStore
from strandline_tiered.offsets_snapshot import encode_offsets
from strandline_tiered.restore_offsets import OffsetsPlan
from strandline_tiered.restore_plan import ObjectCopy, PartitionPlan, TopicPlan
from strandline_tiered.segment_check import MakeLogCheck
from strandline_tiered.topic_manifest import encode_topic_manifest
from strandline_tiered.workers import for_each

AT_ONCE = 8

T = TypeVar("T")


@dataclass(slots=True)
class Progress:
    """How far a restore is: objects and bytes, of these kept from a former run, and copied again because of damage."""

    objects: int = 0
    objects_total: int = 0
    bytes: int = 0
    bytes_total: int = 0
    objects_kept: int = 0
    bytes_kept: int = 0
    objects_repaired: int = 0
    manifests: int = 0


class BucketRestore:
    """One restore. `changed` is called after each step, for whoever shows the progress."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        log_check: MakeLogCheck | None = None,
        at_once: int = AT_ONCE,
        changed: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._copier = SegmentCopier(store, log_check)
        self._at_once = at_once
        self._objects = asyncio.Semaphore(at_once)
        self._changed = changed
        self.progress = Progress()

    async def topics(self, topics: Iterable[TopicPlan]) -> None:
        """Write what the topics have in the bucket. Raises FormatError, NoSuchObject, Refused, Unavailable."""
        topics = list(topics)
        partitions = [partition for topic in topics for partition in topic.partitions]
        self.progress.objects_total = sum(len(partition.copies) for partition in partitions)
        self.progress.bytes_total = sum(partition.object_bytes for partition in partitions)
        await for_each(_iterate(partitions), self._partition, at_once=self._at_once)
        for topic in topics:
            if topic.partitions:
                key = topic.keys.key(topic.manifest.name)
                await self._store.put(key, (encode_topic_manifest(topic.manifest),))

    async def offsets(self, plan: OffsetsPlan) -> None:
        """Write the snapshots of group offsets. Raises Refused, Unavailable."""
        if plan.keys is None:
            return
        topic: TopicKeys = plan.keys
        for snapshot in plan.snapshots:
            key = topic.partition(snapshot.partition).key(snapshot.name)
            await self._store.put(key, (encode_offsets(snapshot),))

    async def _partition(self, plan: PartitionPlan) -> None:
        prefix = plan.keys.prefix
        present = {info.key: info.size async for info in self._store.list(prefix)} if plan.copies else {}

        async def copy(one: ObjectCopy) -> None:
            async with self._objects:
                await self._copy(plan, one, present.get(one.target))

        await for_each(_iterate(plan.copies), copy, at_once=self._at_once)
        for key, data in plan.pages.items():
            await self._store.put(key, (data,))
        await self._store.put(plan.keys.key(plan.manifest.name), (encode_manifest(plan.manifest),))
        self.progress.manifests += 1
        self._changed(self.progress)

    async def _copy(self, plan: PartitionPlan, one: ObjectCopy, present: int | None) -> None:
        entry, progress = one.entry, self.progress
        keeps = present is not None and await self._copier.is_whole(plan.keys, entry, one.target)
        if not keeps:
            await self._copier.copy(plan.keys, entry, one.source, one.target)
        progress.objects += 1
        progress.bytes += entry.object_bytes
        progress.objects_kept += keeps
        progress.bytes_kept += entry.object_bytes if keeps else 0
        progress.objects_repaired += present is not None and not keeps
        self._changed(progress)


async def _iterate(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item
