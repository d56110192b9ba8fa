"""The history checker: what producers and readers saw, against what the log holds in the end.

Pure: a `History` is filled by the kill harness (or by a test) and `check` names every contradiction. The
rules are those that Jepsen's Kafka analyses test, for a log with `acks=all`, idempotent producers and no
transactions:

- an acknowledged record is in the log, once, where its acknowledgement said;
- a record that was not acknowledged is in the log at most once; nothing is in the log that nobody sent;
- the records of one producer in one partition are in the order in which it sent them;
- no two acknowledgements name one offset; a record that was sent after the acknowledgement of another one
  has the higher offset;
- the log has no holes, and a concurrent reader sees it without skips, repetitions or records that later
  vanish.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

EXAMPLES_KEPT = 20


class Key(NamedTuple):
    """A record's identity: its producer and the number that this producer gave it, rising from 0."""

    producer: str
    number: int


class Send(NamedTuple):
    """A record was handed to a producer; `at` in seconds of one monotonic clock for the whole history."""

    key: Key
    partition: int
    at: float


UNKNOWN_OFFSET = -1

UNREPLICATED = frozenset(
    ("lost", "moved", "duplicated", "reordered", "acked twice", "one offset for two", "offset went back")
)
"""What `acks=1` without idempotence permits: an acknowledged record may go with its leader, a retry may repeat it.

What consumers saw must stay all the same: they see committed records only.
"""


class Ack(NamedTuple):
    """A record was acknowledged.

    With `UNKNOWN_OFFSET` the client only concluded it: librdkafka does when a later record of the same producer is
    acknowledged while the answer for this one was lost with its connection.
    """

    key: Key
    partition: int
    offset: int
    at: float


class Read(NamedTuple):
    """A record was read. `key` is None when the value is none that a producer could have sent."""

    partition: int
    offset: int
    key: Key | None


@dataclass(slots=True)
class History:
    """All observations. `polls` holds per concurrent reader what it saw, in order."""

    sends: list[Send] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    final: list[Read] = field(default_factory=list)
    polls: dict[str, list[Read]] = field(default_factory=dict)


@dataclass(slots=True)
class Verdict:
    """Counts per rule, and the first examples of each contradiction."""

    sent: int = 0
    acked: int = 0
    read: int = 0
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    examples: list[str] = field(default_factory=list)
    tolerated: frozenset[str] = frozenset()
    passed_over: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Counts of the tolerated rules."""

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the rules."""
        return not self.counts

    def found(self, rule: str, example: str) -> None:
        """Count a contradiction."""
        if rule in self.tolerated:
            self.passed_over[rule] += 1
            return
        self.counts[rule] += 1
        if self.counts[rule] <= EXAMPLES_KEPT:
            self.examples.append(f"{rule}: {example}")

    def __str__(self) -> str:
        counts = (
            ", ".join(f"{rule} {count}" for rule, count in sorted(self.counts.items())) or "no contradictions"
        )
        return "\n".join(
            [f"sent {self.sent}, acked {self.acked}, read {self.read}: {counts}", *self.examples]
        )


def check(history: History, *, tolerated: frozenset[str] = frozenset()) -> Verdict:
    """Apply all rules to a finished history; breaches of `tolerated` rules are only counted, apart."""
    verdict = Verdict(
        sent=len(history.sends), acked=len(history.acks), read=len(history.final), tolerated=tolerated
    )
    sends = {send.key: send for send in history.sends}
    assert len(sends) == len(history.sends), "the harness gave one number to two records"
    places = _check_final(history.final, sends, verdict)
    _check_acks(history.acks, sends, places, verdict)
    _check_real_time(history.acks, sends, verdict)
    log = {(read.partition, read.offset): read.key for read in history.final}
    starts = _lowest(history.final)
    for reader, reads in history.polls.items():
        _check_reader(reader, reads, log, starts, verdict)
    return verdict


