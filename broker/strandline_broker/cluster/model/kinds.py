"""The kinds of objects in a cluster store, and what Kubernetes-shaped objects have in common.

Everybody who reads or writes cluster objects may use it. Pure: no input or output, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

# A Kubernetes-shaped object: apiVersion, kind, metadata, spec, status as nested JSON values.
Object = dict[str, Any]

GROUP: Final = "strandline.io"
API_VERSION: Final = f"{GROUP}/v1alpha1"

CLUSTER: Final = "Cluster"
TOPIC: Final = "Topic"
PARTITION_SET: Final = "PartitionSet"
LEASE: Final = "Lease"
CLUSTER_STATE: Final = "ClusterState"

LABEL_CLUSTER: Final = f"{GROUP}/cluster"
LABEL_TOPIC: Final = f"{GROUP}/topic"
LABEL_CREATED_BY: Final = f"{GROUP}/created-by"
CREATED_BY_KAFKA_ADMIN: Final = "kafka-admin"


@dataclass(frozen=True, slots=True)
class KindInfo:
    """How the API server treats one kind.

    `generation`: the server counts changes outside metadata (and outside status, where that is a
    subresource), as it does for custom resources but not for Leases. `status`: the kind has a status
    subresource, so ordinary writes leave status alone and status writes leave everything else alone.
    """

    api_version: str
    plural: str
    generation: bool
    status: bool


KINDS: Final[dict[str, KindInfo]] = {
    CLUSTER: KindInfo(API_VERSION, "clusters", generation=True, status=True),
    TOPIC: KindInfo(API_VERSION, "topics", generation=True, status=True),
    PARTITION_SET: KindInfo(API_VERSION, "partitionsets", generation=True, status=False),
    LEASE: KindInfo("coordination.k8s.io/v1", "leases", generation=False, status=False),
    CLUSTER_STATE: KindInfo(API_VERSION, "clusterstates", generation=True, status=False),
}


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """The part of `metadata` that decisions read.

    Objects that were never stored have an empty uid and version.
    """

    name: str
    uid: str
    resource_version: str
    generation: int
    creation_timestamp: str
    deletion_timestamp: str | None
    labels: dict[str, str]
    annotations: dict[str, str]
    finalizers: tuple[str, ...]

    @classmethod
    def from_object(cls, obj: Object) -> ObjectMeta:
        """Read `obj["metadata"]`. Raises KeyError without a name."""
        metadata = obj["metadata"]
        return cls(
            name=metadata["name"],
            uid=metadata.get("uid", ""),
            resource_version=metadata.get("resourceVersion", ""),
            generation=metadata.get("generation", 0),
            creation_timestamp=metadata.get("creationTimestamp") or "",
            deletion_timestamp=metadata.get("deletionTimestamp"),
            labels=dict(metadata.get("labels") or {}),
            annotations=dict(metadata.get("annotations") or {}),
            finalizers=tuple(metadata.get("finalizers") or ()),
        )


def new_object(
    kind: str,
    name: str,
    spec: dict[str, Any],
    *,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    owner: Object | None = None,
    finalizers: tuple[str, ...] = (),
) -> Object:
    """Return an object of `kind` ready for `ClusterStore.create`.

    Empty parts are left out (GitOps tools diff them).
    """
    metadata: dict[str, Any] = {"name": name}
    if labels:
        metadata["labels"] = dict(labels)
    if annotations:
        metadata["annotations"] = dict(annotations)
    if finalizers:
        metadata["finalizers"] = list(finalizers)
    if owner is not None:
        metadata["ownerReferences"] = [owner_reference(owner)]
    return {"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": metadata, "spec": spec}


def owner_reference(owner: Object) -> dict[str, Any]:
    """Return the ownerReference to a stored object.

    It documents the relation and lets `kubectl delete --cascade` work. Nothing may depend on garbage
    collection: the embedded store has none.
    """
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }
