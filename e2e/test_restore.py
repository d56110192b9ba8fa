"""Cluster, volumes and cluster state are erased; from the bucket comes a Cluster with the same records and offsets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place
from tests.crash.kill_load import CLIENT

from e2e.bucketed import PARTITIONS, TOPIC, Bucket, cluster, produce, read_all, secret, topic
from e2e.demo import Demo
from e2e.environment import Environment
from e2e.kube import Kube, wait_for
from e2e.measured import Measured
from strandline_broker.coordinator.partitioning import partition_for

pytestmark = pytest.mark.e2e

LOST, RESTORED = "lost", "restored"
SHARE = 4000
"""Records of a partition: 8 MB, of which the last segment stays local."""
ENOUGH = 3000
HALFWAY = 1500
IN_BUCKET_S = 240.0
GROUPS = {"halfway": HALFWAY, "all": SHARE}


@pytest.fixture
def prefix() -> str:
    return f"e2e-restore-{time.time_ns()}"


@pytest.fixture
def lost(operator: Kube, demo: Demo, bucket: Bucket, prefix: str, tmp_path: Path) -> Iterator[Demo]:
    """The Cluster that is going to be lost; whatever is left of both in the end is deleted."""
    _apply(operator, demo.namespace, tmp_path, [secret(bucket), cluster(LOST, bucket, prefix), topic(LOST)])
    made = Demo(operator, demo.namespace, LOST)
    made.wait_until_ready()
    yield made
    for kind, name in (("topics", TOPIC), ("clusters", LOST), ("clusters", RESTORED)):
        operator.kubectl(
            "delete", f"{kind}.strandline.io", name, "--namespace", demo.namespace,
            "--timeout=120s", "--ignore-not-found",
        )  # fmt: skip


def _apply(kube: Kube, namespace: str, folder: Path, objects: list[dict[str, Any]]) -> None:
    manifest = folder / "objects.yaml"
    manifest.write_text(yaml.safe_dump_all(objects))
    kube.kubectl("apply", "--namespace", namespace, "--filename", str(manifest))


class Tier:
    """`strandline tier` as an administrator runs it, with the kubeconfig and the bucket's credentials."""

    def __init__(self, environment: Environment, bucket: Bucket, prefix: str) -> None:
        self._options = (
            "--bucket", f"s3://{bucket['bucket']}/{prefix}",
            "--endpoint-url", bucket["endpoint"],
            "--region", "us-east-1",
        )  # fmt: skip
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(environment.kubeconfig),
            "AWS_ACCESS_KEY_ID": bucket["access_key"],
            "AWS_SECRET_ACCESS_KEY": bucket["secret_key"],
        }

    def __call__(self, command: str, *arguments: str) -> dict[str, Any]:
        """Run it, and return what it printed as JSON."""
        program = str(Path(sys.executable).with_name("strandline"))
        done = subprocess.run(
            [program, "tier", command, *self._options, *arguments, "--json"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(
            done.stdout.splitlines()[-1] if command == "verify" else done.stdout
        )
        return found


def test_a_cluster_comes_back_from_its_bucket(
    lost: Demo,
    environment: Environment,
    bucket: Bucket,
    prefix: str,
    measured: Measured,
    tmp_path: Path,
) -> None:
    tier = Tier(environment, bucket, prefix)
    kube, namespace = lost.kube, lost.namespace
    source = lost.cluster()["status"]["clusterId"]
    produce(lost, {partition: range(SHARE) for partition in range(PARTITIONS)})
    _commit(lost, GROUPS)
    wait_for(lambda: _in_bucket(tier), IN_BUCKET_S, "segments and offsets in the bucket", 5.0)

    kube.kubectl("delete", "clusters.strandline.io", LOST, "--namespace", namespace, "--timeout=120s")
    wait_for(lambda: not _left(kube, namespace), 120.0, "volumes and cluster state to be erased")
    kube.kubectl("delete", "topics.strandline.io", TOPIC, "--namespace", namespace, "--timeout=60s")

    began = time.monotonic()
    report = tier(
        "restore", "--from", source, "--namespace", namespace, "--cluster-name", RESTORED, "--brokers", "3"
    )
    measured.note("restored", time.monotonic() - began)
    (found,) = (one for one in report["topics"] if one["topic"] == TOPIC)
    ends = {one["partition"]: one["endOffset"] for one in found["partitions"]}
    assert all(ENOUGH <= end <= SHARE for end in ends.values())
    assert all(one["highWatermark"] - one["endOffset"] == one["gap"] for one in found["partitions"])
    assert tier("verify", "--cluster", report["clusterId"], "--deep")["damaged"] == 0

    began = time.monotonic()
    _apply(kube, namespace, tmp_path, [cluster(RESTORED, bucket, prefix)])
    restored = Demo(kube, namespace, RESTORED)
    restored.wait_until_ready()
    measured.note("restored-ready", time.monotonic() - began)
    assert restored.cluster()["status"]["clusterId"] == report["clusterId"] != source
    read_all(restored, ends)
    for group, offset in GROUPS.items():
        assert _committed(restored, group) == {number: min(offset, end) for number, end in ends.items()}
    produce(restored, {number: range(end, end + 200) for number, end in ends.items()})
    read_all(restored, {number: end + 200 for number, end in ends.items()})


def _commit(where: Demo, groups: dict[str, int]) -> None:
    for group, offset in groups.items():
        consumer = Consumer(CLIENT | {"bootstrap.servers": where.outside(), "group.id": group})
        try:
            places = [Place(TOPIC, number, offset) for number in range(PARTITIONS)]
            consumer.commit(offsets=places, asynchronous=False)
        finally:
            consumer.close()


def _committed(where: Demo, group: str) -> dict[int, int]:
    consumer = Consumer(CLIENT | {"bootstrap.servers": where.outside(), "group.id": group})
    try:
        asked = [Place(TOPIC, number) for number in range(PARTITIONS)]
        return {found.partition: found.offset for found in consumer.committed(asked, timeout=60)}
    finally:
        consumer.close()


def _in_bucket(tier: Tier) -> bool:
    """Say whether enough segments, the topic's definition and some offsets are in the bucket."""
    topics = {topic["topic"]: topic for one in tier("ls")["clusters"] for topic in one["topics"]}
    offsets = topics.get("__consumer_offsets", {"partitions": ()})["partitions"]
    snapshots = {one["partition"] for one in offsets if one["offsetsSnapshot"]}
    found = topics.get(TOPIC)
    if found is None or found["manifest"] is None or not snapshots >= {partition_for(g, 50) for g in GROUPS}:
        return False
    ends = [one["endOffset"] for one in found["partitions"]]
    return len(ends) == PARTITIONS and min(ends) >= ENOUGH


def _left(kube: Kube, namespace: str) -> list[str]:
    """Return what is left of the lost Cluster."""
    label = f"strandline.io/cluster={LOST}"
    kinds = "partitionsets.strandline.io,clusterstates.strandline.io,persistentvolumeclaims,pods"
    return kube.kubectl(
        "get", kinds, "--namespace", namespace, "--selector", label, "--output", "name"
    ).split()
