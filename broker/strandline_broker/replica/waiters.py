"""Who waits for a partition: produce requests for their records, fetch requests for data. Contracts and answer rows.

`Partition` keeps the waiters; produce and fetch handlers, coordinators and follower fetches implement them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strandline_broker.errors import ErrorCode


class AppendWaiter(Protocol):
    """A produce request that waits for one of its partitions.

    `patient`: it is not told when the ISR falls below its minimum after the write (NOT_ENOUGH_REPLICAS_AFTER_APPEND), it
    waits until the record is committed or its leader is another one. Coordinators are: what they wrote, they believe.
    """

    acks: int
    patient: bool

    def partition_done(self, row: list[object]) -> None:
        """Take note that the partition behind `row` is settled; `row` holds its answer."""
        ...


PendingAppend = tuple[AppendWaiter, list[object], int]
"""(waiter, its row, the offset that must be passed before it is acknowledged)"""


class FetchWaiter(Protocol):
    """A consumer's fetch request that waits for data."""

    def data_arrived(self, byte_count: int) -> None:
        """Take note that about `byte_count` more bytes became visible, or that the partition changed its role."""
        ...


class ReplicaWaiter(Protocol):
    """Somebody who copies partitions from here; it gave each of them a `key` to be told with."""

    def data_arrived(self, key: tuple[str | bytes, int]) -> None:
        """Take note that something was written to the partition, or that it changed its role."""
        ...

    def high_watermark_moved(self, key: tuple[str | bytes, int]) -> None:
        """Take note that followers have something to learn, of this or the log start, although there is nothing to copy."""
        ...


# Positions in the row that a produce response encodes: (partition, error, base offset, append time, log start[, message,
# record errors, leader]).
ROW_ERROR = 1
ROW_BASE_OFFSET = 2
ROW_APPEND_TIME = 3
ROW_START_OFFSET = 4
ROW_LEADER = 7


def settle(entries: Iterable[PendingAppend], code: ErrorCode) -> None:
    """Answer waiting appends with an error code: the outcome is unknown to them, and they may retry."""
    for waiter, row, _ in entries:
        row[ROW_ERROR] = code
        row[ROW_BASE_OFFSET] = -1
        row[ROW_APPEND_TIME] = -1
        waiter.partition_done(row)
