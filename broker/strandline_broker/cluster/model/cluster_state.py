"""ClusterState: the few facts of a cluster that belong to no topic and no broker.

Made once by the operator; operator and brokers change it by patches that test the value they read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from .kinds import CLUSTER_STATE, LABEL_CLUSTER, Object, new_object
from .names import cluster_state_name

# Key of `broker_configs` for what holds for all brokers (Kafka's empty resource name).
ALL_BROKERS: Final = "default"


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The cluster's id, next producer-id block, dynamic configs, and the topics whose data may be deleted.

    `cluster_id` is the UID of the Cluster object that the cluster began with, and stays when that is deleted and applied
    anew: clients, volumes and the bucket know the cluster by it. Empty until the operator has said it.

    `next_producer_id_block` counts blocks, see `strandline_broker.cluster.producer_ids`. `broker_configs` is
    keyed by broker id in decimal or `ALL_BROKERS`, `group_configs` by group id. Brokers delete the data of a
    topic only when its id stands in `purged_topic_ids`, never because a PartitionSet is absent.
    """

    cluster: str
    next_producer_id_block: int = 0
    broker_configs: dict[str, dict[str, str]] = field(default_factory=dict)
    group_configs: dict[str, dict[str, str]] = field(default_factory=dict)
    purged_topic_ids: tuple[UUID, ...] = ()
    cluster_id: str = ""
    uid: str = ""
    resource_version: str = ""

    @property
    def name(self) -> str:
        """Name of the object."""
        return cluster_state_name(self.cluster)

    @classmethod
    def from_object(cls, obj: Object) -> ClusterState:
        """Read a stored object. Raises KeyError, TypeError or ValueError on another shape."""
        metadata, spec = obj["metadata"], obj["spec"]
        return cls(
            cluster=(metadata.get("labels") or {}).get(LABEL_CLUSTER, metadata["name"]),
            next_producer_id_block=spec.get("nextProducerIdBlock", 0),
            broker_configs={key: dict(value) for key, value in (spec.get("brokerConfigs") or {}).items()},
            group_configs={key: dict(value) for key, value in (spec.get("groupConfigs") or {}).items()},
            purged_topic_ids=tuple(UUID(text) for text in spec.get("purgedTopicIds") or ()),
            cluster_id=spec.get("clusterId", ""),
            uid=metadata.get("uid", ""),
            resource_version=metadata.get("resourceVersion", ""),
        )

    def spec_object(self) -> dict[str, Any]:
        """Return the JSON shape of `spec`.

        Every field that may change is present, so that patches can test and replace it.
        """
        return {
            "nextProducerIdBlock": self.next_producer_id_block,
            "brokerConfigs": {key: dict(value) for key, value in self.broker_configs.items()},
            "groupConfigs": {key: dict(value) for key, value in self.group_configs.items()},
            "purgedTopicIds": [str(topic_id) for topic_id in self.purged_topic_ids],
            **({"clusterId": self.cluster_id} if self.cluster_id else {}),
        }

    def to_object(self, *, owner: Object | None = None) -> Object:
        """Return the object for `ClusterStore.create`.

        UID and version, where known, are kept for caches on disk.
        """
        labels = {LABEL_CLUSTER: self.cluster}
        obj = new_object(CLUSTER_STATE, self.name, self.spec_object(), labels=labels, owner=owner)
        if self.uid:
            obj["metadata"]["uid"] = self.uid
            obj["metadata"]["resourceVersion"] = self.resource_version
        return obj
