"""Topic objects as admin requests write and find them.

Kafka admin requests are intent, written down as Kubernetes objects (design section 3.1); the operator does
the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from strandline_broker.cluster.model import (
    CREATED_BY_KAFKA_ADMIN,
    GROUP,
    LABEL_CLUSTER,
    LABEL_CREATED_BY,
    MALFORMED,
    TOPIC,
    Object,
    Topic,
    new_object,
    topic_object_name,
)
from strandline_broker.cluster.model.names import slug
from strandline_broker.cluster.replica_assignment import ANNOTATION_REPLICA_ASSIGNMENT, format_assignment
from strandline_broker.cluster.store import ClusterStore, NotFound

# Keeps a deleted Topic object until the operator has carried out its deletion policy.
FINALIZER = f"{GROUP}/topic"


def object_names(cluster: str, topic_name: str) -> Iterator[str]:
    """Yield the names that a client-made Topic object may have; the second is for when the first is taken."""
    yield topic_object_name(topic_name)
    digest = hashlib.sha256(f"{cluster}\0{topic_name}".encode()).hexdigest()[:10]
    yield f"{slug(topic_name)}-{digest}"


def new_topic_object(
    cluster: str,
    object_name: str,
    topic_name: str,
    *,
    partitions: int,
    replicas: int,
    config: Mapping[str, str],
    assignment: Mapping[int, Sequence[int]] | None = None,
    finalizers: tuple[str, ...] = (),
) -> Object:
    """Return a Topic made on behalf of a Kafka client."""
    spec: dict[str, Any] = {"clusterRef": {"name": cluster}}
    if object_name != topic_name:
        spec["topicName"] = topic_name
    spec |= {"partitions": partitions, "replicas": replicas}
    if config:
        spec["config"] = dict(config)
    labels = {LABEL_CREATED_BY: CREATED_BY_KAFKA_ADMIN, LABEL_CLUSTER: cluster}
    annotations = {ANNOTATION_REPLICA_ASSIGNMENT: format_assignment(assignment)} if assignment else None
    return new_object(TOPIC, object_name, spec, labels=labels, annotations=annotations, finalizers=finalizers)


def read_topic(obj: Object) -> Topic | None:
    """Return a stored Topic object as a value, or None when it makes no sense."""
    try:
        return Topic.from_object(obj)
    except MALFORMED:
        return None


async def find_topic(store: ClusterStore, cluster: str, topic_name: str) -> Topic | None:
    """Return the Topic object that speaks for a Kafka topic, or None. Raises Unavailable.

    Of several the oldest, as the operator judges. Objects that users name differently are found by listing
    them all.
    """
    for name in object_names(cluster, topic_name):
        try:
            topic = read_topic(await store.get(TOPIC, name))
        except NotFound:
            continue
        if topic is not None and (topic.cluster, topic.topic_name) == (cluster, topic_name):
            return topic
    objects, _ = await store.list(TOPIC)
    found = [
        topic
        for topic in map(read_topic, objects)
        if topic is not None and (topic.cluster, topic.topic_name) == (cluster, topic_name)
    ]
    return min(found, key=lambda topic: (topic.meta.creation_timestamp, topic.uid), default=None)
