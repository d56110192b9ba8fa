"""Read-only views of what users declare: the Cluster and Topic custom resources.

The CRDs in `crds/` define both completely; these views hold what operator and brokers decide by. Defaults are
those of the CRDs, so that a view reads the same before and after the API server filled them in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .kinds import CREATED_BY_KAFKA_ADMIN, LABEL_CREATED_BY, Object, ObjectMeta


@dataclass(frozen=True, slots=True)
class Topic:
    """A Topic object.

    `topic_name` is the name that Kafka clients use; `config` holds only what the user set.
    """

    meta: ObjectMeta
    cluster: str
    topic_name: str
    partitions: int
    replicas: int
    config: dict[str, str]
    deletion_policy: str
    deletion_grace_period: str
    status: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the object."""
        return self.meta.name

    @property
    def uid(self) -> str:
        """UID of the object."""
        return self.meta.uid

    @property
    def resource_version(self) -> str:
        """Version of the object."""
        return self.meta.resource_version

    @property
    def deleting(self) -> bool:
        """Whether deletion of the object was requested and waits for finalizers."""
        return self.meta.deletion_timestamp is not None

    @property
    def created_by_kafka_admin(self) -> bool:
        """Whether a Kafka client made it."""
        return self.meta.labels.get(LABEL_CREATED_BY) == CREATED_BY_KAFKA_ADMIN

    @classmethod
    def from_object(cls, obj: Object) -> Topic:
        """Read a Topic. Raises KeyError, TypeError or ValueError on another shape."""
        meta, spec = ObjectMeta.from_object(obj), obj["spec"]
        return cls(
            meta=meta,
            cluster=spec["clusterRef"]["name"],
            topic_name=spec.get("topicName") or meta.name,
            partitions=spec.get("partitions", 1),
            replicas=spec.get("replicas", 1),
            config=dict(spec.get("config") or {}),
            deletion_policy=spec.get("deletionPolicy", "Retain"),
            deletion_grace_period=spec.get("deletionGracePeriod", "24h"),
            status=obj.get("status") or {},
        )


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Cluster object.

    `config` holds the cluster's defaults for topic configurations; `spec` is all of it.
    """

    meta: ObjectMeta
    replicas: int
    flush: str
    kafka_admin: str
    config: dict[str, str]
    deletion_policy: str
    spec: dict[str, Any]
    status: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the object."""
        return self.meta.name

    @property
    def uid(self) -> str:
        """UID of the object."""
        return self.meta.uid

    @property
    def resource_version(self) -> str:
        """Version of the object."""
        return self.meta.resource_version

    @property
    def flush_replicated(self) -> bool:
        """Whether brokers acknowledge from page cache (`flush: Replicated`)."""
        return self.flush == "Replicated"

    @classmethod
    def from_object(cls, obj: Object) -> Cluster:
        """Read a Cluster. Raises KeyError, TypeError or ValueError on another shape."""
        spec = obj["spec"]
        return cls(
            meta=ObjectMeta.from_object(obj),
            replicas=spec.get("replicas", 3),
            flush=spec.get("flush", "Fsync"),
            kafka_admin=spec.get("kafkaAdmin", "All"),
            config=dict(spec.get("config") or {}),
            deletion_policy=spec.get("deletionPolicy", "Retain"),
            spec=spec,
            status=obj.get("status") or {},
        )
