"""What happens to a Cluster's records when the Cluster object is deleted.

Kubernetes itself removes what the Cluster owns: pods, Services, configuration. Volumes and cluster state are owned by
nobody: `deletionPolicy: Retain` leaves them, so that a Cluster that is applied again finds them; `Delete` removes them
here. Nothing waits for ever: after `DEADLINE_S` the object is let go, and an Event says what may be left.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from strandline_broker.cluster.kubernetes_errors import ApiRefusal
from strandline_broker.cluster.model import (
    CLUSTER,
    CLUSTER_STATE,
    LABEL_CLUSTER,
    LEASE,
    PARTITION_SET,
    Object,
)
from strandline_broker.cluster.store import Unavailable
from strandline_operator.controller.actions import Notice
from strandline_operator.kopf_app.events import EventPoster
from strandline_operator.kubernetes.client import KubernetesClient

logger = logging.getLogger(__name__)

DEADLINE_S: Final = 25.0
_LOOK_INTERVAL_S: Final = 0.5
# In this order: without the StatefulSet nothing makes volumes anew.
_REMOVED: Final = ("StatefulSet", PARTITION_SET, CLUSTER_STATE, "PersistentVolumeClaim")


async def delete_cluster(client: KubernetesClient, cluster: Object, events: EventPoster) -> None:
    """Do what the Cluster's deletionPolicy says, once its daemon has ended. Raises nothing because of the API server."""
    metadata = cluster["metadata"]
    namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
    if cluster["spec"].get("deletionPolicy", "Retain") != "Delete":
        message = (
            "volumes, partitions and their records stay (deletionPolicy Retain); apply a Cluster of this name again to go "
            "on with them, or delete the PersistentVolumeClaims, PartitionSets and the ClusterState labelled "
            f"{LABEL_CLUSTER}={name} to erase them"
        )
        events.post(namespace, Notice(CLUSTER, name, "Retained", message), uid)
        return
    try:
        async with asyncio.timeout(DEADLINE_S):
            await _erase(client, namespace, name, uid)
    except TimeoutError:
        message = (
            f"not everything was removed within {DEADLINE_S:.0f} s; look for PersistentVolumeClaims, PartitionSets and "
            f"Leases labelled {LABEL_CLUSTER}={name}"
        )
        events.post(namespace, Notice(CLUSTER, name, "ErasedInPart", message, warning=True), uid)
    else:
        message = "volumes, partitions and their records are erased (deletionPolicy Delete)"
        events.post(namespace, Notice(CLUSTER, name, "Erased", message), uid)


async def _erase(client: KubernetesClient, namespace: str, name: str, uid: str) -> None:
    while True:
        try:
            if not await _is_being_deleted(client, namespace, name, uid):
                logger.warning(
                    "Cluster %s/%s is not the one that was deleted; nothing is erased", namespace, name
                )
                return
            for kind in _REMOVED:
                await _remove(client, kind, namespace, name)
            # A broker that still runs would make its Lease again.
            pods, _ = await client.list("Pod", namespace, {LABEL_CLUSTER: name})
            if not pods:
                await _remove(client, LEASE, namespace, name)
                return
        except (ApiRefusal, Unavailable) as error:
            logger.warning("erasing Cluster %s/%s, trying again: %s", namespace, name, error)
        await asyncio.sleep(_LOOK_INTERVAL_S)


async def _is_being_deleted(client: KubernetesClient, namespace: str, name: str, uid: str) -> bool:
    """Ask again before anything is destroyed: what was observed may be long ago."""
    current = await client.get(CLUSTER, namespace, name)
    return (
        current is not None
        and current["metadata"]["uid"] == uid
        and bool(current["metadata"].get("deletionTimestamp"))
        and current["spec"].get("deletionPolicy") == "Delete"
    )


async def _remove(client: KubernetesClient, kind: str, namespace: str, cluster_name: str) -> None:
    objects, _ = await client.list(kind, namespace, {LABEL_CLUSTER: cluster_name})
    for obj in objects:
        metadata = obj["metadata"]
        if not metadata.get("deletionTimestamp"):
            logger.info("erasing %s %s/%s", kind, namespace, metadata["name"])
            await client.delete(kind, namespace, metadata["name"], metadata["uid"])
