"""The state of the modelled bucket and brokers.

Leaderships, objects, writes and requests are numbered (`Numbers`): what a state holds of them are small numbers.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from strandline_tiered.epochs import EpochStart, History
from strandline_tiered.keys import Name
from strandline_tiered.leadership import LocalLog
from strandline_tiered.manifest import Manifest
from strandline_tiered.protocol_messages import Effect, Event, SealedSegment

NO_MACHINE = -1

# A record is told from others at its offset by the epoch in which it was appended. Offsets below a log start, which nobody
# can ask for any more, have none.
Records: TypeAlias = tuple[int, ...]
GONE = -2

# What a manifest, a segment, or a claim (nothing) holds.
Content: TypeAlias = Manifest | Records
Bucket: TypeAlias = frozenset[int]


class Write(NamedTuple):
    """An object to be, or, without content, a deletion."""

    name: Name
    content: Content | None


class Request(NamedTuple):
    """A PUT whose sender waits for the answer: the number of the `Write`, what was asked for, and what will be heard."""

    write: int
    effect: Effect
    answer: Event


class Broker(NamedTuple):
    """One broker. `machine`: number of its leadership, if it leads, or believes so, in `epoch`.

    `log`: its records from offset 0 on; those below `start` are not on its disk any more. `may_delete`: what was released
    to it, in this epoch or before. `awaited`: requests under way; `answers`: those that were carried out; `asked`: reads.
    `uploads`: how many names of segments it used in `epoch`. `saw_successor`: only if it looks before it writes.
    """

    number: int
    epoch: int = -1
    machine: int = NO_MACHINE
    log: Records = ()
    start: int = 0
    log_start: int = 0
    high_watermark: int = 0
    may_delete: int = 0
    awaited: tuple[int, ...] = ()
    answers: tuple[int, ...] = ()
    asked: tuple[Effect, ...] = ()
    uploads: int = 0
    saw_successor: bool = False


class Control(NamedTuple):
    """The cluster store, and what may still happen (in the order of `LEFT`).

    `in_sync`: who may be elected cleanly. `former`: who was, at the end of the epoch before: with them its leader still
    acknowledges. `unclean_epoch`: the epoch of the last unclean election, -1 if there was none.
    """

    epoch: int
    leader: int
    recovering: bool
    in_sync: frozenset[int]
    left: tuple[int, ...]
    former: frozenset[int] = frozenset()
    unclean_epoch: int = -1


LEFT = ("lost_answers", "crashes", "lost_volumes", "resumptions", "raises", "scrubs", "unclean_elections")


class Shared(NamedTuple):
    """What brokers share, and what was promised.

    `in_flight`: writes that nobody waits for, and that may still land. `committed`: records that were acknowledged.
    `shown`: the highest log start that was confirmed. `broken`: why this state must not be.
    """

    control: Control
    bucket: Bucket
    in_flight: frozenset[int]
    committed: Records
    shown: int
    broken: str = ""


T = TypeVar("T", bound=Hashable)


class Numbers(Generic[T]):
    """Numbers for values, in the order of coming."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self._values: list[T] = []

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, number: int) -> T:
        return self._values[number]

    def intern(self, value: T) -> int:
        """Return the number of `value`."""
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number


def history(log: Records) -> History:
    """Return which epoch began at which offset of a log."""
    return tuple(
        EpochStart(epoch, offset)
        for offset, epoch in enumerate(log)
        if epoch != GONE and (offset == 0 or log[offset - 1] != epoch)
    )


def local_log(broker: Broker, segment_size: int) -> LocalLog:
    """Return what the protocol may know of a broker's log. Segments end at multiples of their size."""
    end = len(broker.log)
    ends = range(segment_size, end + 1, segment_size)
    sealed = tuple(SealedSegment(max(e - segment_size, broker.start), e) for e in ends if e > broker.start)
    high_watermark = min(broker.high_watermark, end)
    return LocalLog(
        broker.log_start, broker.start, end, high_watermark, high_watermark, history(broker.log), sealed
    )
