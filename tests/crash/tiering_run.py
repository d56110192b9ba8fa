"""Real input through both tiers: `python -m tests.crash.tiering_run --mb 3000`.

Three brokers under `strandline dev`, with a bucket, small segments and little local retention. librdkafka writes real
records (`real_records`); the brokers' disks are measured all the while. Then the brokers are started again, so that no
cache is warm, a new consumer group reads everything from offset 0, and every record is compared by its digest.

What came from the bucket is shown twice. Records below the first offset that any replica has on its disk, when the reading
begins, can come from nowhere else: at least 95 % of what is read must be such. And the bucket's counters (bytes of GETs,
between the first fetch and the last one) must show at least as many; what they show above is chunks that were read ahead,
read again or brought more than was asked for. In the end records are looked up by their time. Exit status 1 means that
something was not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.crash.dev_cluster import DevCluster
from tests.crash.real_records import Digests, Source

from strandline_broker.cluster.model import LEASE
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_operator.cli.summary import read_leases

TOPIC = "tiered"
FIRST_MS = 1_700_000_000_000
BROKERS = 3
FROM_BUCKET = 0.95
_MIB = 1 << 20
_OPEN_SEGMENTS = 3
"""Segments that a partition may have here besides: the open one, one that is uploaded, one that waits to be deleted."""
_SEGMENTS = 750
"""Small enough that what stays local is less than a twentieth."""
_SETTLE_S = 120.0
_LAG_S = 3.0
"""What is written within this time may be on the disk besides: brokers look after uploads twice a second, and after what
they may delete once in `log_retention_check_interval_ms`."""
_SILENCE_S = 60.0
_START_S = 60.0


@dataclass(slots=True)
class Outcome:
    """What was measured; bytes (of keys and values, unless they are the disk's or the bucket's) and seconds."""

    records: int = 0
    written_bytes: int = 0
    repeats: int = 0
    write_s: float = 0.0
    settle_s: float = 0.0
    disk_peak: int = 0
    disk_end: int = 0
    disk_bound: int = 0
    bucket_bytes: int = 0
    read_bytes: int = 0
    read_s: float = 0.0
    first_byte_s: float = 0.0
    only_in_bucket: int = 0
    bucket_sent: int = 0
    bucket_gets: int = 0
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        share = 100 * self.only_in_bucket / max(self.read_bytes, 1)
        sent = 100 * self.bucket_sent / max(self.only_in_bucket, 1)
        peak, end, bound = (size / _MIB for size in (self.disk_peak, self.disk_end, self.disk_bound))
        lines = [
            f"written {self.written_bytes / _MIB:.0f} MiB, {_rate(self.written_bytes, self.write_s)}",
            f"{self.records} records"
            + (f"; the source came {self.repeats + 1} times" if self.repeats else ""),
            f"disk of a broker: peak {peak:.0f} MiB, {self.settle_s:.0f} s later {end:.0f} MiB, bound {bound:.0f} MiB",
            f"in the bucket {self.bucket_bytes / _MIB:.0f} MiB",
            f"read {self.read_bytes / _MIB:.0f} MiB, {_rate(self.read_bytes, self.read_s)}",
            f"the first record after {self.first_byte_s:.2f} s",
            f"only in the bucket {self.only_in_bucket / _MIB:.0f} MiB ({share:.1f} % of what was read)",
            f"sent by the bucket {self.bucket_sent / _MIB:.0f} MiB ({sent:.1f} % of that) in {self.bucket_gets} GETs",
            *(f"FINDING {text}" for text in self.findings),
        ]
        return "\n".join(lines)


def _rate(size: int, seconds: float) -> str:
    return f"{seconds:.0f} s, {size / _MIB / max(seconds, 0.001):.1f} MiB/s"


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
    admin.create_topics([NewTopic(TOPIC, partitions, BROKERS, config=config)])[TOPIC].result(30)


def write(bootstrap: str, partitions: int, size_bytes: int, outcome: Outcome) -> list[Digests]:
    """Write records in turns to the partitions; return what they hold. Raises RuntimeError for one that was not taken.

    The timestamp of a record is FIRST_MS and its offset.
    """
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
    written = [Digests() for _ in range(partitions)]
    source = Source()
    for number, (key, value) in enumerate(source):
        partition = number % partitions
        timestamp = FIRST_MS + len(written[partition])
        written[partition].add(key, value)
        while True:
            try:
                producer.produce(
                    TOPIC, value, key, partition=partition, timestamp=timestamp, on_delivery=delivered
                )
                break
            except BufferError:
                producer.poll(0.1)
        outcome.written_bytes += len(key) + len(value)
        producer.poll(0)
        if outcome.written_bytes >= size_bytes:
            break
    producer.flush()
    if failed:
        raise RuntimeError(f"{len(failed)} records were not taken: {failed[0]}")
    outcome.records, outcome.repeats = sum(map(len, written)), source.repeats
    return written


def read(bootstrap: str, written: Sequence[Digests], local_starts: Sequence[int], outcome: Outcome) -> None:
    """Read everything with a new consumer group, and compare every record."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"all-{time.time_ns()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    expected = [0] * len(written)
    left = outcome.records
    started = last = time.monotonic()
    consumer.subscribe([TOPIC])
    try:
        while left > 0:
            for message in consumer.consume(min(left, 1000), timeout=1.0):
                last = time.monotonic()
                if message.error() is not None:
                    outcome.findings.append(f"an error while reading: {message.error()}")
                    continue
                outcome.first_byte_s = outcome.first_byte_s or last - started
                left -= 1
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                if offset != expected[partition]:
                    outcome.findings.append(
                        f"offset {offset} of partition {partition} after {expected[partition] - 1}"
                    )
                key, value = message.key() or b"", message.value() or b""
                if not written[partition].is_at(offset, key, value):
                    outcome.findings.append(f"other bytes at offset {offset} of partition {partition}")
                if message.timestamp()[1] != FIRST_MS + offset:
                    outcome.findings.append(f"another time at offset {offset} of partition {partition}")
                expected[partition] = offset + 1
                size = len(key) + len(value)
                outcome.read_bytes += size
                outcome.only_in_bucket += size * (offset < local_starts[partition])
            if time.monotonic() - last > _SILENCE_S or len(outcome.findings) > 20:
                outcome.findings.append(f"nothing comes any more: {expected} of {list(map(len, written))}")
                return
    finally:
        outcome.read_s = last - started
        consumer.close()


def look_up(bootstrap: str, written: Sequence[Digests], local_starts: Sequence[int]) -> Iterator[str]:
    """Look records up by their time, all but one of them in the bucket; yield what is wrong."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "look-up"})
    try:
        for share in (0.0, 1 / 3, 1 / 2, 0.999, 1.0):
            # The last one may be local, the others are not.
            offsets = [
                int(share * (start - 1)) if share < 1 else len(one) - 1
                for one, start in zip(written, local_starts, strict=True)
            ]
            asked = [TopicPartition(TOPIC, at, FIRST_MS + offset) for at, offset in enumerate(offsets)]
            for found in consumer.offsets_for_times(asked, timeout=30):
                offset = offsets[found.partition]
                if found.error is not None or found.offset != offset:
                    yield f"the time of {offset} leads to {found.offset} in {found.partition} ({found.error})"
    finally:
        consumer.close()


class Brokers:
    """What the brokers that run show on their HTTP ports."""

    def __init__(self, data_dir: Path) -> None:
        """Wait until all of them serve HTTP: that comes a little after Kafka's port. Raises RuntimeError."""
        deadline = time.monotonic() + _START_S
        while True:
            self._addresses = asyncio.run(_http_addresses(data_dir))
            with contextlib.suppress(OSError):
                if len(self._addresses) == BROKERS and all(self._get("/readyz")):
                    return
            if time.monotonic() > deadline:
                raise RuntimeError(f"of {BROKERS} brokers only {self._addresses} serve HTTP")
            time.sleep(0.1)

    def counter(self, name: str, label: str = "") -> int:
        """Return the sum of a counter over all brokers; `label` as in `kind="get"`."""
        total = 0.0
        for text in self._get("/metrics"):
            for line in text.decode().splitlines():
                full, _, value = line.rpartition(" ")
                found, _, labels = full.partition("{")
                if found == name and label in labels:
                    total += float(value)
        return int(total)

    def local_starts(self, partitions: int) -> list[int]:
        """Return the first offset of each partition that some replica has on its disk.

        Raises RuntimeError for a replica that is not open yet.
        """
        rows: list[dict[str, Any]] = [
            row
            for text in self._get(f"/v1/partitions?topic={TOPIC}")
            for row in json.loads(text)["partitions"]
        ]
        if len(rows) != partitions * BROKERS:
            raise RuntimeError(f"{len(rows)} replicas of {partitions} partitions on {BROKERS} brokers")
        return [
            min(row["localLogStartOffset"] for row in rows if row["partition"] == partition)
            for partition in range(partitions)
        ]

    def _get(self, path: str) -> Iterator[bytes]:
        for host, port in self._addresses:
            with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
                yield answer.read()


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
    segment = (arguments.segment_mb or max(1, arguments.mb // _SEGMENTS)) * _MIB
    local = arguments.local_mb * _MIB if arguments.local_mb else 2 * segment
    steady = partitions * (local + 2 * segment)
    outcome = Outcome()
    options: tuple[str, ...] = ("--config", "log_retention_check_interval_ms=500", "--flush", arguments.flush)
    if arguments.bucket:
        options += ("--bucket", arguments.bucket)
    if arguments.endpoint_url:
        options += ("--endpoint-url", arguments.endpoint_url)
    with DevCluster(data_dir, brokers=BROKERS, options=options) as cluster:
        create_topic(cluster.bootstrap, partitions, segment, local)
        watch = DiskWatch(data_dir)
        started = time.monotonic()
        written = write(cluster.bootstrap, partitions, arguments.mb * _MIB, outcome)
        ended = time.monotonic()
        outcome.write_s = ended - started
        # A segment ends above its size by at most one produce request, and allocates ahead.
        outcome.disk_bound = partitions * (local + _OPEN_SEGMENTS * segment)
        outcome.disk_bound += int(_LAG_S * outcome.written_bytes / outcome.write_s)
        while watch.now() > steady and time.monotonic() < ended + _SETTLE_S:
            time.sleep(0.5)
        outcome.settle_s = time.monotonic() - ended
        outcome.disk_end = watch.now()
        watch.close()
        outcome.disk_peak = watch.peak
        outcome.bucket_bytes = Brokers(data_dir).counter("strandline_tier_uploaded_bytes_total")
    with DevCluster(data_dir, brokers=BROKERS, options=options) as cluster:
        brokers = Brokers(data_dir)
        local_starts = brokers.local_starts(partitions)
        gets, sent = _got(brokers)
        read(cluster.bootstrap, written, local_starts, outcome)
        gets_after, sent_after = _got(brokers)
        outcome.bucket_gets, outcome.bucket_sent = gets_after - gets, sent_after - sent
        outcome.findings += look_up(cluster.bootstrap, written, local_starts)
    outcome.findings += _judge(outcome, steady)
    return outcome


def _got(brokers: Brokers) -> tuple[int, int]:
    return (
        brokers.counter("strandline_tier_requests_total", 'kind="get"'),
        brokers.counter("strandline_tier_request_bytes_total", 'kind="get"'),
    )


def _judge(outcome: Outcome, steady: int) -> Iterator[str]:
    if outcome.disk_end > steady:
        yield f"the disk keeps {outcome.disk_end} bytes, it should come down to {steady}"
    if outcome.disk_peak > outcome.disk_bound:
        yield f"the disk held {outcome.disk_peak} bytes, its bound is {outcome.disk_bound}"
    if outcome.read_bytes != outcome.written_bytes:
        yield f"{outcome.read_bytes} bytes were read of {outcome.written_bytes}"
    if outcome.only_in_bucket < FROM_BUCKET * outcome.read_bytes:
        yield f"of {outcome.read_bytes} bytes only {outcome.only_in_bucket} had to come from the bucket"
    if outcome.bucket_sent < outcome.only_in_bucket:
        yield f"{outcome.only_in_bucket} bytes came from the bucket, which sent {outcome.bucket_sent}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=int, default=300, help="MiB to write")
    parser.add_argument("--partitions", type=int, default=3)
    parser.add_argument("--segment-mb", type=int, help=f"default: {_SEGMENTS} segments in all, or of 1 MiB")
    parser.add_argument(
        "--local-mb", type=int, help="local.retention.bytes of a partition, in MiB; default: two segments"
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
