"""Snapshots of committed group offsets go to the bucket: with them it alone brings consumers back (invariant 6).

    slot active, epoch given to this start ──changed, and the interval is over──▶ cut ──slices──▶ encoded ──▶ stored
                      ▲                                                            │                            │
                      └──────── failed: later, under a higher sequence ◀───────────┴────── now and then: older ◀┘
                                                                                              ones collected

A snapshot is cut at one moment and encoded in slices of two milliseconds, while commits go on: none of them waits for it,
or costs more than a copy of its group. One is under way at a time, so memory is bounded by the largest partition of
`__consumer_offsets`, twice.

The first one of an epoch is always written, unless the partition was never written to: what the last leader wrote may be of
before its last commits. It is not known to be there until it is stored, so there is no snapshot to compare with.

Who uses it: `server.bucket_keeper`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.coordinator.slot import Phase
from strandline_broker.group.requests import ZERO_UUID
from strandline_tiered.keys import OffsetsName, PartitionKeys
from strandline_tiered.object_store import ObjectStoreError
from strandline_tiered.offsets_snapshot import CommittedOffset, OffsetsEncoder, encode_topic
from strandline_tiered.offsets_store import collect_offsets, write_encoded_offsets

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable, Iterable

    from strandline_broker.coordinator.slot import Slot
    from strandline_broker.group.records import OffsetValue
    from strandline_broker.group.shard import GroupShard
    from strandline_broker.seams.clock import Clock
    from strandline_tiered.object_store import ObjectStore

logger = logging.getLogger(__name__)

SLICE_S = 0.002
COLLECT_EVERY = 10
"""Snapshots of one leader from one collection of older ones to the next; the first of an epoch collects, too."""
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
_RUN = 4096
# What the format has no place for: not a position, see `_stored`.
_MAX_PARTITION = (1 << 31) - 1


@dataclass(slots=True)
class _Progress:
    """Of one slot. `written_changes`: `offset_changes` of the last snapshot stored, -1 before the first."""

    due_at: float
    backoff: Backoff
    written_changes: int = -1
    stale_since: float | None = None
    written: int = 0
    collect: bool = True
    said: bool = field(default=False)


class OffsetSnapshots:
    """See the module. `look` is to be called about once a second; counters are for metrics."""

    def __init__(
        self,
        store: ObjectStore,
        cluster_id: UUID,
        *,
        incarnation: str,
        slots: Callable[[], Iterable[Slot[GroupShard]]],
        interval_s: float,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        """`slots` returns the active ones. `incarnation` is that of this start: only its own epochs are written under."""
        self._store = store
        self._cluster_id = cluster_id
        self._incarnation = incarnation
        self._slots = slots
        self._interval_s = interval_s
        self._clock = clock
        self._rng = rng
        self._progress: dict[Slot[GroupShard], _Progress] = {}
        # Of all partitions and epochs together: so that no name is ever used twice by this start.
        self._sequence = itertools.count(1)
        self._one_at_a_time = asyncio.Lock()
        self.written = 0
        self.written_bytes = 0
        self.failures = 0
        """Snapshots, and collections of older ones, that failed and are tried again."""

    @property
    def stale_s(self) -> float:
        """For how many seconds, at most, committed offsets of a led partition have waited for a snapshot."""
        since = [one.stale_since for one in self._progress.values() if one.stale_since is not None]
        return self._clock.monotonic() - min(since) if since else 0.0

    async def look(self) -> None:
        """Write what is due, one after the other. What fails is due again later, and keeps nobody else waiting."""
        self._follow()
        for slot, progress in list(self._progress.items()):
            if progress.stale_since is None or self._clock.monotonic() < progress.due_at:
                continue
            try:
                await self._write(slot, progress)
            except ObjectStoreError as error:
                delay_s = self._put_off(progress)
                logger.warning(
                    "%r: no snapshot of its offsets, tried again in %.0f s: %s",
                    slot.partition,
                    delay_s,
                    error,
                )
            except Exception:
                self._put_off(progress)
                logger.exception("%r: no snapshot of its offsets", slot.partition)

    def _put_off(self, progress: _Progress) -> float:
        self.failures += 1
        delay_s = progress.backoff.next_s()
        progress.due_at = self._clock.monotonic() + delay_s
        return delay_s

    async def write_all(self) -> None:
        """Write whatever changed, due or not; the broker is about to stop. Raises ObjectStoreError."""
        self._follow()
        for slot, progress in list(self._progress.items()):
            if progress.stale_since is not None:
                await self._write(slot, progress)

    def _follow(self) -> None:
        """Take note of slots that came, went or changed."""
        now = self._clock.monotonic()
        former, self._progress = self._progress, {}
        for slot in self._slots():
            if not self._may_write(slot):
                continue
            progress = former.get(slot)
            if progress is None:
                progress = _Progress(
                    now + self._interval_s * self._rng.uniform(0.1, 1.0),
                    Backoff(self._rng, first_s=FIRST_RETRY_S, cap_s=LONGEST_RETRY_S),
                )
            self._progress[slot] = progress
            if not _has_changed(slot, progress):
                progress.stale_since = None
            elif progress.stale_since is None:
                progress.stale_since = now

    def _may_write(self, slot: Slot[GroupShard]) -> bool:
        """Whether the slot's epoch is led here, was given to this start, and what it holds is all there is.

        Who resumed an epoch does not know which names were used in it. Who recovers reads the newest snapshot first.
        """
        leadership = slot.partition.leadership
        return (
            slot.phase is Phase.ACTIVE
            and slot.leading
            and not slot.broken
            and leadership is not None
            and leadership.state.leader_incarnation == self._incarnation
            and not leadership.state.recovering
        )

    async def _write(self, slot: Slot[GroupShard], progress: _Progress) -> None:
        async with self._one_at_a_time:
            if not self._may_write(slot):
                return
            partition = slot.partition
            keys = PartitionKeys(
                self._cluster_id, partition.topic, UUID(bytes=partition.topic_id), partition.index
            )
            name = OffsetsName(slot.epoch, next(self._sequence))
            changes = slot.machine.offset_changes
            parts = await self._encode(slot, progress, name)
            if parts is None:
                return
            await write_encoded_offsets(self._store, keys, name, parts)
            self.written += 1
            self.written_bytes += sum(map(len, parts))
            progress.written_changes, progress.stale_since = changes, None
            progress.backoff.reset()
            progress.due_at = self._clock.monotonic() + self._interval_s
            progress.written += 1
            progress.collect |= progress.written % COLLECT_EVERY == 0
            if progress.collect:
                await self._collect(slot, progress, keys, name)

    async def _collect(
        self, slot: Slot[GroupShard], progress: _Progress, keys: PartitionKeys, name: OffsetsName
    ) -> None:
        try:
            await collect_offsets(self._store, keys, name)
            progress.collect = False
        except ObjectStoreError as error:
            self.failures += 1
            logger.info("%r: older snapshots of its offsets stay for now: %s", slot.partition, error)

    async def _encode(
        self, slot: Slot[GroupShard], progress: _Progress, name: OffsetsName
    ) -> tuple[bytes, ...] | None:
        """Return the snapshot in parts, cut now; None if the slot's epoch ended meanwhile."""
        # In one turn: the cut, and where in the log it is.
        cut, end_offset = slot.machine.cut_offsets(), slot.settled_through
        turn = _Turn()
        groups: dict[str, list[bytes]] = {}
        left_out = 0
        while (taken := cut.take()) is not None:
            group, topics = taken
            encoded: list[bytes] = []
            for topic in sorted(topics):
                offsets = topics[topic]
                stored = {
                    partition: committed
                    for partition, (_, value) in offsets.items()
                    if (committed := _stored(partition, value)) is not None
                }
                left_out += len(offsets) - len(stored)
                if stored:
                    encoded.append(encode_topic(topic, stored))
                await turn.end_if_long()
            if encoded:
                groups[group] = encoded
            if not self._may_write(slot):
                return None
        if left_out and not progress.said:
            progress.said = True
            logger.warning(
                "%r: %d committed offsets are no positions, and not saved", slot.partition, left_out
            )
        encoder = OffsetsEncoder(slot.partition.index, name, end_offset, written_at_ms=self._clock.now_ms())
        async for group in _in_order(groups, turn):
            encoder.add_group(group, groups.pop(group))
        return encoder.finish() if self._may_write(slot) else None


