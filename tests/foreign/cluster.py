"""What the foreign tests share: real records, topics, and how to run a foreign program with its output shown."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import confluent_kafka
import pytest
from benchmarks.kafka_jars import KafkaUnavailableError, java_command
from benchmarks.systems import Broker
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from examples.real_data import Confluent, Record, find_source, record_of

RECORDS = 500
_SHOWN_BYTES = 2_000
_TIMEOUT_S = 120.0


@cache
def real_records() -> tuple[Record, ...]:
    """The first packages of a package index, as `examples/real_data.py` makes records of them."""
    source = find_source(None)
    if source is None:
        pytest.skip("no package index on this machine (apt-get update)")
    return tuple(map(record_of, islice(source.stanzas(), RECORDS)))


def one_line(record: Record) -> Record:
    """Return the record with its line ends replaced, for tools that read and write lines."""
    return record._replace(value=record.value.replace(b"\n", b" | ").replace(b"\t", b" "))


class Cluster:
    """A cluster under test; `broker` is None when somebody else started it. It has `factor` brokers."""

    def __init__(self, bootstrap: str, broker: Broker | None, factor: int = 1) -> None:
        self.bootstrap = bootstrap
        self.broker = broker
        self.factor = factor
        self._admin = AdminClient({"bootstrap.servers": bootstrap})

    def new_topic(self, *, partitions: int = 1, config: dict[str, str] | None = None) -> str:
        """Create a topic with a name of its own, replicated to all brokers.

        Retention is off: the data's timestamps lie in the past.
        """
        name = f"foreign-{uuid.uuid4().hex[:12]}"
        settings = {"retention.ms": "-1"} | (config or {})
        wanted = NewTopic(name, num_partitions=partitions, replication_factor=self.factor, config=settings)
        for future in self._admin.create_topics([wanted], operation_timeout=30).values():
            future.result(60)
        return name

    def fill(self, topic: str, records: Sequence[Record]) -> None:
        """Produce records into partition 0 with confluent-kafka."""
        Confluent(self.bootstrap).produce(topic, 1, iter(records))

    def read(self, topic: str) -> list[Record]:
        """Read partition 0 with confluent-kafka; offsets must be 0, 1, 2, ..."""
        found = list(Confluent(self.bootstrap).consume(topic, 0))
        assert [offset for offset, _record in found] == list(range(len(found)))
        return [record for _offset, record in found]

    def end_offset(self, topic: str) -> int:
        """End offset of partition 0."""
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self.bootstrap, "group.id": "foreign"})
        try:
            _low, high = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), timeout=30)
            return high
        finally:
            consumer.close()

    def java(self, main_class: str, *arguments: str, stdin: bytes = b"", ok: bool = True) -> bytes:
        """Run a class of Apache Kafka's tools with --bootstrap-server; return its standard output."""
        return self.java_alone(
            main_class, "--bootstrap-server", self.bootstrap, *arguments, stdin=stdin, ok=ok
        )

    def java_alone(self, main_class: str, *arguments: str, stdin: bytes = b"", ok: bool = True) -> bytes:
        """Run a class of Apache Kafka's tools; return its standard output."""
        try:
            command = java_command(main_class, arguments)
        except KafkaUnavailableError as missing:
            pytest.skip(str(missing))
        return run(command, stdin=stdin, shown_from=command.index(main_class), ok=ok)


def run(command: Sequence[str], *, stdin: bytes = b"", shown_from: int = 0, ok: bool = True) -> bytes:
    """Run a program, print it and what it said (`pytest -rP` shows that), and return its standard output."""
    _show("$ " + " ".join(command[shown_from:]))
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=_TIMEOUT_S, check=False)
    said = done.stdout.decode(errors="replace")
    _show(said[:_SHOWN_BYTES] + (f"... ({len(said)} characters)" if len(said) > _SHOWN_BYTES else ""))
    complaint = done.stderr.decode(errors="replace")
    _show(complaint[:_SHOWN_BYTES])
    if ok:
        assert done.returncode == 0, f"exit status {done.returncode}: {complaint[-2000:]} {said[-2000:]}"
    else:
        assert done.returncode != 0 or b"rror" in done.stdout + done.stderr, "expected a refusal"
    return done.stdout


def _show(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n" if text.strip() else "")


def folder(cluster: Cluster, topic: str) -> Path:
    """Folder of partition 0's segments on the first broker; skips when the broker is not ours."""
    if cluster.broker is None:
        pytest.skip("needs the broker's files")
    return cluster.broker.log_directory(topic, 0)
