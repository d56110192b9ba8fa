"""What a rebalance storm does to and asks of a cluster: its producer, its probes, its meter of the broker.

Used by `rebalance_storm`. Every question is asked by a client made for it, so no client's memory answers.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.crash.storm_check import NO_OFFSET, OffsetRead, Place

PATIENCE_S = 60.0
REQUEST_TIMEOUT_S = 10.0
CLIENT: dict[str, Any] = {
    "reconnect.backoff.max.ms": 500,
    "socket.timeout.ms": 10_000,
    "log_level": 0,
}
T = TypeVar("T")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def patiently(ask: Callable[[], T]) -> T:
    """Repeat a question while the broker is down or starting. Raises KafkaException after a minute."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def create_topics(bootstrap: str, topics: list[str], partitions: int, replicas: int = 1) -> None:
    """Create all topics and wait for them."""
    admin = AdminClient({**CLIENT, "bootstrap.servers": bootstrap})
    wanted = [NewTopic(topic, partitions, replicas) for topic in topics]
    for future in admin.create_topics(wanted, operation_timeout=30).values():
        future.result(30)


def committed_offsets(
    bootstrap: str, group: str, places: Collection[Place], who: str
) -> dict[Place, OffsetRead]:
    """Read a group's committed offsets with a fresh client."""

    def ask() -> dict[Place, OffsetRead]:
        consumer = Consumer({**CLIENT, "bootstrap.servers": bootstrap, "group.id": group})
        try:
            start = time.monotonic()
            found = consumer.committed(
                [TopicPartition(*place) for place in places], timeout=REQUEST_TIMEOUT_S
            )
            end = time.monotonic()
        finally:
            consumer.close()
        for partition in found:
            if partition.error is not None:
                raise KafkaException(partition.error)
        offsets = {Place(p.topic, p.partition): p.offset if p.offset >= 0 else NO_OFFSET for p in found}
        return {place: OffsetRead(offset, start, end, who) for place, offset in offsets.items()}

    return patiently(ask)


def log_ends(bootstrap: str, places: Collection[Place]) -> dict[Place, int]:
    """Read the log ends (high watermarks) with a fresh client."""
    consumer = Consumer({**CLIENT, "bootstrap.servers": bootstrap, "group.id": "unused: reads no records"})

    def ask(place: Place) -> int:
        found = consumer.get_watermark_offsets(
            TopicPartition(*place), timeout=REQUEST_TIMEOUT_S, cached=False
        )
        return int(found[1])

    try:
        return {place: patiently(lambda place=place: ask(place)) for place in places}  # type: ignore[misc]
    finally:
        consumer.close()


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group as DescribeGroups shows it."""

    state: str
    members: int
    owned: list[Place]
    """By all members; a partition with two owners is there twice."""

    def fault(self, members: int, places: Collection[Place]) -> str:
        """Return why it is not stable with so many members that own every place once; or nothing."""
        if self.state != "Stable" or self.members != members:
            return f"{self.state} with {self.members} members, not stable with {members}"
        owners = Counter(self.owned)
        twice = sorted(place for place, count in owners.items() if count > 1)
        missing = sorted(set(places) - set(owners))
        wrong = ((twice, "owned twice"), (missing, "without owner"))
        return " ".join(f"{len(some)} partitions {what}, such as {some[0]}" for some, what in wrong if some)


class GroupWatch:
    """Looks at all groups now and then, and remembers how long each was not settled at a stretch.

    Asks with kafka-python: librdkafka's admin client may abort the process when its coordinator goes away.
    """

    def __init__(self, bootstrap: str, groups: list[str]) -> None:
        self._bootstrap = bootstrap
        self._groups = groups
        self._unsettled_since: dict[str, float] = {}
        self.longest_unsettled_s: dict[str, float] = dict.fromkeys(groups, 0.0)

    def look(self) -> dict[str, GroupView]:
        """Describe all groups; nothing if the broker does not answer now."""
        # Here, because its import warns of its own use of the standard library.
        from kafka.admin import KafkaAdminClient  # type: ignore[import-untyped]
        from kafka.errors import KafkaError as KafkaPythonError  # type: ignore[import-untyped]

        try:
            admin = KafkaAdminClient(
                bootstrap_servers=self._bootstrap, bootstrap_timeout_ms=5000, request_timeout_ms=5000
            )
            try:
                described = admin.describe_groups(self._groups)
            finally:
                admin.close()
        except KafkaPythonError:
            return {}
        return {group: self._view(group, found) for group, found in described.items()}

    def _view(self, group: str, found: dict[str, Any]) -> GroupView:
        state, now = found["group_state"], time.monotonic()
        if state in ("Stable", "Empty"):
            self._unsettled_since.pop(group, None)
        else:
            for_s = now - self._unsettled_since.setdefault(group, now)
            self.longest_unsettled_s[group] = max(for_s, self.longest_unsettled_s[group])
        assignments = [member["member_assignment"] or {} for member in found["members"]]
        topics = [topic for assignment in assignments for topic in assignment.get("assigned_partitions", ())]
        owned = [Place(topic["topic"], partition) for topic in topics for partition in topic["partitions"]]
        return GroupView(state, len(found["members"]), owned)


@dataclass(slots=True)
class BrokerMeter:
    """CPU and memory of all processes that were the broker; sampled, so a little is missing of each killed one."""

    cpu_s: dict[int, float] = field(default_factory=dict)
    peak_rss_bytes: int = 0

    def sample(self, pid: int | None) -> None:
        """Look at the broker as it is now."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return
        assert pid is not None
        self.cpu_s[pid] = (int(stat[11]) + int(stat[12])) / _TICKS_PER_S
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self.peak_rss_bytes = max(self.peak_rss_bytes, int(line.split()[1]) << 10)


