"""librdkafka as load generator: fill a topic with batches of a wanted size, read a topic from the start.

Callers: the throughput rows and `profile_hot`. Both functions fail loudly when a single record is missing: a
broker that loses or refuses records must not look fast.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

RECORD_BYTES = 1024
_IDLE_TIMEOUT_S = 60.0
_CHUNK = 256  # records per partition before the next one gets some
_CONSUME = 10_000  # records per call; the call waits until it has as many as asked for
_POOL = 1024  # different values


class LoadError(Exception):
    """Records were refused or lost, or nothing moved for a minute."""


class Moved(NamedTuple):
    """What one run moved. Bytes are those of record values."""

    records: int
    value_bytes: int
    elapsed_s: float


def values(seed: int = 1) -> list[bytes]:
    """Return record values that do not compress, the same for every system."""
    source = random.Random(seed)
    return [source.randbytes(RECORD_BYTES) for _ in range(_POOL)]


def produce(bootstrap: str, topic: str, partitions: Sequence[int], records: int, batch_bytes: int) -> Moved:
    """Produce records round-robin to the partitions with acks=all, in batches of `batch_bytes`, and wait for all answers.

    Long lingering makes every batch full; explicit partitions keep a partitioner's cost and luck out of it.

    Raises:
        LoadError: a record was refused, or nothing was acknowledged for a minute.

    """
    problems: list[KafkaError] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "linger.ms": 1000,
            "batch.size": batch_bytes,
            "batch.num.messages": 100_000,
            "message.max.bytes": 1_000_000,
            "queue.buffering.max.kbytes": 65_536,
            "queue.buffering.max.messages": 1_000_000,
            "compression.type": "none",
            "message.timeout.ms": 120_000,
            "error_cb": problems.append,
        }
    )
    pool = values()
    sent = 0
    began = time.perf_counter()
    while sent < records:
        count = min(_CHUNK, records - sent)
        partition = partitions[sent // _CHUNK % len(partitions)]
        for offset in range(sent, sent + count):
            _enqueue(producer, topic, pool[offset % _POOL], partition)
        sent += count
        producer.poll(0)
    left = producer.flush(_IDLE_TIMEOUT_S)
    elapsed_s = time.perf_counter() - began
    if left:
        raise LoadError(f"{left} of {records} records not acknowledged: {problems[-3:]}")
    return Moved(records, records * RECORD_BYTES, elapsed_s)


def _enqueue(producer: Producer, topic: str, value: bytes, partition: int) -> None:
    deadline = time.monotonic() + _IDLE_TIMEOUT_S
    while True:
        try:
            producer.produce(topic, value, partition=partition)
        except BufferError:
            if time.monotonic() > deadline:
                raise LoadError("the producer's queue stayed full: the broker acknowledges nothing") from None
            producer.poll(0.01)
        else:
            return


def end_offsets(bootstrap: str, topic: str, partitions: Sequence[int]) -> list[int]:
    """Return the end offsets of the partitions."""
    consumer = _consumer(bootstrap)
    try:
        found = []
        for partition in partitions:
            _low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
            found.append(high)
        return found
    finally:
        consumer.close()


def fetch(bootstrap: str, topic: str, partitions: Sequence[int], records: int) -> Moved:
    """Read the first `records` records of a topic with librdkafka's default fetch sizes.

    Raises:
        LoadError: the broker answered with an error, or nothing came for a minute.

    """
    consumer = _consumer(bootstrap)
    seen = value_bytes = 0
    began = time.perf_counter()
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        while seen < records:
            messages = consumer.consume(min(_CONSUME, records - seen), timeout=_IDLE_TIMEOUT_S)
            if not messages:
                raise LoadError(f"{seen} of {records} records, then nothing for {_IDLE_TIMEOUT_S} s")
            for message in messages:
                if (error := message.error()) is not None:
                    raise LoadError(f"fetch failed: {error}")
                value_bytes += len(message)
            seen += len(messages)
    except KafkaException as refused:
        raise LoadError(str(refused)) from refused
    finally:
        elapsed_s = time.perf_counter() - began
        consumer.close()
    return Moved(seen, value_bytes, elapsed_s)


def _consumer(bootstrap: str) -> Consumer:
    # The group is never joined (assign only), but librdkafka wants its name.
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "strandline-benchmark",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )
