"""Apache Kafka's own command-line tools, on its Java clients."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import pytest
from examples.real_data import Record
from tests.foreign.cluster import Cluster, folder, one_line, real_records

pytestmark = pytest.mark.foreign

TOOLS = "org.apache.kafka.tools"
TOPICS = f"{TOOLS}.TopicCommand"
PRODUCER = f"{TOOLS}.ConsoleProducer"
CONSUMER = f"{TOOLS}.consumer.ConsoleConsumer"
OFFSETS = f"{TOOLS}.GetOffsetShell"
DELETE_RECORDS = f"{TOOLS}.DeleteRecordsCommand"
CONFIGS = "kafka.admin.ConfigCommand"
DUMP_LOG = "kafka.tools.DumpLogSegments"

# Not in the data, and nothing that the tools' regular expressions would read another way.
KEY_END, HEADERS_END, HEADER_SEPARATOR, NAME_END = "~~", "@@", "%%", "::="


def console_lines(records: list[Record]) -> bytes:
    """What the console producer reads with keys and headers: headers @@ key ~~ value."""
    lines = []
    for record in records:
        headers = HEADER_SEPARATOR.encode().join(
            name.encode() + NAME_END.encode() + content for name, content in record.headers
        )
        line = headers + HEADERS_END.encode() + record.key + KEY_END.encode() + record.value
        assert line.count(KEY_END.encode()) == line.count(HEADERS_END.encode()) == 1, line
        lines.append(line + b"\n")
    return b"".join(lines)


def clean(record: Record) -> Record:
    """Without the separators of the console tools."""
    value = one_line(record).value
    for mark in (KEY_END, HEADERS_END, HEADER_SEPARATOR, NAME_END):
        value = value.replace(mark.encode(), b"-")
    # An at sign doubled, or a tilde at the key's edge, would move a separator.
    headers = tuple((name, content.replace(b"@", b"(at)")) for name, content in record.headers)
    return record._replace(value=value.strip(), headers=headers)


def console_consume(cluster: Cluster, topic: str, count: int, *arguments: str) -> list[bytes]:
    """Lines `CreateTime:<ts>~~Offset:<n>~~<headers>~~<key>~~<value>`."""
    # fmt: off
    said = cluster.java(
        CONSUMER, "--topic", topic, "--partition", "0", "--offset", "earliest", "--max-messages", str(count),
        "--timeout-ms", "30000",
        "--formatter-property", "print.timestamp=true", "--formatter-property", "print.offset=true",
        "--formatter-property", "print.headers=true", "--formatter-property", "print.key=true",
        "--formatter-property", f"key.separator={KEY_END}",
        "--formatter-property", f"headers.separator={HEADER_SEPARATOR}", *arguments)
    # fmt: on
    return said.splitlines()


def expected_line(offset: int, record: Record) -> bytes:
    headers = HEADER_SEPARATOR.encode().join(
        name.encode() + b":" + content for name, content in record.headers
    )
    parts = [b"CreateTime:%d" % record.timestamp_ms, b"Offset:%d" % offset, headers, record.key, record.value]
    return KEY_END.encode().join(parts)


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_what_the_console_producer_sends_comes_back(cluster: Cluster, compression: str) -> None:
    topic = cluster.new_topic()
    records = [clean(record) for record in real_records()]
    # fmt: off
    cluster.java(
        PRODUCER, "--topic", topic, "--compression-codec", compression, "--command-property", "acks=all",
        "--reader-property", "parse.key=true", "--reader-property", f"key.separator={KEY_END}",
        "--reader-property", "parse.headers=true", "--reader-property", f"headers.delimiter={HEADERS_END}",
        "--reader-property", f"headers.separator={HEADER_SEPARATOR}",
        "--reader-property", f"headers.key.separator={NAME_END}", stdin=console_lines(records))
    # fmt: on
    got = cluster.read(topic)
    assert [record[:3] for record in got] == [record[:3] for record in records]
    lines = console_consume(cluster, topic, len(records))
    assert lines == [expected_line(offset, record) for offset, record in enumerate(got)]


def test_the_console_consumer_reads_what_another_client_produced(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    records = [clean(record) for record in real_records()]
    cluster.fill(topic, records)
    lines = console_consume(cluster, topic, len(records))
    assert lines == [expected_line(offset, record) for offset, record in enumerate(records)]


def test_read_committed_consumer(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    records = [clean(record) for record in real_records()[:50]]
    cluster.fill(topic, records)
    lines = console_consume(cluster, topic, 50, "--isolation-level", "read_committed")
    assert lines == [expected_line(offset, record) for offset, record in enumerate(records)]


def test_topics_create_describe_list_delete(cluster: Cluster) -> None:
    name = f"foreign.Java_{uuid.uuid4().hex[:8]}"
    # fmt: off
    cluster.java(TOPICS, "--create", "--topic", name, "--partitions", "3",
                 "--replication-factor", str(cluster.factor),
                 "--config", "segment.bytes=1048576", "--config", "cleanup.policy=delete")
    # fmt: on
    said = cluster.java(TOPICS, "--describe", "--topic", name).decode()
    assert re.search(r"TopicId: \S{22}\s", said)
    assert re.search(rf"PartitionCount: 3\s+ReplicationFactor: {cluster.factor}\s", said)
    assert "segment.bytes=1048576" in said
    assert [int(number) for number in re.findall(r"Partition: (\d+)\s+Leader: \d+", said)] == [0, 1, 2]
    assert name in cluster.java(TOPICS, "--list").decode().split()
    cluster.java(TOPICS, "--delete", "--topic", name)
    assert name not in cluster.java(TOPICS, "--list").decode().split()


def test_topics_refusals(cluster: Cluster) -> None:
    name = cluster.new_topic()
    cluster.java(TOPICS, "--create", "--topic", name, ok=False)
    cluster.java(TOPICS, "--create", "--topic", f"{name}-b", "--config", "no.such.key=1", ok=False)
    cluster.java(TOPICS, "--create", "--topic", f"{name}-b", "--config", "segment.bytes=nonsense", ok=False)
    cluster.java(TOPICS, "--create", "--topic", f"{name}-b", "--replication-factor", "7", ok=False)
    cluster.java(TOPICS, "--alter", "--topic", name, "--partitions", "1", ok=False)
    cluster.java(TOPICS, "--describe", "--topic", f"{name}-b", ok=False)
    listed = cluster.java(TOPICS, "--list").decode().split()
    assert name in listed
    assert f"{name}-b" not in listed


def test_get_offsets(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    records = sorted(real_records(), key=lambda record: record.timestamp_ms)
    cluster.fill(topic, records)

    def at(time: str) -> str:
        return cluster.java(OFFSETS, "--topic", topic, "--time", time).decode().strip()

    wanted = records[321].timestamp_ms
    first = next(index for index, record in enumerate(records) if record.timestamp_ms >= wanted)
    newest = next(i for i, record in enumerate(records) if record.timestamp_ms == records[-1].timestamp_ms)
    assert at("latest") == f"{topic}:0:{len(records)}"
    assert at("earliest") == f"{topic}:0:0"
    assert at(str(wanted)) == f"{topic}:0:{first}"
    assert at("max-timestamp") == f"{topic}:0:{newest}"
    assert at("earliest-local") == f"{topic}:0:0"
    assert at(str(records[-1].timestamp_ms + 1)) in ("", f"{topic}:0:")


def test_delete_records(cluster: Cluster, tmp_path: Path) -> None:
    topic = cluster.new_topic()
    records = [clean(record) for record in real_records()[:100]]
    cluster.fill(topic, records)
    plan = tmp_path / "offsets.json"
    plan.write_text(
        json.dumps({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 40}]})
    )
    said = cluster.java(DELETE_RECORDS, "--offset-json-file", str(plan)).decode()
    assert re.search(rf"partition: {topic}-0\s+low_watermark: 40\b", said)
    assert cluster.java(OFFSETS, "--topic", topic, "--time", "earliest").decode().strip() == f"{topic}:0:40"
    lines = console_consume(cluster, topic, 60)
    assert lines == [expected_line(40 + index, record) for index, record in enumerate(records[40:])]


def test_configs_describe(cluster: Cluster) -> None:
    topic = cluster.new_topic(config={"max.message.bytes": "123456"})
    entity = ("--entity-type", "topics", "--entity-name", topic)
    said = cluster.java(CONFIGS, "--describe", *entity).decode()
    assert "max.message.bytes=123456" in said
    every = cluster.java(CONFIGS, "--describe", "--all", *entity).decode()
    for key in ("cleanup.policy=delete", "segment.bytes=1073741824", "message.timestamp.type=CreateTime"):
        assert key in every


def test_configs_of_brokers(cluster: Cluster) -> None:
    said = cluster.java(CONFIGS, "--describe", "--all", "--entity-type", "brokers").decode()
    assert re.search(r"configs for broker \d+ are:\n\s+\S+=", said)


def test_dump_log_reads_our_segments(cluster: Cluster) -> None:
    # Small segments, small batches, a dense index: sealed segments with entries in every index. Segments do not
    # roll by time, whatever the timestamps say.
    config = {"segment.bytes": "1048576", "index.interval.bytes": "4096", "segment.ms": str(2**63 - 1)}
    topic = cluster.new_topic(config=config)
    records = [clean(record) for record in real_records()] * 5
    for start in range(0, len(records), 50):
        cluster.fill(topic, records[start : start + 50])
    logs = sorted(folder(cluster, topic).glob("*.log"))
    assert len(logs) > 1, "only one segment"
    values = []
    for log in logs:
        said = cluster.java_alone(
            DUMP_LOG, "--files", str(log), "--print-data-log", "--deep-iteration"
        ).decode()
        assert f"Log starting offset: {int(log.stem)}" in said
        assert "isvalid: false" not in said
        values += re.findall(r"payload: (.*)", said)
    assert values == [record.value.decode() for record in records]
    # The indexes of the last segment are preallocated, which the tool does not expect.
    for log in logs[:-1]:
        for suffix in (".index", ".timeindex"):
            _check_index(cluster, log.with_suffix(suffix))


def _check_index(cluster: Cluster, index: Path) -> None:
    checked = cluster.java_alone(DUMP_LOG, "--files", str(index), "--index-sanity-check").decode()
    assert "passed sanity check" in checked
    dumped = cluster.java_alone(DUMP_LOG, "--files", str(index)).decode()
    assert len(dumped.splitlines()) > 2, "hardly any entries"
    for complaint in ("mismatch", "Mismatch", "not found", "Found timestamp", "out of order"):
        assert complaint not in dumped


def test_the_perf_producer(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    # fmt: off
    said = cluster.java(
        f"{TOOLS}.ProducerPerformance", "--topic", topic, "--num-records", "20000", "--record-size", "1024",
        "--throughput", "-1").decode()
    # fmt: on
    assert "20000 records sent" in said
    assert cluster.end_offset(topic) == 20_000


def test_cluster_id_and_versions(cluster: Cluster) -> None:
    said = cluster.java_alone(f"{TOOLS}.ClusterTool", "cluster-id", "--bootstrap-server", cluster.bootstrap)
    assert re.search(rb"Cluster ID: \S+", said)
    versions = cluster.java(f"{TOOLS}.BrokerApiVersionsCommand").decode()
    assert re.search(r"Produce\(0\): 0 to \d+ \[usable: \d+\]", versions)
    assert "UNSUPPORTED" not in re.findall(r"Fetch\(1\): (.*)", versions)[0]
