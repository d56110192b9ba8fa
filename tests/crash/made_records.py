"""Numbered records whose bytes can be computed again, and a producer that writes them."""

from __future__ import annotations

import random

from confluent_kafka import KafkaError, Message, Producer

FIRST_MS = 1_700_000_000_000
"""Timestamp of the first record of a partition; each is a millisecond after the one before."""
RECORD_BYTES = 1000
_POOL = random.Random(6).randbytes(1 << 20)


def record(partition: int, number: int) -> bytes:
    """Return a record's bytes, which nobody can mistake for another's."""
    start = (partition * 7919 + number * 104_729) % (len(_POOL) - RECORD_BYTES)
    return b"%04d %012d " % (partition, number) + _POOL[start : start + RECORD_BYTES - 18]


def write(bootstrap: str, topic: str, partitions: int, count: int) -> None:
    """Write `count` records to each partition of a topic. Raises RuntimeError for one that was not taken."""
    failed: list[str] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(str(error))

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 20,
            "batch.size": 256 << 10,
            "queue.buffering.max.kbytes": 64 << 10,
        }
    )
    for number in range(count):
        for partition in range(partitions):
            while True:
                try:
                    producer.produce(
                        topic,
                        record(partition, number),
                        partition=partition,
                        timestamp=FIRST_MS + number,
                        on_delivery=delivered,
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    if failed:
        raise RuntimeError(f"{len(failed)} records were not taken: {failed[0]}")
