"""The bucket in a Cluster's status: conditions, and Events when one flips, from what brokers say in their Leases. Pure.

`TieringReachable` and `TieringProtected` are there wherever the Cluster has tiering, `DiskPressure` only while it lasts.
Records are safe on the brokers' volumes all the while, so only producers that are refused keep a Cluster from being ready.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from strandline_broker.cluster.model import CLUSTER
from strandline_broker.cluster.model.storage_report import (
    BUCKET_READY,
    PRODUCERS_REFUSED,
    PRODUCERS_THROTTLED,
)
from strandline_operator.controller.actions import Notice
from strandline_operator.controller.conditions import Finding, Reason, Trouble
from strandline_operator.controller.world import World

REACHABLE: Final = "TieringReachable"
PROTECTED: Final = "TieringProtected"
DISK_PRESSURE: Final = "DiskPressure"
POSITIVE: Final = (REACHABLE, PROTECTED)
"""Conditions that are as they should be while they hold."""

_THROTTLED: Final = "ProducersThrottled"
_NAMED_BROKERS: Final = 5
# What Kubernetes takes for a reason; those of a bucket's refusals are words of its server.
_REASON: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]{0,100}[A-Za-z0-9_])?", re.ASCII)


def bucket_findings(world: World) -> list[Finding]:
    """Return the conditions."""
    found = []
    if world.cluster is not None and world.cluster.spec.get("tiering"):
        found += [_reachable(world), _protected(world)]
    return found + list(_disk_pressure(world))


def bucket_troubles(world: World) -> list[Trouble]:
    """Return what keeps the Cluster from being ready."""
    return [
        Trouble(Reason.PRODUCERS_REFUSED, finding.message, own_condition=False)
        for finding in _disk_pressure(world)
        if finding.reason == Reason.PRODUCERS_REFUSED
    ]


def _reachable(world: World) -> Finding:
    reports = {broker_id: report for broker_id, report in sorted(world.storage.items()) if report.bucket}
    if not reports:
        return _not_known(REACHABLE)
    failing = [broker_id for broker_id, report in reports.items() if report.bucket != BUCKET_READY]
    if not failing:
        guarded = all(report.conditional_writes for report in reports.values())
        message = (
            f"the bucket answers {brokers(reports)}; it {'honours' if guarded else 'ignores'} conditional writes"
            f"{'' if guarded else ' (which safety does not need)'}"
        )
        return Finding(REACHABLE, "BucketAnswers", message, holds=True)
    first = reports[failing[0]]
    since = min((reports[one].away_since for one in failing if reports[one].away_since), default="")
    message = (
        f"{brokers(failing)} cannot use the bucket{f' since {since}' if since else ''} ({first.message}). Records stay on "
        "the volumes until it answers: look after the bucket, spec.tiering, its credentials and the network"
    )
    reason = first.bucket if _REASON.fullmatch(first.bucket) else "Refused"
    return Finding(REACHABLE, reason, message, holds=False)


def _protected(world: World) -> Finding:
    reports = dict(sorted(world.storage.items()))
    if not any(report.bucket for report in reports.values()):
        return _not_known(PROTECTED)
    stuck = [broker_id for broker_id, report in reports.items() if report.stuck]
    late = [broker_id for broker_id, report in reports.items() if report.unprotected_since]
    sentences = []
    if stuck:
        count = sum(reports[one].stuck for one in stuck)
        sentences.append(
            f"{count} partitions led by {brokers(stuck)} are not tiered any more, because log and bucket contradict each "
            "other: /v1/partitions of these brokers says how"
        )
    if late:
        since = min(reports[one].unprotected_since for one in late)
        sentences.append(
            f"{brokers(late)} should have put records of {since} into the bucket by now: if it answers, raise "
            "tiering_uploads_max or tiering_upload_max_bytes_per_second, and look at the problems in /v1/partitions"
        )
    if sentences:
        reason = "PartitionsStuck" if stuck else "UploadsLate"
        return Finding(PROTECTED, reason, "; ".join(sentences), holds=False)
    return Finding(PROTECTED, "UploadsInTime", "what is sealed is in the bucket in time", holds=True)


def _not_known(kind: str) -> Finding:
    return Finding(kind, Reason.WAITING_FOR_BROKERS, "no broker has tried the bucket yet", holds=None)


def _disk_pressure(world: World) -> Iterator[Finding]:
    levels = {
        level: [broker_id for broker_id, report in sorted(world.storage.items()) if report.producers == level]
        for level in (PRODUCERS_REFUSED, PRODUCERS_THROTTLED)
    }
    sentences = [
        f"producers are {words} by {brokers(levels[level])}"
        for level, words in ((PRODUCERS_REFUSED, "refused"), (PRODUCERS_THROTTLED, "slowed down"))
        if levels[level]
    ]
    if sentences:
        message = (
            f"{' and '.join(sentences)}, because volumes fill with what is not in the bucket: bring the bucket back, let "
            "uploads be faster, or enlarge spec.storage.size"
        )
        reason = Reason.PRODUCERS_REFUSED if levels[PRODUCERS_REFUSED] else _THROTTLED
        yield Finding(DISK_PRESSURE, reason, message, holds=True)


def bucket_notices(
    cluster_name: str, previous: Iterable[Mapping[str, Any]], findings: Sequence[Finding]
) -> tuple[Notice, ...]:
    """Return what people should learn where conditions differ from the `previous` ones."""
    before = {condition.get("type"): condition for condition in previous}
    notices = []
    for finding in findings:
        former = before.get(finding.kind) or {}
        if finding.kind in POSITIVE:
            news = finding.holds is False or (finding.holds is True and former.get("status") == "False")
            news &= former.get("status") != str(finding.holds)
            bad = finding.holds is False
        else:
            news, bad = former.get("reason") != finding.reason, True
        if news:
            notices.append(
                Notice(CLUSTER, cluster_name, _event(finding.kind, bad=bad), finding.message, warning=bad)
            )
    if DISK_PRESSURE in before and all(finding.kind != DISK_PRESSURE for finding in findings):
        message = "there is room on the volumes again, producers write as they like"
        notices.append(Notice(CLUSTER, cluster_name, _event(DISK_PRESSURE, bad=False), message))
    return tuple(notices)


def _event(kind: str, *, bad: bool) -> str:
    names = {
        REACHABLE: ("BucketUnreachable", "BucketReachable"),
        PROTECTED: ("RecordsUnprotected", "RecordsProtected"),
        DISK_PRESSURE: ("DiskPressure", "DiskPressureOver"),
    }
    return names[kind][0 if bad else 1]


def brokers(ids: Iterable[int]) -> str:
    """Name brokers: `broker 1`, `brokers 0 and 2`, `brokers 0, 1, 2, 3, 4 and 7 more`."""
    listed = list(ids)
    names = [str(broker_id) for broker_id in listed[:_NAMED_BROKERS]]
    if len(listed) > _NAMED_BROKERS:
        names.append(f"{len(listed) - _NAMED_BROKERS} more")
    if len(names) == 1:
        return f"broker {names[0]}"
    return f"brokers {', '.join(names[:-1])} and {names[-1]}"
