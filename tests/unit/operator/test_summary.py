"""What `topics`, `describe` and `status` show of partitions and brokers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.cluster.support import offline, partition, partition_set, refs

from strandline_broker.cluster.model import BrokerLease, BrokerPhase, Endpoint, PartitionState
from strandline_broker.cluster.transitions import request_reassignment, start_reassignment
from strandline_operator.cli import summary

TWO = {"min.insync.replicas": "2"}


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (partition(0, 1, 2), []),
        (partition(0, 1, 2, isr=refs(0, 1)), ["under-replicated"]),
        (partition(0, 1, 2, isr=refs(0), elr=refs(1)), ["under min.insync.replicas"]),
        (offline(0, 1, 2, isr=refs(0)), ["offline", "under min.insync.replicas"]),
        (request_reassignment(partition(0, 1), [2, 3]), ["waits to move to 2,3"]),
        (start_reassignment(partition(0, 1), [2, 1]), ["moving to 2,1", "waiting for 2"]),
        (replace(start_reassignment(partition(0, 1), [2, 1]), isr=refs(2, 1, 0)), ["moving to 2,1"]),
        (start_reassignment(partition(0, 1, 2), [1, 2]), ["moving to 1,2"]),
    ],
)
def test_the_state_of_a_partition(state: PartitionState, shown: list[str]) -> None:
    part = partition_set(state, config=TWO)
    assert summary.partition_state(part, state) == shown
    (row,) = summary.partition_rows([part])
    assert row[-1] == ", ".join(shown)
    (found,) = summary.partition_objects([part])
    assert (found["partition"], found["state"], found["replicas"]) == (0, shown, list(state.replicas))


def test_the_columns_of_a_partition() -> None:
    part = partition_set(partition(0, 1, 2, isr=refs(0), elr=refs(2)), offline(1), config=TWO)
    table = summary.format_table(summary.PARTITION_COLUMNS, summary.partition_rows([part]))
    assert table.splitlines() == [
        "PARTITION   LEADER   EPOCH   REPLICAS   IN-SYNC   ELIGIBLE   STATE",
        "0           0        3       0,1,2      0         2          under min.insync.replicas",
        "1           none     3       1          1                    offline",
    ]


def test_what_moves_and_what_has_no_topic_object() -> None:
    moving = partition_set(partition(0), start_reassignment(partition(0), [1]))
    hidden = replace(moving, topic_name="gone", deleting=True)
    internal = partition_set(partition(0), name="__consumer_offsets")
    assert summary.reassignments([moving, hidden, internal]) == ["orders-1: moving to 1, waiting for 1"]
    assert summary.without_topic_object([moving, hidden, internal], []) == ["orders"]
    assert summary.without_topic_object([moving, hidden, internal], ["orders"]) == []


LEASE = BrokerLease(
    3,
    "a",
    1,
    {"INTERNAL": Endpoint("h", 1), "PLAINTEXT": Endpoint("h", 2)},
    rack="r",
    state=BrokerPhase.DRAINING,
)


@pytest.mark.parametrize(
    ("incarnation", "supervised", "process", "state"),
    [
        ("a", True, True, "draining"),
        ("a", True, False, "down"),
        ("", True, True, "stopped"),
        ("a", False, False, "stopped"),
    ],
)
def test_the_state_of_a_broker(incarnation: str, *, supervised: bool, process: bool, state: str) -> None:
    row = summary.broker_row(
        replace(LEASE, incarnation=incarnation), 7, supervised=supervised, process=process
    )
    assert row == ("3", state, "h:2", "", "r", "7")


@pytest.mark.parametrize(
    ("process", "state"), [(True, "running, cannot write"), (False, "down")], ids=["runs", "is down"]
)
def test_a_broker_whose_disk_takes_no_writes_says_so(process: bool, state: str) -> None:
    lease = replace(LEASE, state=BrokerPhase.RUNNING, writable=False)
    assert summary.broker_row(lease, 0, supervised=True, process=process)[1] == state


def test_problems_are_named_once() -> None:
    def condition(kind: str, status: str, reason: str) -> dict[str, str]:
        return {"type": kind, "status": status, "reason": reason, "message": f"about {reason}"}

    topic = {
        "kind": "Topic",
        "metadata": {"name": "orders"},
        "status": {
            "conditions": [
                condition("Ready", "False", "PartitionsOffline"),
                condition("Reconciling", "True", "PartitionsOffline"),
                condition("Stalled", "False", "No"),
                condition("PartitionsOffline", "True", "PartitionsOffline"),
                condition("PartitionsUnderReplicated", "True", "PartitionsUnderReplicated"),
            ]
        },
    }
    fine = {
        "kind": "Topic",
        "metadata": {"name": "fine"},
        "status": {
            "conditions": [
                condition("Ready", "True", "Ready"),
                condition("TieringReachable", "True", "BucketAnswers"),
            ]
        },
    }
    late = {
        "kind": "Cluster",
        "metadata": {"name": "dev"},
        "status": {"conditions": [condition("TieringProtected", "False", "UploadsLate")]},
    }
    assert summary.problems([topic, fine, late, {"kind": "Topic", "metadata": {"name": "new"}}]) == [
        "Topic orders: PartitionsOffline: about PartitionsOffline",
        "Topic orders: PartitionsUnderReplicated: about PartitionsUnderReplicated",
        "Cluster dev: UploadsLate: about UploadsLate",
    ]


@pytest.mark.parametrize(
    ("conditions", "line"),
    [
        ({}, ""),
        ({"TieringReachable": ("Unknown", "WaitingForBrokers")}, ""),
        (
            {"TieringReachable": ("True", "BucketAnswers"), "TieringProtected": ("True", "UploadsInTime")},
            "bucket: answers, records are in it in time",
        ),
        (
            {
                "TieringReachable": ("False", "AccessDenied"),
                "TieringProtected": ("False", "UploadsLate"),
                "DiskPressure": ("True", "ProducersThrottled"),
            },
            "bucket: cannot be used (AccessDenied), records are late, producers are slowed down",
        ),
    ],
)
def test_the_bucket_in_one_line(conditions: dict[str, tuple[str, str]], line: str) -> None:
    listed = [{"type": kind, "status": s, "reason": r} for kind, (s, r) in conditions.items()]
    assert summary.bucket_line({"conditions": listed}) == line
