"""One led partition of an internal topic with its shard, and the appends of that shard that are under way."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

from strandline_broker.coordinator.machine import StateMachine
from strandline_broker.errors import ErrorCode
from strandline_broker.replica.waiters import ROW_ERROR

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from strandline_broker.group.effects import Body
    from strandline_broker.replica.partition import Partition

M = TypeVar("M", bound=StateMachine)


class Phase(Enum):
    """Where a slot stands: LOADING -> ACTIVE, or LOADING -> FAILED -> (later) a new slot; any -> CLOSED."""

    LOADING = "loading"
    ACTIVE = "active"
    FAILED = "failed"
    CLOSED = "closed"


class Slot(Generic[M]):
    """A shard bound to (partition, leader epoch): it never acts in another epoch."""

    __slots__ = ("appends", "broken", "epoch", "machine", "partition", "phase", "retry_at")

    def __init__(self, partition: Partition, machine: M) -> None:
        self.partition = partition
        self.epoch = partition.leader_epoch
        self.machine = machine
        self.phase = Phase.LOADING
        self.appends: deque[Append[M]] = deque()
        self.broken = False
        """The log failed under it: what the shard holds may be more than what the log will have."""
        self.retry_at = 0.0

    @property
    def leading(self) -> bool:
        """Whether this broker still leads the partition in the slot's epoch."""
        partition = self.partition
        return partition.is_leader and partition.leader_epoch == self.epoch

    @property
    def settled_through(self) -> int:
        """The offset below which the machine of an active slot has taken note of everything that is committed."""
        stable = self.partition.last_stable_offset
        return min(self.appends[0].base_offset, stable) if self.appends else stable


class Append(Generic[M]):
    """One batch of a shard on its way to being committed; the `replica.waiters.AppendWaiter` of that batch."""

    __slots__ = (
        "_settled",
        "acks",
        "base_offset",
        "committed",
        "deadline",
        "error",
        "patient",
        "settled",
        "slot",
        "token",
    )

    def __init__(
        self,
        slot: Slot[M],
        base_offset: int,
        token: object,
        committed: list[tuple[Hashable, Body]],
        deadline: float,
        on_settled: Callable[[], None],
    ) -> None:
        self.acks = -1
        self.patient = True
        self.slot = slot
        self.base_offset = base_offset
        self.token = token
        self.committed = committed
        self.deadline = deadline
        self.settled = False
        self.error = ErrorCode.NONE
        self._settled = on_settled

    def partition_done(self, row: list[object]) -> None:
        """Note the outcome; it is acted on in a turn of its own, because the partition is in the middle of a change."""
        error = row[ROW_ERROR]
        assert isinstance(error, int)
        self.error = ErrorCode(error)
        self.settled = True
        if error and self.slot.partition.log.failed:
            self.slot.broken = True
        self._settled()