def _check_final(
    final: Iterable[Read], sends: dict[Key, Send], verdict: Verdict
) -> dict[Key, tuple[int, int]]:
    """Check the log in itself; return where each record is (its first place)."""
    places: dict[Key, tuple[int, int]] = {}
    next_offset: dict[int, int] = {}
    last_number: dict[tuple[int, str], int] = {}
    for partition, offset, key in sorted(final, key=lambda read: read[:2]):
        where = f"partition {partition} offset {offset}"
        expected = next_offset.get(partition, offset)
        if offset > expected:
            verdict.found("hole", f"{where} follows {expected - 1}")
        elif offset < expected:
            verdict.found("offset read twice", where)
        next_offset[partition] = max(expected, offset + 1)
        send = sends.get(key) if key is not None else None
        if key is None or send is None or send.partition != partition:
            verdict.found("never sent", f"{where} holds {key}")
            continue
        if key in places:
            verdict.found("duplicated", f"{key} at {where} and at {places[key]}")
            continue
        places[key] = (partition, offset)
        last = last_number.get((partition, key.producer), -1)
        if key.number < last:
            verdict.found("reordered", f"{key} at {where} after number {last}")
        last_number[partition, key.producer] = max(last, key.number)
    return places


def _check_acks(
    acks: Iterable[Ack], sends: dict[Key, Send], places: dict[Key, tuple[int, int]], verdict: Verdict
) -> None:
    """Check that what acknowledgements said is so."""
    seen: set[Key] = set()
    owners: dict[tuple[int, int], Key] = {}
    for ack in acks:
        if ack.key not in sends:
            verdict.found("acked but never sent", f"{ack}")
        if ack.key in seen:
            verdict.found("acked twice", f"{ack}")
        seen.add(ack.key)
        place = (ack.partition, ack.offset)
        if ack.offset == UNKNOWN_OFFSET:
            if ack.key not in places:
                verdict.found("lost", f"{ack.key}, acked somewhere in partition {ack.partition}")
            continue
        owner = owners.setdefault(place, ack.key)
        if owner != ack.key:
            verdict.found("one offset for two", f"{place} acked for {owner} and {ack.key}")
        found = places.get(ack.key)
        if found is None:
            verdict.found("lost", f"{ack.key}, acked at {place}")
        elif found != place:
            verdict.found("moved", f"{ack.key}, acked at {place}, is at {found}")


def _check_real_time(acks: Iterable[Ack], sends: dict[Key, Send], verdict: Verdict) -> None:
    """Check that offsets rise with time: what was sent after an acknowledgement lies above it."""
    by_partition: dict[int, list[Ack]] = defaultdict(list)
    for ack in acks:
        if ack.offset != UNKNOWN_OFFSET:
            by_partition[ack.partition].append(ack)
    for group in by_partition.values():
        group.sort(key=lambda ack: ack.at)
        times = [ack.at for ack in group]
        highest: list[Ack] = []
        for ack in group:
            highest.append(ack if not highest or ack.offset > highest[-1].offset else highest[-1])
        for ack in group:
            send = sends.get(ack.key)
            before = bisect_left(times, send.at) if send is not None else 0
            if before and highest[before - 1].offset >= ack.offset:
                verdict.found("offset went back", f"{ack} was sent after {highest[before - 1]}")


def _check_reader(
    reader: str,
    reads: Sequence[Read],
    log: dict[tuple[int, int], Key | None],
    starts: dict[int, int],
    verdict: Verdict,
) -> None:
    """Check one concurrent reader against itself and against the log."""
    position: dict[int, int] = {}
    for partition, offset, key in reads:
        expected = position.get(partition, offset)
        where = f"{reader}, partition {partition}: {offset} after {expected - 1}"
        if offset < expected:
            verdict.found("poll went back", where)
        elif offset > expected:
            verdict.found("poll skipped", where)
        position[partition] = offset + 1
        if offset < starts.get(partition, 0):
            continue
        if (partition, offset) not in log:
            verdict.found("read, then gone", f"{reader}: partition {partition} offset {offset}, {key}")
        elif log[partition, offset] != key:
            verdict.found("read, then changed", f"{reader}: partition {partition} offset {offset}, {key}")


def _lowest(final: Iterable[Read]) -> dict[int, int]:
    """Return the log start of each partition that holds anything."""
    starts: dict[int, int] = {}
    for partition, offset, _ in final:
        starts[partition] = min(offset, starts.get(partition, offset))
    return starts
