"""Volumes that grow with their Cluster. Pure.

The claims in a StatefulSet's template cannot change, so each broker's claim is enlarged by itself, those included that are
made from the old template later. Volumes never shrink; the CRD refuses that already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from strandline_broker.cluster.model import Object
from strandline_operator.kubernetes.blueprint import Blueprint
from strandline_operator.kubernetes.stateful_set import DEFAULT_SIZE, VOLUME
from strandline_operator.validation.quantity import parse_quantity

_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Growth:
    """What to do about a Cluster's claims.

    `enlarge`: claims whose request is to become `size`. `fixed`: those whose class does not let them grow. `pending`: those
    that asked for more than they have yet.
    """

    size: str
    enlarge: tuple[Object, ...] = ()
    fixed: tuple[Object, ...] = ()
    pending: tuple[Object, ...] = ()


def wanted_size(blueprint: Blueprint) -> str:
    """Return how large volumes are to be, as a Kubernetes quantity."""
    size: str = (blueprint.cluster.spec.get("storage") or {}).get("size", DEFAULT_SIZE)
    return size


def growth(blueprint: Blueprint, claims: Iterable[Object], classes: Mapping[str, Object | None]) -> Growth:
    """Return what differs from the wanted size; `classes` are the StorageClasses that the claims name."""
    size = wanted_size(blueprint)
    wanted = parse_quantity(size)
    enlarge, fixed, pending = [], [], []
    prefix = f"{VOLUME}-{blueprint.set_name}-"
    for claim in claims:
        if not claim["metadata"]["name"].startswith(prefix) or claim["metadata"].get("deletionTimestamp"):
            continue
        requested = parse_quantity(claim["spec"]["resources"]["requests"]["storage"])
        if requested >= wanted:
            capacity = ((claim.get("status") or {}).get("capacity") or {}).get("storage")
            if capacity is not None and parse_quantity(capacity) < requested:
                pending.append(claim)
        elif _may_grow(classes.get(claim["spec"].get("storageClassName") or "")):
            enlarge.append(claim)
        else:
            fixed.append(claim)
    return Growth(size, tuple(enlarge), tuple(fixed), tuple(pending))


def names_of(claims: Iterable[Object]) -> str:
    """Return the names of the first claims, and how many more there are."""
    names = [str(claim["metadata"]["name"]) for claim in claims]
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _may_grow(storage_class: Object | None) -> bool:
    return storage_class is not None and bool(storage_class.get("allowVolumeExpansion"))
