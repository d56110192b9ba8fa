"""The rules of a rebalance storm: what producers, members of groups and probes saw, and what contradicts them.

Pure: a `StormHistory` is filled from the journals of `storm_worker` (or by a test) and `check` names every
contradiction. All times are seconds of one monotonic clock. A committed offset is a register with one value
per group and partition, so a read is right when some commit could have left that value there: one that began
before the read ended, and that no acknowledged commit replaced for certain before the read began.

- what was produced is delivered to every group at least once, what is delivered is what was produced there;
- probes (fresh clients, also after each kill) and members that take a partition over read a right value;
- an acknowledged commit is not lower than one acknowledged before it, unless its member got the partition
  before that one was acknowledged (a rebalance lets it read again);
- nothing committed lies above the log end, and no record waits longer for a group than the bound.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

EXAMPLES_KEPT = 10
NO_OFFSET = -1
FIRST_OFFSET = 0


class Place(NamedTuple):
    """A partition."""

    topic: str
    partition: int


class Register(NamedTuple):
    """A partition as one group sees it."""

    group: str
    place: Place


class Commit(NamedTuple):
    """A commit that took effect between `start` and `end` (or not at all, if it was not `acked`)."""

    offset: int
    start: float
    end: float
    acked: bool
    consumer: str
    assigned_at: float


class OffsetRead(NamedTuple):
    """A committed offset that was read between `start` and `end`; `NO_OFFSET`: there was none."""

    offset: int
    start: float
    end: float
    who: str


class Delivery(NamedTuple):
    """`count` records from `offset` on, their numbers rising by one of the partition's records each."""

    at: float
    offset: int
    numbers: tuple[int, ...]


@dataclass(slots=True)
class StormHistory:
    """All observations. Records have numbers that rise over all partitions and are never given twice."""

    groups: list[str] = field(default_factory=list)
    acks: dict[int, tuple[Place, int, float]] = field(default_factory=dict)
    """number -> (partition, offset, when it was acknowledged)"""
    ends: dict[Place, int] = field(default_factory=dict)
    """The log ends when nobody produces any more."""
    deliveries: dict[Register, list[Delivery]] = field(default_factory=lambda: defaultdict(list))
    commits: dict[Register, list[Commit]] = field(default_factory=lambda: defaultdict(list))
    takeovers: dict[Register, list[OffsetRead]] = field(default_factory=lambda: defaultdict(list))
    """Where members began to read after they got a partition."""
    probes: dict[Register, list[OffsetRead]] = field(default_factory=lambda: defaultdict(list))
    ends_seen: list[tuple[Register, int, int, str]] = field(default_factory=list)
    """(register, committed, log end read after it, who)"""


