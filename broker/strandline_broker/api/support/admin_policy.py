"""`Cluster.spec.kafkaAdmin`: which Topics Kafka clients may change. Pure.

It lets Git stay the owner of topics where it should (design section 3.1).
"""

from __future__ import annotations

from strandline_broker.cluster.cache import ClusterCache
from strandline_broker.cluster.model import Topic
from strandline_broker.errors import ErrorCode, KafkaError


def may_create(view: ClusterCache) -> bool:
    """Say whether Kafka clients may create topics."""
    return view.cluster is None or view.cluster.kafka_admin != "None"


def check_create(view: ClusterCache) -> None:
    """Refuse to create a topic where clients may not. Raises KafkaError(POLICY_VIOLATION)."""
    if not may_create(view):
        raise KafkaError(
            ErrorCode.POLICY_VIOLATION,
            "Kafka clients may not create topics of this cluster (kafkaAdmin: None); "
            "apply a Topic resource instead",
        )


def check_change(view: ClusterCache, topic: Topic | None) -> None:
    """Refuse to change or delete a topic that is not the clients' business.

    `topic` is its Topic object, or None for a topic that has none. Raises KafkaError(POLICY_VIOLATION).
    """
    policy = view.cluster.kafka_admin if view.cluster is not None else "All"
    if policy == "All" or (policy == "CreatedByKafka" and topic is not None and topic.created_by_kafka_admin):
        return
    why = (
        "Kafka clients may not change topics of this cluster"
        if policy == "None"
        else "Kafka clients may change only topics that a Kafka client created"
    )
    raise KafkaError(
        ErrorCode.POLICY_VIOLATION, f"{why} (kafkaAdmin: {policy}); change its Topic resource instead"
    )


def check_defaults(view: ClusterCache) -> None:
    """Refuse to change defaults of topics where some topics are not the clients' business.

    Raises KafkaError(POLICY_VIOLATION).
    """
    policy = view.cluster.kafka_admin if view.cluster is not None else "All"
    if policy != "All":
        raise KafkaError(
            ErrorCode.POLICY_VIOLATION,
            f"Kafka clients may not change defaults of topics (kafkaAdmin: {policy}), because they apply to all of them; "
            "change spec.config of the Cluster resource instead",
        )
