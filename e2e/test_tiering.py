"""A Cluster with a bucket: sealed segments move there, volumes keep little, and a new reader gets every byte back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.bucketed import (
    PARTITIONS,
    RECORD_BYTES,
    SEGMENT_BYTES,
    TOPIC,
    Bucket,
    cluster,
    produce,
    read_all,
    secret,
    topic,
)
from e2e.demo import Demo
from e2e.kube import Kube, wait_for
from e2e.measured import Measured

pytestmark = pytest.mark.e2e

RECORDS = 24_000
TIERED_S = 420.0
"""Brokers look every five minutes for segments that need not be local (`log.retention.check.interval.ms`)."""
CLUSTER = "bucketed"


@pytest.fixture
def bucketed(operator: Kube, demo: Demo, bucket: Bucket, tmp_path: Path) -> Iterator[Demo]:
    """A second Cluster beside the first, with the bucket."""
    objects = [secret(bucket), cluster(CLUSTER, bucket, f"e2e-{time.time_ns()}"), topic(CLUSTER)]
    manifest = tmp_path / "bucketed.yaml"
    manifest.write_text(yaml.safe_dump_all(objects))
    operator.kubectl("apply", "--namespace", demo.namespace, "--filename", str(manifest))
    made = Demo(operator, demo.namespace, CLUSTER)
    made.wait_until_ready()
    yield made
    operator.kubectl("delete", "topics.strandline.io", TOPIC, "--namespace", demo.namespace, "--timeout=60s")
    operator.kubectl(
        "delete", "clusters.strandline.io", CLUSTER, "--namespace", demo.namespace, "--timeout=120s"
    )


def test_records_move_to_the_bucket_and_come_back(bucketed: Demo, kube: Kube, measured: Measured) -> None:
    began = time.monotonic()
    share = RECORDS // PARTITIONS
    produce(bucketed, {partition: range(share) for partition in range(PARTITIONS)})
    rows = wait_for(lambda: _tiered(kube, bucketed), TIERED_S, "local volumes to keep the tail only")
    measured.note("tiering-settled", time.monotonic() - began)
    assert sum(row["tier"]["remoteBytes"] for row in rows) > 0.8 * RECORDS * RECORD_BYTES
    assert all(row["logStartOffset"] == 0 and row["localLogStartOffset"] > 0 for row in rows)
    began = time.monotonic()
    read_all(bucketed, dict.fromkeys(range(PARTITIONS), share))
    measured.note("tiering-read-back", time.monotonic() - began)


def _tiered(kube: Kube, cluster: Demo) -> list[dict[str, Any]]:
    """Return the leaders' rows of /v1/partitions once little is on volumes only; until then nothing."""
    found = []
    for pod in cluster.brokers():
        path = (
            f"/api/v1/namespaces/{cluster.namespace}/pods/{pod.name}:10092/proxy/v1/partitions?topic={TOPIC}"
        )
        rows = json.loads(kube.kubectl("get", "--raw", path))["partitions"]
        found += [row for row in rows if row["role"] == "leader"]
    settled = all(
        row.get("tier", {}).get("state") == "ready" and row["sizeBytes"] <= 3 * SEGMENT_BYTES for row in found
    )
    return found if len(found) == PARTITIONS and settled else []
