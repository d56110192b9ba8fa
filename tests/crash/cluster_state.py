"""What the cluster store of a `strandline dev` says right now. For tests that need to know who leads.

Reads the SQLite file directly and read-only: a look must neither wait for a writer nor write anything itself.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.storm_check import Place

from strandline_broker.cluster.model import (
    LEASE,
    NO_LEADER,
    PARTITION_SET,
    BrokerLease,
    BrokerPhase,
    Object,
    PartitionSet,
    PartitionState,
)

_BUSY_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Partitions of all topics that are not being deleted, and the brokers' Leases."""

    partitions: dict[Place, PartitionState] = field(default_factory=dict)
    compacted: frozenset[str] = frozenset()
    """Topics whose replicas compact by themselves."""
    leases: dict[int, BrokerLease] = field(default_factory=dict)

    def led_by(self, brokers: frozenset[int], topic: str) -> frozenset[int]:
        """Return the partitions of a topic whose leader is one of these brokers."""
        return frozenset(
            place.partition
            for place, state in self.partitions.items()
            if place.topic == topic and state.leader in brokers
        )

    def problems(self, brokers: int) -> list[str]:
        """Return why the cluster is not entirely well, a line for each reason: empty when it is."""
        found = []
        for broker_id in range(brokers):
            lease = self.leases.get(broker_id)
            if lease is None or not lease.held or lease.state is not BrokerPhase.RUNNING:
                found.append(
                    f"broker {broker_id} is {lease.state.value if lease and lease.held else 'not there'}"
                )
        for (topic, partition), state in sorted(self.partitions.items()):
            name = f"{topic}-{partition}"
            epoch = f"epoch {state.leader_epoch}"
            if state.leader == NO_LEADER:
                found.append(f"{name} has no leader ({epoch}, isr {state.isr}, elr {state.elr})")
                continue
            lease = self.leases.get(state.leader)
            if lease is None or lease.incarnation != state.leader_incarnation:
                found.append(f"{name} is led by a life of broker {state.leader} that is over ({epoch})")
            if sorted(state.isr_ids) != sorted(state.replicas):
                found.append(
                    f"{name} has isr {state.isr_ids} of {state.replicas}, leader {state.leader} ({epoch})"
                )
            elif state.adding or state.removing:
                found.append(f"{name} is being reassigned: adding {state.adding}, removing {state.removing}")
        return found


def read_state(store_file: Path) -> Snapshot:
    """Read the store. Raises sqlite3.Error when it cannot be read."""
    with contextlib.closing(
        sqlite3.connect(f"file:{store_file}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S)
    ) as connection:
        sets = [PartitionSet.from_object(obj) for obj in _objects(connection, PARTITION_SET)]
        leases = [BrokerLease.from_object(obj) for obj in _objects(connection, LEASE)]
    alive = [part for part in sets if not part.deleting]
    return Snapshot(
        {
            Place(part.topic_name, number): state
            for part in alive
            for number, state in enumerate(part.partitions, part.first_partition)
        },
        frozenset(part.topic_name for part in alive if "compact" in part.config.get("cleanup.policy", "")),
        {lease.broker_id: lease for lease in leases},
    )


def _objects(connection: sqlite3.Connection, kind: str) -> list[Object]:
    rows = connection.execute("SELECT body FROM objects WHERE kind=?", (kind,))
    return [json.loads(body) for (body,) in rows]


def wait_until_well(store_file: Path, brokers: int, timeout_s: float) -> list[str]:
    """Wait until every broker runs and every partition has a leader and a full ISR; return what is wrong at the end."""
    deadline = time.monotonic() + timeout_s
    while True:
        problems = read_state(store_file).problems(brokers)
        if not problems or time.monotonic() > deadline:
            return problems
        time.sleep(0.1)
