"""Rows about topics, brokers and partitions, from stored objects: what `topics`, `status` and the live table show. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from strandline_broker.cluster import transitions
from strandline_broker.cluster.internal_topics import INTERNAL_TOPICS
from strandline_broker.cluster.model import (
    MALFORMED,
    NO_LEADER,
    BrokerLease,
    Object,
    PartitionSet,
    PartitionState,
)
from strandline_operator.cli.layout import INTERNAL_LISTENER
from strandline_operator.controller.bucket_status import DISK_PRESSURE, POSITIVE, PROTECTED, REACHABLE
from strandline_operator.controller.conditions import Reason

TOPIC_COLUMNS = ("NAME", "READY", "PARTITIONS", "UNDER-REPLICATED", "OFFLINE", "UNPROTECTED", "STORED", "AGE")
BROKER_COLUMNS = ("BROKER", "STATE", "ADDRESS", "HTTP", "RACK", "LEADS")
PARTITION_COLUMNS = ("PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN-SYNC", "ELIGIBLE", "STATE")

# Conditions that only sum up others.
_SUMMARIES = ("Ready", "Reconciling", "Stalled")

Row = tuple[str, ...]


def topic_row(obj: Object, now_ms: int) -> Row:
    """Return what `kubectl get topics` would print."""
    status = obj.get("status") or {}
    return (
        obj["metadata"]["name"],
        condition(status, "Ready").get("status", "Unknown"),
        *(
            str(status.get(key, ""))
            for key in ("partitions", "underReplicated", "offline", "unprotected", "stored")
        ),
        age(obj["metadata"].get("creationTimestamp"), now_ms),
    )


def broker_row(lease: BrokerLease, leads: int, *, supervised: bool, process: bool) -> Row:
    """Return one broker.

    `supervised`: whether a supervisor runs; otherwise Leases say only what was. `process`: whether the broker's runs.
    """
    state = lease.state.value if lease.held and supervised else "stopped"
    if state != "stopped" and not process:
        state = "down"
    elif state != "stopped" and not lease.writable:
        state += ", cannot write"
    addresses = [
        f"{host}:{port}" for name, (host, port) in lease.listeners.items() if name != INTERNAL_LISTENER
    ]
    http = f"{lease.http.host}:{lease.http.port}" if lease.http else ""
    return (str(lease.broker_id), state, next(iter(addresses), ""), http, lease.rack or "", str(leads))


def partition_rows(slices: Iterable[PartitionSet]) -> list[Row]:
    """Return the partitions of a topic, in order."""
    return [
        (
            str(number),
            str(state.leader) if state.leader >= 0 else "none",
            str(state.leader_epoch),
            _ids(state.replicas),
            _ids(state.isr_ids),
            _ids(ref.broker_id for ref in state.elr),
            ", ".join(partition_state(slice_, state)),
        )
        for slice_, number, state in _partitions(slices)
    ]


def partition_objects(slices: Iterable[PartitionSet]) -> list[dict[str, Any]]:
    """Return the partitions of a topic for programs."""
    return [
        {"partition": number, **state.to_object(), "state": partition_state(slice_, state)}
        for slice_, number, state in _partitions(slices)
    ]


def partition_state(slice_: PartitionSet, state: PartitionState) -> list[str]:
    """Say what is out of order with a partition, or on its way, as far as the store shows."""
    found = []
    if state.leader == NO_LEADER:
        found.append("offline")
    if len(state.isr) < len(state.replicas) - len(state.adding):
        under_min = len(state.isr) < transitions.effective_min_isr(slice_.min_insync_replicas, state)
        found.append("under min.insync.replicas" if under_min else "under-replicated")
    if state.target:
        found.append(f"waits to move to {_ids(state.target)}")
    if transitions.is_moving(state):
        missing = [broker_id for broker_id in state.adding if broker_id not in state.isr_ids]
        found.append(f"moving to {_ids(transitions.target_of(state))}")
        if missing:
            found.append(f"waiting for {_ids(missing)}")
    return found


def reassignments(slices: Iterable[PartitionSet]) -> list[str]:
    """Return one line for each partition that moves, or waits for that."""
    return [
        f"{slice_.topic_name}-{number}: {', '.join(partition_state(slice_, state))}"
        for slice_, number, state in _partitions(slices)
        if transitions.is_reassigning(state) and not slice_.deleting
    ]


def without_topic_object(slices: Iterable[PartitionSet], topic_names: Iterable[str]) -> list[str]:
    """Return the topics that live without a Topic object, those aside that the cluster makes for itself."""
    served = {slice_.topic_name for slice_ in slices if not slice_.deleting}
    return sorted(served.difference(topic_names, INTERNAL_TOPICS))


def _partitions(slices: Iterable[PartitionSet]) -> Iterator[tuple[PartitionSet, int, PartitionState]]:
    for slice_ in sorted(slices, key=lambda s: (s.topic_name, s.slice_index)):
        for number, state in enumerate(slice_.partitions, slice_.first_partition):
            yield slice_, number, state


def _ids(broker_ids: Iterable[int]) -> str:
    return ",".join(map(str, broker_ids))


def leads(slices: Iterable[PartitionSet]) -> dict[int, int]:
    """Return how many partitions each broker leads."""
    counts: dict[int, int] = {}
    for slice_ in slices:
        if not slice_.deleting:
            for state in slice_.partitions:
                counts[state.leader] = counts.get(state.leader, 0) + 1
    return counts


def read_leases(objects: Iterable[Object]) -> list[BrokerLease]:
    """Return the brokers' Leases by id; others are passed over."""
    found = []
    for obj in objects:
        try:
            found.append(BrokerLease.from_object(obj))
        except MALFORMED:
            continue
    return sorted(found, key=lambda lease: lease.broker_id)


