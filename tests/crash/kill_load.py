"""Producers and a reader around a broker that gets killed, filling a history. Used by the crash tests."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.crash.history import UNKNOWN_OFFSET, Ack, History, Key, Read, Send

TOPIC = "kills"
STUCK_S = 60.0
CLIENT: dict[str, Any] = {
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 100,
    "socket.timeout.ms": 10_000,
    "topic.metadata.refresh.interval.ms": 2000,
    "log_level": 2,
}
LOST_PLACE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
"""What a consumer is told that shall go to an offset that there is not."""
_CODECS = ("none", "lz4", "zstd", "snappy", "gzip")


@dataclass(slots=True)
class Plan:
    """What a run does."""

    kills: int = 100
    seed: int = 0
    partitions: int = 6
    producers: int = 3
    records_per_s: int = 400
    """Per producer: bounds the memory that a history takes."""
    max_gap_s: float = 2.0
    topic: str = TOPIC
    replicas: int = 1
    min_isr: int = 1
    acks: str = "all"
    """With anything but `all` producers are not idempotent either."""
    segment_bytes: int = 1 << 30


class Load:
    """Producers and one reader, each in its thread, filling one history."""

    def __init__(self, bootstrap: str, plan: Plan, notes: Path | None = None) -> None:
        """With `notes`, a folder, producers write down there what concerns their idempotence."""
        self.history = History()
        self._notes = notes
        self.last_ack_at = time.monotonic()
        self._bootstrap = bootstrap
        self._plan = plan
        self.findings: list[str] = []
        self.client_errors: Counter[str] = Counter()
        self._stop_producing = threading.Event()
        self._stop_reading = threading.Event()
        self._producers = [
            threading.Thread(target=self._guard, args=(self._produce, i), name=f"producer-{i}")
            for i in range(plan.producers)
        ]
        self._reader = threading.Thread(target=self._guard, args=(self._follow, 0), name="reader")

    def start(self) -> None:
        """Start everything."""
        for thread in (*self._producers, self._reader):
            thread.start()

    def finish(self) -> None:
        """Let producers deliver what they hold, and the reader reach the end."""
        self._stop_producing.set()
        for thread in self._producers:
            thread.join()
        self._stop_reading.set()
        self._reader.join()

    def abandon(self) -> None:
        """Let everything end soon, without waiting for it."""
        self._stop_producing.set()
        self._stop_reading.set()

    def _guard(self, target: Any, number: int) -> None:
        try:
            target(number)
        except Exception as error:  # noqa: BLE001 - a thread's end must not go unnoticed
            self.findings.append(f"{threading.current_thread().name} died: {error!r}")

    def _note_error(self, error: KafkaError) -> None:
        self.client_errors[str(error.name())] += 1

    def _notes_of(self, name: str) -> dict[str, Any]:
        if self._notes is None:
            return {}
        logger = logging.getLogger(f"{__name__}.{self._plan.topic}.{name}")
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
        handler = logging.FileHandler(self._notes / f"{self._plan.topic}-{name}.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
        return {"debug": "eos", "log_level": 7, "logger": logger}

    def _produce(self, index: int) -> None:
        rng = random.Random(f"{self._plan.seed}/{index}")
        generation = 0
        while not self._stop_producing.is_set():
            self._produce_until_fatal(f"p{index}.{generation}", rng)
            generation += 1

    def _produce_until_fatal(self, name: str, rng: random.Random) -> None:
        producer = Producer(
            {
                **CLIENT,
                "bootstrap.servers": self._bootstrap,
                "client.id": name,
                "enable.idempotence": self._plan.acks == "all",
                "acks": self._plan.acks,
                "delivery.timeout.ms": 900_000,
                "retry.backoff.ms": 20,
                "linger.ms": rng.choice((0, 2, 10)),
                "compression.type": rng.choice(_CODECS),
                "batch.num.messages": rng.choice((3, 50, 10_000)),
                "queue.buffering.max.messages": 20_000,
                "error_cb": self._note_error,
                **self._notes_of(name),
            }
        )
        number = 0
        pause_s = 10 / self._plan.records_per_s
        while not self._stop_producing.is_set():
            for _ in range(10):
                key = Key(name, number)
                send = Send(key, rng.randrange(self._plan.partitions), time.monotonic())
                try:
                    producer.produce(
                        self._plan.topic, encode(key), partition=send.partition, on_delivery=self._delivered
                    )
                except BufferError:
                    break
                except KafkaException as error:
                    self.findings.append(f"{name}: {error} {producer_fatal(error)}")
                    producer.flush(STUCK_S)
                    return
                self.history.sends.append(send)
                number += 1
            until = time.monotonic() + pause_s * rng.uniform(0.5, 1.5)
            while (left_s := until - time.monotonic()) > 0:
                producer.poll(left_s)
        left = producer.flush(STUCK_S)
        if left:
            self.findings.append(f"{name}: stuck with {left} records {STUCK_S:.0f} s after the last kill")

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        now = time.monotonic()
        if error is not None:
            self.client_errors[f"delivery failed: {error.name()}"] += 1
            return
        key, partition, offset = decode(message.value()), message.partition(), message.offset()
        if key is None or partition is None:
            self.findings.append(f"an acknowledgement of what nobody sent: {key}, partition {partition}")
            return
        if offset is None:
            self.client_errors["acknowledged without an offset"] += 1
            offset = UNKNOWN_OFFSET
        self.history.acks.append(Ack(key, partition, offset, now))
        self.last_ack_at = now

    def _follow(self, number: int) -> None:
        """Read from the beginning until told to stop, then up to the end."""
        reads = self.history.polls.setdefault(f"reader-{number}", [])
        consumer = self._consumer()
        ends: dict[int, int] | None = None
        quiet_since = time.monotonic()
        try:
            while True:
                for message in consumer.consume(500, timeout=0.1):
                    if self._take(message, reads):
                        quiet_since = time.monotonic()
                    else:
                        self._go_back(consumer, message, reads)
                if self._stop_reading.is_set():
                    if ends is None:
                        ends = end_offsets(consumer, self._plan.partitions, self._plan.topic)
                    positions = {tp.partition: tp.offset for tp in consumer.position(self._all())}
                    if all(positions[p] >= end for p, end in ends.items() if end):
                        return
                    if time.monotonic() - quiet_since > STUCK_S:
                        self.findings.append(f"reader: stuck at {positions}, the ends are {ends}")
                        return
        finally:
            consumer.close()

    def read_everything(self) -> None:
        """Fill the history's final state from the log."""
        consumer = self._consumer()
        try:
            found = end_offsets(consumer, self._plan.partitions, self._plan.topic)
            ends = {partition: end for partition, end in found.items() if end}
            quiet_since = time.monotonic()
            while ends and time.monotonic() - quiet_since < STUCK_S:
                for message in consumer.consume(10_000, timeout=0.2):
                    if self._take(message, self.history.final):
                        quiet_since = time.monotonic()
                for position in consumer.position(self._all()):
                    if position.offset >= ends.get(position.partition, 1 << 62):
                        del ends[position.partition]
            if ends:
                self.findings.append(f"final read: did not reach the ends {ends}")
        finally:
            consumer.close()

    def _all(self) -> list[TopicPartition]:
        return [TopicPartition(self._plan.topic, p) for p in range(self._plan.partitions)]

    def _take(self, message: Message, reads: list[Read]) -> bool:
        """Take a record; return False for an error instead of one."""
        error = message.error()
        if error is not None:
            self._note_error(error)
            if error.code() in LOST_PLACE and self._plan.replicas == 1:
                self.findings.append(f"reader: {error}")
            return False
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        reads.append(Read(partition, offset, decode(message.value())))
        return True

    def _go_back(self, consumer: Consumer, message: Message, reads: list[Read]) -> None:
        """Return to the reader's place after it was told that there is none.

        One who was led elsewhere and does not know it yet (a process that stood still) may say so (design, invariant 3).
        If the place is gone for good, the reader stays where it is, and that is a finding.
        """
        error, partition = message.error(), message.partition()
        if error is None or error.code() not in LOST_PLACE or partition is None:
            return
        place = next((read.offset + 1 for read in reversed(reads) if read.partition == partition), 0)
        try:
            consumer.seek(TopicPartition(self._plan.topic, partition, place))
        except KafkaException as refused:
            self._note_error(refused.args[0])

    def _consumer(self) -> Consumer:
        consumer = Consumer(
            {
                **CLIENT,
                "bootstrap.servers": self._bootstrap,
                "group.id": "unused: partitions are assigned by hand",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
                "check.crcs": True,
                "error_cb": self._note_error,
            }
        )
        consumer.assign([TopicPartition(p.topic, p.partition, OFFSET_BEGINNING) for p in self._all()])
        return consumer


