"""PartitionSet: the operator's working record of (a slice of) one topic's partitions.

Written by the operator, and by each partition's leader for its ISR. Readers get frozen values; changes go
through the functions of `strandline_broker.cluster.transitions` and become patches in
`strandline_broker.cluster.patches`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from .kinds import LABEL_CLUSTER, LABEL_TOPIC, PARTITION_SET, Object, new_object
from .names import partition_set_name, topic_label

# Measured: patching a PartitionSet of 100 partitions costs an API server 14 to 30 ms, one of 1,000 over 100
# ms.
SLICE_SIZE: Final = 100
NO_LEADER: Final = -1


class ReplicaRef(NamedTuple):
    """A broker together with the log generation it must have to count (design section 3.2)."""

    broker_id: int
    generation: int


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition as the store has it.

    `replicas` are broker ids in order of preference; during a reassignment they are the target followed by
    the brokers in `removing`, and those that were added stand in `adding` too. `target` are the replicas that
    a reassignment asks for which has not begun: the controller begins a bounded number at once. `leader` is
    -1 for none. `leader_incarnation` names the start of the leader to which `leader_epoch` was given: a
    restarted leader finds another one and waits. `recovering`: an election may have lost records that the bucket holds, or
    the partition was restored from there, and no leader has said since that its log agrees with the bucket (design
    section 3.3).
    """

    replicas: tuple[int, ...]
    isr: tuple[ReplicaRef, ...]
    leader: int = NO_LEADER
    leader_epoch: int = 0
    leader_incarnation: str = ""
    partition_epoch: int = 0
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()
    elr: tuple[ReplicaRef, ...] = ()
    target: tuple[int, ...] = ()
    recovering: bool = False

    @property
    def isr_ids(self) -> tuple[int, ...]:
        """Broker ids of the ISR."""
        return tuple(ref.broker_id for ref in self.isr)

    @classmethod
    def from_object(cls, obj: dict[str, Any]) -> PartitionState:
        """Read one element of `spec.partitions`.

        Raises KeyError, TypeError or ValueError on another shape.
        """
        return cls(
            replicas=tuple(obj["replicas"]),
            adding=tuple(obj.get("adding", ())),
            removing=tuple(obj.get("removing", ())),
            leader=obj["leader"],
            leader_epoch=obj["leaderEpoch"],
            leader_incarnation=obj.get("leaderIncarnation", ""),
            partition_epoch=obj["partitionEpoch"],
            isr=tuple(_ref(entry) for entry in obj["isr"]),
            elr=tuple(_ref(entry) for entry in obj.get("elr", ())),
            target=tuple(obj.get("target", ())),
            recovering=bool(obj.get("recovering", False)),
        )

    def to_object(self) -> dict[str, Any]:
        """Return the JSON shape of one element of `spec.partitions`."""
        # What is rarely there is left out: brokers read slices of a hundred partitions again and again.
        waiting = {"target": list(self.target)} if self.target else {}
        recovering = {"recovering": True} if self.recovering else {}
        return {
            "replicas": list(self.replicas),
            "adding": list(self.adding),
            "removing": list(self.removing),
            "leader": self.leader,
            "leaderEpoch": self.leader_epoch,
            "leaderIncarnation": self.leader_incarnation,
            "partitionEpoch": self.partition_epoch,
            "isr": [_ref_object(ref) for ref in self.isr],
            "elr": [_ref_object(ref) for ref in self.elr],
            **waiting,
            **recovering,
        }


def _ref(entry: dict[str, int]) -> ReplicaRef:
    return ReplicaRef(entry["broker"], entry["generation"])


def _ref_object(ref: ReplicaRef) -> dict[str, int]:
    return {"broker": ref.broker_id, "generation": ref.generation}


