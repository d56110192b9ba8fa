"""KubernetesStore: a cluster store that is a namespace of a Kubernetes API server (design sections 3.1, 3.5).

Custom resources hold the cluster's objects, `coordination.k8s.io/v1` Leases what brokers say of themselves. Brokers and
the operator hold one each. How the contract maps to the API:

- get and list are consistent reads: no `resourceVersion` is ever sent with them.
- `patch_if` is a JSON patch that tests the UID and the fields. A failed test, an operation that cannot be applied and a
  refused schema all answer 422: the object is read again to tell which, and to say what differs.
- `delete_if` carries the UID as a precondition, and with further tests the version that they were seen to hold in.
- A watch resumes from a version. When the history is gone it says so with 410, mostly inside a stream that began with 200.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from . import kubernetes_objects as objects
from . import object_rules
from .json_patch import PatchError, parse
from .kubernetes_access import find_access
from .kubernetes_api import JSON_PATCH, KubernetesApi
from .kubernetes_errors import ApiRefusal
from .kubernetes_watch import LineSplitter, event_of, watch_error
from .model import LEASE, Object, is_object_name
from .store import (
    AlreadyExists,
    Conflict,
    Event,
    Gone,
    Invalid,
    NotFound,
    Operation,
    Subresource,
    Test,
    Unavailable,
)

logger = logging.getLogger(__name__)

Objects = list[Object]  # inside the class `list` is an operation

# Objects in one page of a list: a PartitionSet of 100 partitions has 30 KiB, and the event loop parses one page at once.
_PAGE: Final = 100
# Seconds for one page: the API server may read all of it from etcd.
_PAGE_TIMEOUT_S: Final = 30.0
# A list whose continuation expired begins again so many times, a delete whose object changed meanwhile is tried as often.
_ATTEMPTS: Final = 5
# Seconds after which the API server ends a watch: a range, so that watches that began together do not end together.
_WATCH_S: Final = (240, 360)


class KubernetesStore:
    """See `ClusterStore` for the contract. One instance belongs to one event loop.

    Several Clusters may share `namespace`. Of the Leases in it only those with the label `strandline.io/cluster` are
    listed and watched.
    """

    def __init__(self, api: KubernetesApi, namespace: str, *, rng: random.Random | None = None) -> None:
        self._api = api
        self._namespace = namespace
        self._rng = rng if rng is not None else random.SystemRandom()

    @property
    def namespace(self) -> str:
        """The namespace whose objects these are."""
        return self._namespace

    async def get(self, kind: str, name: str) -> Object:
        """See `ClusterStore.get`."""
        path = self._path(kind, name)
        try:
            return objects.received(kind, await self._api.request("GET", path))
        except ApiRefusal as refusal:
            raise _translated(kind, name, refusal) from None

    async def list(self, kind: str) -> tuple[list[Object], str]:
        """See `ClusterStore.list`."""
        object_rules.check_kind(kind)
        for _ in range(_ATTEMPTS):
            try:
                return await self._list_pages(kind)
            except ApiRefusal as refusal:
                if not refusal.history_is_gone:
                    raise Unavailable(f"{kind} cannot be listed: {refusal}") from None
                logger.info("the list of %s begins again, its continuation expired", kind)
        raise Unavailable(f"the list of {kind} expired {_ATTEMPTS} times before its end")

    async def _list_pages(self, kind: str) -> tuple[Objects, str]:
        found: Objects = []
        query = {"limit": str(_PAGE), **objects.selector(kind)}
        while True:
            page = await self._api.request(
                "GET",
                objects.collection_path(kind, self._namespace),
                query=query,
                timeout_s=_PAGE_TIMEOUT_S,
            )
            found += (objects.received(kind, obj) for obj in page["items"])
            # All pages show the state at one version.
            version: str = page["metadata"]["resourceVersion"]
            continuation = page["metadata"].get("continue")
            if not continuation:
                return sorted(found, key=_name), version
            query["continue"] = continuation

    async def watch(self, kind: str, version: str) -> AsyncGenerator[Event, None]:
        """See `ClusterStore.watch`.

        Ends after some minutes, when the connection breaks, and when nothing came for longer than `ApiLimits` says.
        """
        object_rules.check_kind(kind)
        if not (version.isascii() and version.isdigit()):
            raise Gone(f"{version!r} is no version of an API server")
        query = {
            "watch": "1",
            "resourceVersion": version,
            # They keep quiet connections from looking dead. Nobody resumes from one.
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(self._rng.randint(*_WATCH_S)),
            **objects.selector(kind),
        }
        lines = LineSplitter()
        limits = self._api.limits
        silence_s = limits.lease_silence_s if kind == LEASE else limits.watch_silence_s
        chunks = self._api.stream(objects.collection_path(kind, self._namespace), query, silence_s=silence_s)
        try:
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    for line in lines.feed(chunk):
                        event = event_of(kind, line)
                        if event is not None:
                            yield event
        except ApiRefusal as refusal:
            raise watch_error(kind, refusal) from None

    async def create(self, kind: str, obj: Object) -> Object:
        """See `ClusterStore.create`."""
        object_rules.check_new(kind, obj)
        name = obj["metadata"]["name"]
        path = objects.collection_path(kind, self._namespace)
        try:
            created = await self._api.request("POST", path, query=_STRICT, body=objects.encode(obj))
        except ApiRefusal as refusal:
            if refusal.reason == "AlreadyExists":
                raise AlreadyExists(f"{kind} {name} exists already") from None
            if refusal.code in (404, 409):
                raise Unavailable(f"{kind} {name} cannot be created now: {refusal}") from None
            raise Invalid(str(refusal)) from None
        return objects.received(kind, created)

    async def patch_if(
        self,
        kind: str,
        name: str,
        *,
        uid: str,
        tests: Sequence[Test],
        operations: Sequence[Operation],
        subresource: Subresource | None = None,
    ) -> Object:
        """See `ClusterStore.patch_if`."""
        path = self._path(kind, name, subresource)
        _check_pointers(tests)
        body = objects.patch_body(uid, tests, operations)
        try:
            patched = await self._api.request(
                "PATCH", path, query=_STRICT, body=body, content_type=JSON_PATCH
            )
        except ApiRefusal as refusal:
            if refusal.code not in (409, 422):
                raise _translated(kind, name, refusal) from None
            # Raises NotFound, or Conflict with what differs, or Invalid with what cannot be applied.
            current = await self.get(kind, name)
            object_rules.check_tests(kind, current, uid, tests)
            if refusal.not_applied:
                object_rules.apply_operations(kind, current, operations)
            if refusal.code == 409 or refusal.not_applied:
                # It differed for a moment; or other writers were always faster.
                raise Conflict(kind, name, ()) from None
            raise Invalid(str(refusal)) from None
        return objects.received(kind, patched)

    async def delete_if(self, kind: str, name: str, *, uid: str, tests: Sequence[Test] = ()) -> None:
        """See `ClusterStore.delete_if`."""
        path = self._path(kind, name)
        _check_pointers(tests)
        for _ in range(_ATTEMPTS):
            version = None
            if tests:
                current = await self.get(kind, name)
                object_rules.check_tests(kind, current, uid, tests)
                version = current["metadata"]["resourceVersion"]
            try:
                await self._api.request("DELETE", path, body=objects.delete_body(uid, version))
            except ApiRefusal as refusal:
                if refusal.code != 409:
                    raise _translated(kind, name, refusal) from None
                # Another UID, or another version, in which the tests may hold as well.
                object_rules.check_tests(kind, await self.get(kind, name), uid, tests)
            else:
                return
        raise Conflict(kind, name, ())

    async def close(self) -> None:
        """See `ClusterStore.close`."""
        await self._api.close()

    def _path(self, kind: str, name: str, subresource: Subresource | None = None) -> str:
        object_rules.check_kind(kind)
        object_rules.check_subresource(kind, subresource)
        if not is_object_name(name):
            raise NotFound(f"there is no {kind} {name!r}: no object can have that name")
        return objects.object_path(kind, self._namespace, name, subresource)


# A field that the schema does not know is refused, not dropped: what a newer version of us writes into an older schema
# must not lose half of its meaning.
_STRICT: Final = {"fieldValidation": "Strict"}


async def open_kubernetes_store(namespace: str | None, kubeconfig: str | None = None) -> KubernetesStore:
    """Return a store for `namespace`, by default the one of the service account or the kubeconfig's context.

    The API server is found as `kubernetes_access.find_access` says; it need not answer yet. Raises AccessError.
    """
    access = find_access(kubeconfig)
    return KubernetesStore(KubernetesApi(access), namespace or access.namespace)


def _translated(kind: str, name: str, refusal: ApiRefusal) -> NotFound | Conflict | Invalid:
    if refusal.code == 404:
        return NotFound(f"there is no {kind} {name}")
    if refusal.code == 409:
        return Conflict(kind, name, ())
    return Invalid(str(refusal))


def _check_pointers(tests: Sequence[Test]) -> None:
    try:
        for path, _ in tests:
            parse(path)
    except PatchError as error:
        raise Invalid(str(error)) from error


def _name(obj: dict[str, Any]) -> str:
    name: str = obj["metadata"]["name"]
    return name
