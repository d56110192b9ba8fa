"""One partition as this broker leads it: appends, the high watermark, and who waits for either.

Everything here runs on the event loop's thread and never blocks: appends go to the page cache, durability is the
flusher's business. Produce and fetch handlers are the callers; the replica manager moves a partition between roles.

What is acknowledged when (design section 3.4):

| acks | `flush: Fsync` | `flush: Replicated` |
|------|----------------|---------------------|
| 0 | never answered | never answered |
| 1 | the leader's synced end passes the record | the record is written |
| all | the high watermark passes the record | the high watermark passes the record |

With `Fsync` the log end that counts toward the high watermark is the *synced* end, so consumers see only synced bytes.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from strandline_broker.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strandline_broker.log.log import Log
    from strandline_broker.log.producer_state import ProducerEntry
    from strandline_broker.seams.disk import FileSlice


class FlushMode(Enum):
    """When a write counts: `Fsync` after fdatasync, `Replicated` from page cache as Kafka does."""

    FSYNC = "Fsync"
    REPLICATED = "Replicated"


class OffsetAt(NamedTuple):
    """A record found by time: its timestamp (ms), offset, and leader epoch (-1 where the log does not know it)."""

    timestamp: int
    offset: int
    leader_epoch: int


class AppendWaiter(Protocol):
    """A produce request that waits for one of its partitions."""

    acks: int

    def partition_done(self, row: list[object]) -> None:
        """Take note that the partition behind `row` is settled; `row` holds its answer."""
        ...


class FetchWaiter(Protocol):
    """A fetch request that waits for data."""

    def data_arrived(self, byte_count: int) -> None:
        """Take note that about `byte_count` more bytes became visible, or that the partition changed its role."""
        ...


# Positions in the row that a produce response encodes: (partition, error, base offset, append time, log start[, message,
# record errors, leader]).
ROW_ERROR = 1
ROW_BASE_OFFSET = 2
ROW_APPEND_TIME = 3
ROW_START_OFFSET = 4
ROW_LEADER = 7

NEW_LEADER_MS = 10_000
"""For so long a gap in a producer's sequence is refused like the requests that it follows from: a client that had
several under way when this broker was not the leader yet retries them in order. Told of the gap itself, librdkafka
gives up its epoch and sends again what the last leader may have written: duplicates."""


class Partition:
    """A partition that has a replica on this broker.

    `leader_epoch` is -1 until the cluster store names this broker's incarnation as leader.
    """

    __slots__ = (
        "_epoch_start_offset",
        "_fsync",
        "_high_watermark_waiters",
        "_led_since_ms",
        "_local_waiters",
        "_size_at_high_watermark",
        "_staged",
        "bytes_in",
        "bytes_out",
        "fetch_waiters",
        "high_watermark",
        "index",
        "is_leader",
        "isr_size",
        "leader_epoch",
        "leader_id",
        "log",
        "min_isr",
        "topic",
        "topic_id",
    )

    def __init__(
        self, topic: str, topic_id: bytes, index: int, log: Log, flush: FlushMode, high_watermark: int
    ) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.log = log
        self.is_leader = False
        self.leader_id = -1
        self.leader_epoch = -1
        self.isr_size = 0
        self.min_isr = 1
        self.high_watermark = max(log.start_offset, min(high_watermark, log.synced_end))
        # Bytes of batches accepted from producers and handed to readers since the log was opened, for metrics.
        self.bytes_in = 0
        self.bytes_out = 0
        # In the order of their coming.
        self.fetch_waiters: dict[FetchWaiter, None] = {}
        self._epoch_start_offset = log.end_offset
        self._led_since_ms = -1
        self._fsync = flush is FlushMode.FSYNC
        self._size_at_high_watermark = log.size_bytes
        # (waiter, its row, offset that must be passed) of the current read burst, then by what they wait for.
        self._staged: list[tuple[AppendWaiter, list[object], int]] = []
        self._local_waiters: deque[tuple[AppendWaiter, list[object], int]] = deque()
        self._high_watermark_waiters: deque[tuple[AppendWaiter, list[object], int]] = deque()

    def __repr__(self) -> str:
        return f"<Partition {self.topic}-{self.index} epoch={self.leader_epoch} leader={self.leader_id}>"

    # -- roles ---------------------------------------------------------------------------------------------------------

    def become_leader(self, leader_id: int, leader_epoch: int, isr_size: int, min_isr: int) -> None:
        """Lead from now on in `leader_epoch`.

        Raises KafkaError(FENCED_LEADER_EPOCH) for an epoch below one that this log has seen (design section 3.3).
        """
        if leader_epoch < self.leader_epoch or leader_epoch < self.log.last_epoch:
            raise KafkaError(
                ErrorCode.FENCED_LEADER_EPOCH,
                f"{self.topic}-{self.index}: asked to lead in epoch {leader_epoch}, the log has seen "
                f"{max(self.leader_epoch, self.log.last_epoch)}",
            )
        self.isr_size = isr_size
        self.min_isr = min_isr
        if self.is_leader and leader_epoch == self.leader_epoch:
            return
        self._fail_waiters()
        self.leader_id = leader_id
        self.leader_epoch = leader_epoch
        self.is_leader = True
        self._epoch_start_offset = self.log.end_offset
        self._led_since_ms = -1
        self.log.epochs.assign(leader_epoch, self.log.end_offset)
        self.advance_high_watermark()

    def resign(self, leader_id: int, leader_epoch: int) -> None:
        """Stop leading; whoever waits is told to look for the new leader."""
        self.is_leader = False
        self.leader_id = leader_id
        self.leader_epoch = max(self.leader_epoch, leader_epoch)
        self._fail_waiters()
        self._wake_fetches(0)

    def check_leader(self, current_leader_epoch: int = -1) -> None:
        """Refuse a client that asks the wrong broker, or with another epoch in mind (KIP-320).

        Raises KafkaError NOT_LEADER_OR_FOLLOWER, FENCED_LEADER_EPOCH or UNKNOWN_LEADER_EPOCH.
        """
        if not self.is_leader:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if current_leader_epoch >= 0 and current_leader_epoch != self.leader_epoch:
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
        if waiter.acks == -1 and self.isr_size < self.min_isr:
            raise KafkaError(
                ErrorCode.NOT_ENOUGH_REPLICAS,
                f"{self.isr_size} in-sync replicas, min.insync.replicas is {self.min_isr}",
            )
        if self._led_since_ms < 0:
            self._led_since_ms = now_ms
        try:
            staged = self.log.stage(records, self.leader_epoch, now_ms)
        except KafkaError as error:
            if (
                error.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
                and now_ms - self._led_since_ms < NEW_LEADER_MS
            ):
                raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER) from error
            raise
        self.bytes_in += len(records)
        row[ROW_BASE_OFFSET] = staged.base_offset
        row[ROW_APPEND_TIME] = staged.log_append_time_ms
        row[ROW_START_OFFSET] = self.log.start_offset
        self._staged.append((waiter, row, staged.last_offset + 1))
        return len(self._staged) == 1

    def commit(self) -> bool:
        """Write what was staged with one system call; return whether the log now wants a sync.

        A failed write settles every waiter of this burst with its error code and leaves the log as it was.
        """
        staged = self._staged
        self._staged = []
        try:
            self.log.commit()
        except KafkaError as error:
            for waiter, row, _ in staged:
                row[ROW_ERROR] = error.code
                row[ROW_BASE_OFFSET] = -1
                row[ROW_APPEND_TIME] = -1
                waiter.partition_done(row)
            return False
        if self._fsync:
            # A duplicate's original may be synced already: then nothing is left to wait for.
            synced_end = self.log.synced_end
            high_watermark = self.high_watermark
            for entry in staged:
                waiter, row, offset = entry
                if waiter.acks == -1:
                    if offset <= high_watermark:
                        waiter.partition_done(row)
                    else:
                        self._high_watermark_waiters.append(entry)
                elif waiter.acks == 0 or offset <= synced_end:
                    waiter.partition_done(row)
                else:
                    self._local_waiters.append(entry)
            return self.log.end_offset > synced_end
        for entry in staged:
            if entry[0].acks == -1:
                self._high_watermark_waiters.append(entry)
            else:
                entry[0].partition_done(entry[1])
        self.advance_high_watermark()
        return False

    def synced(self) -> None:
        """Take note that the log's synced end moved."""
        waiters = self._local_waiters
        synced_end = self.log.synced_end
        while waiters and waiters[0][2] <= synced_end:
            waiter, row, _ = waiters.popleft()
            waiter.partition_done(row)
        if self.is_leader:
            self.advance_high_watermark()

    def sync_failed(self) -> None:
        """Settle everybody who waits: after a failed fsync nothing unsynced may ever be acknowledged."""
        self._fail_waiters(ErrorCode.KAFKA_STORAGE_ERROR)

    def advance_high_watermark(self) -> None:
        """Raise the high watermark to what every in-sync replica has; never lower it.

        It stands still while the in-sync replicas are fewer than `min.insync.replicas` (design section 3.2).
        """
        if self.isr_size < self.min_isr:
            return
        end = self.log.synced_end if self._fsync else self.log.end_offset
        if end <= self.high_watermark:
            return
        self.high_watermark = end
        waiters = self._high_watermark_waiters
        while waiters and waiters[0][2] <= end:
            waiter, row, _ = waiters.popleft()
            waiter.partition_done(row)
        size = self.log.size_bytes
        arrived = size - self._size_at_high_watermark
        self._size_at_high_watermark = size
        if self.fetch_waiters:
            self._wake_fetches(max(arrived, 1))

    # -- reads ---------------------------------------------------------------------------------------------------------

    @property
    def last_stable_offset(self) -> int:
        """Return the first offset that may belong to an open transaction; without transactions the high watermark."""
        return self.high_watermark

    def read(self, offset: int, max_bytes: int, *, min_one_batch: bool) -> FileSlice | None:
        """Return what consumers may see from `offset` on, or None if there is nothing yet.

        Raises KafkaError(OFFSET_OUT_OF_RANGE).
        """
        high_watermark = self.high_watermark
        if offset == high_watermark:
            return None
        if offset > high_watermark:
            # Between the high watermark and the log end there is nothing to see yet; beyond the end never was anything.
            if offset > self.log.end_offset:
                raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
            return None
        return self.log.read(offset, max_bytes, high_watermark, min_one_batch=min_one_batch)

    @property
    def leader_epoch_start_offset(self) -> int:
        """Log end when the current epoch began; the high watermark may lag it for a moment (KIP-207)."""
        return self._epoch_start_offset

    @property
    def log_start_offset(self) -> int:
        """First offset that can be read, in whatever tier."""
        return self.log.start_offset

    @property
    def local_log_start_offset(self) -> int:
        """First offset on the local disk; the log start as long as nothing is tiered."""
        return self.log.start_offset

    @property
    def highest_tiered_offset(self) -> int:
        """Last offset in the bucket; -1 as long as nothing is tiered."""
        return -1

    @property
    def log_end_offset(self) -> int:
        """Offset of the next record."""
        return self.log.end_offset

    @property
    def producers(self) -> Iterable[ProducerEntry]:
        """What is remembered of the producers of this partition."""
        return self.log.producers

    def epoch_at(self, offset: int) -> int:
        """Return the leader epoch in which the record at `offset` was written, or -1."""
        return self.log.epochs.epoch_of(offset)

    def offset_for_timestamp(self, timestamp: int, end: int) -> OffsetAt | None:
        """Return the first record below `end` whose timestamp (ms) is not below `timestamp`."""
        found = self.log.offset_for_timestamp(timestamp, end)
        return OffsetAt(*found) if found is not None else None

    def max_timestamp(self, end: int) -> OffsetAt | None:
        """Return the first record with the highest timestamp among those below `end`, None if none has one."""
        found = self.log.max_timestamp(end)
        return OffsetAt(*found) if found is not None else None

    def epoch_end_offset(self, epoch: int) -> tuple[int, int]:
        """Return (largest epoch not above `epoch`, its end offset), or (-1, -1)."""
        return self.log.epoch_end_offset(epoch)

    async def delete_records(self, before_offset: int) -> int:
        """Raise the log start to `before_offset` (-1: to the high watermark) and return the low watermark.

        Raises KafkaError OFFSET_OUT_OF_RANGE, POLICY_VIOLATION, KAFKA_STORAGE_ERROR, NOT_LEADER_OR_FOLLOWER.
        """
        self.check_leader()
        if not self.log.config.delete:
            raise KafkaError(ErrorCode.POLICY_VIOLATION, "cleanup.policy does not contain delete")
        offset = self.high_watermark if before_offset == -1 else before_offset
        if not 0 <= offset <= self.high_watermark:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"offset {offset} is beyond the high watermark {self.high_watermark}",
            )
        self.log.advance_start(offset)
        return self.log.start_offset

    def diverging_epoch(self, last_fetched_epoch: int, fetch_offset: int) -> tuple[int, int] | None:
        """Return (epoch, end offset) where a reader's log parts from this one, or None if it does not (KIP-595)."""
        epoch, end_offset = self.log.epoch_end_offset(last_fetched_epoch)
        if epoch < last_fetched_epoch or end_offset < fetch_offset:
            return epoch, end_offset
        return None

    # -- internal ------------------------------------------------------------------------------------------------------

    def _fail_waiters(self, code: ErrorCode = ErrorCode.NOT_LEADER_OR_FOLLOWER) -> None:
        entries = [*self._local_waiters, *self._high_watermark_waiters]
        self._local_waiters.clear()
        self._high_watermark_waiters.clear()
        settle(entries, code)

    def forget_waiter(self, waiter: AppendWaiter) -> list[list[object]]:
        """Drop a waiter whose time is up and return the rows that were not settled."""
        rows: list[list[object]] = []
        for queue in (self._local_waiters, self._high_watermark_waiters):
            rows.extend(entry[1] for entry in queue if entry[0] is waiter)
            kept = [entry for entry in queue if entry[0] is not waiter]
            queue.clear()
            queue.extend(kept)
        return rows

    def _wake_fetches(self, byte_count: int) -> None:
        for waiter in tuple(self.fetch_waiters):
            waiter.data_arrived(byte_count)


def settle(entries: Iterable[tuple[AppendWaiter, list[object], int]], code: ErrorCode) -> None:
    """Answer waiting appends with an error code: the outcome is unknown to them, and they may retry."""
    for waiter, row, _ in entries:
        row[ROW_ERROR] = code
        row[ROW_BASE_OFFSET] = -1
        row[ROW_APPEND_TIME] = -1
        waiter.partition_done(row)
