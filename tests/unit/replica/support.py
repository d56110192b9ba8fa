"""Shared by the tests of replicas: partitions on simulated disks, states of one partition, leaders of one replica."""

from __future__ import annotations

from strandline_broker.cluster.model import PartitionState, ReplicaRef
from strandline_broker.replica.partition import Partition


def state_of(
    *isr: tuple[int, int],
    leader: int = 0,
    epoch: int = 1,
    partition_epoch: int = 0,
    replicas: tuple[int, ...] = (),
    recovering: bool = False,
) -> PartitionState:
    """Return a partition in which `isr`, as (broker, generation), is in sync."""
    members = tuple(ReplicaRef(*member) for member in isr)
    return PartitionState(
        replicas=replicas or tuple(ref.broker_id for ref in members),
        isr=members,
        leader=leader,
        leader_epoch=epoch,
        leader_incarnation="i",
        partition_epoch=partition_epoch,
        recovering=recovering,
    )


def lead_alone(partition: Partition, epoch: int, broker_id: int = 0) -> None:
    """Let the partition be led here, by the only replica there is."""
    partition.lead(ReplicaRef(broker_id, 1), state_of((broker_id, 1), leader=broker_id, epoch=epoch), 1, 0.0)
