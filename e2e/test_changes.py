"""What an administrator changes on purpose: brokers restarted under load, fewer brokers, a Topic and a Cluster deleted."""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.crash.kill_load import CLIENT

from e2e.demo import Demo
from e2e.installation import apply_examples
from e2e.kube import Kube, wait_for
from e2e.load import PARTITIONS, Underway
from e2e.measured import Measured

pytestmark = pytest.mark.e2e

HANDOVER_S = 5.0
ROLLED_S = 300.0
SEEN_S = 60.0


def test_brokers_are_restarted_one_by_one(demo: Demo, kube: Kube, measured: Measured) -> None:
    before = {pod.uid for pod in demo.brokers()}
    with Underway(demo) as load:
        began = time.monotonic()
        kube.kubectl("rollout", "restart", "--namespace", demo.namespace, f"statefulset/{demo.name}-broker")
        wait_for(lambda: before.isdisjoint(pod.uid for pod in demo.brokers()), ROLLED_S, "all pods to be new")
        demo.wait_until_ready()
        took_s = time.monotonic() - began
        gap_s = load.longest_gap(began, load.recovery(range(load.partitions), time.monotonic()))
    measured.note("rolling-update", gap_s, load.summary)
    measured.note("rolling-update-duration", took_s)
    restarts = [reason for reason, _ in kube.events(demo.namespace, demo.name) if reason == "BrokerRestarted"]
    assert restarts
    assert gap_s < HANDOVER_S


def test_fewer_brokers_are_refused_and_nothing_is_stopped(demo: Demo) -> None:
    before = {pod.uid for pod in demo.brokers()}
    demo.patch({"replicas": 2})
    try:
        wait_for(lambda: _reasons(demo.cluster()) & {"ScaleDownRefused"}, SEEN_S, "the refusal")
        assert {pod.uid for pod in demo.brokers()} == before
    finally:
        demo.patch({"replicas": 3})
    demo.wait_until_ready()
    assert {pod.uid for pod in demo.brokers()} == before


def test_a_deleted_topic_is_gone_for_clients_too(demo: Demo, kube: Kube) -> None:
    with Underway(demo) as load:
        pass
    assert load.topic in _topics(demo)
    # With `Retain`, the default, it would stay there for clients, unmanaged.
    kube.patch(demo.namespace, "topics", load.topic, {"spec": {"deletionPolicy": "Delete"}})
    kube.kubectl("delete", "topic.strandline.io", "--namespace", demo.namespace, load.topic, "--timeout=60s")
    wait_for(lambda: load.topic not in _topics(demo), SEEN_S, f"{load.topic} to be gone for clients")
    demo.wait_until_ready()


def test_a_cluster_deleted_and_applied_again_has_its_records(
    demo: Demo, kube: Kube, measured: Measured
) -> None:
    """Its `deletionPolicy` is `Retain`, the default."""
    with Underway(demo) as load:
        pass
    ends = _ends(demo, load.topic)
    assert sum(ends) > 0
    cluster_id = demo.cluster()["status"]["clusterId"]
    kube.kubectl(
        "delete", "cluster.strandline.io", "--namespace", demo.namespace, demo.name, "--timeout=180s"
    )
    wait_for(lambda: not demo.brokers(), ROLLED_S, "the brokers' pods to be gone")
    claims = kube.core.list_namespaced_persistent_volume_claim(demo.namespace, _request_timeout=15).items
    assert len(claims) == 3
    began = time.monotonic()
    apply_examples(kube, demo.namespace)
    demo.wait_until_ready()
    measured.note("applied-again", time.monotonic() - began)
    demo.add_outside_listener()
    assert demo.cluster()["status"]["clusterId"] == cluster_id
    assert _ends(demo, load.topic) == ends
    assert _count(demo, load.topic) == sum(ends)


def _reasons(obj: dict[str, Any]) -> set[str]:
    return {one["reason"] for one in (obj.get("status") or {}).get("conditions", ())}


def _consumer(demo: Demo) -> Consumer:
    return Consumer(
        CLIENT | {"bootstrap.servers": demo.outside(), "group.id": "e2e", "enable.auto.commit": False}
    )


def _topics(demo: Demo) -> set[str]:
    consumer = _consumer(demo)
    try:
        return set(consumer.list_topics(timeout=30).topics)
    finally:
        consumer.close()


def _ends(demo: Demo, topic: str) -> list[int]:
    """Return the offset after the last record, for each partition."""
    consumer = _consumer(demo)
    try:
        return [
            consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1]
            for partition in range(PARTITIONS)
        ]
    finally:
        consumer.close()


def _count(demo: Demo, topic: str) -> int:
    """Return how many records can be read from the start of each partition to its end."""
    ends = _ends(demo, topic)
    found = 0
    consumer = _consumer(demo)
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        deadline = time.monotonic() + SEEN_S
        while found < sum(ends) and time.monotonic() < deadline:
            for message in consumer.consume(1000, timeout=1.0):
                assert message.error() is None, message.error()
                found += 1
    finally:
        consumer.close()
    return found