def end_offsets(consumer: Consumer, partitions: int, topic: str = TOPIC) -> dict[int, int]:
    """Ask for the high watermarks, patiently: the broker may just be starting."""
    deadline = time.monotonic() + STUCK_S
    ends: dict[int, int] = {}
    while len(ends) < partitions:
        try:
            for p in range(partitions):
                if p not in ends:
                    ends[p] = consumer.get_watermark_offsets(
                        TopicPartition(topic, p), timeout=5, cached=False
                    )[1]
        except KafkaException:
            if time.monotonic() > deadline:
                raise
    return ends


def encode(key: Key) -> bytes:
    """Return a value of 20 bytes to 2 KiB that only this key can have."""
    head = f"{key.producer}:{key.number}:".encode()
    return head + random.Random(head).randbytes(random.Random(key.number).choice((8, 60, 400, 2000)))


def decode(value: bytes | None) -> Key | None:
    """Return the key of a value, None if it is not exactly what `encode` makes."""
    try:
        producer, number, _ = (value or b"").split(b":", 2)
        key = Key(producer.decode(), int(number))
    except ValueError:
        return None
    return key if encode(key) == value else None


def producer_fatal(error: KafkaException) -> str:
    """Say whether an exception ended its producer."""
    cause = error.args[0] if error.args else None
    return "(fatal)" if isinstance(cause, KafkaError) and cause.fatal() else ""


def create_topic(bootstrap: str, partitions: int) -> None:
    """Create the topic of the default plan and wait for it."""
    create_topic_of(bootstrap, Plan(partitions=partitions))


def create_topic_of(bootstrap: str, plan: Plan) -> None:
    """Create the topic of a plan and wait for it."""
    admin = AdminClient({**CLIENT, "bootstrap.servers": bootstrap})
    config = {"min.insync.replicas": str(plan.min_isr), "segment.bytes": str(plan.segment_bytes)}
    topic = NewTopic(plan.topic, plan.partitions, plan.replicas, config=config)
    for future in admin.create_topics([topic], operation_timeout=30, request_timeout=STUCK_S).values():
        future.result(STUCK_S)
