"""The state of the modelled world, and its compact form.

A state is one broker's part for each broker plus the part that they share. Each distinct part is interned once, and a
state is the numbers of its parts packed into one integer: exact, small, quick to compare, and whatever follows from one
part alone is computed once for all the states that contain it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from strandline_broker.cluster.model import ReplicaRef

T = TypeVar("T", bound=Hashable)

# Width of a part's number within a packed state. `Table.intern` refuses to outgrow it.
BITS = 20
MASK = (1 << BITS) - 1

NO_EPOCH = -1
NO_VIEW = -1


class Record(NamedTuple):
    """A record is told from others by its offset and by who appended it: a start of a broker appends once per offset.

    `cut`: how often that start had gone on leading after its log was cut; only a broker without that rule does.
    """

    epoch: int
    broker: int
    incarnation: int
    cut: int = 0

    def __str__(self) -> str:
        return f"{chr(ord('a') + self.broker)}{self.incarnation}{chr(39) * self.cut}@{self.epoch}"


Log = tuple[Record, ...]


class Progress(NamedTuple):
    """What a leader remembers of a follower's last fetch."""

    generation: int
    epoch: int
    log_end: int


class Fetch(NamedTuple):
    """A replica fetch on its way: what the leader compares, and what it takes note of."""

    broker: int
    generation: int
    leader: int
    epoch: int
    log_end: int
    last_epoch: int
    reported_end: int


class Broker(NamedTuple):
    """One broker's memory and disk.

    `claim`: the incarnation before, if it ended in a clean stop: its epochs may be led on; otherwise the present one.
    `view`: number of the partition state that it acts by (on disk before it is used), `NO_VIEW` for none; followers keep
    only leader and epoch of it. `unfit_epoch`: the epoch in which its log failed while it led, `NO_EPOCH` for none.
    `cuts`: see `Record.cut`.
    `attempted`: who is in an ISR of unknown outcome and not in the confirmed one. What means something on a leader only
    is blank elsewhere: equal situations are equal states.
    """

    number: int
    incarnation: int = 1
    generation: int = 1
    claim: int = 1
    log: Log = ()
    synced: int = 0
    view: int = NO_VIEW
    unfit_epoch: int = NO_EPOCH
    cuts: int = 0
    high_watermark: int = 0
    leads: bool = False
    epoch_start: int = 0
    attempted: tuple[ReplicaRef, ...] = ()
    progress: tuple[Progress | None, ...] = ()

    @property
    def last_epoch(self) -> int:
        """Epoch of the last record, as the leader-epoch checkpoint has it after a start."""
        return self.log[-1].epoch if self.log else NO_EPOCH


class Shared(NamedTuple):
    """The cluster store, the network, what was promised, and what is left of the bounds.

    `partition`: number of the stored partition state. Partition epochs appear nowhere: they decide only whether a
    leader's view is the stored state (its bit in `current`) and whether a write in flight can still land (it stands in
    `in_flight`); a write that cannot is forgotten. `refused`: brokers whose writes in flight were forgotten because
    somebody else's landed: the store may tell them so. `leases[broker][incarnation - 1]` is the generation that each start
    put into its Lease. `former`: the last stored state of each earlier leader epoch. `acknowledged`: the records below
    the highest high watermark that any leader ever had, seen by consumers. `void_below`: the epoch of the last election
    whose Event announced a possible loss; what a leader of an earlier epoch acknowledges after it is part of that loss.
    `broken`: why this state must not be.
    """

    partition: int
    current: int
    in_flight: tuple[int, ...]
    leases: tuple[tuple[int, ...], ...]
    acknowledged: Log
    crashes: int
    clean_restarts: int
    refused: int = 0
    former: tuple[int, ...] = ()
    late_fetch: Fetch | None = None
    void_below: int = NO_EPOCH
    broken: str = ""


class Table(Generic[T]):
    """Numbers for values: equal values have equal numbers, in the order of coming."""

    __slots__ = ("_numbers", "values")

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self.values: list[T] = []

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, number: int) -> T:
        return self.values[number]

    def intern(self, value: T) -> int:
        """Return the number of `value`."""
        number = self._numbers.get(value)
        if number is None:
            number = len(self.values)
            assert number <= MASK, "too many different parts for their width in a packed state"
            self._numbers[value] = number
            self.values.append(value)
        return number
