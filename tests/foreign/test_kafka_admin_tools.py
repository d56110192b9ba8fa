"""Apache Kafka's command-line tools for administration: partitions, configurations, replicas, elections.

Each command is shown with what it said (`-rP`). With STRANDLINE_FOREIGN_SYSTEM=kafka the same tests run against
Apache Kafka, so that what they expect is what Kafka does; where Strandline differs on purpose, the test says so.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from pathlib import Path

import pytest
from tests.foreign.cluster import Cluster, real_records

pytestmark = pytest.mark.foreign

TOOLS = "org.apache.kafka.tools"
TOPICS = f"{TOOLS}.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
LOG_DIRS = f"{TOOLS}.LogDirsCommand"
ELECTION = f"{TOOLS}.LeaderElectionCommand"
REASSIGN = f"{TOOLS}.reassign.ReassignPartitionsCommand"
TRANSACTIONS = f"{TOOLS}.TransactionsCommand"
OFFSETS = f"{TOOLS}.GetOffsetShell"


def refused(cluster: Cluster, main_class: str, *arguments: str) -> str:
    """Run a command that must fail; return everything it said."""
    return cluster.java(main_class, *arguments, ok=False).decode()


@pytest.fixture(scope="module")
def broker_ids(cluster: Cluster) -> list[str]:
    """Ids of all brokers."""
    (found,) = re.findall(r"from brokers ([\d,]+)", cluster.java(LOG_DIRS, "--describe").decode())
    ids: list[str] = found.split(",")
    assert len(ids) == cluster.factor
    return ids


@pytest.fixture(scope="module")
def broker_id(broker_ids: list[str]) -> str:
    """Id of a broker."""
    return broker_ids[0]


def alter(cluster: Cluster, kind: str, name: str | None, *change: str, ok: bool = True) -> str:
    entity = (
        "--entity-type",
        kind,
        *(("--entity-name", name) if name is not None else ("--entity-default",)),
    )
    return cluster.java(CONFIGS, "--alter", *entity, *change, ok=ok).decode()


def described(cluster: Cluster, kind: str, name: str | None) -> dict[str, tuple[str, str]]:
    """What is set dynamically: {key: (value, synonyms)}."""
    entity = (
        "--entity-type",
        kind,
        *(("--entity-name", name) if name is not None else ("--entity-default",)),
    )
    said = cluster.java(CONFIGS, "--describe", *entity).decode()
    found = re.findall(r"^  (\S+?)=(\S*) sensitive=false synonyms=\{(.*)\}$", said, re.MULTILINE)
    return {key: (value, synonyms) for key, value, synonyms in found}


def test_partitions_are_added_and_used(cluster: Cluster) -> None:
    topic = cluster.new_topic(partitions=2)
    cluster.java(TOPICS, "--alter", "--topic", topic, "--partitions", "5")
    said = cluster.java(TOPICS, "--describe", "--topic", topic).decode()
    assert len(re.findall(r"Partition: \d+\s+Leader: \d+\s+Replicas: [\d,]+\s+Isr: [\d,]+", said)) == 5
    ends = cluster.java(OFFSETS, "--topic", topic, "--time", "latest").decode().split()
    assert sorted(ends) == [f"{topic}:{number}:0" for number in range(5)]
    for count in ("5", "4"):
        refused(cluster, TOPICS, "--alter", "--topic", topic, "--partitions", count)
    refused(cluster, TOPICS, "--alter", "--topic", f"{topic}-missing", "--partitions", "5")
    cluster.java(TOPICS, "--alter", "--topic", f"{topic}-missing", "--partitions", "5", "--if-exists")
    assert len(cluster.java(OFFSETS, "--topic", topic).decode().split()) == 5


def test_configurations_of_a_topic(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    change = "--add-config", "cleanup.policy=[compact,delete],max.message.bytes=654321"
    alter(cluster, "topics", topic, *change)
    found = described(cluster, "topics", topic)
    assert found["cleanup.policy"][0] == "compact,delete"
    assert found["max.message.bytes"] == (
        "654321",
        "DYNAMIC_TOPIC_CONFIG:max.message.bytes=654321, DEFAULT_CONFIG:message.max.bytes=1048588",
    )
    alter(cluster, "topics", topic, "--delete-config", "max.message.bytes,cleanup.policy")
    assert found.keys() - described(cluster, "topics", topic).keys() == {
        "max.message.bytes",
        "cleanup.policy",
    }
    for wrong in ("no.such.key=1", "retention.ms=soon", "cleanup.policy=shrink"):
        alter(cluster, "topics", topic, "--add-config", wrong, ok=False)
    alter(cluster, "topics", f"{topic}-missing", "--add-config", "retention.ms=1", ok=False)
    every = cluster.java(
        CONFIGS, "--describe", "--all", "--entity-type", "topics", "--entity-name", topic
    ).decode()
    assert len(re.findall(r"^  \S+=\S* sensitive=false synonyms=", every, re.MULTILINE)) >= 30


def test_a_change_of_a_topic_takes_effect(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    producer = f"{TOOLS}.ProducerPerformance"
    arguments = ("--topic", topic, "--num-records", "10", "--record-size", "5000", "--throughput", "-1")
    alter(cluster, "topics", topic, "--add-config", "max.message.bytes=1000")
    cluster.java(producer, *arguments, ok=False)  # MESSAGE_TOO_LARGE
    assert cluster.end_offset(topic) == 0
    alter(cluster, "topics", topic, "--delete-config", "max.message.bytes")
    cluster.java(producer, *arguments)
    assert cluster.end_offset(topic) == 10


def test_configurations_of_brokers(cluster: Cluster, broker_id: str) -> None:
    alter(cluster, "brokers", broker_id, "--add-config", "max.connections=900")
    assert described(cluster, "brokers", broker_id)["max.connections"][0] == "900"
    alter(cluster, "brokers", None, "--add-config", "max.connections=800")
    found = described(cluster, "brokers", broker_id)["max.connections"]
    assert found[0] == "900"
    assert found[1].startswith(
        "DYNAMIC_BROKER_CONFIG:max.connections=900, DYNAMIC_DEFAULT_BROKER_CONFIG:max.connections=800, "
    )
    # (Apache Kafka sets min.insync.replicas for all brokers itself.)
    assert described(cluster, "brokers", None).keys() - {"min.insync.replicas"} == {"max.connections"}
    alter(cluster, "brokers", broker_id, "--delete-config", "max.connections")
    alter(cluster, "brokers", None, "--delete-config", "max.connections")
    assert described(cluster, "brokers", None).keys() <= {"min.insync.replicas"}
    alter(cluster, "brokers", broker_id, "--add-config", "node.id=77", ok=False)
    alter(cluster, "brokers", "4711", "--add-config", "max.connections=1", ok=False)


def test_a_default_for_all_topics(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    alter(cluster, "brokers", None, "--add-config", "log.segment.bytes=2097152")
    try:
        entity = ("--entity-type", "topics", "--entity-name", topic)
        every = cluster.java(CONFIGS, "--describe", "--all", *entity).decode()
        assert re.search(
            r"segment\.bytes=2097152 .*DYNAMIC_DEFAULT_BROKER_CONFIG:log\.segment\.bytes=2097152", every
        )
        assert "segment.bytes" not in described(cluster, "topics", topic)
        own = cluster.new_topic(config={"segment.bytes": "3145728"})
        assert described(cluster, "topics", own)["segment.bytes"][0] == "3145728"
    finally:
        alter(cluster, "brokers", None, "--delete-config", "log.segment.bytes")


def test_configurations_of_groups(cluster: Cluster) -> None:
    group = f"foreign-{uuid.uuid4().hex[:8]}"
    change = "--add-config", "consumer.session.timeout.ms=50000,share.auto.offset.reset=earliest"
    alter(cluster, "groups", group, *change)
    found = described(cluster, "groups", group)
    assert {key: value for key, (value, _) in found.items()} == {
        "consumer.session.timeout.ms": "50000",
        "share.auto.offset.reset": "earliest",
    }
    assert f"group {group}" in cluster.java(CONFIGS, "--describe", "--entity-type", "groups").decode()
    alter(cluster, "groups", group, "--add-config", "consumer.session.timeout.ms=5", ok=False)
    alter(cluster, "groups", group, "--add-config", "no.such.key=5", ok=False)
    alter(cluster, "groups", group, "--delete-config", "consumer.session.timeout.ms,share.auto.offset.reset")
    assert described(cluster, "groups", group) == {}


def test_loggers_and_client_metrics(cluster: Cluster, broker_id: str) -> None:
    assert cluster.java(CONFIGS, "--describe", "--entity-type", "client-metrics").decode().strip() == ""
    if os.environ.get("STRANDLINE_FOREIGN_SYSTEM") != "kafka":  # only Kafka has Log4j
        arguments = ("--describe", "--entity-type", "broker-loggers", "--entity-name", broker_id)
        cluster.java(CONFIGS, *arguments, ok=False)


def test_log_dirs_of_all_and_of_some(cluster: Cluster, broker_ids: list[str]) -> None:
    topic = cluster.new_topic(partitions=2)
    cluster.fill(topic, real_records())

    def directories(*arguments: str) -> dict[str, dict[str, dict[str, object]]]:
        """Return {broker: {partition: what is said of it}}."""
        said = cluster.java(LOG_DIRS, "--describe", *arguments).decode()
        (found,) = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        everything = [directory for broker in found["brokers"] for directory in broker["logDirs"]]
        assert all(directory["error"] is None for directory in everything)
        assert all(Path(directory["logDir"]).is_absolute() for directory in everything)
        return {
            str(broker["broker"]): {
                part["partition"]: part for directory in broker["logDirs"] for part in directory["partitions"]
            }
            for broker in found["brokers"]
        }

    found = directories("--topic-list", topic)
    assert sorted(found) == sorted(broker_ids)
    for parts in found.values():
        assert parts.keys() == {f"{topic}-0", f"{topic}-1"}
        assert parts[f"{topic}-0"]["size"] > 10_000  # type: ignore[operator]
        assert parts[f"{topic}-1"]["size"] == 0
        assert all(part["offsetLag"] == 0 and part["isFuture"] is False for part in parts.values())
    some = directories("--broker-list", broker_ids[0])
    assert list(some) == broker_ids[:1]
    assert {f"{topic}-0", f"{topic}-1"} <= some[broker_ids[0]].keys()


def test_elections_that_are_not_needed(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    assert (
        cluster.java(ELECTION, "--election-type", "preferred", "--all-topic-partitions").decode().strip()
        == ""
    )
    for kind in ("preferred", "unclean"):
        said = cluster.java(ELECTION, "--election-type", kind, "--topic", topic, "--partition", "0").decode()
        assert f"Valid replica already elected for partitions {topic}-0" in said
    refused(cluster, ELECTION, "--election-type", "preferred", "--topic", topic, "--partition", "7")


def test_reassignments_with_one_broker(cluster: Cluster, broker_id: str, tmp_path: Path) -> None:
    if cluster.factor != 1:
        pytest.skip("about plans that change nothing, which the tool only makes for one broker")
    topic = cluster.new_topic(partitions=2)
    wanted = tmp_path / "topics.json"
    wanted.write_text(json.dumps({"version": 1, "topics": [{"topic": topic}]}))
    # fmt: off
    said = cluster.java(REASSIGN, "--generate", "--topics-to-move-json-file", str(wanted),
                        "--broker-list", broker_id).decode()
    # fmt: on
    current, proposed = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    for plan in (current, proposed):
        assert [part["replicas"] for part in plan["partitions"]] == [[int(broker_id)]] * 2
    for part in proposed["partitions"]:
        del part["log_dirs"]
    plan_file = tmp_path / "plan.json"
    plan_file.write_text(json.dumps(proposed))
    plan_argument = ("--reassignment-json-file", str(plan_file))
    said = cluster.java(REASSIGN, "--execute", *plan_argument, "--throttle", "1000000").decode()
    assert "Successfully started partition reassignments" in said
    said = cluster.java(REASSIGN, "--verify", *plan_argument).decode()
    for number in range(2):
        assert f"Reassignment of partition {topic}-{number} is completed." in said
    assert f"Clearing broker-level throttles on broker {broker_id}" in said
    assert "throttled" not in " ".join(described(cluster, "topics", topic))
    assert described(cluster, "brokers", broker_id) == {}
    assert "No partition reassignments found." in cluster.java(REASSIGN, "--list").decode()
    said = cluster.java(REASSIGN, "--cancel", *plan_argument).decode()
    assert "None of the specified partition reassignments are active." in said
    for part in proposed["partitions"]:
        part["replicas"] = [4711]
    plan_file.write_text(json.dumps(proposed))
    refused(cluster, REASSIGN, "--execute", *plan_argument)


def test_producers_of_a_partition(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    # fmt: off
    cluster.java(f"{TOOLS}.ProducerPerformance", "--topic", topic, "--num-records", "100", "--record-size", "10",
                 "--throughput", "-1", "--command-property", "enable.idempotence=true")
    # fmt: on
    said = cluster.java(TRANSACTIONS, "describe-producers", "--topic", topic, "--partition", "0").decode()
    (row,) = said.splitlines()[1:]
    producer_id, epoch, coordinator_epoch, sequence, timestamp, start = row.split()
    assert int(producer_id) >= 0
    assert (epoch, coordinator_epoch, sequence, start) == ("0", "-1", "99", "None")
    assert int(timestamp) > 1_600_000_000_000
