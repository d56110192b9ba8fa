"""A light, steady load of acks=all idempotent writes, which remembers when each partition was acknowledged.

Callers: the failover and restart rows. Each record carries the time it was sent, so an acknowledgement says by itself
whether it answers something sent after a fault.
"""

from __future__ import annotations

import struct
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from types import TracebackType

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from benchmarks.load import LoadError

_TIME = struct.Struct(">d")
_PADDING = bytes(100)
_POLL_S = 0.001
_WAIT_S = 120.0
_FLUSH_S = 120.0

CLIENT = {
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 100,
    "retry.backoff.ms": 10,
    "retry.backoff.max.ms": 100,
    "topic.metadata.refresh.interval.ms": 200,
    "topic.metadata.refresh.fast.interval.ms": 20,
    "socket.timeout.ms": 1000,
    "log_level": 0,
}
"""librdkafka told to look for a new leader at once and to give up on a silent one after a second: what is measured
then is the cluster and not the client's defaults (100 ms of back-off, 60 s for a silent connection)."""


class SteadyLoad:
    """One producer in a thread that sends a record to every partition every `interval_s`. A context manager."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, *, interval_s: float) -> None:
        self.failures: Counter[str] = Counter()
        """Records that were reported as not delivered, by error."""
        self.client_errors: Counter[str] = Counter()
        """What the client noticed and went on from: closed connections, time-outs."""
        self._topic = topic
        self._interval_s = interval_s
        # (when it was sent, when it was acknowledged) of every record, in order of acknowledgement.
        self._acks: list[list[tuple[float, float]]] = [[] for _ in range(partitions)]
        self._stop = threading.Event()
        self._died: BaseException | None = None
        self._producer = Producer(
            {
                **CLIENT,
                "bootstrap.servers": bootstrap,
                "client.id": "steady-load",
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 0,
                "message.timeout.ms": 120_000,
                "queue.buffering.max.messages": 500_000,
                "error_cb": self._note_error,
            }
        )
        self._thread = threading.Thread(target=self._guard, name="steady-load")

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        self.await_recovery(range(len(self._acks)), 0.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def await_recovery(self, partitions: Iterable[int], since: float) -> float:
        """Wait until each of the partitions has acknowledged a record sent after `since` (time.monotonic()).

        Returns when the last of them first did.

        Raises:
            LoadError: one of them does not within two minutes, or the load has ended.

        """
        deadline = time.monotonic() + _WAIT_S
        latest = 0.0
        for partition in partitions:
            while (found := self._first_ack(partition, since)) is None:
                if self._died is not None:
                    raise LoadError(f"the steady load ended: {self._died!r}")
                if time.monotonic() > deadline:
                    raise LoadError(f"partition {partition} acknowledges nothing: {self.client_errors}")
                time.sleep(_POLL_S)
            latest = max(latest, found)
        return latest

    def longest_gap_s(self, begin: float, end: float) -> float:
        """Return the longest time without an acknowledgement on any partition between two time.monotonic()."""
        longest = 0.0
        for acks in self._acks:
            seen = [begin, *(acked for _, acked in acks if begin < acked < end), end]
            longest = max([longest, *(later - earlier for earlier, later in pairwise(seen))])
        return longest

    def _first_ack(self, partition: int, since: float) -> float | None:
        acks = self._acks[partition]
        if not acks or acks[-1][0] <= since:  # sent in order, and acknowledged in order
            return None
        return acks[bisect_right(acks, since, key=lambda ack: ack[0])][1]

    def _guard(self) -> None:
        try:
            self._run()
        except (KafkaException, LoadError) as failed:
            self._died = failed

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            for partition in range(len(self._acks)):
                self._send(partition)
            due = max(due + self._interval_s, time.monotonic())
            while (left := due - time.monotonic()) > 0:
                self._producer.poll(left)
        if self._producer.flush(_FLUSH_S):
            raise LoadError(f"records stayed unacknowledged after the end of the load: {self.client_errors}")

    def _send(self, partition: int) -> None:
        value = _TIME.pack(time.monotonic()) + _PADDING
        try:
            self._producer.produce(self._topic, value, partition=partition, on_delivery=self._delivered)
        except BufferError:
            self.client_errors["queue full"] += 1

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        now = time.monotonic()
        if error is not None:
            self.failures[str(error.name())] += 1
            return
        value, partition = message.value(), message.partition()
        assert value is not None
        assert partition is not None
        self._acks[partition].append((_TIME.unpack_from(value)[0], now))

    def _note_error(self, error: KafkaError) -> None:
        self.client_errors[str(error.name())] += 1
