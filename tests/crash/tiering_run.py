"""Real input through both tiers: `python -m tests.crash.tiering_run --mb 300`.

Three brokers under `strandline dev`, with a bucket, small segments and little local retention. librdkafka writes numbered
records whose bytes can be computed again; the brokers' disks are measured all the while. Then the brokers are started
again, so that no cache is warm, a new consumer group reads everything from offset 0, and every record is compared. What
came from the bucket is what the brokers count (`strandline_tier_read_bytes`). In the end a record is looked up by its
time. Exit status 1 means that something was not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.crash.dev_cluster import DevCluster

from strandline_broker.cluster.model import LEASE
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_operator.cli.summary import read_leases

TOPIC = "tiered"
FIRST_MS = 1_700_000_000_000
RECORD_BYTES = 1000
_POOL = random.Random(6).randbytes(1 << 20)
_OPEN_SEGMENTS = 3
"""Segments that a partition may have here besides: the open one, one that is uploaded, one that waits to be deleted."""


def record(partition: int, number: int) -> bytes:
    """Return a record's bytes, which nobody can mistake for another's."""
    start = (partition * 7919 + number * 104_729) % (len(_POOL) - RECORD_BYTES)
    return b"%04d %012d " % (partition, number) + _POOL[start : start + RECORD_BYTES - 18]


@dataclass(slots=True)
class Outcome:
    """What was measured; bytes and seconds."""

    written_bytes: int = 0
    write_s: float = 0.0
    disk_peak: int = 0
    disk_end: int = 0
    disk_bound: int = 0
    bucket_bytes: int = 0
    read_bytes: int = 0
    read_s: float = 0.0
    first_byte_s: float = 0.0
    from_bucket: int = 0
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        mib = 1 << 20
        share = 100 * self.from_bucket / max(self.read_bytes, 1)
        peak, end, bound = (size / mib for size in (self.disk_peak, self.disk_end, self.disk_bound))
        read_rate = self.read_bytes / mib / max(self.read_s, 0.001)
        lines = [
            f"written {self.written_bytes / mib:.0f} MiB at {self.written_bytes / mib / self.write_s:.1f} MiB/s",
            f"disk of a broker: peak {peak:.0f} MiB, in the end {end:.0f} MiB, bound {bound:.0f} MiB",
            f"in the bucket {self.bucket_bytes / mib:.0f} MiB",
            f"read {self.read_bytes / mib:.0f} MiB at {read_rate:.1f} MiB/s",
            f"the first record after {self.first_byte_s:.2f} s",
            f"from the bucket {self.from_bucket / mib:.0f} MiB ({share:.1f} % of what was read)",
            *(f"FINDING {text}" for text in self.findings),
        ]
        return "\n".join(lines)


class DiskWatch:
    """Measures the topic's bytes on each broker's disk, five times a second, from its making to `close`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._end = threading.Event()
        self.peak = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def now(self) -> int:
        """Return the bytes on the fullest broker."""
        return max(
            sum(_size(file) for file in broker.glob(f"data/{TOPIC}-*/*"))
            for broker in self._data_dir.glob("broker-*")
        )

    def _run(self) -> None:
        while not self._end.wait(0.2):
            self.peak = max(self.peak, self.now())

    def close(self) -> None:
        """Stop measuring."""
        self._end.set()
        self._thread.join()


def _size(file: Path) -> int:
    try:
        # What is allocated ahead counts as well.
        return file.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def create_topic(bootstrap: str, partitions: int, segment_bytes: int, local_bytes: int) -> None:
    """Create the topic, whose records stay for ever, and on the brokers' disks only for a while."""
    config = {
        "segment.bytes": str(segment_bytes),
        "local.retention.bytes": str(local_bytes),
        "retention.ms": "-1",
        "min.insync.replicas": "2",
    }
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(TOPIC, partitions, 3, config=config)])[TOPIC].result(30)


def write(bootstrap: str, partitions: int, count: int) -> None:
    """Write `count` records to each partition. Raises RuntimeError for one that was not taken."""
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
                        TOPIC,
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


