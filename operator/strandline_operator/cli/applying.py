"""Manifests into the cluster store, with what `kubectl apply` would say. Used by `strandline apply` and by `dev`.

The embedded store holds one Cluster, named `dev`: a manifest's Cluster, whatever its name, configures that one, and every
Topic belongs to it, whatever its clusterRef says. So manifests written for Kubernetes work unchanged.
"""

from __future__ import annotations

import copy
from enum import StrEnum
from typing import Any

from strandline_broker.cluster.json_patch import pointer
from strandline_broker.cluster.model import CLUSTER, TOPIC, Object
from strandline_broker.cluster.store import AlreadyExists, ClusterStore, Conflict, NotFound, Operation
from strandline_operator.cli.layout import CLUSTER_NAME
from strandline_operator.validation import Document, ManifestError, Problem, validate

_MAX_ATTEMPTS = 8
# Decided by how `strandline dev` was started, not by a manifest.
_GIVEN_BY_COMMAND_LINE = ("replicas", "flush", "tiering")


class Applied(StrEnum):
    """What became of an object."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


def localize(manifest: Object) -> Object:
    """Return the manifest as it is stored here: for the one Cluster that there is."""
    local = copy.deepcopy(manifest)
    local["metadata"].pop("namespace", None)
    if local["kind"] == CLUSTER:
        local["metadata"]["name"] = CLUSTER_NAME
    elif local["kind"] == TOPIC:
        local["spec"]["clusterRef"]["name"] = CLUSTER_NAME
    return local


async def apply_document(store: ClusterStore, document: Document) -> Applied:
    """Create or change the object that a manifest declares.

    Raises ManifestError when the change is refused (a partition decrease, say), and the store's errors.
    """
    wanted = localize(document.object)
    kind, name = wanted["kind"], wanted["metadata"]["name"]
    for _ in range(_MAX_ATTEMPTS):
        try:
            old = await store.get(kind, name)
        except NotFound:
            try:
                await store.create(kind, wanted)
            except AlreadyExists:
                continue
            return Applied.CREATED
        if old["metadata"].get("deletionTimestamp"):
            message = "is being deleted; apply it again when it is gone"
            raise ManifestError([Problem(message, "", f"{kind} {name}", document.file)])
        _keep_what_is_given(wanted, old)
        try:
            wanted = validate(wanted, old)
        except ManifestError as error:
            raise ManifestError([problem.at(document.file) for problem in error.problems]) from None
        operations = _difference(old, wanted)
        if not operations:
            return Applied.UNCHANGED
        try:
            await store.patch_if(
                kind,
                name,
                uid=old["metadata"]["uid"],
                tests=[("/spec", old["spec"]), ("/metadata/deletionTimestamp", None)],
                operations=operations,
            )
        except (Conflict, NotFound):
            continue
        return Applied.CONFIGURED
    raise ManifestError([Problem("changed all the time; try again", "", f"{kind} {name}", document.file)])


def _keep_what_is_given(wanted: Object, old: Object) -> None:
    if wanted["kind"] == CLUSTER:
        for key in _GIVEN_BY_COMMAND_LINE:
            if key in old["spec"]:
                wanted["spec"][key] = old["spec"][key]


def _difference(old: Object, wanted: Object) -> list[Operation]:
    """Return the patch: spec as declared; labels and annotations added, those of others left alone."""
    operations: list[Operation] = []
    if old["spec"] != wanted["spec"]:
        operations.append({"op": "replace", "path": "/spec", "value": wanted["spec"]})
    for field in ("labels", "annotations"):
        declared: dict[str, Any] = wanted["metadata"].get(field) or {}
        present: dict[str, Any] = old["metadata"].get(field) or {}
        missing = {key: value for key, value in declared.items() if present.get(key) != value}
        if missing and not present:
            operations.append({"op": "add", "path": pointer("metadata", field), "value": missing})
        elif missing:
            operations += [
                {"op": "add", "path": pointer("metadata", field, key), "value": value}
                for key, value in missing.items()
            ]
    return operations
