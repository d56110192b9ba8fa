"""Rows about topics, brokers and partitions, from stored objects: what `topics`, `status` and the live table show. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from strandline_broker.cluster.model import MALFORMED, BrokerLease, Object, PartitionSet

TOPIC_COLUMNS = ("NAME", "READY", "PARTITIONS", "UNDER-REPLICATED", "OFFLINE", "UNPROTECTED", "STORED", "AGE")
BROKER_COLUMNS = ("BROKER", "STATE", "ADDRESS", "HTTP", "RACK", "LEADS")
PARTITION_COLUMNS = ("PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN-SYNC")

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


def broker_row(lease: BrokerLease, leads: int, *, running: bool) -> Row:
    """Return one broker. `running`: whether a supervisor runs; otherwise Leases say only what was."""
    state = lease.state.value if lease.held and running else "stopped"
    address = next((f"{host}:{port}" for host, port in lease.listeners.values()), "")
    http = f"{lease.http.host}:{lease.http.port}" if lease.http else ""
    return (str(lease.broker_id), state, address, http, lease.rack or "", str(leads))


def partition_rows(slices: Iterable[PartitionSet]) -> list[Row]:
    """Return the partitions of a topic, in order."""
    return [
        (
            str(number),
            str(state.leader) if state.leader >= 0 else "none",
            str(state.leader_epoch),
            ",".join(map(str, state.replicas)),
            ",".join(map(str, state.isr_ids)),
        )
        for slice_ in sorted(slices, key=lambda s: s.slice_index)
        for number, state in enumerate(slice_.partitions, slice_.first_partition)
    ]


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
    """Return one line for each object that is not ready, with the reason."""
    lines = []
    for obj in objects:
        ready = condition(obj.get("status") or {}, "Ready")
        if ready.get("status") == "False":
            lines.append(f"{obj['kind']} {obj['metadata']['name']}: {ready['reason']}: {ready['message']}")
    return lines


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
