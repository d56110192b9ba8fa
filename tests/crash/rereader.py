"""A consumer that reads a topic from its beginning to its end, again and again, for as long as it is let."""

from __future__ import annotations

import random
import threading
from collections import Counter

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from tests.crash.history import Read
from tests.crash.kill_load import CLIENT, LOST_PLACE, decode
from tests.crash.seen_records import ReadPass, SeenRecords

WHOLE_PASS_RECORDS = 60_000
"""A topic with more records per pass than this is read from random offsets on: passes must not become ever longer."""
_REST_S = 1.0


class Rereader:
    """One consumer at a time in a thread of its own; every pass is a new consumer with nothing remembered."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, seed: str) -> None:
        self.seen = SeenRecords()
        self.passes = 0
        self.client_errors: Counter[str] = Counter()
        self._bootstrap = bootstrap
        self._topic = topic
        self._partitions = partitions
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rereader")

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def finish(self) -> None:
        """End the pass that runs now."""
        self._stop.set()
        self._thread.join()

    def abandon(self) -> None:
        """Let the pass end soon, without waiting for it."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read_once()
            except KafkaException as error:
                self.client_errors[str(error.args[0].name())] += 1
            except Exception as error:  # noqa: BLE001 - a thread's end must not go unnoticed
                self.seen.found("reader died", repr(error))
                return
            self._stop.wait(_REST_S)

    def _read_once(self) -> None:
        consumer = Consumer(
            {
                **CLIENT,
                "bootstrap.servers": self._bootstrap,
                "group.id": "unused: partitions are assigned by hand",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "check.crcs": True,
                "error_cb": self._note,
            }
        )
        try:
            consumer.assign([TopicPartition(self._topic, p, self._start()) for p in range(self._partitions)])
            at_end: set[int] = set()
            walk = self.seen.begin(f"pass {self.passes}")
            while len(at_end) < self._partitions and not self._stop.is_set():
                for message in consumer.consume(1000, timeout=0.5):
                    self._take(message, walk, at_end)
            self.passes += 1
        finally:
            consumer.close()

    def _start(self) -> int:
        """Return where a pass begins in a partition; after the first passes it knows how much there is."""
        known = self.seen.reads // max(1, self.passes) if self.passes else 0
        if known < WHOLE_PASS_RECORDS:
            return OFFSET_BEGINNING
        return self._rng.randrange(max(1, known // self._partitions))

    def _take(self, message: Message, walk: ReadPass, at_end: set[int]) -> None:
        error, partition, offset = message.error(), message.partition(), message.offset()
        assert partition is not None
        if error is None:
            assert offset is not None
            walk.take(Read(partition, offset, decode(message.value())))
        elif error.code() == KafkaError._PARTITION_EOF:
            at_end.add(partition)
        elif error.code() in LOST_PLACE:
            self._note(error)
            at_end.add(partition)  # see `Load._go_back`; the next pass begins anew
        else:
            self._note(error)

    def _note(self, error: KafkaError) -> None:
        self.client_errors[str(error.name())] += 1
