"""One partition in its roles on this broker, and the leader's work: appends, the high watermark, who waits for it.

Everything here runs on the event loop's thread and blocks only to cut a log: appends go to the page cache, durability is
the flusher's business. Produce and fetch handlers and the follower's fetchers are the callers (what does not depend on the
role is in `LocalReplica`); the replica manager moves a partition between roles:

    idle ──the store names a leader elsewhere──▶ following ──elected, this incarnation──▶ leading ──another epoch──▶ ...

What is acknowledged when (design section 3.4):

| acks | `flush: Fsync` | `flush: Replicated` |
|------|----------------|---------------------|
| 0 | never answered | never answered |
| 1 | the leader's synced end passes the record | the record is written |
| all | the high watermark passes the record | the high watermark passes the record |

With `Fsync` the log end that counts toward the high watermark is the *synced* end, so consumers see only synced bytes.
Followers may fetch unsynced bytes, so that the two syncs overlap: a leader that crashes comes back in another epoch, in
which they compare.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.replica.leadership import Leadership
from strandline_broker.replica.local_replica import LocalReplica
from strandline_broker.replica.pending_appends import PendingAppends
from strandline_broker.replica.recovery import Recovery
from strandline_broker.replica.waiters import (
    ROW_APPEND_TIME,
    ROW_BASE_OFFSET,
    ROW_START_OFFSET,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from strandline_broker.cluster.model import PartitionState, ReplicaRef
    from strandline_broker.log.log import Log
    from strandline_broker.replica.remote import TailState
    from strandline_broker.replica.waiters import AppendWaiter, PendingAppend


class FlushMode(Enum):
    """When a write counts: `Fsync` after fdatasync, `Replicated` from page cache as Kafka does."""

    FSYNC = "Fsync"
    REPLICATED = "Replicated"


NEW_LEADER_MS = 10_000
"""For so long a gap in a producer's sequence is refused like the requests that it follows from: a client that had
several under way when this broker was not the leader yet, or refused one for want of replicas or disk space, retries
them in order. Told of the gap itself, librdkafka gives up its epoch, for all partitions at once, and sends again what
the last leader, or another partition's, may have written: duplicates."""


