"""Clusters with a bucket, and records in them whose bytes can be computed again."""

from __future__ import annotations

import random
import time
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from tests.crash.kill_load import CLIENT

from e2e.demo import OUTSIDE, Demo

TOPIC = "tiered"
PARTITIONS = 3
RECORD_BYTES = 2000
SEGMENT_BYTES = 1 << 20
Bucket = dict[str, str]
"""What E2E_S3_* say: endpoint, bucket, access_key, secret_key."""


def secret(bucket: Bucket) -> dict[str, Any]:
    """Return the Secret that a Cluster's `credentialsSecret` names."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bucket"},
        "stringData": {
            "AWS_ACCESS_KEY_ID": bucket["access_key"],
            "AWS_SECRET_ACCESS_KEY": bucket["secret_key"],
        },
    }


def cluster(name: str, bucket: Bucket, prefix: str) -> dict[str, Any]:
    """Return a Cluster of three brokers that tiers below a prefix of the bucket, and leaves nothing behind."""
    return {
        "apiVersion": "strandline.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {
            "replicas": 3,
            "storage": {"size": "1Gi"},
            "deletionPolicy": "Delete",
            "listeners": [{"name": "PLAIN", "port": 9092}, OUTSIDE],
            "tiering": {
                "bucket": bucket["bucket"],
                "prefix": prefix,
                "endpointUrl": bucket["endpoint"],
                "region": "us-east-1",
                "credentialsSecret": {"name": "bucket"},
            },
        },
    }


def topic(cluster_name: str) -> dict[str, Any]:
    """Return the Topic: small segments, and little on the volumes."""
    return {
        "apiVersion": "strandline.io/v1alpha1",
        "kind": "Topic",
        "metadata": {"name": TOPIC},
        "spec": {
            "clusterRef": {"name": cluster_name},
            "partitions": PARTITIONS,
            "replicas": 3,
            "config": {"segment.bytes": str(SEGMENT_BYTES), "local.retention.bytes": str(SEGMENT_BYTES)},
        },
    }


def value(partition: int, number: int) -> bytes:
    """Return what is written at one offset."""
    return random.Random(f"{partition} {number}").randbytes(RECORD_BYTES)


def produce(where: Demo, ranges: dict[int, range]) -> None:
    """Write the records of some offsets, and wait until all are acknowledged."""
    failed: list[object] = []
    producer = Producer(
        CLIENT | {"bootstrap.servers": where.outside(), "acks": "all", "enable.idempotence": True}
    )
    for number in range(max(len(offsets) for offsets in ranges.values())):
        for partition, offsets in ranges.items():
            if number < len(offsets):
                producer.produce(
                    TOPIC,
                    value(partition, offsets[number]),
                    partition=partition,
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                )
        producer.poll(0)
        if number % 500 == 0:
            producer.flush(60)
    assert producer.flush(60) == 0
    assert not failed


def read_all(where: Demo, ends: dict[int, int], *, timeout_s: float = 180.0) -> None:
    """Read every partition from offset 0 to its end, and compare every byte."""
    consumer = Consumer(
        CLIENT
        | {
            "bootstrap.servers": where.outside(),
            "group.id": "reader",
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
        }
    )
    try:
        consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in ends])
        expected = dict.fromkeys(ends, 0)
        deadline = time.monotonic() + timeout_s
        while expected != ends:
            assert time.monotonic() < deadline, f"read as far as {expected} of {ends}"
            for message in consumer.consume(500, timeout=1.0):
                assert message.error() is None, message.error()
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset == expected[partition]
                assert message.value() == value(partition, offset)
                expected[partition] += 1
    finally:
        consumer.close()
