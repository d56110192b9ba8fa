"""What an API server does to an object before it stores it, as pure functions.

Embedded stores use it, so that what works on them works on Kubernetes: metadata that only the server sets,
generation, the status subresource, finalizers, size. The Kubernetes client uses the checks, to say the same in the same
words. Not for callers of a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from . import json_patch
from .model import KINDS, LEASE, Object, is_object_name
from .store import Conflict, Difference, Invalid, Operation, Subresource, Test, Validator

# etcd refuses requests above 1.5 MiB; an object must fit with room for managedFields.
MAX_OBJECT_BYTES: Final = 1_000_000
# Metadata that the server alone sets.
_SERVER_FIELDS: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
)


def check_kind(kind: str) -> None:
    """Raise Invalid for a kind that no store holds."""
    if kind not in KINDS:
        raise Invalid(f"there is no kind {kind}; known are {', '.join(KINDS)}")


def check_tests(kind: str, obj: Object, uid: str, tests: Sequence[Test]) -> None:
    """Raise Conflict if the UID differs or a test fails; Invalid if a test is no JSON pointer."""
    metadata = obj["metadata"]
    if metadata["uid"] != uid:
        # Another object under the same name: what its fields say does not matter.
        raise Conflict(kind, metadata["name"], [Difference("/metadata/uid", uid, metadata["uid"])])
    try:
        failed = json_patch.failed_tests(obj, tests)
    except json_patch.PatchError as error:
        raise Invalid(str(error)) from error
    if failed:
        raise Conflict(kind, metadata["name"], [Difference(*difference) for difference in failed])


def check_subresource(kind: str, subresource: Subresource | None) -> None:
    """Raise Invalid for a subresource that the kind does not have."""
    if subresource is not None and not (subresource == "status" and KINDS[kind].status):
        raise Invalid(f"{kind} has no subresource {subresource}")


def check_new(kind: str, obj: Object) -> None:
    """Raise Invalid if no server would take `obj` as a new object of `kind`, whatever its schema says."""
    check_kind(kind)
    _check_envelope(kind, obj)
    metadata = obj["metadata"]
    if not is_object_name(metadata["name"]):
        raise Invalid(f"{metadata['name']!r} is no object name: lower case letters, digits, '-' and '.' only")
    if metadata.get("resourceVersion"):
        raise Invalid("resourceVersion must not be set on an object to be created")


def created(kind: str, obj: Object, *, uid: str, now: str, validator: Validator | None) -> Object:
    """Return the object to store for a create, without its version. Raises Invalid."""
    check_new(kind, obj)
    result: Object = json_patch.copied(obj)
    info = KINDS[kind]
    metadata = result["metadata"]
    for field in _SERVER_FIELDS:
        if field not in ("name", "namespace"):
            metadata.pop(field, None)
    metadata["uid"] = uid
    metadata["creationTimestamp"] = now
    if info.generation:
        metadata["generation"] = 1
    if info.status:
        result.pop("status", None)
    if kind == LEASE:
        # A typed kind: the API server writes out every part that is no pointer.
        result.setdefault("spec", {})
    if validator is not None:
        validator(kind, result, None)
    return result


def apply_operations(kind: str, obj: Object, operations: Sequence[Operation]) -> Object:
    """Return `obj` with the operations applied. Raises Invalid, and Conflict for a `test` among them."""
    try:
        result: Object = json_patch.apply(obj, operations)
    except json_patch.FailedTestError as error:
        difference = Difference(error.path, error.expected, error.actual)
        raise Conflict(kind, obj["metadata"]["name"], [difference]) from error
    except json_patch.PatchError as error:
        raise Invalid(str(error)) from error
    return result


def patched(
    kind: str,
    old: Object,
    operations: Sequence[Operation],
    subresource: Subresource | None,
    validator: Validator | None,
) -> Object | None:
    """Return the object to store for a patch whose tests hold, or None when it changes nothing.

    Raises Invalid, and Conflict for a `test` among the operations.
    """
    info = KINDS[kind]
    check_subresource(kind, subresource)
    result = apply_operations(kind, old, operations)
    if subresource == "status":
        status = result.get("status")
        result = json_patch.copied(old)
        _set_or_drop(result, "status", status)
    elif info.status:
        _set_or_drop(result, "status", json_patch.copied(old.get("status")))
    _check_envelope(kind, result)
    _check_metadata_change(old["metadata"], result["metadata"])
    if validator is not None:
        validator(kind, result, old)
    if json_patch.equal(old, result):
        return None
    if info.generation and not json_patch.equal(_counted(kind, old), _counted(kind, result)):
        result["metadata"]["generation"] = old["metadata"]["generation"] + 1
    return result


def marked_for_deletion(kind: str, old: Object, now: str) -> Object | None:
    """Return the object as it waits for its finalizers, or None when it waits already."""
    if old["metadata"].get("deletionTimestamp"):
        return None
    result: Object = json_patch.copied(old)
    result["metadata"]["deletionTimestamp"] = now
    if KINDS[kind].generation:
        # As the API server does: the controller has something new to observe.
        result["metadata"]["generation"] += 1
    return result


def is_finished(obj: Object) -> bool:
    """Return whether nothing keeps an object whose deletion was requested."""
    metadata = obj["metadata"]
    return bool(metadata.get("deletionTimestamp")) and not metadata.get("finalizers")


def _set_or_drop(obj: Object, key: str, value: Any) -> None:
    if value is None:
        obj.pop(key, None)
    else:
        obj[key] = value


def _counted(kind: str, obj: Object) -> Object:
    skipped = {"metadata", "status"} if KINDS[kind].status else {"metadata"}
    return {key: value for key, value in obj.items() if key not in skipped}


def _check_envelope(kind: str, obj: Object) -> None:
    if obj.get("kind") != kind or obj.get("apiVersion") != KINDS[kind].api_version:
        found = f"{obj.get('apiVersion')} {obj.get('kind')}"
        raise Invalid(f"expected {KINDS[kind].api_version} {kind}, found {found}")
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise Invalid(f"a {kind} needs metadata.name")
    for field in ("labels", "annotations"):
        values = metadata.get(field) or {}
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise Invalid(f"metadata.{field} must map strings to strings; put numbers in quotes")
    finalizers = metadata.get("finalizers") or []
    if not isinstance(finalizers, list) or not all(isinstance(entry, str) for entry in finalizers):
        raise Invalid("metadata.finalizers must be a list of strings")


def _check_metadata_change(old: dict[str, Any], new: dict[str, Any]) -> None:
    for field in _SERVER_FIELDS:
        if old.get(field) != new.get(field):
            raise Invalid(f"metadata.{field} is set by the store alone")
    if old.get("deletionTimestamp") and set(new.get("finalizers") or ()) - set(old.get("finalizers") or ()):
        raise Invalid("no finalizer can be added to an object that is being deleted")
