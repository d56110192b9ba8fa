"""What the experiments on three brokers share: their scale, their form, and topics with three replicas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.cluster_view import Partition, await_full, topic_of
from benchmarks.clusters import BROKERS, Cluster
from benchmarks.experiments import Metric, Numbers
from benchmarks.load import LoadError

REPLICAS = 3
_MIN_IN_SYNC = 2
_CREATE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much one run of each experiment does."""

    records: int
    small_batch_records: int
    alone_requests: int
    saturated_requests: int
    faults: int
    """Kills, and stops, of one failover run."""
    catch_up_records: int
    settle_s: float


FULL = Scale(
    records=400_000,
    small_batch_records=300_000,
    alone_requests=8_000,
    saturated_requests=40_000,
    faults=3,
    catch_up_records=200_000,
    settle_s=30,
)
QUICK = Scale(
    records=40_000,
    small_batch_records=20_000,
    alone_requests=1_000,
    saturated_requests=8_000,
    faults=1,
    catch_up_records=20_000,
    settle_s=5,
)


@dataclass(frozen=True, slots=True)
class ClusterExperiment:
    """A load on a fresh cluster, and the rows that come of it."""

    name: str
    title: str
    run: Callable[[Cluster, Scale], Numbers]
    metrics: tuple[Metric, ...]
    systems: frozenset[str]
    """Labels of the systems that it makes sense for."""


def create_topics(cluster: Cluster, topics: list[str], partitions: int) -> None:
    """Create topics with three replicas and min.insync.replicas 2, and wait until every replica is in sync.

    Raises:
        LoadError: the cluster refused.

    """
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    config = {"min.insync.replicas": str(_MIN_IN_SYNC)}
    wanted = [NewTopic(topic, partitions, REPLICAS, config=config) for topic in topics]
    try:
        for future in admin.create_topics(wanted, operation_timeout=_CREATE_TIMEOUT_S).values():
            future.result(_CREATE_TIMEOUT_S)
    except KafkaException as refused:
        raise LoadError(f"{cluster.label} created no topic: {refused}") from refused
    await_full(cluster)


def led_by_one(cluster: Cluster, topic: str, count: int) -> tuple[int, list[Partition]]:
    """Create a topic and return a broker with `count` of the partitions that it leads, so that roles can be told apart.

    The other brokers follow these, and the remaining partitions stay empty. (Strandline takes no manual assignment.)
    """
    create_topics(cluster, [topic], BROKERS * count)
    led: dict[int, list[Partition]] = {}
    for partition in topic_of(cluster, topic):
        led.setdefault(partition.leader, []).append(partition)
    leader, partitions = max(led.items(), key=lambda item: len(item[1]))
    return leader, partitions[:count]
