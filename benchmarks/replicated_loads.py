"""Rows about what replication costs: processor time of leader and followers, latency, and a cluster at rest.

Callers: `benchmarks.replication`. All loads go to partitions that one broker leads, so that leader and followers can be
told apart. Every load runs twice on its fresh cluster, and only the second run counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaException, TopicPartition

from benchmarks import load, processes, raw_client, requests, segments
from benchmarks.cluster_view import Partition, await_full
from benchmarks.clusters import BROKERS, Cluster
from benchmarks.experiments import IN_FLIGHT, Numbers
from benchmarks.replicated import REPLICAS, Scale, create_topics, led_by_one
from benchmarks.systems import HOST, BrokerFailedError

_PARTITIONS = 8
_LARGE_BATCH_BYTES = 1_000_000
_SMALL_BATCH_BYTES = 16_384
_IDLE_TOPICS = 50
_IDLE_PARTITIONS = 3
_COMMIT_TIMEOUT_S = 60.0
_REPLICATED_TIMEOUT_S = 60.0
_POLL_S = 0.05


@dataclass(slots=True)
class _Use:
    """CPU seconds over a block: of each broker, and of the controller or supervisor."""

    brokers_s: list[float] = field(default_factory=list)
    controller_s: float = 0.0
    elapsed_s: float = 0.0

    def leader_s(self, leader: int) -> float:
        """CPU seconds of the leading broker."""
        return self.brokers_s[leader]

    def follower_s(self, leader: int) -> float:
        """CPU seconds of one follower: the mean of both."""
        return (sum(self.brokers_s) - self.brokers_s[leader]) / (BROKERS - 1)


@contextmanager
def _cpu_of(cluster: Cluster) -> Iterator[_Use]:
    use = _Use()
    groups = [cluster.pids_of(broker) for broker in range(BROKERS)]
    controllers = cluster.controller_pids()
    before = [processes.cpu_s(pids) for pids in (*groups, controllers)]
    began = time.perf_counter()
    yield use
    use.elapsed_s = time.perf_counter() - began
    for broker, pids in enumerate(groups):
        if cluster.pid_of(broker) != pids[0]:
            raise BrokerFailedError(f"broker {broker} of {cluster.label} restarted: {cluster.tail()}")
    spent = [
        processes.cpu_s(pids) - former for pids, former in zip((*groups, controllers), before, strict=True)
    ]
    *use.brokers_s, use.controller_s = spent


def produce_large(cluster: Cluster, scale: Scale) -> Numbers:
    """Produce with batches of ~1 MB."""
    return _produce(cluster, scale.records, _LARGE_BATCH_BYTES)


def produce_small(cluster: Cluster, scale: Scale) -> Numbers:
    """Produce with batches of 16 KB."""
    return _produce(cluster, scale.small_batch_records, _SMALL_BATCH_BYTES)


def _produce(cluster: Cluster, records: int, batch_bytes: int) -> Numbers:
    topic = "load"
    leader, partitions = led_by_one(cluster, topic, _PARTITIONS)
    indexes = [partition.number for partition in partitions]
    load.produce(cluster.bootstrap, topic, indexes, records, batch_bytes)
    _await_replicated(cluster, topic, partitions, records)
    with _cpu_of(cluster) as use:
        moved = load.produce(cluster.bootstrap, topic, indexes, records, batch_bytes)
        _await_replicated(cluster, topic, partitions, 2 * records)
    gigabytes = moved.value_bytes / 1e9
    batches = segments.scan([cluster.log_directory(leader, topic, index) for index in indexes])
    return {
        "leader_s_per_gb": use.leader_s(leader) / gigabytes,
        "follower_s_per_gb": use.follower_s(leader) / gigabytes,
        "brokers_s_per_gb": sum(use.brokers_s) / gigabytes,
        "controller_s_per_gb": use.controller_s / gigabytes,
        "mb_per_s": moved.value_bytes / 1e6 / moved.elapsed_s,
        "batch_bytes": batches.mean_bytes,
    }


def _await_replicated(cluster: Cluster, topic: str, partitions: list[Partition], records: int) -> None:
    """Wait until every replica has all records on its disk: no system may put the work of its followers off.

    Raises:
        LoadError: records are missing.

    """
    deadline = time.monotonic() + _REPLICATED_TIMEOUT_S
    while True:
        held = [
            segments.scan([cluster.log_directory(broker, topic, p.number) for p in partitions]).records
            for broker in range(BROKERS)
        ]
        if held == [records] * REPLICAS:
            return
        if time.monotonic() > deadline:
            raise load.LoadError(f"{cluster.label}: the brokers hold {held} of {records} records")
        time.sleep(_POLL_S)


def one_record_alone(cluster: Cluster, scale: Scale) -> Numbers:
    """One-record requests with acks=all, one after the other."""

    def run(port: int, topic: bytes, indexes: list[int], value: bytes) -> raw_client.Latencies:
        return raw_client.alone(HOST, port, topic, indexes, value, scale.alone_requests)

    return _requests(cluster, run)


def one_record_saturated(cluster: Cluster, scale: Scale) -> Numbers:
    """One-record requests with acks=all, several in flight on each of several connections."""

    def run(port: int, topic: bytes, indexes: list[int], value: bytes) -> raw_client.Latencies:
        return raw_client.saturated(
            HOST, port, topic, indexes, value, scale.saturated_requests, in_flight=IN_FLIGHT
        )

    return _requests(cluster, run)


def _requests(
    cluster: Cluster, run: Callable[[int, bytes, list[int], bytes], raw_client.Latencies]
) -> Numbers:
    topic, value = b"requests", load.values()[0]
    leader, partitions = led_by_one(cluster, topic.decode(), _PARTITIONS)
    indexes = [partition.number for partition in partitions]
    client = raw_client.RawClient(HOST, cluster.port(leader))
    try:
        client.await_writable(topic, indexes, requests.batch([value], int(time.time() * 1000)).data)
    finally:
        client.close()
    run(cluster.port(leader), topic, indexes, value)
    with _cpu_of(cluster) as use:
        seen = run(cluster.port(leader), topic, indexes, value)
    return {
        "leader_us_per_request": use.leader_s(leader) / seen.requests * 1e6,
        "follower_us_per_request": use.follower_s(leader) / seen.requests * 1e6,
        "controller_us_per_request": use.controller_s / seen.requests * 1e6,
        "requests_per_s": seen.requests / seen.elapsed_s,
        "p50_us": seen.p50_us,
        "p99_us": seen.p99_us,
        "p999_us": seen.p999_us,
    }


def idle(cluster: Cluster, scale: Scale) -> Numbers:
    """Look at three brokers with 50 topics of 3 partitions and the internal topics, without any client."""
    create_topics(cluster, [f"idle-{number}" for number in range(_IDLE_TOPICS)], _IDLE_PARTITIONS)
    _commit_an_offset(cluster, "idle-0")
    await_full(cluster)
    time.sleep(scale.settle_s / 2)
    with _cpu_of(cluster) as use:
        time.sleep(scale.settle_s)
    brokers = processes.memory([pid for broker in range(BROKERS) for pid in cluster.pids_of(broker)])
    other = processes.memory(cluster.controller_pids())
    return {
        "rss_mb": brokers.rss / 1e6,
        "pss_mb": brokers.pss / 1e6,
        "controller_pss_mb": other.pss / 1e6,
        "idle_cpu_percent": 100 * sum(use.brokers_s) / use.elapsed_s,
        "controller_idle_cpu_percent": 100 * use.controller_s / use.elapsed_s,
    }


def _commit_an_offset(cluster: Cluster, topic: str) -> None:
    """Use a group once: Kafka makes `__consumer_offsets` only then."""
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": "idle",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    deadline = time.monotonic() + _COMMIT_TIMEOUT_S
    try:
        while True:
            try:
                consumer.commit(offsets=[TopicPartition(topic, 0, 0)], asynchronous=False)
            except KafkaException as not_yet:
                if time.monotonic() > deadline:
                    raise load.LoadError(f"{cluster.label} commits no offset: {not_yet}") from not_yet
                time.sleep(_POLL_S)
            else:
                return
    finally:
        consumer.close()