def condition(status: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return a condition by type; empty when it is not there."""
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})


def problems(objects: Iterable[Object]) -> list[str]:
    """Return what the conditions of objects say: why one is not ready, and what else is not as it should be."""
    lines = []
    for obj in objects:
        conditions = (obj.get("status") or {}).get("conditions") or ()
        name = f"{obj['kind']} {obj['metadata']['name']}"
        found = [c for c in conditions if c["type"] == "Ready" and c["status"] == "False"]
        said = {c["reason"] for c in found}
        found += [
            c
            for c in conditions
            if c["status"] == ("False" if c["type"] in POSITIVE else "True")
            and c["type"] not in _SUMMARIES
            and c["reason"] not in said
        ]
        lines += [f"{name}: {c['reason']}: {c['message']}" for c in found]
    return lines


def bucket_line(status: Mapping[str, Any]) -> str:
    """Say in one short line how a Cluster's bucket is; empty where it has none, or nothing is known yet."""
    reachable, protected = condition(status, REACHABLE), condition(status, PROTECTED)
    if reachable.get("status") not in ("True", "False"):
        return ""
    parts = ["answers" if reachable["status"] == "True" else f"cannot be used ({reachable['reason']})"]
    parts.append("records are in it in time" if protected.get("status") == "True" else "records are late")
    pressure = condition(status, DISK_PRESSURE)
    if pressure:
        parts.append(
            "producers are refused"
            if pressure["reason"] == Reason.PRODUCERS_REFUSED
            else "producers are slowed down"
        )
    return f"bucket: {', '.join(parts)}"


def age(created: str | None, now_ms: int) -> str:
    """Return the time since an RFC 3339 moment as kubectl shows it: 5s, 3m, 2h, 12d."""
    if not created:
        return ""
    then_ms = datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp() * 1000
    seconds = max(0, int((now_ms - then_ms) / 1000))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def format_table(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Return a table as kubectl prints it: columns three spaces apart, nothing at the ends of lines."""
    lines = [tuple(columns), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