def _has_changed(slot: Slot[GroupShard], progress: _Progress) -> bool:
    if progress.written_changes < 0:
        return slot.partition.log.end_offset > 0
    return slot.machine.offset_changes != progress.written_changes


def _stored(partition: int, value: OffsetValue) -> CommittedOffset | None:
    """Return a committed offset as snapshots have it; None for one that is no position, which clients may commit."""
    if value.offset < 0 or not 0 <= partition <= _MAX_PARTITION:
        return None
    return CommittedOffset(
        value.offset,
        max(value.leader_epoch, -1),
        value.metadata,
        max(value.commit_timestamp_ms, -1),
        max(value.expire_timestamp_ms, -1),
        None if value.topic_id == ZERO_UUID else value.topic_id,
    )


async def _in_order(ids: Iterable[str], turn: _Turn) -> AsyncIterator[str]:
    """Yield in ascending order, without a long sort; `ids` may shrink by what was yielded."""
    left, runs = list(ids), []
    for first in range(0, len(left), _RUN):
        runs.append(sorted(left[first : first + _RUN]))
        await turn.end_if_long()
    for one in heapq.merge(*runs):
        yield one
        await turn.end_if_long()


class _Turn:
    """Gives the loop to others whenever a slice is used up."""

    __slots__ = ("_end", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + SLICE_S

    async def end_if_long(self) -> None:
        if self._loop.time() >= self._end:
            await asyncio.sleep(0)
            self._end = self._loop.time() + SLICE_S
