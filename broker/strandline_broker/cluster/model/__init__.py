"""The objects of a cluster store as frozen Python values; pure, without asyncio.

Import from here, not from the modules below. Each type reads the Kubernetes-shaped object with `from_object`
and writes it with `to_object`; a shape that is not theirs raises KeyError, TypeError or ValueError
(`MALFORMED`).
"""

from __future__ import annotations

from typing import Final

from .cluster_state import ALL_BROKERS, ClusterState
from .kinds import (
    API_VERSION,
    CLUSTER,
    CLUSTER_STATE,
    CREATED_BY_KAFKA_ADMIN,
    GROUP,
    KINDS,
    LABEL_CLUSTER,
    LABEL_CREATED_BY,
    LABEL_TOPIC,
    LEASE,
    PARTITION_SET,
    TOPIC,
    KindInfo,
    Object,
    ObjectMeta,
    new_object,
    owner_reference,
)
from .lease import BrokerIdentity, BrokerLease, BrokerPhase, Endpoint
from .names import (
    cluster_state_name,
    derive_topic_id,
    is_object_name,
    lease_name,
    partition_set_name,
    topic_label,
    topic_object_name,
)
from .partition_set import NO_LEADER, SLICE_SIZE, PartitionSet, PartitionState, ReplicaRef, new_partition_set
from .resources import Cluster, Topic
from .storage_report import StorageReport

# What `from_object` raises on an object of another shape.
MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError)

__all__ = [
    "ALL_BROKERS",
    "API_VERSION",
    "CLUSTER",
    "CLUSTER_STATE",
    "CREATED_BY_KAFKA_ADMIN",
    "GROUP",
    "KINDS",
    "LABEL_CLUSTER",
    "LABEL_CREATED_BY",
    "LABEL_TOPIC",
    "LEASE",
    "MALFORMED",
    "NO_LEADER",
    "PARTITION_SET",
    "SLICE_SIZE",
    "TOPIC",
    "BrokerIdentity",
    "BrokerLease",
    "BrokerPhase",
    "Cluster",
    "ClusterState",
    "Endpoint",
    "KindInfo",
    "Object",
    "ObjectMeta",
    "PartitionSet",
    "PartitionState",
    "ReplicaRef",
    "StorageReport",
    "Topic",
    "cluster_state_name",
    "derive_topic_id",
    "is_object_name",
    "lease_name",
    "new_object",
    "new_partition_set",
    "owner_reference",
    "partition_set_name",
    "topic_label",
    "topic_object_name",
]
