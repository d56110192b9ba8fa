"""A Cluster with a bucket: sealed segments move there, volumes keep little, and a new reader gets every byte back."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.crash.kill_load import CLIENT

from e2e.demo import OUTSIDE, Demo
from e2e.kube import Kube, wait_for
from e2e.measured import Measured

pytestmark = pytest.mark.e2e

TOPIC = "tiered"
PARTITIONS = 3
RECORDS = 24_000
RECORD_BYTES = 2000
SEGMENT_BYTES = 1 << 20
TIERED_S = 420.0
"""Brokers look every five minutes for segments that need not be local (`log.retention.check.interval.ms`)."""
CLUSTER = "bucketed"


@pytest.fixture
def bucket() -> dict[str, str]:
    """The bucket and how pods reach it; it exists and holds nothing that is needed."""
    names = ("E2E_S3_ENDPOINT", "E2E_S3_BUCKET", "E2E_S3_ACCESS_KEY", "E2E_S3_SECRET_KEY")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        pytest.skip(f"no bucket: {', '.join(missing)} not set")
    return {name.removeprefix("E2E_S3_").lower(): os.environ[name] for name in names}


@pytest.fixture
def bucketed(operator: Kube, demo: Demo, bucket: dict[str, str], tmp_path: Path) -> Iterator[Demo]:
    """A second Cluster beside the first, with the bucket."""
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "bucket"},
            "stringData": {
                "AWS_ACCESS_KEY_ID": bucket["access_key"],
                "AWS_SECRET_ACCESS_KEY": bucket["secret_key"],
            },
        },
        {
            "apiVersion": "strandline.io/v1alpha1",
            "kind": "Cluster",
            "metadata": {"name": CLUSTER},
            "spec": {
                "replicas": 3,
                "storage": {"size": "1Gi"},
                "deletionPolicy": "Delete",
                "listeners": [{"name": "PLAIN", "port": 9092}, OUTSIDE],
                "tiering": {
                    "bucket": bucket["bucket"],
                    "prefix": f"e2e-{time.time_ns()}",
                    "endpointUrl": bucket["endpoint"],
                    "region": "us-east-1",
                    "credentialsSecret": {"name": "bucket"},
                },
            },
        },
        {
            "apiVersion": "strandline.io/v1alpha1",
            "kind": "Topic",
            "metadata": {"name": TOPIC},
            "spec": {
                "clusterRef": {"name": CLUSTER},
                "partitions": PARTITIONS,
                "replicas": 3,
                "config": {"segment.bytes": str(SEGMENT_BYTES), "local.retention.bytes": str(SEGMENT_BYTES)},
            },
        },
    ]
    manifest = tmp_path / "bucketed.yaml"
    manifest.write_text(yaml.safe_dump_all(objects))
    operator.kubectl("apply", "--namespace", demo.namespace, "--filename", str(manifest))
    cluster = Demo(operator, demo.namespace, CLUSTER)
    cluster.wait_until_ready()
    yield cluster
    operator.kubectl("delete", "topics.strandline.io", TOPIC, "--namespace", demo.namespace, "--timeout=60s")
    operator.kubectl(
        "delete", "clusters.strandline.io", CLUSTER, "--namespace", demo.namespace, "--timeout=120s"
    )


def value(partition: int, number: int) -> bytes:
    """Return what is written at one offset."""
    return random.Random(f"{partition} {number}").randbytes(RECORD_BYTES)


def test_records_move_to_the_bucket_and_come_back(bucketed: Demo, kube: Kube, measured: Measured) -> None:
    began = time.monotonic()
    _produce(bucketed)
    rows = wait_for(lambda: _tiered(kube, bucketed), TIERED_S, "local volumes to keep the tail only")
    measured.note("tiering-settled", time.monotonic() - began)
    assert sum(row["tier"]["remoteBytes"] for row in rows) > 0.8 * RECORDS * RECORD_BYTES
    assert all(row["logStartOffset"] == 0 and row["localLogStartOffset"] > 0 for row in rows)
    began = time.monotonic()
    _read_all(bucketed)
    measured.note("tiering-read-back", time.monotonic() - began)


def _produce(cluster: Demo) -> None:
    failed: list[object] = []
    producer = Producer(
        CLIENT | {"bootstrap.servers": cluster.outside(), "acks": "all", "enable.idempotence": True}
    )
    for number in range(RECORDS // PARTITIONS):
        for partition in range(PARTITIONS):
            producer.produce(
                TOPIC,
                value(partition, number),
                partition=partition,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
        producer.poll(0)
        if number % 500 == 0:
            producer.flush(60)
    assert producer.flush(60) == 0
    assert not failed


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


def _read_all(cluster: Demo) -> None:
    consumer = Consumer(
        CLIENT
        | {
            "bootstrap.servers": cluster.outside(),
            "group.id": "reader",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    try:
        consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
        expected = dict.fromkeys(range(PARTITIONS), 0)
        deadline = time.monotonic() + 180
        while sum(expected.values()) < RECORDS:
            assert time.monotonic() < deadline, f"read as far as {expected}"
            for message in consumer.consume(500, timeout=1.0):
                assert message.error() is None, message.error()
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset == expected[partition]
                assert message.value() == value(partition, offset)
                expected[partition] += 1
    finally:
        consumer.close()
