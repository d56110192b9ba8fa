"""What topics are is written to the bucket, so that it alone can bring them back (invariant 6, design 7.1).

Topic manifests are written by the broker to which the cluster store gave partition 0, for every topic: also for those that
are not tiered, and for internal ones, of which restore needs to know how many partitions there were. Each says what slice 0
of the PartitionSet says while it gives that broker that epoch; so (epoch, sequence) and the versions of the slice have the
same order, and a manifest that lands late is not the greatest.

    epoch given to this start ──▶ manifest ──▶ (config, partitions, replicas, deleted or brought back) ──▶ manifest ...

The first of an epoch is always written, not only if something changed: what an earlier leader sent may still land, under
that epoch. A topic that waits to be purged has no leader that serves it, and no other is elected: who had partition 0 last
writes its tombstone. If that broker is gone, the final tombstone of the sweep is the first one (ADR 0012).

Who uses it: `server.bucket_keeper`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.cluster.model import PARTITION_SET, PartitionSet
from strandline_broker.cluster.transitions import target_of
from strandline_tiered.keys import TopicKeys, TopicManifestName
from strandline_tiered.object_store import ObjectStoreError
from strandline_tiered.topic_manifest import TopicManifest, says_the_same
from strandline_tiered.topic_store import collect_topic_manifests, write_topic_manifest

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterable, Mapping
    from uuid import UUID

    from strandline_broker.cluster.view import Change, ClusterView
    from strandline_broker.seams.clock import Clock
    from strandline_tiered.object_store import ObjectStore

logger = logging.getLogger(__name__)

WRITES_AT_ONCE = 4
SETTLE_S = 0.2
"""Slices of one topic change one after the other: so long is waited for the others."""
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0


def topics_to_record(
    sets: Iterable[PartitionSet], purged: Collection[UUID], broker_id: int, incarnation: str
) -> dict[UUID, TopicManifest]:
    """Return what this start of a broker has to say of topics, under its epochs and without sequences. Pure."""
    slices: dict[UUID, dict[int, PartitionSet]] = {}
    for part in sets:
        slices.setdefault(part.topic_id, {})[part.slice_index] = part
    found: dict[UUID, TopicManifest] = {}
    for topic_id, by_index in slices.items():
        head = by_index.get(0)
        if head is None or not head.partitions or topic_id in purged:
            continue
        first = head.partitions[0]
        if first.leader == broker_id and first.leader_incarnation == incarnation:
            found[topic_id] = TopicManifest(
                topic=head.topic_name,
                topic_id=topic_id,
                name=TopicManifestName(first.leader_epoch, 0),
                topic_epoch=head.topic_epoch,
                partitions=sum(len(part.partitions) for part in by_index.values()),
                replicas=max(len(target_of(first)), 1),
                config=dict(head.config),
                deleted_at_ms=_deleted_at_ms(head),
            )
    return found


def is_recorded(wanted: TopicManifest, stored: TopicManifest | None) -> bool:
    """Whether a manifest that was stored says it already, in the same epoch. Pure."""
    return (
        stored is not None
        and stored.name.leader_epoch == wanted.name.leader_epoch
        and says_the_same(stored, wanted)
    )


def _told(part: object) -> object:
    """Return what of a slice may find its way into a topic manifest, or decides who writes it."""
    if not isinstance(part, PartitionSet):
        return None
    count = len(part.partitions)
    if part.slice_index or not count:
        return count
    first = part.partitions[0]
    leader = first.leader, first.leader_epoch, first.leader_incarnation
    return count, leader, target_of(first), part.config, part.deleting, part.deleting_since


def _deleted_at_ms(head: PartitionSet) -> int | None:
    if not head.deleting:
        return None
    try:
        since = datetime.fromisoformat((head.deleting_since or "").replace("Z", "+00:00"))
    except ValueError:
        return 0  # when is for people; that it is deleted is what counts
    return max(round(since.timestamp() * 1000), 0)


class TopicRecorder:
    """Writes topic manifests, level-triggered: whatever is not in the bucket as the cluster state has it now is due."""

    def __init__(
        self,
        store: ObjectStore,
        cluster_id: UUID,
        *,
        view: ClusterView,
        broker_id: int,
        incarnation: str,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._cluster_id = cluster_id
        self._view = view
        self._broker_id = broker_id
        self._incarnation = incarnation
        self._clock = clock
        self._backoff = Backoff(rng, first_s=FIRST_RETRY_S, cap_s=LONGEST_RETRY_S)
        self._changed = asyncio.Event()
        self._stored: dict[UUID, TopicManifest] = {}
        # Of all topics and epochs together: so that no name is ever used twice by this start.
        self._sequence = itertools.count(1)
        self.written = 0
        self.failures = 0
        """Manifests, and collections of older ones, that failed."""
        self.pending = 0
        """Topics that are not in the bucket as they are now."""

    async def run(self) -> None:
        """Write until cancelled."""
        stop_listening = self._view.on_change(self._on_change)
        try:
            while True:
                self._changed.clear()
                await self.record()
                if self.pending:
                    await asyncio.sleep(self._backoff.next_s())
                else:
                    self._backoff.reset()
                    await self._changed.wait()
                    await asyncio.sleep(SETTLE_S)
        finally:
            stop_listening()

    def _on_change(self, change: Change) -> None:
        # Not for ISRs and the other partitions' leaders, of which there is much news: all topics are looked at then.
        if change.kind == PARTITION_SET and _told(change.old) != _told(change.new):
            self._changed.set()

    async def record(self) -> None:
        """Write what is due, a few at once; `pending` says what failed."""
        due = self._due()
        for first in range(0, len(due), WRITES_AT_ONCE):
            await asyncio.gather(*map(self._write, due[first : first + WRITES_AT_ONCE]))
        self.pending = len(self._due())

    def _due(self) -> list[TopicManifest]:
        wanted = self._wanted()
        self._stored = {topic_id: one for topic_id, one in self._stored.items() if topic_id in wanted}
        due = [one for topic_id, one in wanted.items() if not is_recorded(one, self._stored.get(topic_id))]
        self.pending = len(due)
        return due

    def _wanted(self) -> Mapping[UUID, TopicManifest]:
        state = self._view.state
        purged = frozenset(state.purged_topic_ids) if state is not None else frozenset()
        return topics_to_record(self._view.partition_sets(), purged, self._broker_id, self._incarnation)

    async def _write(self, wanted: TopicManifest) -> None:
        keys = TopicKeys(self._cluster_id, wanted.topic, wanted.topic_id)
        name = TopicManifestName(wanted.name.leader_epoch, next(self._sequence))
        manifest = replace(wanted, name=name, written_at_ms=self._clock.now_ms())
        try:
            await write_topic_manifest(self._store, keys, manifest)
        except ObjectStoreError as error:
            self.failures += 1
            logger.warning("topic %s is not in the bucket as it is now: %s", wanted.topic, error)
            return
        self.written += 1
        self._stored[wanted.topic_id] = manifest
        try:
            await collect_topic_manifests(self._store, keys, name)
        except ObjectStoreError as error:
            # The next manifest collects them.
            self.failures += 1
            logger.info("older manifests of topic %s stay for now: %s", wanted.topic, error)
