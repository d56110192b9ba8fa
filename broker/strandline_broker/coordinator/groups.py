"""The group coordinator of one broker: finds the shard of a group, and tells all shards what concerns them all.

The API handlers are its callers (`api.context.BrokerApi.groups`). What a group is and does stands in `group`.

Source: Apache Kafka 4.2, `GroupCoordinatorService`.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Protocol

from strandline_broker.cluster.internal_topics import CONSUMER_OFFSETS
from strandline_broker.cluster.model import PARTITION_SET, PartitionSet
from strandline_broker.coordinator.partitioning import partition_for
from strandline_broker.coordinator.recovering import Recoveries
from strandline_broker.coordinator.runtime import CoordinatorRuntime
from strandline_broker.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    import asyncio
    import random
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

    from strandline_broker.cluster.view import Change, ClusterView
    from strandline_broker.coordinator.machine import Ticket
    from strandline_broker.coordinator.slot import Slot
    from strandline_broker.group.config import GroupConfig
    from strandline_broker.group.effects import Effects
    from strandline_broker.group.shard import GroupShard
    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.replica.partition import Partition
    from strandline_broker.seams.clock import Clock
    from strandline_tiered.offsets_snapshot import OffsetsSnapshot

logger = logging.getLogger(__name__)


class OffsetSnapshots(Protocol):
    """Snapshots of committed offsets in a bucket."""

    async def newest_offsets(self, partition: Partition) -> OffsetsSnapshot | None:
        """Return the newest one of a partition of `__consumer_offsets`, None if there is none. Raises RemoteError."""
        ...


class GroupCoordinator:
    """All groups whose partition of `__consumer_offsets` this broker leads."""

    def __init__(
        self,
        config: GroupConfig,
        *,
        view: ClusterView,
        replicas: ReplicaManager,
        clock: Clock,
        rng: random.Random,
        loop: asyncio.AbstractEventLoop,
        request_sync: Callable[[Partition], None],
        run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
        commit_timeout_ms: int,
        snapshots: OffsetSnapshots | None = None,
    ) -> None:
        """`snapshots`: those of committed offsets in the bucket, where this broker has one."""
        self._view = view
        self._partition_count = 0
        self._runtime = CoordinatorRuntime(
            CONSUMER_OFFSETS,
            lambda: _new_shard(config, rng),
            replicas=replicas,
            clock=clock,
            loop=loop,
            request_sync=request_sync,
            run_blocking=run_blocking,
            commit_timeout_ms=commit_timeout_ms,
            on_active=self._forget_deleted_topics,
            recoveries=None
            if snapshots is None
            else Recoveries(
                lambda slot: _lacking(slot, snapshots),
                clock=clock,
                loop=loop,
                rng=rng,
                request_sync=request_sync,
            ),
        )
        self._stop_listening = view.on_change(self._on_change)

    # -- requests ------------------------------------------------------------------------------------------------------

    def run(self, group_id: str, ticket: Ticket, operation: Callable[[GroupShard, int], Effects]) -> None:
        """Give the group's shard an input that `ticket` wants an answer to; it may be refused instead."""
        try:
            slot = self._slot(group_id)
        except KafkaError as error:
            ticket.refuse(error.code)
            return
        self._runtime.run(slot, operation)

    def shard(self, group_id: str) -> GroupShard:
        """Return the shard of a group, for reading. Raises KafkaError NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS."""
        return self._slot(group_id).machine

    def shards(self) -> Iterator[GroupShard]:
        """Yield all shards, for reading. Raises KafkaError COORDINATOR_LOAD_IN_PROGRESS on the way."""
        for slot in self._runtime.led_slots():
            yield slot.machine

    def active_slots(self) -> list[Slot[GroupShard]]:
        """Return the shards that serve, each with its partition and epoch."""
        return self._runtime.active_slots()

    def partition_of(self, group_id: str) -> int:
        """Return the partition of `__consumer_offsets` that a group belongs to.

        The number of partitions is fixed when the topic is made. One that seems to shrink has lost slices in the cluster
        store: no group moves because of that. Raises KafkaError(COORDINATOR_NOT_AVAILABLE) as long as there is no topic.
        """
        topic = self._view.topic_by_name(CONSUMER_OFFSETS)
        if topic is not None and topic.partition_count > self._partition_count:
            self._partition_count = topic.partition_count
        if not self._partition_count:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"{CONSUMER_OFFSETS} is being made")
        return partition_for(group_id, self._partition_count)

    def _slot(self, group_id: str) -> Slot[GroupShard]:
        try:
            index = self.partition_of(group_id)
        except KafkaError as error:
            # All clients look for the coordinator again then, which not all do for COORDINATOR_NOT_AVAILABLE.
            raise KafkaError(ErrorCode.NOT_COORDINATOR) from error
        return self._runtime.slot(index)

    # -- what concerns all shards --------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Load and unload shards as the roles of their partitions say; call it after every change of roles."""
        self._runtime.reconcile()

    def expire(self) -> None:
        """Answer those who wait too long for a commit; call it a few times per second."""
        self._runtime.expire()

    async def close(self) -> None:
        """Stop; everybody who waits is sent to look for another coordinator."""
        self._stop_listening()
        await self._runtime.close()

    def _on_change(self, change: Change) -> None:
        """Forget the offsets of topics that were seen to be deleted; a PartitionSet that is merely gone says nothing."""
        if change.kind != PARTITION_SET or not isinstance(change.new, PartitionSet):
            return
        part = change.new
        already = isinstance(change.old, PartitionSet) and change.old.deleting
        if part.deleting and not already and self._view.topic_by_name(part.topic_name) is None:
            for slot in self._runtime.active_slots():
                self._delete_offsets(slot, (part.topic_name,))

    def _forget_deleted_topics(self, slot: Slot[GroupShard]) -> None:
        """Do what was missed while nobody led this shard."""
        gone = {
            part.topic_name
            for part in self._view.partition_sets()
            if part.deleting and self._view.topic_by_name(part.topic_name) is None
        }
        if gone:
            self._delete_offsets(slot, gone)

    def _delete_offsets(self, slot: Slot[GroupShard], topics: Collection[str]) -> None:
        self._runtime.run(slot, lambda shard, now_ms: shard.partitions_deleted(topics, now_ms))


async def _lacking(slot: Slot[GroupShard], snapshots: OffsetSnapshots) -> Iterable[tuple[bytes, bytes]]:
    snapshot = await snapshots.newest_offsets(slot.partition)
    return () if snapshot is None else slot.machine.lacking_offsets(snapshot.groups)


def warm_up() -> None:
    """Load what the first shard needs: 50 ms that would else stop a broker when it begins to lead. For a thread."""
    importlib.import_module("strandline_broker.group.shard")


def _new_shard(config: GroupConfig, rng: random.Random) -> GroupShard:
    # Here, because a broker should take its first record before it pays for this import; see `warm_up`.
    from strandline_broker.group.shard import GroupShard

    return GroupShard(config, rng)