def read(bootstrap: str, partitions: int, count: int, outcome: Outcome) -> None:
    """Read everything with a new consumer group, and compare every byte."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"all-{time.time_ns()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    expected = [0] * partitions
    started = time.monotonic()
    last = started
    consumer.subscribe([TOPIC])
    try:
        while min(expected) < count:
            for message in consumer.consume(1000, timeout=1.0):
                last = time.monotonic()
                if message.error() is not None:
                    outcome.findings.append(f"an error while reading: {message.error()}")
                    continue
                outcome.first_byte_s = outcome.first_byte_s or last - started
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                if offset != expected[partition]:
                    outcome.findings.append(
                        f"offset {offset} of partition {partition} after {expected[partition] - 1}"
                    )
                if message.value() != record(partition, offset):
                    outcome.findings.append(f"other bytes at offset {offset} of partition {partition}")
                expected[partition] = offset + 1
                outcome.read_bytes += RECORD_BYTES
            if time.monotonic() - last > 60 or len(outcome.findings) > 20:
                outcome.findings.append(f"nothing comes any more: {expected} of {count}")
                return
    finally:
        outcome.read_s = last - started
        consumer.close()


def look_up(bootstrap: str, partitions: int, count: int) -> Iterator[str]:
    """Look records up by their time; yield what is wrong."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "look-up"})
    try:
        for number in (1, count // 3, count // 2, count - 1):
            asked = [TopicPartition(TOPIC, partition, FIRST_MS + number) for partition in range(partitions)]
            for found in consumer.offsets_for_times(asked, timeout=30):
                if found.error is not None or found.offset != number:
                    yield f"time of record {number} leads to {found.offset} in {found.partition} ({found.error})"
    finally:
        consumer.close()


def bucket_counter(data_dir: Path, name: str) -> int:
    """Return the sum of a counter over all brokers."""
    total = 0.0
    for host, port in asyncio.run(_http_addresses(data_dir)):
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith((f"{name} ", f"{name}{{")):
                    total += float(line.rpartition(" ")[2])
    return int(total)


async def _http_addresses(data_dir: Path) -> list[tuple[str, int]]:
    store = SqliteStore(data_dir / "cluster.db")
    try:
        objects, _ = await store.list(LEASE)
    finally:
        await store.close()
    return [(lease.http.host, lease.http.port) for lease in read_leases(objects) if lease.http is not None]


def run(arguments: argparse.Namespace, data_dir: Path) -> Outcome:
    """Write, wait, start again, read, look up."""
    partitions = arguments.partitions
    count = (arguments.mb << 20) // (RECORD_BYTES * partitions)
    segment, local = arguments.segment_mb << 20, arguments.local_mb << 20
    outcome = Outcome(written_bytes=count * partitions * RECORD_BYTES)
    # A segment ends above its size by at most one produce request, and allocates ahead.
    outcome.disk_bound = partitions * (local + _OPEN_SEGMENTS * segment)
    options: tuple[str, ...] = ("--config", "log_retention_check_interval_ms=500", "--flush", arguments.flush)
    if arguments.bucket:
        options += ("--bucket", arguments.bucket)
    if arguments.endpoint_url:
        options += ("--endpoint-url", arguments.endpoint_url)
    cluster = DevCluster(data_dir, brokers=3, options=options)
    with cluster:
        create_topic(cluster.bootstrap, partitions, segment, local)
        watch = DiskWatch(data_dir)
        started = time.monotonic()
        write(cluster.bootstrap, partitions, count)
        outcome.write_s = time.monotonic() - started
        deadline = time.monotonic() + 120
        steady = partitions * (local + 2 * segment)
        while watch.now() > steady and time.monotonic() < deadline:
            time.sleep(0.5)
        outcome.disk_end = watch.now()
        watch.close()
        outcome.disk_peak = watch.peak
        outcome.bucket_bytes = bucket_counter(data_dir, "strandline_tier_uploaded_bytes_total")
    with DevCluster(data_dir, brokers=3, options=options) as cluster:
        before = bucket_counter(data_dir, "strandline_tier_read_bytes_total")
        read(cluster.bootstrap, partitions, count, outcome)
        outcome.from_bucket = bucket_counter(data_dir, "strandline_tier_read_bytes_total") - before
        outcome.findings += look_up(cluster.bootstrap, partitions, count)
    if outcome.disk_end > steady:
        outcome.findings.append(f"the disk keeps {outcome.disk_end} bytes, it should come down to {steady}")
    if outcome.disk_peak > outcome.disk_bound:
        outcome.findings.append(f"the disk held {outcome.disk_peak} bytes, its bound is {outcome.disk_bound}")
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=int, default=300, help="MiB to write")
    parser.add_argument("--partitions", type=int, default=3)
    parser.add_argument("--segment-mb", type=int, default=4)
    parser.add_argument(
        "--local-mb", type=int, default=8, help="local.retention.bytes of a partition, in MiB"
    )
    parser.add_argument("--flush", choices=("Fsync", "Replicated"), default="Fsync")
    parser.add_argument("--bucket", help="as for strandline dev; default: a directory")
    parser.add_argument("--endpoint-url")
    parser.add_argument("--data-dir", type=Path, help="kept, and must be new; default: a temporary one")
    arguments = parser.parse_args(argv)
    if arguments.data_dir is not None:
        outcome = run(arguments, arguments.data_dir)
    else:
        with tempfile.TemporaryDirectory() as directory:
            outcome = run(arguments, Path(directory))
    print(outcome)  # noqa: T201 - the answer
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
