"""This broker's replica of a partition, whoever leads it: what may be read of it, what it takes over, who waits for it.

A base class of `Partition`, which adds the roles and the leader's work, and used by nothing else. Its callers: fetch
handlers and coordinators read up to the high watermark, and wait for it; other brokers copy up to the end; a follower's
fetcher brings what its leader has, and cuts what it has not; archiver and DeleteRecords move the log start. Here the high
watermark rises only as a leader elsewhere says; what a leader here makes of its followers is `Partition`'s.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.replica.deletion import Deletions
from strandline_broker.replica.offsets import PartitionOffsets
from strandline_broker.replica.tier import PartitionTier

if TYPE_CHECKING:
    from collections.abc import Callable

    from strandline_broker.log.log import Log
    from strandline_broker.replica.remote import TailState
    from strandline_broker.replica.waiters import FetchWaiter, ReplicaWaiter
    from strandline_broker.seams.disk import FileSlice

logger = logging.getLogger(__name__)


class LocalReplica(PartitionOffsets):
    """See the module."""

    __slots__ = (
        "_deletions",
        "_fsync",
        "_size_at_high_watermark",
        "bytes_in",
        "bytes_out",
        "fetch_waiters",
        "high_watermark",
        "is_leader",
        "leader_high_watermark",
        "on_synced",
        "replica_waiters",
        "replicated_in",
        "replicated_out",
    )

    def __init__(self, log: Log, high_watermark: int, *, fsync: bool) -> None:
        """`high_watermark` is as this broker last knew it; `fsync`: only what is synced counts."""
        self.log = log
        self.tier = PartitionTier(log, self._tell_followers) if log.tier is not None else None
        self.is_leader = False
        self.high_watermark = max(log.start_offset, min(high_watermark, log.synced_end))
        self.leader_high_watermark = -1
        """While following: what the leader said last of its high watermark; -1 before it said anything."""
        self.on_synced: Callable[[], None] | None = None
        """Called, while following, when what was appended is durable."""
        # Bytes of batches since the log was opened, for metrics: from producers, to consumers, and between replicas.
        self.bytes_in = 0
        self.bytes_out = 0
        self.replicated_in = 0
        self.replicated_out = 0
        # In the order of their coming.
        self.fetch_waiters: dict[FetchWaiter, None] = {}
        self.replica_waiters: dict[ReplicaWaiter, tuple[str | bytes, int]] = {}
        self._deletions = Deletions()
        self._fsync = fsync
        self._size_at_high_watermark = log.size_bytes

    # -- reads ---------------------------------------------------------------------------------------------------------

    @property
    def last_stable_offset(self) -> int:
        """Return the first offset that may belong to an open transaction; without transactions the high watermark."""
        return self.high_watermark

    def read(self, offset: int, max_bytes: int, *, min_one_batch: bool) -> FileSlice | None:
        """Return what consumers may see from `offset` on, or None if there is nothing yet.

        Raises KafkaError OFFSET_OUT_OF_RANGE, and NOT_LEADER_OR_FOLLOWER beyond what a follower has: only the leader knows
        whether there is something. A client with old metadata would take a former leader's word for it, and begin anew.
        """
        high_watermark = self.high_watermark
        if offset == high_watermark:
            return None
        if offset > high_watermark:
            # Between the high watermark and the log end there is nothing to see yet; beyond the end never was anything.
            if offset > self.log.end_offset:
                raise KafkaError(
                    ErrorCode.OFFSET_OUT_OF_RANGE if self.is_leader else ErrorCode.NOT_LEADER_OR_FOLLOWER
                )
            return None
        return self.log.read(offset, max_bytes, high_watermark, min_one_batch=min_one_batch)

    def read_for_follower(self, offset: int, max_bytes: int, *, min_one_batch: bool) -> FileSlice | None:
        """Return what a follower lacks from `offset` on, or None for nothing. Raises KafkaError(OFFSET_OUT_OF_RANGE)."""
        return self.log.read(offset, max_bytes, self.log.end_offset, min_one_batch=min_one_batch)

    # -- following -----------------------------------------------------------------------------------------------------

    @property
    def replicated_end(self) -> int:
        """The end of what this replica may vouch for to its leader: the synced end with `Fsync` (design section 3.4)."""
        return self.log.synced_end if self._fsync else self.log.end_offset

    @property
    def lag(self) -> int:
        """Committed records that are not here: 0 for a leader, -1 while a follower has not heard of its leader."""
        if self.is_leader:
            return 0
        return (
            max(self.leader_high_watermark - self.log.end_offset, 0)
            if self.leader_high_watermark >= 0
            else -1
        )

    @property
    def wants_sync(self) -> bool:
        """Whether a follower has to wait for a sync before it may fetch again."""
        return self._fsync and self.log.end_offset > self.log.synced_end

    def append_from_leader(self, records: memoryview, now_ms: int) -> None:
        """Append what the leader sent, as it is. Raises KafkaError as `Log.append_follower` does."""
        assert not self.is_leader, "only followers copy"
        self.log.now_ms = now_ms
        self.log.append_follower(records)
        self.replicated_in += len(records)

    def learn_from_leader(self, high_watermark: int, log_start: int) -> None:
        """Take over the leader's high watermark and log start, as far as they lie within this log. Raises KafkaError."""
        end = min(high_watermark, self.replicated_end)
        if end > self.high_watermark:
            self.high_watermark = end
            size = self.log.size_bytes
            arrived = size - self._size_at_high_watermark
            self._size_at_high_watermark = size
            for reader in tuple(self.fetch_waiters):
                reader.data_arrived(max(arrived, 1))
        if log_start > self.log_start_offset:
            self.raise_log_start(min(log_start, self.log.end_offset))

    def cut(self, offset: int) -> None:
        """Drop everything from `offset` on that the leader does not have. Raises KafkaError(KAFKA_STORAGE_ERROR)."""
        if offset < self.high_watermark:
            logger.warning("%r: cut at %d, below its high watermark %d", self, offset, self.high_watermark)
        self.log.truncate_to(offset)
        self.high_watermark = min(self.high_watermark, self.log.end_offset)

    # -- where the log begins ------------------------------------------------------------------------------------------

    def start_tiering(self) -> PartitionTier:
        """Let a part of this partition lie in the bucket from now on. Raises KafkaError(KAFKA_STORAGE_ERROR)."""
        if self.tier is None:
            self.tier = PartitionTier(self.log, self._tell_followers)
        return self.tier

    def raise_log_start(self, offset: int) -> None:
        """Let the log begin at `offset`, no later than its end, in all its tiers; followers learn of it.

        Raises KafkaError(KAFKA_STORAGE_ERROR).
        """
        if self.tier is not None:
            self.tier.raise_log_start(offset)
        self.log.advance_start(offset)
        self._tell_followers()

    def start_over(self, offset: int, tail: TailState | None = None) -> None:
        """Drop everything and begin at `offset`; `tail` is what came before, in the bucket.

        As its leader says, or, for one that leads, as the manifest does from which it recovers. Raises
        KafkaError(KAFKA_STORAGE_ERROR).
        """
        logger.warning("%r: its log [%d, %d) is not what counts; starting over at %d", self,
                       self.log.start_offset, self.log.end_offset, offset)  # fmt: skip
        self.log.reset_to(offset, *(tail or ()))
        self.high_watermark = offset

    # -- who waits -----------------------------------------------------------------------------------------------------

    def _tell_followers(self) -> None:
        """Tell followers, and let DeleteRecords look again."""
        for follower, key in tuple(self.replica_waiters.items()):
            follower.high_watermark_moved(key)
        self._deletions.wake()

    def _wake_fetches(self, byte_count: int) -> None:
        for waiter in tuple(self.fetch_waiters):
            waiter.data_arrived(byte_count)
        for follower, key in tuple(self.replica_waiters.items()):
            follower.data_arrived(key)
        self._deletions.wake()
