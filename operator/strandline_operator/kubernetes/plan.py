"""What to write so that a Cluster's objects become as they should be: pure, level-triggered, nothing where nothing differs.

Differences are found in two ways. A digest of what was applied last, kept in an annotation, shows that *we* want something
else, fields that are no longer wanted included. A comparison of every wanted field with the stored one shows that somebody
*else* changed it; what the API server adds by itself (defaults, status) is not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from strandline_broker.cluster.model import CLUSTER, Object
from strandline_operator.kubernetes.blueprint import checksum
from strandline_operator.validation.quantity import parse_quantity

ANNOTATION_APPLIED: Final = "strandline.io/applied"
# Kinds of which there may be fewer than before; everything else stays as long as the Cluster.
REMOVABLE: Final = ("Service", "NetworkPolicy")

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Apply:
    """Make an object so. `reason` names what differs, for the log."""

    object: Object
    reason: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete an object that the Cluster no longer needs."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """An object that stands where one of the Cluster's should be, and is not the Cluster's.

    `leaving`: it belonged to a Cluster of the same name that was deleted, and will be gone soon.
    """

    kind: str
    name: str
    leaving: bool


Step = Apply | Remove | Blocked


def key_of(obj: Object) -> Key:
    """Return what tells an object apart from the others of its namespace."""
    return obj["kind"], obj["metadata"]["name"]


def plan(desired: Sequence[Object], observed: Mapping[Key, Object], owner_uid: str) -> list[Step]:
    """Return what to do, in the order of `desired`, removals last.

    `observed` has the objects that are there: those with the Cluster's label, and those with the name of a desired one.
    """
    steps: list[Step] = []
    for obj in desired:
        existing = observed.get(key_of(obj))
        if existing is not None and not _is_owned(existing, owner_uid):
            steps.append(Blocked(*key_of(obj), leaving=_was_owned_by_cluster(existing)))
            continue
        wanted = stamped(obj)
        reason = difference(wanted, existing)
        if reason:
            steps.append(Apply(wanted, reason))
    wanted_keys = {key_of(obj) for obj in desired}
    steps += surplus(observed.values(), wanted_keys, owner_uid)
    return steps


def surplus(observed: Iterable[Object], wanted: Iterable[Key], owner_uid: str) -> list[Step]:
    """Return the removal of objects that are the Cluster's and no longer wanted."""
    keep = set(wanted)
    return [
        Remove(obj["kind"], obj["metadata"]["name"], obj["metadata"]["uid"])
        for obj in observed
        if obj["kind"] in REMOVABLE
        and key_of(obj) not in keep
        and _is_owned(obj, owner_uid)
        and not obj["metadata"].get("deletionTimestamp")
    ]


def stamped(obj: Object) -> Object:
    """Return the object with the digest of itself."""
    metadata = obj["metadata"]
    annotations = {**metadata.get("annotations", {}), ANNOTATION_APPLIED: checksum(obj)}
    return {**obj, "metadata": {**metadata, "annotations": annotations}}


def difference(wanted: Object, existing: Object | None) -> str:
    """Return what of a stamped object is not so yet; empty if nothing."""
    if existing is None:
        return "missing"
    annotations = existing["metadata"].get("annotations") or {}
    if annotations.get(ANNOTATION_APPLIED) != wanted["metadata"]["annotations"][ANNOTATION_APPLIED]:
        return "wanted otherwise"
    path = _first_difference(wanted, existing)
    return f"changed by somebody else: {path}" if path else ""


def _first_difference(wanted: Any, existing: Any, path: str = "") -> str:
    if isinstance(wanted, dict):
        if not isinstance(existing, dict):
            return path if wanted else ""
        for name, value in wanted.items():
            found = _first_difference(value, existing.get(name), f"{path}.{name}" if path else name)
            if found:
                return found
        return ""
    if isinstance(wanted, list):
        if not isinstance(existing, list) or len(wanted) != len(existing):
            return path if wanted or existing else ""
        for index, (one, other) in enumerate(zip(wanted, existing, strict=True)):
            found = _first_difference(one, other, f"{path}[{index}]")
            if found:
                return found
        return ""
    # What is empty may be left out by the API server.
    if wanted == existing or (not wanted and existing is None) or _same_quantity(wanted, existing):
        return ""
    return path


def _same_quantity(one: Any, other: Any) -> bool:
    """Say whether two texts are the same amount: the API server turns 1024Mi into 1Gi."""
    if not (isinstance(one, str | int | float) and isinstance(other, str)):
        return False
    try:
        return parse_quantity(str(one)) == parse_quantity(other)
    except ValueError:
        return False


def _is_owned(obj: Object, owner_uid: str) -> bool:
    return any(owner.get("uid") == owner_uid for owner in obj["metadata"].get("ownerReferences") or ())


def _was_owned_by_cluster(obj: Object) -> bool:
    return any(owner.get("kind") == CLUSTER for owner in obj["metadata"].get("ownerReferences") or ())
