"""What happened in one schedule: events for the trace, observations for the checkers, contradictions seen at once.

Everything is appended in the order of virtual time, so the digest of the events says whether two runs were the same run.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.crash.history import Ack, History, Key, Read, Send

TopicPartition = tuple[str, int]

MAX_EXAMPLES = 20
OPERATIONS = ("produce requests", "acks=1 requests", "fetch requests", "commits", "group joins")
"""What is counted as an operation of a client; metadata, heartbeats and the like are not."""


@dataclass(slots=True)
class Commit:
    """A commit of a group's offset: when it was sent, when it was acknowledged (None: unknown), and the offset."""

    offset: int
    started: float
    ended: float | None = None


@dataclass(slots=True)
class Committed:
    """An offset that a group was told: its request and its answer in time.

    `unaware`: by a coordinator that had a successor and could not know.
    """

    offset: int
    started: float
    ended: float
    unaware: bool = False


@dataclass(slots=True)
class Lookup:
    """An offset that was looked up by the time of a record.

    `seen`: the offset of a record of this time; `offset`, `found_timestamp`: what the leader said, -1 for nothing. `stale`:
    by a leader that had a successor.
    """

    partition: TopicPartition
    timestamp: int
    seen: int
    offset: int
    found_timestamp: int
    stale: bool


@dataclass(slots=True)
class Violation:
    """A contradiction: the rule that was broken, and how."""

    at: float
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.at:10.6f} {self.rule}: {self.text}"


@dataclass
class Journal:
    """See the module. `time` is the loop's clock; with `show` every event is shown as it happens."""

    time: Callable[[], float]
    show: Callable[[str], None] | None = None
    on_violation: Callable[[], None] | None = None
    events: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    history: History = field(default_factory=History)
    commits: dict[TopicPartition, list[Commit]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[TopicPartition, list[Committed]] = field(default_factory=lambda: defaultdict(list))
    seen: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """The value that some consumer saw at (partition number, offset)."""
    unclean: set[str] = field(default_factory=set)
    """Topics that may lose records by unclean elections."""
    times: dict[tuple[int, int], int] = field(default_factory=dict)
    """The timestamps (ms) of committed records at (partition number, offset), where a schedule tiers."""
    lookups: list[Lookup] = field(default_factory=list)
    delete_requests: dict[TopicPartition, int] = field(default_factory=lambda: defaultdict(int))
    """Below which offset DeleteRecords was asked to delete."""
    deleted: dict[TopicPartition, int] = field(default_factory=lambda: defaultdict(int))
    """The same, of requests that were answered without an error."""
    log_starts: dict[TopicPartition, int] = field(default_factory=lambda: defaultdict(int))
    """Where logs may begin by now, because records were deleted by right."""
    _numbers: dict[TopicPartition, int] = field(default_factory=dict)

    def event(self, text: str) -> None:
        """Note something for the trace."""
        line = f"{self.time():10.6f} {text}"
        self.events.append(line)
        if self.show is not None:
            self.show(line)

    def count(self, what: str, number: int = 1) -> None:
        """Count something for the summary."""
        self.counts[what] += number

    @property
    def operations(self) -> int:
        """What clients did so far."""
        return sum(self.counts[name] for name in OPERATIONS)

    def violation(self, rule: str, text: str) -> None:
        """Note a contradiction."""
        self.counts[f"violation: {rule}"] += 1
        if len(self.violations) < MAX_EXAMPLES:
            found = Violation(self.time(), rule, text)
            self.violations.append(found)
            self.event(f"VIOLATION {rule}: {text}")
            if self.on_violation is not None:
                self.on_violation()

    def digest(self) -> str:
        """Return a fingerprint of all events."""
        return hashlib.sha256("\n".join(self.events).encode()).hexdigest()[:16]

    # -- observations --

    def committed_end(self, partition: TopicPartition) -> int:
        """Return up to where a group is known to have committed: by an answer, or because a later member went on there.

        The answer to a commit may have been lost, and who goes on at the end of the log has nothing more to commit.
        """
        answered = (commit.offset for commit in self.commits.get(partition, ()) if commit.ended is not None)
        read = (found.offset for found in self.committed.get(partition, ()))
        return max((*answered, *read), default=0)

    def number_of(self, partition: TopicPartition) -> int:
        """Return the number under which the history knows a partition."""
        return self._numbers.setdefault(partition, len(self._numbers))

    @property
    def partitions(self) -> dict[TopicPartition, int]:
        """All partitions that were written to or read, with their numbers."""
        return self._numbers

    def sent(self, partition: TopicPartition, key: Key) -> None:
        """Note that a record was handed to a producer."""
        self.history.sends.append(Send(key, self.number_of(partition), self.time()))

    def acked(self, partition: TopicPartition, key: Key, offset: int) -> None:
        """Note an acknowledgement with acks=all; -1 where the offset is only concluded."""
        self.history.acks.append(Ack(key, self.number_of(partition), offset, self.time()))

    def polled(self, reader: str, partition: TopicPartition, offset: int, value: bytes) -> None:
        """Note a record that a consumer got, and compare it with what others got there."""
        number = self.number_of(partition)
        known = self.seen.setdefault((number, offset), value)
        if known != value:
            self.violation("one offset, two values", f"{partition} offset {offset}: {known!r} and {value!r}")
        self.history.polls.setdefault(reader, []).append(Read(number, offset, parse_value(value)))


def value_of(key: Key) -> bytes:
    """Return the value that a record carries."""
    return f"{key.producer}/{key.number}".encode()


def parse_value(value: bytes) -> Key | None:
    """Return whose record it is, None for nobody's."""
    producer, slash, number = value.decode("utf-8", "replace").partition("/")
    return Key(producer, int(number)) if slash and number.isdigit() else None
