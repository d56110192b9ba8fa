#!/usr/bin/env python3
"""Send real data through a broker with two unrelated clients, and compare every byte on the way out.

The data is the package index of a Debian or Ubuntu system: tens of thousands of records of very different
sizes. Each package becomes one record: key = package name, value = its stanza as it stands in the index,
headers = version, section and so on, timestamp = derived from the stanza.

For each producer in {confluent-kafka, kafka-python} a topic is created through the admin API and filled, and
then read by both clients, partition by partition. Offset, key, value, headers and timestamp of every record must
be those that were sent, in the order in which they were sent to the partition. Memory stays bounded whatever the
size of the index: the reading side compares against a second pass over the source.

    pip install confluent-kafka kafka-python
    python examples/real_data.py --bootstrap localhost:9092

Exit status: 0 everything equal, 1 a difference or an error (printed), 2 no data found or wrong usage.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import hashlib
import lzma
import resource
import shutil
import subprocess
import sys
import time
import uuid
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import confluent_kafka
import kafka  # type: ignore[import-untyped]
import kafka.errors  # type: ignore[import-untyped]
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

HEADER_FIELDS = ("Version", "Section", "Architecture", "Priority", "Maintainer", "SHA256")
EPOCH_MS = 1_600_000_000_000
SPREAD_MS = 100_000_000_000  # timestamps lie within about three years, in no order
IDLE_TIMEOUT_S = 30.0
LISTS = Path("/var/lib/apt/lists")
INSTALLED = Path("/var/lib/dpkg/status")

Headers = tuple[tuple[str, bytes], ...]


class Record(NamedTuple):
    """One record, as sent or as received. The timestamp is in milliseconds since 1970."""

    key: bytes
    value: bytes
    headers: Headers
    timestamp_ms: int


class DifferenceError(Exception):
    """What came out is not what went in."""


# --- the data ------------------------------------------------------------


class Source(NamedTuple):
    """A package index that can be read more than once."""

    name: str
    command: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def stanzas(self) -> Iterator[bytes]:
        """Yield one stanza after the other, without the blank line between them."""
        if self.command:
            yield from _from_command(self.command)
        for path in self.files:
            with _opened(path) as lines:
                yield from _stanzas(lines)


def find_source(path: Path | None) -> Source | None:
    """Return the index to use: the given file, else what apt knows, else what is installed, else None."""
    if path is not None:
        return Source(str(path), files=(path,))
    if shutil.which("apt-cache") and any(LISTS.glob("*Packages*")):
        return Source("apt-cache dumpavail", command=("apt-cache", "dumpavail"))
    readable = tuple(
        sorted(path for path in LISTS.glob("*Packages*") if path.suffix in ("", ".gz", ".xz", ".bz2"))
    )
    if readable:
        return Source(f"{len(readable)} files of {LISTS}", files=readable)
    if INSTALLED.exists():
        return Source(str(INSTALLED), files=(INSTALLED,))
    return None


def _from_command(command: Sequence[str]) -> Iterator[bytes]:
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield from _stanzas(process.stdout)
    if process.returncode != 0:
        raise OSError(f"{' '.join(command)} exited with {process.returncode}")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
    if path.suffix == ".lz4":
        helper = "/usr/lib/apt/apt-helper"
        command = [helper, "cat-file"] if Path(helper).exists() else ["lz4", "-dc"]
        with subprocess.Popen([*command, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            yield process.stdout
        if process.returncode != 0:
            raise OSError(f"could not decompress {path}")
        return
    with openers.get(path.suffix, open)(path, "rb") as file:
        yield file


def _stanzas(lines: IO[bytes]) -> Iterator[bytes]:
    stanza: list[bytes] = []
    for line in lines:
        if line.strip():
            stanza.append(line)
        elif stanza:
            yield b"".join(stanza)
            stanza.clear()
    if stanza:
        yield b"".join(stanza)


def record_of(stanza: bytes) -> Record:
    """Return the record for a stanza; equal stanzas give equal records."""
    fields = {}
    for line in stanza.split(b"\n"):
        name, colon, content = line.partition(b":")
        if colon and not line.startswith((b" ", b"\t")):
            fields[name.decode("utf-8", "replace")] = content.strip()
    headers = tuple((name.lower(), fields[name]) for name in HEADER_FIELDS if name in fields)
    return Record(
        fields.get("Package", b""), stanza, headers, EPOCH_MS + zlib.crc32(stanza) * SPREAD_MS // 2**32
    )


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition for a key; the same for both clients."""
    return zlib.crc32(key) % partitions


# --- the clients ------------------------------------------------------------


class Client(ABC):
    """What this program needs of a Kafka client."""

    name: str

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    @abstractmethod
    def produce(self, topic: str, partitions: int, records: Iterator[Record]) -> None:
        """Send all records and wait until every one is acknowledged by all in-sync replicas."""

    @abstractmethod
    def consume(self, topic: str, partition: int) -> Iterator[tuple[int, Record]]:
        """Yield (offset, record) from the start of a partition to the end that it has now."""


class Confluent(Client):
    """confluent-kafka, on librdkafka (C)."""

    name = "confluent-kafka"

    def produce(self, topic: str, partitions: int, records: Iterator[Record]) -> None:
        """Send all records."""
        problems: list[object] = []

        def delivered(error: object, _message: object) -> None:
            if error is not None:
                problems.append(error)

        producer = confluent_kafka.Producer(
            {"bootstrap.servers": self.bootstrap, "enable.idempotence": True, "linger.ms": 20}
        )
        for record in records:
            while True:
                try:
                    producer.produce(
                        topic,
                        record.value,
                        record.key,
                        partition=partition_of(record.key, partitions),
                        timestamp=record.timestamp_ms,
                        headers=list(record.headers),
                        on_delivery=delivered,
                    )
                except BufferError:  # the bounded queue is full: let it drain
                    producer.poll(0.1)
                else:
                    break
            producer.poll(0)
            if problems:
                break
        if (left := producer.flush(IDLE_TIMEOUT_S)) or problems:
            raise DifferenceError(f"{left} records not acknowledged; first errors: {problems[:3]}")

    def consume(self, topic: str, partition: int) -> Iterator[tuple[int, Record]]:
        """Read a partition."""
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "real-data",  # its name is wanted, the group is never joined
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "queued.max.messages.kbytes": 16_384,
            }
        )
        try:
            where = confluent_kafka.TopicPartition(topic, partition, 0)
            _start, end = consumer.get_watermark_offsets(where, timeout=IDLE_TIMEOUT_S)
            consumer.assign([where])
            at = 0
            deadline = time.monotonic() + IDLE_TIMEOUT_S
            while at < end:
                # consume() waits until it has as many as asked for.
                messages = consumer.consume(min(500, end - at), timeout=1.0)
                if messages:
                    deadline = time.monotonic() + IDLE_TIMEOUT_S
                elif time.monotonic() > deadline:
                    raise DifferenceError(f"{topic}-{partition}: nothing at offset {at} of {end}")
                for message in messages:
                    if message.error() is not None:
                        raise DifferenceError(f"{topic}-{partition}: {message.error()}")
                    offset, record = _from_librdkafka(message)
                    yield offset, record
                    at = offset + 1
        finally:
            consumer.close()


def _from_librdkafka(message: confluent_kafka.Message) -> tuple[int, Record]:
    headers: Any = message.headers() or ()
    record = Record(message.key() or b"", message.value() or b"", tuple(headers), message.timestamp()[1])
    offset = message.offset()
    assert offset is not None, "a consumed message has an offset"
    return offset, record


class KafkaPython(Client):
    """kafka-python, pure Python."""

    name = "kafka-python"

    def produce(self, topic: str, partitions: int, records: Iterator[Record]) -> None:
        """Send all records."""
        problems: list[object] = []
        producer = kafka.KafkaProducer(
            bootstrap_servers=self.bootstrap, acks="all", linger_ms=20, batch_size=131_072
        )
        try:
            for record in records:
                producer.send(
                    topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    partition=partition_of(record.key, partitions),
                    timestamp_ms=record.timestamp_ms,
                ).add_errback(problems.append)
                if problems:
                    break
            producer.flush(timeout=IDLE_TIMEOUT_S)
        finally:
            producer.close(timeout=IDLE_TIMEOUT_S)
        if problems:
            raise DifferenceError(f"records not acknowledged; first errors: {problems[:3]}")

    def consume(self, topic: str, partition: int) -> Iterator[tuple[int, Record]]:
        """Read a partition."""
        consumer = kafka.KafkaConsumer(
            bootstrap_servers=self.bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="none",
            group_id=None,
        )
        try:
            where = kafka.TopicPartition(topic, partition)
            consumer.assign([where])
            consumer.seek(where, 0)
            end = consumer.end_offsets([where])[where]
            at = 0
            while at < end:
                found = consumer.poll(timeout_ms=int(IDLE_TIMEOUT_S * 1000), max_records=500)
                if not found:
                    raise DifferenceError(f"{topic}-{partition}: nothing at offset {at} of {end}")
                for message in found[where]:
                    headers = tuple((name, bytes(content)) for name, content in message.headers or ())
                    yield message.offset, Record(message.key, message.value, headers, message.timestamp)
                    at = message.offset + 1
        finally:
            consumer.close()


CLIENTS: tuple[type[Client], ...] = (Confluent, KafkaPython)


# --- there and back ------------------------------------------------------------