class Partition(LocalReplica):
    """A partition that has a replica on this broker.

    `leader_epoch` is -1 until the cluster store names a leader. `leadership` is there exactly while this broker leads.
    """

    __slots__ = (
        "_gaps_excused_since_ms",
        "_staged",
        "_until_committed",
        "_until_synced",
        "index",
        "isr_size",
        "leader_epoch",
        "leader_id",
        "leadership",
        "min_isr",
        "on_recovered",
        "pending_appends",
        "recovery",
        "topic",
        "topic_id",
        "unfit_epoch",
    )

    def __init__(
        self, topic: str, topic_id: bytes, index: int, log: Log, flush: FlushMode, high_watermark: int
    ) -> None:
        super().__init__(log, high_watermark, fsync=flush is FlushMode.FSYNC)
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.leader_id = -1
        self.leader_epoch = -1
        self.leadership: Leadership | None = None
        self.isr_size = 0
        self.min_isr = 1
        self.recovery = Recovery.NONE
        """What this leader has to do before its partition has recovered."""
        self.on_recovered: Callable[[], None] | None = None
        """Called when that is done and the store may be told: see `has_recovered`."""
        self.unfit_epoch = -1
        """Leader epoch in which this broker must not lead (again): its log lost bytes that followers may have."""
        self._gaps_excused_since_ms = -1
        # Appends of the current read burst, which `commit` writes.
        self._staged: list[PendingAppend] = []
        self.pending_appends = PendingAppends()
        """Appends that are written and wait to be acknowledged."""
        # Its queues, without the way through it: they are in the path of every batch.
        self._until_synced = self.pending_appends.until_synced
        self._until_committed = self.pending_appends.until_committed

    def __repr__(self) -> str:
        return f"<Partition {self.topic}-{self.index} epoch={self.leader_epoch} leader={self.leader_id}>"

    # -- roles ---------------------------------------------------------------------------------------------------------

    def lead(
        self,
        own: ReplicaRef,
        state: PartitionState,
        min_isr: int,
        now: float,
        attempts: Iterable[PartitionState] = (),
        recovery: Recovery = Recovery.NONE,
    ) -> None:
        """Lead from now on as `state` says, or take over what changed within the epoch. `now` is monotonic seconds.

        `min_isr` is the effective minimum. `attempts` are ISR changes of unknown outcome from before a clean restart: they
        count from the beginning, before the high watermark moves for the first time. `recovery` is what is to be done
        before that; within an epoch it only ends. Raises
        KafkaError(FENCED_LEADER_EPOCH) for an epoch below one that this log has seen, or one that it must not lead any
        more (design section 3.3).
        """
        epoch = state.leader_epoch
        if epoch < self.leader_epoch or epoch < self.log.last_epoch or epoch <= self.unfit_epoch:
            raise KafkaError(
                ErrorCode.FENCED_LEADER_EPOCH,
                f"{self.topic}-{self.index}: asked to lead in epoch {epoch}, the log has seen "
                f"{max(self.leader_epoch, self.log.last_epoch)}",
            )
        self.isr_size = len(state.isr)
        self.min_isr = min_isr
        if self.leadership is not None and epoch == self.leader_epoch:
            self.leadership.confirm(state, min_isr)
            if self.leadership.frozen:
                self.pending_appends.fail_impatient()
            if recovery is Recovery.NONE:
                self.recovered()
            self.advance_high_watermark()
            self._deletions.wake()
            return
        self.pending_appends.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if self.tier is not None:
            self.tier.forget_role()
        self.leader_id = own.broker_id
        self.leader_epoch = epoch
        self.is_leader = True
        self.recovery = recovery
        self._gaps_excused_since_ms = -1
        self.log.epochs.assign(epoch, self.log.end_offset)
        self.leadership = Leadership(own, state, min_isr, self.log.end_offset, now)
        for attempt in attempts:
            self.leadership.attempt(attempt)
        self._wake_fetches(0)
        self.advance_high_watermark()

    def resign(self, leader_id: int, leader_epoch: int) -> None:
        """Stop leading; whoever waits is told to look for the new leader (-1: there is none)."""
        self.is_leader = False
        self.leadership = None
        self.recovery = Recovery.NONE
        self.leader_high_watermark = -1
        self.leader_id = leader_id
        self.leader_epoch = max(self.leader_epoch, leader_epoch)
        self.isr_size = 0
        if self.tier is not None:
            self.tier.forget_role()
        self.pending_appends.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        self._wake_fetches(0)

    def recovered(self) -> None:
        """Serve from now on: what was to be recovered in this epoch is."""
        leadership = self.leadership
        if leadership is None or self.recovery is Recovery.NONE:
            return
        self.recovery = Recovery.NONE
        leadership.recovered_end = self.log.end_offset
        self.advance_high_watermark()

    def start_over(self, offset: int, tail: TailState | None = None) -> None:
        """See `LocalReplica.start_over`; for one that leads, its epoch begins there."""
        super().start_over(offset, tail)
        if self.leadership is not None:
            self.log.epochs.assign(self.leader_epoch, offset)
            self.leadership.begin_at(offset)

    @property
    def has_recovered(self) -> bool:
        """Whether the store, which has this partition as recovering, may be told that it has recovered."""
        leadership = self.leadership
        return self.recovery is Recovery.NONE and leadership is not None and leadership.may_end_recovering

    @property
    def leader_epoch_start_offset(self) -> int:
        """Log end when the current epoch began; the high watermark may lag it for a moment (KIP-207)."""
        return self.leadership.epoch_start if self.leadership is not None else self.log.end_offset

    def check_leader(self, current_leader_epoch: int = -1) -> None:
        """Refuse a client that asks the wrong broker, or with another epoch in mind (KIP-320).

        A leader whose log has to be recovered first leads nobody yet. Raises KafkaError NOT_LEADER_OR_FOLLOWER,
        FENCED_LEADER_EPOCH or UNKNOWN_LEADER_EPOCH.
        """
        if not self.is_leader or self.recovery is Recovery.LOG:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if current_leader_epoch >= 0 and current_leader_epoch != self.leader_epoch:
            self._refuse_epoch(current_leader_epoch)

    def check_reader(self, current_leader_epoch: int = -1) -> None:
        """Refuse a consumer that this broker can serve neither as the leader nor as a follower (KIP-392).

        Raises KafkaError as `check_leader` does.
        """
        if not self.is_leader and self.leader_id < 0:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if current_leader_epoch >= 0 and current_leader_epoch != self.leader_epoch:
            self._refuse_epoch(current_leader_epoch)

    def _refuse_epoch(self, current_leader_epoch: int) -> None:
        if current_leader_epoch < self.leader_epoch:
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH)
        raise KafkaError(ErrorCode.UNKNOWN_LEADER_EPOCH)

    # -- appends -------------------------------------------------------------------------------------------------------

    def stage(self, waiter: AppendWaiter, row: list[object], records: memoryview, now_ms: int) -> bool:
        """Validate one batch and give it its offsets; return whether it is the first staged since the last commit.

        Fills `row` but for errors that only the write can bring. Raises KafkaError.
        """
        if not self.is_leader:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if self.recovery is Recovery.LOG:
            self._gaps_excused_since_ms = -1
            raise KafkaError(
                ErrorCode.NOT_LEADER_OR_FOLLOWER,
                "its log is not in line with the bucket yet: see design section 7.3",
            )
        if waiter.acks == -1 and self.isr_size < self.min_isr:
            self._gaps_excused_since_ms = -1
            raise KafkaError(
                ErrorCode.NOT_ENOUGH_REPLICAS,
                f"{self.isr_size} in-sync replicas, min.insync.replicas is {self.min_isr}",
            )
        if self._gaps_excused_since_ms < 0:
            self._gaps_excused_since_ms = now_ms
        try:
            staged = self.log.stage(records, self.leader_epoch, now_ms)
        except KafkaError as error:
            if (
                error.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
                and now_ms - self._gaps_excused_since_ms < NEW_LEADER_MS
            ):
                raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER) from error
            if error.code is ErrorCode.KAFKA_STORAGE_ERROR:
                self._gaps_excused_since_ms = -1
            raise
        self.bytes_in += len(records)
        row[ROW_BASE_OFFSET] = staged.base_offset
        row[ROW_APPEND_TIME] = staged.log_append_time_ms
        row[ROW_START_OFFSET] = self.log.start_offset if self.tier is None else self.tier.log_start
        self._staged.append((waiter, row, staged.last_offset + 1))
        return len(self._staged) == 1

    def excuse_gaps(self) -> None:
        """Take note that a batch was refused before it was looked at, so that those behind it may show a gap."""
        self._gaps_excused_since_ms = -1

    def commit(self) -> bool:
        """Write what was staged with one system call; return whether the log now wants a sync.

        A failed write settles every waiter of this burst with its error code and leaves the log as it was.
        """
        staged = self._staged
        self._staged = []
        try:
            self.log.commit()
        except KafkaError as error:
            self._gaps_excused_since_ms = -1
            settle(staged, error.code)
            return False
        fsync = self._fsync
        # A duplicate's original may be committed already: then nothing is left to wait for.
        high_watermark = self.high_watermark
        durable_end = self.log.synced_end if fsync else self.log.end_offset
        for entry in staged:
            waiter, row, offset = entry
            if waiter.acks == -1:
                if offset <= high_watermark:
                    waiter.partition_done(row)
                else:
                    self._until_committed.append(entry)
            elif waiter.acks == 0 or offset <= durable_end:
                waiter.partition_done(row)
            else:
                self._until_synced.append(entry)
        if self.replica_waiters:
            for follower, key in tuple(self.replica_waiters.items()):
                follower.data_arrived(key)
        if fsync:
            return self.log.end_offset > durable_end
        self.advance_high_watermark()
        return False

    def synced(self) -> None:
        """Take note that the log's synced end moved."""
        waiters = self._until_synced
        synced_end = self.log.synced_end
        while waiters and waiters[0][2] <= synced_end:
            waiter, row, _ = waiters.popleft()
            waiter.partition_done(row)
        if self.is_leader:
            self.advance_high_watermark()
        elif self.on_synced is not None:
            self.on_synced()

    def sync_failed(self) -> None:
        """Settle everybody who waits: after a failed fsync nothing unsynced may ever be acknowledged."""
        self.pending_appends.fail(ErrorCode.KAFKA_STORAGE_ERROR)
        if self.on_synced is not None:
            self.on_synced()

    def advance_high_watermark(self) -> None:
        """Raise the high watermark to what every in-sync replica has; never lower it.

        It stands still while the in-sync replicas are fewer than `min.insync.replicas` (design section 3.2), and while this
        log may have to be dropped.
        """
        leadership = self.leadership
        if leadership is None or leadership.frozen or self.recovery is Recovery.LOG:
            return
        end = self.log.synced_end if self._fsync else self.log.end_offset
        if not leadership.alone:
            end = leadership.committed_end(end)
        if 0 <= leadership.recovered_end <= end:
            leadership.recovered_end = -1
            if self.on_recovered is not None:
                self.on_recovered()
        if end <= self.high_watermark:
            return
        self.high_watermark = end
        waiters = self._until_committed
        while waiters and waiters[0][2] <= end:
            waiter, row, _ = waiters.popleft()
            waiter.partition_done(row)
        size = self.log.size_bytes
        arrived = size - self._size_at_high_watermark
        self._size_at_high_watermark = size
        if self.fetch_waiters:
            for reader in tuple(self.fetch_waiters):
                reader.data_arrived(max(arrived, 1))
        self._tell_followers()

    # -- followers -----------------------------------------------------------------------------------------------------

    def follower_fetched(
        self, broker_id: int, generation: int, log_end: int, log_start: int, now: float
    ) -> bool:
        """Take note of a follower's fetch whose log agrees with ours; return whether it may want to join the ISR.

        `log_end` is the end of its log, durable where `flush` asks for it. Raises KafkaError: NOT_LEADER_OR_FOLLOWER, or
        UNKNOWN_LEADER_EPOCH for a broker that is no replica as far as is known here.
        """
        leadership = self.leadership
        if leadership is None:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if broker_id not in leadership.state.replicas:
            raise KafkaError(ErrorCode.UNKNOWN_LEADER_EPOCH, f"broker {broker_id} is no replica of {self!r}")
        follower = leadership.fetched(broker_id, generation, log_end, log_start, self.log.end_offset, now)
        if (log_end > self.high_watermark or leadership.recovered_end >= 0) and leadership.counts(broker_id):
            self.advance_high_watermark()
        if self._deletions:
            self._deletions.wake()
        return leadership.may_want_to_join(follower, self.high_watermark)

    async def delete_records(self, before_offset: int) -> int:
        """Raise the log start to `before_offset` (-1: to the high watermark) and return the low watermark.

        Raises KafkaError OFFSET_OUT_OF_RANGE, POLICY_VIOLATION, KAFKA_STORAGE_ERROR, NOT_LEADER_OR_FOLLOWER.
        """
        return await self._deletions.delete(self, before_offset)

    def low_watermark(self) -> int:
        """Return the lowest log start of the replicas in sync, -1 while one has not said; only the leader knows it."""
        leadership = self.leadership
        if leadership is None:
            return -1
        return leadership.low_watermark(self.log_start_offset, leadership.state.isr_ids)
