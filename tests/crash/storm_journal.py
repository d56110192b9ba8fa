"""What the members of a storm's groups write down, and its way back into a `StormHistory`.

One JSON array per line: `[event, time, consumer, ...]`; a journal is written with one system call per line,
so that it is whole up to the moment in which its process is killed.

| event | further fields |
|---|---|
| join, leave | |
| assigned | generation, [[topic, partition], ...] |
| revoked | [[topic, partition], ...] |
| delivered | [[topic, partition, first offset, [number, ...]], ...] |
| commit | commit id, [[topic, partition, offset], ...] |
| committed | commit id, [[topic, partition, error or ""], ...] |
| error, fatal | text |
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.storm_check import Commit, Delivery, OffsetRead, Place, Register, StormHistory

IN_FLIGHT_S = 10.0
"""A request may still take effect for so long after its sender gave up or died."""


class Journal:
    """Writes lines; safe between threads."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, event: str, consumer: str, *fields: Any) -> None:
        """Write one event of a member, now."""
        line = json.dumps([event, time.monotonic(), consumer, *fields], separators=(",", ":"))
        os.write(self._file, line.encode() + b"\n")


@dataclass(slots=True)
class StormCounts:
    """What members did."""

    joins: int = 0
    leaves: int = 0
    deaths: int = 0
    generations: Counter[str] = field(default_factory=Counter)
    """Highest generation per group."""
    errors: Counter[str] = field(default_factory=Counter)
    failed_commits: Counter[str] = field(default_factory=Counter)
    fatal: list[tuple[float, str, str]] = field(default_factory=list)
    """(time, consumer, text) of errors after which a consumer is of no use."""


@dataclass(slots=True)
class _Member:
    """One life of a consumer while its journal is read."""

    group: str
    assigned_at: dict[Place, float] = field(default_factory=dict)
    fresh: set[Place] = field(default_factory=set)
    """Partitions of which nothing was delivered since they were assigned."""
    open_commits: dict[int, tuple[float, list[tuple[Place, int]]]] = field(default_factory=dict)


def group_of(consumer: str) -> str:
    """Return the group in a consumer's name `GROUP/SLOT`."""
    return consumer.partition("/")[0]


class JournalReader:
    """Reads journals of ended processes into a history."""

    def __init__(self, history: StormHistory, counts: StormCounts) -> None:
        self._history = history
        self._counts = counts
        self._members: dict[str, _Member] = {}

    def read(self, path: Path, *, ended_at: float) -> None:
        """Take one journal, whose process ended at `ended_at`; members that are left in it died with it."""
        self._members = {}
        lines = path.read_bytes().split(b"\n")
        for line in lines[:-1]:  # after the last newline: nothing, or what a kill cut short
            event, at, consumer, *fields = json.loads(line)
            getattr(self, f"_{event}")(at, consumer, *fields)
        for consumer, member in self._members.items():
            self._counts.deaths += 1
            for begun, offsets in member.open_commits.values():
                self._took(consumer, member, begun, ended_at + IN_FLIGHT_S, offsets, acked=False)

    def _join(self, at: float, consumer: str) -> None:
        del at
        self._counts.joins += 1
        self._members[consumer] = _Member(group_of(consumer))

    def _leave(self, at: float, consumer: str) -> None:
        del at
        self._counts.leaves += 1
        del self._members[consumer]

    def _assigned(self, at: float, consumer: str, generation: int, places: list[list[Any]]) -> None:
        member = self._members[consumer]
        self._counts.generations[member.group] = max(self._counts.generations[member.group], generation)
        for place in (Place(*place) for place in places):
            member.assigned_at[place] = at
            member.fresh.add(place)

    def _revoked(self, at: float, consumer: str, places: list[list[Any]]) -> None:
        del at
        self._members[consumer].fresh.difference_update(Place(*place) for place in places)

    def _delivered(self, at: float, consumer: str, runs: list[list[Any]]) -> None:
        member = self._members[consumer]
        for topic, partition, offset, numbers in runs:
            place = Place(topic, partition)
            register = Register(member.group, place)
            if place in member.fresh:
                member.fresh.remove(place)
                read = OffsetRead(offset, member.assigned_at[place], at, consumer)
                self._history.takeovers[register].append(read)
            self._history.deliveries[register].append(Delivery(at, offset, tuple(numbers)))

    def _commit(self, at: float, consumer: str, commit_id: int, offsets: list[list[Any]]) -> None:
        wanted = [(Place(topic, partition), offset) for topic, partition, offset in offsets]
        self._members[consumer].open_commits[commit_id] = (at, wanted)

    def _committed(self, at: float, consumer: str, commit_id: int, results: list[list[Any]]) -> None:
        member = self._members[consumer]
        begun, offsets = member.open_commits.pop(commit_id)
        errors = {Place(topic, partition): error for topic, partition, error in results}
        for place, offset in offsets:
            error = errors[place]
            if error:
                self._counts.failed_commits[error] += 1
            end = at + IN_FLIGHT_S if error else at
            self._took(consumer, member, begun, end, [(place, offset)], acked=not error)

    def _error(self, at: float, consumer: str, text: str) -> None:
        del at, consumer
        self._counts.errors[text] += 1

    def _fatal(self, at: float, consumer: str, text: str) -> None:
        self._counts.fatal.append((at, consumer, text))

    def _took(
        self,
        consumer: str,
        member: _Member,
        begun: float,
        end: float,
        offsets: list[tuple[Place, int]],
        *,
        acked: bool,
    ) -> None:
        for place, offset in offsets:
            assigned_at = member.assigned_at.get(place, begun)
            commit = Commit(offset, begun, end, acked, consumer, assigned_at)
            self._history.commits[Register(member.group, place)].append(commit)
