"""What one broker says of the cluster: leaders and in-sync replicas of every partition, asked for over a bare socket.

Callers: the experiments of `benchmarks.replication`. A broker that is being killed is never the one that is asked.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from benchmarks import raw_client, requests
from benchmarks.clusters import BROKERS, Cluster
from benchmarks.systems import HOST, BrokerFailedError

_POLL_S = 0.01
_CONFIRMATIONS = 3
_ASK_TIMEOUT_S = 10.0
_WAIT_S = 120.0


class Partition(NamedTuple):
    """One partition as a Metadata answer describes it."""

    topic: str
    number: int
    leader: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]

    @property
    def full(self) -> bool:
        """Whether it has a leader and every replica is in sync."""
        return self.leader >= 0 and set(self.isr) == set(self.replicas)


class View(NamedTuple):
    """One Metadata answer about everything."""

    brokers: frozenset[int]
    partitions: tuple[Partition, ...]

    @property
    def full(self) -> bool:
        """Whether all brokers are there and all replicas in sync."""
        return len(self.brokers) == BROKERS and all(partition.full for partition in self.partitions)

    def of(self, topic: str) -> tuple[Partition, ...]:
        """Return the partitions of a topic in order."""
        return tuple(sorted(p for p in self.partitions if p.topic == topic))


class Observer:
    """A connection to one broker, made again when it breaks."""

    def __init__(self, cluster: Cluster, broker: int) -> None:
        self._cluster = cluster
        self._port = cluster.port(broker)
        self._client: raw_client.RawClient | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def look(self) -> View | None:
        """Ask once; None when the broker does not answer."""
        try:
            if self._client is None:
                self._client = raw_client.RawClient(HOST, self._port, timeout_s=_ASK_TIMEOUT_S)
            return _parse(self._client.ask(requests.metadata_of_all(1)))
        except (OSError, raw_client.RequestFailedError):
            self.close()
            return None

    def wait_until(
        self,
        condition: Callable[[View], bool],
        what: str,
        *,
        confirmations: int = 1,
        timeout_s: float = _WAIT_S,
    ) -> float:
        """Ask until the condition holds; return the time.monotonic() of the first of so many answers in a row.

        Raises:
            BrokerFailedError: it does not come true in time.

        """
        deadline = time.monotonic() + timeout_s
        held = 0
        since = 0.0
        view: View | None = None
        while time.monotonic() < deadline:
            view = self.look()
            now = time.monotonic()
            if view is None or not condition(view):
                held = 0
            else:
                since = since if held else now
                held += 1
                if held == confirmations:
                    return since
            time.sleep(_POLL_S)
        lacking = [partition for partition in view.partitions if not partition.full] if view else "no answer"
        raise BrokerFailedError(
            f"{self._cluster.label}: {what} not within {timeout_s} s: {lacking}\n{self._cluster.tail()}"
        )


def await_full(cluster: Cluster, asked: Iterable[int] = range(BROKERS)) -> float:
    """Wait until each of these brokers says that every replica is in sync; return when the last one first did.

    Three answers in a row count: the moment between the end of a process and its removal is not a recovery.
    """
    latest = 0.0
    for broker in asked:
        observer = Observer(cluster, broker)
        try:
            found = observer.wait_until(
                lambda view: view.full, "full in-sync replicas", confirmations=_CONFIRMATIONS
            )
            latest = max(latest, found)
        finally:
            observer.close()
    return latest


def topic_of(cluster: Cluster, topic: str, broker: int = 0) -> tuple[Partition, ...]:
    """Return the partitions of a topic as one broker sees them. Raises BrokerFailedError: it does not answer."""
    observer = Observer(cluster, broker)
    try:
        view = observer.look()
    finally:
        observer.close()
    if view is None:
        raise BrokerFailedError(f"broker {broker} of {cluster.label} does not answer: {cluster.tail()}")
    return view.of(topic)


def _parse(frame: bytes) -> View:
    at = 4 + 4  # correlation id, throttle time
    count, at = _int(frame, at)
    brokers = []
    for _ in range(count):
        broker, at = _int(frame, at)
        brokers.append(broker)
        at = requests.after_string(frame, at) + 4  # host, port
        at = requests.after_string(frame, at)  # rack
    at = requests.after_string(frame, at) + 4  # cluster id, controller id
    topics, at = _int(frame, at)
    partitions: list[Partition] = []
    for _ in range(topics):
        end = requests.after_string(frame, at + 2)
        name = frame[at + 4 : end].decode()
        count, at = _int(frame, end + 1)
        for _ in range(count):
            index, leader = struct.unpack_from(">ii", frame, at + 2)
            replicas, at = _ints(frame, at + 10)
            isr, at = _ints(frame, at)
            partitions.append(Partition(name, index, leader, replicas, isr))
    return View(frozenset(brokers), tuple(partitions))


def _int(frame: bytes, at: int) -> tuple[int, int]:
    value: int = struct.unpack_from(">i", frame, at)[0]
    return value, at + 4


def _ints(frame: bytes, at: int) -> tuple[tuple[int, ...], int]:
    count, at = _int(frame, at)
    return struct.unpack_from(f">{count}i", frame, at), at + 4 * count
