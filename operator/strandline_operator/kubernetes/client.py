"""The operator's client of the API server: what goes beyond the cluster store, for the objects that Clusters consist of.

It shares transport, bounds and errors with `KubernetesStore`. Objects are plain JSON values, as builders make them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Final, NamedTuple

import orjson

from strandline_broker.cluster.kubernetes_api import JSON, KubernetesApi
from strandline_broker.cluster.kubernetes_errors import ApiRefusal, error_in_stream
from strandline_broker.cluster.kubernetes_watch import LineSplitter
from strandline_broker.cluster.model import API_VERSION, Object
from strandline_broker.cluster.store import Unavailable
from strandline_operator.kubernetes.blueprint import FIELD_MANAGER

logger = logging.getLogger(__name__)

_APPLY_PATCH: Final = "application/apply-patch+yaml"
_MERGE_PATCH: Final = "application/merge-patch+json"
_PAGE: Final = 500
_PAGE_TIMEOUT_S: Final = 30.0
_WATCH_S: Final = 300
# The API server sends a bookmark every minute.
_SILENCE_S: Final = 75.0


class Resource(NamedTuple):
    """How the API server calls a kind."""

    api_version: str
    plural: str
    namespaced: bool = True


RESOURCES: Final[dict[str, Resource]] = {
    "Cluster": Resource(API_VERSION, "clusters"),
    "ClusterState": Resource(API_VERSION, "clusterstates"),
    "ConfigMap": Resource("v1", "configmaps"),
    "Event": Resource("v1", "events"),
    "Lease": Resource("coordination.k8s.io/v1", "leases"),
    "NetworkPolicy": Resource("networking.k8s.io/v1", "networkpolicies"),
    "Node": Resource("v1", "nodes", namespaced=False),
    "PartitionSet": Resource(API_VERSION, "partitionsets"),
    "PersistentVolumeClaim": Resource("v1", "persistentvolumeclaims"),
    "Pod": Resource("v1", "pods"),
    "PodDisruptionBudget": Resource("policy/v1", "poddisruptionbudgets"),
    "Role": Resource("rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": Resource("rbac.authorization.k8s.io/v1", "rolebindings"),
    "Secret": Resource("v1", "secrets"),
    "Service": Resource("v1", "services"),
    "ServiceAccount": Resource("v1", "serviceaccounts"),
    "StatefulSet": Resource("apps/v1", "statefulsets"),
    "StorageClass": Resource("storage.k8s.io/v1", "storageclasses", namespaced=False),
    "Topic": Resource(API_VERSION, "topics"),
}


class WatchEvent(NamedTuple):
    """One line of a watch: ADDED, MODIFIED or DELETED, and the object after it."""

    type: str
    object: Object


class KubernetesClient:
    """Every method raises ApiRefusal where the server judged the request, Unavailable where the outcome is unknown.

    `namespace` None in a list or watch means all namespaces.
    """

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return the object, None if there is none."""
        try:
            found: Object = await self._api.request("GET", _path(kind, namespace, name))
        except ApiRefusal as refusal:
            if refusal.code == 404:
                return None
            raise
        return found

    async def list(
        self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> tuple[list[Object], str]:
        """Return the objects with these labels, and the version to watch from."""
        found: list[Object] = []
        query = {"limit": str(_PAGE), **_label_selector(labels)}
        while True:
            page = await self._api.request(
                "GET", _path(kind, namespace), query=query, timeout_s=_PAGE_TIMEOUT_S
            )
            # Items of a list carry neither kind nor version.
            stamp = {"apiVersion": RESOURCES[kind].api_version, "kind": kind}
            found += ({**stamp, **item} for item in page["items"])
            version: str = page["metadata"]["resourceVersion"]
            continuation = page["metadata"].get("continue")
            if not continuation:
                return found, version
            query["continue"] = continuation

    async def watch(
        self, kind: str, namespace: str | None, version: str, labels: Mapping[str, str] | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield changes after `version`. Ends at any time; raises ApiRefusal with `history_is_gone` to list again."""
        query = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_S),
            **_label_selector(labels),
        }
        lines = LineSplitter()
        stream = self._api.stream(_path(kind, namespace), query, silence_s=_SILENCE_S)
        async with contextlib.aclosing(stream) as chunks:
            async for chunk in chunks:
                for line in lines.feed(chunk):
                    if not line.strip():
                        continue
                    frame = orjson.loads(line)
                    if frame["type"] == "ERROR":
                        raise error_in_stream(frame["object"])
                    if frame["type"] != "BOOKMARK":
                        yield WatchEvent(frame["type"], frame["object"])

    async def apply(self, obj: Object) -> Object:
        """Make the object's fields so , whoever set them (server-side apply); create it if need be."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        return await self._write("PATCH", obj, query, _APPLY_PATCH, named=True)

    async def create(self, obj: Object) -> Object | None:
        """Create the object; None if there is one of that name."""
        try:
            return await self._write("POST", obj, {"fieldManager": FIELD_MANAGER}, JSON, named=False)
        except ApiRefusal as refusal:
            if refusal.reason == "AlreadyExists":
                return None
            raise

    async def _write(
        self, method: str, obj: Object, query: Mapping[str, str], content_type: str, *, named: bool
    ) -> Object:
        metadata = obj["metadata"]
        path = _path(obj["kind"], metadata.get("namespace"), metadata["name"] if named else None)
        stored: Object = await self._api.request(
            method, path, query=query, body=orjson.dumps(obj), content_type=content_type
        )
        return stored

    async def merge(self, kind: str, namespace: str, name: str, patch: Object) -> Object:
        """Merge `patch` into the object (RFC 7396). `metadata.uid` or `resourceVersion` in it are preconditions."""
        merged: Object = await self._api.request(
            "PATCH",
            _path(kind, namespace, name),
            query={"fieldManager": FIELD_MANAGER},
            body=orjson.dumps(patch),
            content_type=_MERGE_PATCH,
        )
        return merged

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> bool:
        """Delete exactly the object with this UID, what it owns in the background; False if it is gone already."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        body["propagationPolicy"] = "Background"
        try:
            await self._api.request("DELETE", _path(kind, namespace, name), body=orjson.dumps(body))
        except ApiRefusal as refusal:
            if refusal.code in (404, 409):
                return False
            raise
        return True

    async def evict(self, namespace: str, pod: str, uid: str) -> bool:
        """Evict a pod as a drain would; False if the disruption budget forbids it now, or it is another pod already.

        A budget that forbids it answers 429, as a server does that has too much to do: later is right for both.
        """
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        path = f"{_path('Pod', namespace, pod)}/eviction"
        try:
            await self._api.request("POST", path, body=orjson.dumps(body))
        except Unavailable as error:
            logger.info("pod %s/%s is not evicted now: %s", namespace, pod, error)
            return False
        except ApiRefusal as refusal:
            if refusal.code in (404, 409):
                return False
            raise
        return True

    async def close(self) -> None:
        """Close all connections; requests fail, now and later."""
        await self._api.close()


def _path(kind: str, namespace: str | None, name: str | None = None) -> str:
    resource = RESOURCES[kind]
    root = "/api/v1" if resource.api_version == "v1" else f"/apis/{resource.api_version}"
    where = f"/namespaces/{namespace}" if namespace and resource.namespaced else ""
    return f"{root}{where}/{resource.plural}" + (f"/{name}" if name else "")


def _label_selector(labels: Mapping[str, str] | None) -> dict[str, str]:
    return {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())} if labels else {}