class StormProducer:
    """One idempotent producer at a steady rate; each record's value names its number and its partition."""

    def __init__(self, bootstrap: str, places: list[Place], records_per_s: float, seed: str) -> None:
        self.acks: dict[int, tuple[Place, int, float]] = {}
        self.sent = 0
        self.findings: list[str] = []
        self._places = places
        self._rate = records_per_s
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="storm-producer")
        self._producer = Producer(
            {
                **CLIENT,
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 20,
                "delivery.timeout.ms": 900_000,
            }
        )

    def start(self) -> None:
        """Begin to produce."""
        self._thread.start()

    def abandon(self) -> None:
        """Produce no more, without waiting for anything."""
        self._stop.set()

    def stop(self) -> None:
        """Wait until everything is acknowledged."""
        self._stop.set()
        self._thread.join()

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - a thread's end must not go unnoticed
            self.findings.append(f"the producer ended: {error!r}")

    def _run(self) -> None:
        started = time.monotonic()
        while not self._stop.is_set():
            while self.sent < (time.monotonic() - started) * self._rate:
                place = self._rng.choice(self._places)
                padding = "." * self._rng.randrange(200)
                value = f"{self.sent} {place.topic} {place.partition}{padding}"
                self._producer.produce(
                    place.topic, value, partition=place.partition, on_delivery=self._delivered
                )
                self.sent += 1
            self._producer.poll(0.1)
            self._stop.wait(0.1)
        left = self._producer.flush(PATIENCE_S)
        if left:
            self.findings.append(f"the producer is stuck with {left} records")

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.findings.append(f"a record was not delivered: {error}")
            return
        topic, partition, offset, value = (
            message.topic(),
            message.partition(),
            message.offset(),
            message.value(),
        )
        assert topic is not None
        assert partition is not None
        assert value is not None
        if offset is None:  # the client only concluded it: see `history.UNKNOWN_OFFSET`
            return
        self.acks[int(value.split(b" ", 1)[0])] = (Place(topic, partition), offset, time.monotonic())