@dataclass(frozen=True, slots=True)
class PartitionSet:
    """A slice of at most `SLICE_SIZE` partitions; element i is partition `slice_index * SLICE_SIZE + i`.

    `topic_epoch` guards everything outside the partitions (config, deleting, their number). Slice 0 is
    authoritative for the topic; but what decides about a partition (`min.insync.replicas` with the ISR) is
    always read from the partition's own slice, so that one object version holds all of it.
    """

    name: str
    uid: str
    resource_version: str
    cluster: str
    topic_id: UUID
    topic_name: str
    slice_index: int
    config: dict[str, str]
    deleting: bool
    topic_epoch: int
    partitions: tuple[PartitionState, ...]
    # RFC 3339; when `deleting` was set: the grace period counts from here. None while not deleting.
    deleting_since: str | None = None
    creation_timestamp: str = ""

    @property
    def first_partition(self) -> int:
        """Number of the partition at position 0."""
        return self.slice_index * SLICE_SIZE

    @property
    def min_insync_replicas(self) -> int:
        """`min.insync.replicas` as configured.

        See `transitions.effective_min_isr` for what applies to a partition.
        """
        return int(self.config.get("min.insync.replicas", "1"))

    @property
    def unclean_leader_election(self) -> bool:
        """Whether the topic allows `unclean.leader.election.enable`."""
        return self.config.get("unclean.leader.election.enable", "false").lower() == "true"

    @property
    def tierable(self) -> bool:
        """Whether the topic's records move to the bucket, where the Cluster has one (design section 7.2)."""
        compacted = "compact" in self.config.get("cleanup.policy", "delete").split(",")
        return self.config.get("remote.storage.enable", "true").lower() == "true" and not compacted

    def position_of(self, index: int) -> int:
        """Return where partition number `index` stands in `partitions`.

        Raises KeyError when it is not in here.
        """
        position = index - self.first_partition
        if not 0 <= position < len(self.partitions):
            raise KeyError(f"partition {index} of {self.topic_name} is not in {self.name}")
        return position

    def partition(self, index: int) -> PartitionState:
        """Return partition number `index`. Raises KeyError when it is not in this slice."""
        return self.partitions[self.position_of(index)]

    @classmethod
    def from_object(cls, obj: Object) -> PartitionSet:
        """Read a stored object. Raises KeyError, TypeError or ValueError on another shape."""
        metadata, spec = obj["metadata"], obj["spec"]
        return cls(
            name=metadata["name"],
            uid=metadata.get("uid", ""),
            resource_version=metadata.get("resourceVersion", ""),
            cluster=(metadata.get("labels") or {}).get(LABEL_CLUSTER, ""),
            topic_id=UUID(spec["topicId"]),
            topic_name=spec["topicName"],
            slice_index=spec["slice"],
            config=dict(spec.get("config") or {}),
            deleting=bool(spec.get("deleting", False)),
            deleting_since=spec.get("deletingSince"),
            topic_epoch=spec["topicEpoch"],
            partitions=tuple(PartitionState.from_object(entry) for entry in spec["partitions"]),
            creation_timestamp=metadata.get("creationTimestamp") or "",
        )

    def spec_object(self) -> dict[str, Any]:
        """Return the JSON shape of `spec`."""
        spec: dict[str, Any] = {
            "topicId": str(self.topic_id),
            "topicName": self.topic_name,
            "slice": self.slice_index,
            "config": dict(self.config),
            "deleting": self.deleting,
            "topicEpoch": self.topic_epoch,
            "partitions": [partition.to_object() for partition in self.partitions],
        }
        if self.deleting_since is not None:
            spec["deletingSince"] = self.deleting_since
        return spec

    def to_object(self, *, owner: Object | None = None) -> Object:
        """Return the object for `ClusterStore.create`, owned by `owner` (the stored Cluster) if given.

        UID and version, where known, are kept for caches on disk; a store refuses to create an object with a
        version.
        """
        labels = {LABEL_CLUSTER: self.cluster, LABEL_TOPIC: topic_label(self.topic_name)}
        obj = new_object(PARTITION_SET, self.name, self.spec_object(), labels=labels, owner=owner)
        if self.uid:
            obj["metadata"]["uid"] = self.uid
            obj["metadata"]["resourceVersion"] = self.resource_version
            obj["metadata"]["creationTimestamp"] = self.creation_timestamp
        return obj


def new_partition_set(
    *,
    cluster: str,
    topic_id: UUID,
    topic_name: str,
    slice_index: int,
    config: dict[str, str],
    partitions: tuple[PartitionState, ...],
) -> PartitionSet:
    """Return a PartitionSet that is not stored yet, under its canonical name.

    Raises ValueError above `SLICE_SIZE`.
    """
    if len(partitions) > SLICE_SIZE:
        raise ValueError(f"{len(partitions)} partitions in one slice; {SLICE_SIZE} is the limit")
    return PartitionSet(
        name=partition_set_name(topic_name, topic_id, slice_index),
        uid="",
        resource_version="",
        cluster=cluster,
        topic_id=topic_id,
        topic_name=topic_name,
        slice_index=slice_index,
        config=dict(config),
        deleting=False,
        topic_epoch=0,
        partitions=partitions,
    )