class Run:
    """One source, one topic per producing client, compared as read by every client."""

    def __init__(
        self, bootstrap: str, source: Source, partitions: int, replicas: int, limit: int | None
    ) -> None:
        self._bootstrap = bootstrap
        self._source = source
        self._partitions = partitions
        self._replicas = replicas
        self._limit = limit
        self._admin = AdminClient({"bootstrap.servers": bootstrap})

    def records(self) -> Iterator[Record]:
        """Yield the records of the source, always the same."""
        return map(record_of, islice(self._source.stanzas(), self._limit))

    def create(self, topic: str) -> None:
        """Create a topic through the admin API and wait for the answer."""
        # Timestamps lie in the past: without this, retention may delete the records at once.
        wanted = NewTopic(
            topic,
            num_partitions=self._partitions,
            replication_factor=self._replicas,
            config={"retention.ms": "-1"},
        )
        for future in self._admin.create_topics([wanted], operation_timeout=30).values():
            future.result(60)

    def delete(self, topic: str) -> None:
        """Delete a topic through the admin API and wait for the answer."""
        for future in self._admin.delete_topics([topic], operation_timeout=30).values():
            future.result(60)

    def send(self, client: Client, topic: str) -> tuple[int, int, str]:
        """Produce everything; return records, bytes, and the SHA-256 of all of it in source order."""
        digest = hashlib.sha256()
        count = size = 0

        def counted() -> Iterator[Record]:
            nonlocal count, size
            for record in self.records():
                count += 1
                size += _feed(digest, record)
                yield record

        client.produce(topic, self._partitions, counted())
        return count, size, digest.hexdigest()

    def compare(self, client: Client, topic: str) -> tuple[int, int, str]:
        """Read every partition beside a second pass over the source; return what `send` returned.

        Raises:
            DifferenceError: a record is missing, surplus, out of order, or differs in a single byte.

        """
        digest = hashlib.sha256()
        count = size = 0
        readers = [client.consume(topic, index) for index in range(self._partitions)]
        expected_offsets = [0] * self._partitions
        for sent in self.records():
            partition = partition_of(sent.key, self._partitions)
            got = next(readers[partition], None)
            if got is None:
                raise DifferenceError(f"{topic}-{partition} ends before {sent.key!r}")
            offset, record = got
            if offset != expected_offsets[partition]:
                raise DifferenceError(
                    f"{topic}-{partition}: offset {offset}, expected {expected_offsets[partition]}"
                )
            expected_offsets[partition] += 1
            if record != sent:
                raise DifferenceError(f"{topic}-{partition} at {offset}: sent {sent!r}, got {record!r}")
            count += 1
            size += _feed(digest, record)
        for partition, reader in enumerate(readers):
            if (surplus := next(reader, None)) is not None:
                raise DifferenceError(f"{topic}-{partition}: surplus record {surplus!r}")
        return count, size, digest.hexdigest()


def _feed(digest: Any, record: Record) -> int:
    """Add every byte of a record, with lengths so that no two records look alike, and return its size."""
    parts = [record.key, record.value, str(record.timestamp_ms).encode()]
    for name, content in record.headers:
        parts += [name.encode(), content]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return sum(map(len, parts))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit status is described above."""
    parser = argparse.ArgumentParser(description="Real data through a broker, every byte compared.")
    parser.add_argument("--bootstrap", default="localhost:9092", help="host:port[,...] (default %(default)s)")
    parser.add_argument("--file", type=Path, help="a Debian package index (plain, .gz, .xz, .bz2 or .lz4)")
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--limit", type=int, help="at most so many packages")
    parser.add_argument("--keep", action="store_true", help="do not delete the topics at the end")
    options = parser.parse_args(arguments)
    source = find_source(options.file)
    if source is None:
        print(
            "no package index found on this machine: run `apt-get update`, or download a Packages.gz (or\n"
            "Packages.xz) from dists/<release>/main/binary-amd64/ of any Debian mirror and pass it with --file",
            file=sys.stderr,
        )
        return 2
    run = Run(options.bootstrap, source, options.partitions, options.replicas, options.limit)
    print(f"source: {source.name}; {options.partitions} partitions at {options.bootstrap}")
    topics: list[str] = []
    try:
        for producing in CLIENTS:
            topic = f"packages-by-{producing.name}-{uuid.uuid4().hex[:8]}"
            run.create(topic)
            topics.append(topic)
            _there_and_back(run, producing(options.bootstrap), topic)
        if not options.keep:
            for topic in topics:
                run.delete(topic)
    except (DifferenceError, OSError, confluent_kafka.KafkaException, kafka.errors.KafkaError) as failed:
        print(f"FAILED: {type(failed).__name__}: {failed}", file=sys.stderr)
        return 1
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this program: {peak_mb:.0f} MiB")
    print("every byte came back: keys, values, headers, timestamps, offsets and the order in each partition")
    return 0


def _there_and_back(run: Run, producing: Client, topic: str) -> None:
    began = time.perf_counter()
    sent = run.send(producing, topic)
    _report(f"{producing.name} -> {topic}", sent, time.perf_counter() - began)
    if sent[0] == 0:
        raise DifferenceError("the source holds no packages")
    for consuming in CLIENTS:
        began = time.perf_counter()
        received = run.compare(consuming(run._bootstrap), topic)
        _report(f"{topic} -> {consuming.name}", received, time.perf_counter() - began)
        if received != sent:
            raise DifferenceError(f"sent {sent}, received {received}")


def _report(what: str, seen: tuple[int, int, str], took_s: float) -> None:
    count, size, digest = seen
    print(
        f"{what}: {count:,} records, {size:,} bytes, {took_s:.1f} s, {size / 1e6 / took_s:.1f} MB/s, "
        f"sha256 {digest[:32]}...",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
