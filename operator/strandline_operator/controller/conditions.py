"""Status conditions in the form that kubectl, Flux and Argo CD read.

`Ready`, `Reconciling` and `Stalled` are always there; a problem adds a condition of its own name while it lasts. The
transition time moves only when the status does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from strandline_operator.controller.world import format_time


class Reason(StrEnum):
    """Why something is not ready: the short list that programs may rely on."""

    READY = "Ready"
    CREATING = "Creating"
    WAITING_FOR_BROKERS = "WaitingForBrokers"
    PARTITIONS_OFFLINE = "PartitionsOffline"
    PARTITIONS_LOST = "PartitionsLost"
    PARTITIONS_UNDER_MIN_ISR = "PartitionsUnderMinIsr"
    PARTITIONS_UNDER_REPLICATED = "PartitionsUnderReplicated"
    REASSIGNING = "Reassigning"
    RESOURCE_CONFLICT = "ResourceConflict"
    INVALID_CONFIG = "InvalidConfig"
    NOT_ENOUGH_BROKERS = "NotEnoughBrokers"
    NOT_SUPPORTED = "NotSupported"
    CLUSTER_NOT_FOUND = "ClusterNotFound"
    SCALE_DOWN_REFUSED = "ScaleDownRefused"
    APPLYING = "Applying"
    PODS_NOT_RUNNING = "PodsNotRunning"
    ROLLING_UPDATE = "RollingUpdate"
    VOLUMES_GROWING = "VolumesGrowing"
    VOLUMES_CANNOT_GROW = "VolumesCannotGrow"
    INTERNAL_ERROR = "InternalError"
    PRODUCERS_REFUSED = "ProducersRefused"
    DELETING = "Deleting"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that a person may want to know; most troubles keep an object from being ready.

    `stalled`: it stays until a person changes something; otherwise the controller works on it or waits. `ready`: the
    object is ready all the same. `note`: neither does the controller work on it. `own_condition`: it also appears as a
    condition of its own, True while it lasts.
    """

    reason: Reason
    message: str
    stalled: bool = False
    ready: bool = False
    note: bool = False
    own_condition: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition that says of itself whether it holds (None: not known yet); it keeps nothing from being ready."""

    kind: str
    reason: str
    message: str
    holds: bool | None


def conditions(
    troubles: Iterable[Trouble],
    *,
    findings: Iterable[Finding] = (),
    ready_message: str,
    generation: int,
    previous: Iterable[Mapping[str, Any]],
    now_ms: int,
) -> list[dict[str, Any]]:
    """Return the conditions of an object that has these troubles; `previous` are the ones it shows now."""
    found = sorted(troubles, key=lambda t: not t.stalled)
    stalled = next((t for t in found if t.stalled), None)
    working = next((t for t in found if not (t.stalled or t.note)), None)
    first = next((t for t in found if not (t.ready or t.note)), None)
    wanted: list[tuple[str, bool | None, str, str]] = [
        (
            "Ready",
            first is None,
            first.reason if first else Reason.READY,
            first.message if first else ready_message,
        ),
        (
            "Reconciling",
            working is not None and stalled is None,
            working.reason if working and not stalled else "Done",
            working.message if working and not stalled else "",
        ),
        (
            "Stalled",
            stalled is not None,
            stalled.reason if stalled else "No",
            stalled.message if stalled else "",
        ),
    ]
    wanted += [(one.kind, one.holds, one.reason, one.message) for one in findings]
    named = {t.reason for t in found if t.own_condition}
    wanted += [
        (reason, True, reason, next(t.message for t in found if t.reason == reason and t.own_condition))
        for reason in sorted(named)
    ]
    before = {condition.get("type"): condition for condition in previous}
    return [
        {
            "type": str(kind),
            "status": _status(holds),
            "observedGeneration": generation,
            "lastTransitionTime": _transition_time(before.get(kind), _status(holds), now_ms),
            "reason": str(reason),
            "message": message,
        }
        for kind, holds, reason, message in wanted
    ]


def _status(holds: bool | None) -> str:
    return "Unknown" if holds is None else str(holds)


def _transition_time(before: Mapping[str, Any] | None, status: str, now_ms: int) -> str:
    if before is not None and before.get("status") == status:
        return str(before.get("lastTransitionTime") or format_time(now_ms))
    return format_time(now_ms)


def flipped(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Say whether a status change must not wait: a condition flipped, or another generation was observed."""
    if old.get("observedGeneration") != new.get("observedGeneration"):
        return True
    return _essence(old) != _essence(new)


def _essence(status: Mapping[str, Any]) -> set[tuple[Any, Any, Any]]:
    return {(c.get("type"), c.get("status"), c.get("reason")) for c in status.get("conditions") or ()}
