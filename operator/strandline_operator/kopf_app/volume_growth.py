"""Enlarges the claims of a Cluster's volumes, as `kubernetes.volumes` decides."""

from __future__ import annotations

import logging
from collections.abc import Callable

from strandline_broker.cluster.model import CLUSTER, LABEL_CLUSTER, Object
from strandline_operator.controller.actions import Notice
from strandline_operator.controller.conditions import Reason, Trouble
from strandline_operator.kubernetes.blueprint import Blueprint
from strandline_operator.kubernetes.client import KubernetesClient
from strandline_operator.kubernetes.volumes import growth, names_of

logger = logging.getLogger(__name__)


async def grow_volumes(
    client: KubernetesClient, blueprint: Blueprint, notify: Callable[[Notice], None]
) -> tuple[Trouble, ...]:
    """Enlarge what may be enlarged; return what is in the way. Raises ApiRefusal, Unavailable."""
    labels = {LABEL_CLUSTER: blueprint.name}
    claims, _ = await client.list("PersistentVolumeClaim", blueprint.namespace, labels)
    names = {claim["spec"].get("storageClassName") or "" for claim in claims} - {""}
    classes: dict[str, Object | None] = {}
    found = growth(blueprint, claims, classes)
    if found.fixed:
        classes = {name: await client.get("StorageClass", "", name) for name in sorted(names)}
        found = growth(blueprint, claims, classes)
    for claim in found.enlarge:
        patch = {
            "metadata": {"uid": claim["metadata"]["uid"]},
            "spec": {"resources": {"requests": {"storage": found.size}}},
        }
        name = claim["metadata"]["name"]
        await client.merge("PersistentVolumeClaim", blueprint.namespace, name, patch)
        logger.info("enlarged PersistentVolumeClaim %s/%s to %s", blueprint.namespace, name, found.size)
    if found.enlarge:
        message = f"volumes grow to {found.size}: {names_of(found.enlarge)}"
        notify(Notice(CLUSTER, blueprint.name, "VolumesGrow", message))
    troubles = []
    if found.fixed:
        message = (
            f"the storage class does not let volumes grow to {found.size}: {names_of(found.fixed)}; set "
            "allowVolumeExpansion in it if its driver can do that"
        )
        troubles.append(Trouble(Reason.VOLUMES_CANNOT_GROW, message, stalled=True, ready=True))
    if found.pending or found.enlarge:
        message = f"volumes grow to {found.size}: {names_of((*found.pending, *found.enlarge))}"
        troubles.append(Trouble(Reason.VOLUMES_GROWING, message, ready=True))
    return tuple(troubles)
