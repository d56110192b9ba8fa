"""How cluster objects and requests look on the wire to an API server, as pure functions.

For the Kubernetes client of the cluster store alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import orjson

from .model import KINDS, LABEL_CLUSTER, LEASE, Object
from .store import Invalid, Operation, Subresource, Test

# Go's encoder escapes these inside strings, and the API server's patch library compares strings of a `test` as encoded.
# None of them occurs in JSON outside strings.
_GO_ESCAPES: Final = tuple(
    (char.encode(), b"\\u%04x" % ord(char))
    for char in ("<", ">", "&", "\N{LINE SEPARATOR}", "\N{PARAGRAPH SEPARATOR}")
)


def collection_path(kind: str, namespace: str) -> str:
    """Return the path of all objects of a kind in a namespace."""
    info = KINDS[kind]
    return f"/apis/{info.api_version}/namespaces/{quote(namespace, safe='')}/{info.plural}"


def object_path(kind: str, namespace: str, name: str, subresource: Subresource | None = None) -> str:
    """Return the path of one object, or of its status."""
    path = f"{collection_path(kind, namespace)}/{quote(name, safe='')}"
    return f"{path}/{subresource}" if subresource else path


def selector(kind: str) -> dict[str, str]:
    """Return the query parameters that leave out what is not ours.

    Leases belong to everybody: to nodes' agents, to whoever elects a leader. Ours carry the label of their Cluster.
    """
    return {"labelSelector": LABEL_CLUSTER} if kind == LEASE else {}


def encode(value: Any) -> bytes:
    """Return JSON as Go would write it, see `patch_body`. Raises Invalid for what is not JSON."""
    try:
        body = orjson.dumps(value)
    except TypeError as error:
        raise Invalid(f"not JSON: {error}") from error
    for char, escaped in _GO_ESCAPES:
        if char in body:
            body = body.replace(char, escaped)
    return body


def patch_body(uid: str, tests: Sequence[Test], operations: Sequence[Operation]) -> bytes:
    """Return the JSON patch that tests the UID and `tests` before it applies `operations`. Raises Invalid."""
    patch: list[Operation] = [{"op": "test", "path": "/metadata/uid", "value": uid}]
    patch += ({"op": "test", "path": path, "value": expected} for path, expected in tests)
    patch += operations
    return encode(patch)


def delete_body(uid: str, version: str | None) -> bytes:
    """Return DeleteOptions that hold only for this UID and, if given, this version.

    Dependents go in the background, as with kubectl: nothing of ours waits for that.
    """
    preconditions = {"uid": uid} if version is None else {"uid": uid, "resourceVersion": version}
    return orjson.dumps(
        {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": "Background",
        }
    )


def received(kind: str, obj: Object) -> Object:
    """Return an object as the contract has it; the argument is changed.

    Items of a list of Leases come without their kind. Who manages which field is half of an object's bytes, and nobody
    here reads it.
    """
    obj["apiVersion"] = KINDS[kind].api_version
    obj["kind"] = kind
    obj["metadata"].pop("managedFields", None)
    return obj