@dataclass(slots=True)
class StormVerdict:
    """Counts, and per rule how often it was broken, with the first examples."""

    delivered: int = 0
    duplicates: int = 0
    commits: int = 0
    reads: int = 0
    reread_commits: int = 0
    """Commits that went back because of a rebalance."""
    waits_s: dict[str, list[float]] = field(default_factory=dict)
    """Per group: from each acknowledgement to the first delivery; sorted."""
    gaps_s: dict[str, float] = field(default_factory=dict)
    """Per group: the longest time between two deliveries."""
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the rules."""
        return not self.counts

    def found(self, rule: str, example: str) -> None:
        """Count a contradiction."""
        self.counts[rule] += 1
        if self.counts[rule] <= EXAMPLES_KEPT:
            self.examples.append(f"{rule}: {example}")


def check(history: StormHistory, *, longest_wait_s: float) -> StormVerdict:
    """Apply all rules to a finished history."""
    verdict = StormVerdict()
    numbers = _numbers_by_offset(history, verdict)
    for group in history.groups:
        _check_deliveries(history, group, numbers, longest_wait_s, verdict)
    for register, commits in sorted(history.commits.items()):
        acked = [commit for commit in commits if commit.acked]
        verdict.commits += len(acked)
        _check_order(register, acked, verdict)
        end = history.ends.get(register.place, 0)
        for commit in commits:
            if commit.offset > end:
                verdict.found("commit above the log end", f"{register}: {commit}, the end is {end}")
    for rule, reads in (
        ("committed offset lost", history.probes),
        ("took over elsewhere", history.takeovers),
    ):
        for register, seen in sorted(reads.items()):
            _check_reads(rule, register, seen, history.commits.get(register, []), verdict)
    for register, committed, end, who in history.ends_seen:
        if committed > end:
            verdict.found("commit above the log end", f"{register}: {who} saw {committed}, end {end}")
    return verdict


def _numbers_by_offset(history: StormHistory, verdict: StormVerdict) -> dict[Place, dict[int, int]]:
    numbers: dict[Place, dict[int, int]] = defaultdict(dict)
    for number, (place, offset, _) in history.acks.items():
        other = numbers[place].setdefault(offset, number)
        if other != number:
            verdict.found("one offset for two", f"{place} {offset}: {other} and {number}")
        if offset >= history.ends.get(place, 0):
            verdict.found("acknowledged, then gone", f"{place} {offset}: number {number}")
    return numbers


def _expand(deliveries: list[Delivery]) -> Iterator[tuple[float, int, int]]:
    for delivery in deliveries:
        for index, number in enumerate(delivery.numbers):
            yield delivery.at, delivery.offset + index, number


def _check_deliveries(
    history: StormHistory,
    group: str,
    numbers: dict[Place, dict[int, int]],
    longest_wait_s: float,
    verdict: StormVerdict,
) -> None:
    first_at: dict[int, float] = {}
    times: list[float] = []
    for place, end in sorted(history.ends.items()):
        deliveries = history.deliveries.get(Register(group, place), [])
        times += [delivery.at for delivery in deliveries]
        seen: set[int] = set()
        for at, offset, number in _expand(deliveries):
            verdict.delivered += 1
            verdict.duplicates += offset in seen
            seen.add(offset)
            first_at[number] = min(at, first_at.get(number, at))
            if numbers[place].setdefault(offset, number) != number or offset >= end:
                verdict.found("delivered what is not there", f"{group}, {place} {offset}: number {number}")
        missing = sorted(set(range(end)) - seen)
        if missing:
            some = f"{len(missing)} of {end}, from {missing[0]} to {missing[-1]}"
            verdict.found("never delivered", f"{group}, {place}: {some}")
    waits = sorted(first_at[n] - at for n, (_, _, at) in history.acks.items() if n in first_at)
    verdict.waits_s[group] = waits
    if waits and waits[-1] > longest_wait_s:
        verdict.found(
            "stuck", f"{group}: a record waited {waits[-1]:.1f} s, the bound is {longest_wait_s:.0f} s"
        )
    times.sort()
    pairs = pairwise(times)
    verdict.gaps_s[group] = max((after - before for before, after in pairs), default=0.0)


def _check_order(register: Register, acked: list[Commit], verdict: StormVerdict) -> None:
    """Compare each acknowledged commit with the highest one that was acknowledged before it began."""
    by_end = sorted(acked, key=lambda commit: commit.end)
    by_start = sorted(acked, key=lambda commit: commit.start)
    highest: Commit | None = None
    done = 0
    for commit in by_start:
        while done < len(by_end) and by_end[done].end < commit.start:
            if highest is None or by_end[done].offset > highest.offset:
                highest = by_end[done]
            done += 1
        if highest is None or commit.offset >= highest.offset:
            continue
        if commit.assigned_at < highest.end:
            verdict.reread_commits += 1
        else:
            verdict.found("commit went back", f"{register}: {commit} after {highest}")


def _check_reads(
    rule: str, register: Register, reads: list[OffsetRead], commits: list[Commit], verdict: StormVerdict
) -> None:
    by_end = sorted((commit for commit in commits if commit.acked), key=lambda commit: commit.end)
    done = 0
    replaced_at: float | None = None
    last: Commit | None = None
    for read in sorted(reads, key=lambda read: read.start):
        verdict.reads += 1
        while done < len(by_end) and by_end[done].end < read.start:
            if replaced_at is None or by_end[done].start > replaced_at:
                replaced_at, last = by_end[done].start, by_end[done]
            done += 1
        if replaced_at is None and read.offset in (NO_OFFSET, FIRST_OFFSET):
            continue
        since = float("-inf") if replaced_at is None else replaced_at
        if not any(c.offset == read.offset and c.start <= read.end and c.end >= since for c in commits):
            verdict.found(rule, f"{register}: {read}, last acknowledged before it: {last}")
