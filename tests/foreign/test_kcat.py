"""kcat (librdkafka 2.0 of Debian): produce, consume, metadata, offsets by timestamp."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator

import pytest
from examples.real_data import Record
from tests.foreign.cluster import Cluster, real_records, run

pytestmark = [
    pytest.mark.foreign,
    pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed"),
]

KEY_END, VALUE_END = b"\x1f", b"\x1e"
_HEAD = re.compile(rb"(\d+) (-?\d+) (-?\d+) (-?\d+) ([^\x1f]*)\x1f", re.DOTALL)


def kcat(cluster: Cluster, *arguments: str, stdin: bytes = b"") -> bytes:
    return run(["kcat", "-b", cluster.bootstrap, "-m", "30", *arguments], stdin=stdin)


def consume(cluster: Cluster, topic: str, *arguments: str) -> list[tuple[int, Record]]:
    form = r"%o %T %K %S %h\x1f%k%s"
    said = kcat(
        cluster, "-C", "-t", topic, "-p", "0", "-e", "-q", "-f", form, *(arguments or ("-o", "beginning"))
    )
    return list(_parsed(said))


def _parsed(said: bytes) -> Iterator[tuple[int, Record]]:
    at = 0
    while at < len(said):
        head = _HEAD.match(said, at)
        assert head is not None, f"unexpected output at {at}: {said[at : at + 100]!r}"
        offset, timestamp, key_size, value_size = map(int, head.groups()[:4])
        headers = tuple(
            (name.decode(), content)
            for name, _equals, content in (pair.partition(b"=") for pair in head.group(5).split(b",") if pair)
        )
        at = head.end()
        key, value = said[at : at + key_size], said[at + key_size : at + key_size + value_size]
        at += key_size + value_size
        yield offset, Record(key, value, headers, timestamp)


def plain(record: Record) -> Record:
    """Without commas in header values: kcat prints headers as comma-separated pairs."""
    return record._replace(
        headers=tuple((name, content.replace(b",", b";")) for name, content in record.headers)
    )


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_what_kcat_produces_comes_back(cluster: Cluster, compression: str) -> None:
    topic = cluster.new_topic()
    records = real_records()
    stdin = b"".join(record.key + KEY_END + record.value + VALUE_END for record in records)
    # fmt: off
    kcat(cluster, "-P", "-t", topic, "-p", "0", "-K", r"\x1f", "-D", r"\x1e", "-z", compression,
         "-X", "acks=all", "-H", "source=apt", "-H", "unit=µs", stdin=stdin)
    # fmt: on
    expected = [
        (record.key, record.value, (("source", b"apt"), ("unit", "µs".encode()))) for record in records
    ]
    assert [
        (key, value, headers) for _offset, (key, value, headers, _ts) in consume(cluster, topic)
    ] == expected
    assert [(key, value, headers) for key, value, headers, _ts in cluster.read(topic)] == expected


def test_kcat_reads_what_another_client_produced(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    records = [plain(record) for record in real_records()]
    cluster.fill(topic, records)
    assert consume(cluster, topic) == list(enumerate(records))


def test_offsets_from_the_end_and_by_number(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    records = [plain(record) for record in real_records()]
    cluster.fill(topic, records)
    numbered = list(enumerate(records))
    assert consume(cluster, topic, "-o", "-7") == numbered[-7:]
    assert consume(cluster, topic, "-o", "123", "-c", "10") == numbered[123:133]


def test_offset_for_a_timestamp(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    records = sorted(real_records(), key=lambda record: record.timestamp_ms)
    cluster.fill(topic, records)
    wanted = records[200].timestamp_ms
    first = next(index for index, record in enumerate(records) if record.timestamp_ms >= wanted)
    said = kcat(cluster, "-Q", "-t", f"{topic}:0:{wanted}").decode()
    assert re.search(rf"{topic} \[0\] offset {first}\b", said)


def test_metadata(cluster: Cluster) -> None:
    topic = cluster.new_topic(partitions=3)
    said = json.loads(kcat(cluster, "-L", "-J", "-t", topic))
    (found,) = said["topics"]
    assert found["topic"] == topic
    brokers = {broker["id"] for broker in said["brokers"]}
    assert len(brokers) == cluster.factor
    assert [partition["partition"] for partition in found["partitions"]] == [0, 1, 2]
    for partition in found["partitions"]:
        assert partition["leader"] in brokers
        for replicas in (partition["replicas"], partition["isrs"]):
            assert sorted(replica["id"] for replica in replicas) == sorted(brokers)


def test_an_idempotent_producer(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    records = real_records()
    stdin = b"".join(record.value + VALUE_END for record in records)
    kcat(cluster, "-P", "-t", topic, "-p", "0", "-D", r"\x1e", "-X", "enable.idempotence=true", stdin=stdin)
    assert [record.value for record in cluster.read(topic)] == [record.value for record in records]
