"""What readers saw, checked while they read: for readers that read the same records again and again. Pure.

One value per offset is kept for all readers. A pass is one walk of one reader through one partition; within it offsets
follow each other without a gap.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.crash.history import EXAMPLES_KEPT, Key, Read


@dataclass(slots=True)
class SeenRecords:
    """Safe between threads. `findings` are contradictions, the first of each kind only."""

    findings: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    _values: dict[tuple[int, int], Key] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, reader: str) -> ReadPass:
        """Begin a pass."""
        return ReadPass(self, reader)

    def take(self, reader: str, read: Read) -> None:
        """Take one record of a pass."""
        with self._lock:
            self.reads += 1
            place = (read.partition, read.offset)
            if read.key is None:
                self._found("damaged", f"{reader}: {place} holds what nobody sent")
                return
            known = self._values.setdefault(place, read.key)
            if known != read.key:
                self._found("two values at one offset", f"{reader}: {place} holds {read.key}, it was {known}")

    def found(self, rule: str, example: str) -> None:
        """Count a contradiction."""
        with self._lock:
            self._found(rule, example)

    def _found(self, rule: str, example: str) -> None:
        self.counts[rule] += 1
        if self.counts[rule] <= EXAMPLES_KEPT:
            self.findings.append(f"{rule}: {example}")

    def check(self, final: Iterable[Read]) -> None:
        """Compare all that was ever seen with what the log holds in the end."""
        left = dict(self._values)
        for read in final:
            seen = left.pop((read.partition, read.offset), read.key)
            if seen != read.key:
                self.found("read, then changed", f"{read} was {seen}")
        for place, key in left.items():
            self.found("read, then gone", f"{place} held {key}")


class ReadPass:
    """One walk of one reader, through any number of partitions."""

    def __init__(self, seen: SeenRecords, reader: str) -> None:
        self._seen = seen
        self._reader = reader
        self._next: dict[int, int] = {}

    def take(self, read: Read) -> None:
        """Take the next record that the reader got."""
        expected = self._next.get(read.partition, read.offset)
        if read.offset != expected:
            rule = "poll went back" if read.offset < expected else "poll skipped"
            self._seen.found(
                rule, f"{self._reader}, partition {read.partition}: {read.offset}, not {expected}"
            )
        self._next[read.partition] = read.offset + 1
        self._seen.take(self._reader, read)
