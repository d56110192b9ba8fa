"""Apache Kafka's tools for moving partitions and electing leaders, on three brokers.

With FOREIGN_FACTOR=3; with STRANDLINE_FOREIGN_SYSTEM=kafka the same tests run against Apache Kafka.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.foreign.cluster import Cluster, real_records
from tests.foreign.test_kafka_admin_tools import ELECTION, LOG_DIRS, REASSIGN, TOPICS

pytestmark = pytest.mark.foreign


@pytest.fixture(autouse=True)
def _three_brokers(cluster: Cluster) -> None:
    if cluster.factor < 3:
        pytest.skip("needs FOREIGN_FACTOR=3")


@pytest.fixture(scope="module")
def brokers(cluster: Cluster) -> list[int]:
    """Ids of all brokers."""
    (found,) = re.findall(r"from brokers ([\d,]+)", cluster.java(LOG_DIRS, "--describe").decode())
    return [int(broker_id) for broker_id in found.split(",")]


def plan_file(directory: Path, topic: str, targets: Sequence[Sequence[int]]) -> Path:
    """Write what every partition of a topic is to have."""
    partitions = [
        {"topic": topic, "partition": number, "replicas": list(target)}
        for number, target in enumerate(targets)
    ]
    path = directory / "plan.json"
    path.write_text(json.dumps({"version": 1, "partitions": partitions}))
    return path


def replicas(cluster: Cluster, topic: str) -> dict[int, tuple[int, list[int], set[int]]]:
    """{partition: (leader, replicas, in sync)} as the tool shows it."""
    said = cluster.java(TOPICS, "--describe", "--topic", topic).decode()
    rows = re.findall(r"Partition: (\d+)\s+Leader: (\d+)\s+Replicas: ([\d,]+)\s+Isr: ([\d,]+)", said)
    return {
        int(number): (int(leader), [*map(int, all_.split(","))], {*map(int, in_sync.split(","))})
        for number, leader, all_, in_sync in rows
    }


def move(cluster: Cluster, directory: Path, topic: str, targets: Sequence[Sequence[int]], *more: str) -> None:
    """Execute a plan and verify it until it is complete."""
    plan = ("--reassignment-json-file", str(plan_file(directory, topic, targets)))
    said = cluster.java(REASSIGN, "--execute", *plan, *more).decode()
    assert "Successfully started partition reassignment" in said
    for _ in range(60):
        said = cluster.java(REASSIGN, "--verify", *plan).decode()
        if "is still in progress" not in said:
            break
    for number in range(len(targets)):
        assert f"Reassignment of partition {topic}-{number} is completed." in said


def expect(found: Mapping[int, tuple[int, list[int], set[int]]], targets: Sequence[Sequence[int]]) -> None:
    for number, target in enumerate(targets):
        leader, there, in_sync = found[number]
        assert there == list(target)
        assert in_sync == set(target)
        assert leader in target


def test_partitions_move_with_their_records(cluster: Cluster, brokers: list[int], tmp_path: Path) -> None:
    topic = cluster.new_topic(partitions=3)
    records = real_records()
    cluster.fill(topic, records)
    a, b, c = brokers
    fewer = [[a, b], [b, c], [c, a]]
    move(cluster, tmp_path, topic, fewer, "--additional")
    expect(replicas(cluster, topic), fewer)
    others = [[c, b], [a, c], [b, a]]
    move(cluster, tmp_path, topic, others, "--throttle", "100000000")
    expect(replicas(cluster, topic), others)
    assert cluster.read(topic) == list(records)
    more = [[b, c, a], [c, a, b], [a, b, c]]
    move(cluster, tmp_path, topic, more)
    expect(replicas(cluster, topic), more)
    assert cluster.read(topic) == list(records)
    assert "No partition reassignments found." in cluster.java(REASSIGN, "--list").decode()


def test_preferred_leaders_are_elected_after_another_order(
    cluster: Cluster, brokers: list[int], tmp_path: Path
) -> None:
    topic = cluster.new_topic(partitions=1)
    ((leader, there, _),) = replicas(cluster, topic).values()
    other = next(broker_id for broker_id in brokers if broker_id != leader)
    target = [other, *(broker_id for broker_id in there if broker_id != other)]
    move(cluster, tmp_path, topic, [target])
    cluster.java(ELECTION, "--election-type", "preferred", "--topic", topic, "--partition", "0")
    ((leader, there, _),) = replicas(cluster, topic).values()
    assert (leader, there) == (other, target)


def test_plans_that_cannot_be(cluster: Cluster, brokers: list[int], tmp_path: Path) -> None:
    topic = cluster.new_topic(partitions=1)
    before = replicas(cluster, topic)
    for target in ([4711], [brokers[0], brokers[0]]):
        plan = ("--reassignment-json-file", str(plan_file(tmp_path, topic, [target])))
        cluster.java(REASSIGN, "--execute", *plan, ok=False)
    (_, there, _) = before[0]
    fewer = ("--reassignment-json-file", str(plan_file(tmp_path, topic, [there[:2]])))
    said = cluster.java(
        REASSIGN, "--execute", *fewer, "--disallow-replication-factor-change", ok=False
    ).decode()
    assert "eplication factor is changed from 3 to 2" in said
    said = cluster.java(REASSIGN, "--cancel", *fewer).decode()
    assert "None of the specified partition reassignments are active." in said
    assert {number: there for number, (_, there, _) in replicas(cluster, topic).items()} == {0: there}
