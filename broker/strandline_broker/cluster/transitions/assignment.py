"""Where new partitions go: replicas over racks, then over brokers; leaders over brokers. Deterministic.

Used by the controller for new topics and new partitions. Pure: the same input gives the same answer, so two
controllers at once want the same.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from strandline_broker.cluster.model import (
    NO_LEADER,
    BrokerIdentity,
    PartitionSet,
    PartitionState,
    ReplicaRef,
)


class NotEnoughBrokers(ValueError):  # noqa: N818 - a condition's reason has the same name
    """The replication factor exceeds the brokers, or none of the chosen ones lives."""


@dataclass(slots=True)
class Load:
    """How many replicas, and how many preferred leaderships (first replicas), each broker has already."""

    replicas: Counter[int] = field(default_factory=Counter)
    leaders: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, partition_sets: Iterable[PartitionSet]) -> Load:
        """Count what is placed. Replicas on their way out do not count, those asked for do."""
        load = cls()
        for part in partition_sets:
            for state in part.partitions:
                target = state.target or [b for b in state.replicas if b not in state.removing]
                load.replicas.update(target)
                load.leaders.update(target[:1])
        return load

    def copy(self) -> Load:
        """Return an independent copy."""
        return Load(self.replicas.copy(), self.leaders.copy())


def assign_replicas(
    partition_count: int,
    replication_factor: int,
    brokers: Sequence[tuple[int, str | None]],
    *,
    load: Load | None = None,
) -> list[tuple[int, ...]]:
    """Return the replicas of each new partition, the preferred leader first.

    `brokers` are (id, rack); brokers without a rack are each a rack of their own. A partition uses as many
    racks as it can; within that, brokers with the fewest replicas are filled up, and brokers that share many
    partitions already are kept apart, so that what a dead broker led spreads over many. Raises
    NotEnoughBrokers, and ValueError for a factor below one.
    """
    if replication_factor < 1:
        raise ValueError(f"the replication factor must be at least 1, not {replication_factor}")
    if replication_factor > len(brokers):
        raise NotEnoughBrokers(f"replication factor {replication_factor} exceeds the {len(brokers)} brokers")
    racks = {broker_id: rack if rack is not None else broker_id for broker_id, rack in sorted(brokers)}
    placed = load.copy() if load is not None else Load()
    together: Counter[tuple[int, int]] = Counter()
    result = []
    for _ in range(partition_count):
        chosen = _choose(replication_factor, racks, placed, together)
        for broker_id in chosen:
            together.update((broker_id, other) for other in chosen if other != broker_id)
        leader = min(chosen, key=lambda broker_id: placed.leaders[broker_id])
        placed.replicas.update(chosen)
        placed.leaders[leader] += 1
        result.append(_led(chosen, leader))
    _even_out_leaders(result, placed.leaders)
    return result


def _led(replicas: Sequence[int], leader: int) -> tuple[int, ...]:
    return (leader, *(broker_id for broker_id in replicas if broker_id != leader))


def _choose(
    replication_factor: int, racks: dict[int, str | int], placed: Load, together: Counter[tuple[int, int]]
) -> list[int]:
    chosen: list[int] = []
    used_racks: Counter[str | int] = Counter()
    for _ in range(replication_factor):
        best = min(
            (broker_id for broker_id in racks if broker_id not in chosen),
            key=lambda broker_id: (
                used_racks[racks[broker_id]],
                placed.replicas[broker_id],
                sum(together[broker_id, other] for other in chosen),
                # The first of the chosen is to lead, so who leads little comes first; who follows may lead much.
                -placed.leaders[broker_id] if chosen else placed.leaders[broker_id],
                broker_id,
            ),
        )
        chosen.append(best)
        used_racks[racks[best]] += 1
    return chosen


def _even_out_leaders(placements: list[tuple[int, ...]], leaders: Counter[int]) -> None:
    """Reorder replicas until no chain of swaps could make the most loaded leader lead less.

    Taking the least loaded replica partition by partition leaves differences of two or three. A chain passes
    one leadership from broker to broker along partitions that both have a replica of; each one found lowers a
    maximum, so the number of partitions bounds them.
    """
    for _ in range(len(placements)):
        for source in sorted(leaders, key=lambda broker_id: (-leaders[broker_id], broker_id)):
            chain = _chain_to_less_loaded(placements, leaders, source)
            if chain:
                break
        else:
            return
        for index, new_leader in chain:
            leaders[placements[index][0]] -= 1
            leaders[new_leader] += 1
            placements[index] = _led(placements[index], new_leader)


def _chain_to_less_loaded(
    placements: list[tuple[int, ...]], leaders: Counter[int], source: int
) -> list[tuple[int, int]]:
    """Return (partition, new leader) steps from `source` to a broker that leads at least two less."""
    led: dict[int, list[int]] = {}
    for index, replicas in enumerate(placements):
        led.setdefault(replicas[0], []).append(index)
    reached: dict[int, list[tuple[int, int]]] = {source: []}
    queue = deque([source])
    while queue:
        broker_id = queue.popleft()
        for index in led.get(broker_id, ()):
            for other in placements[index][1:]:
                if other in reached:
                    continue
                reached[other] = [*reached[broker_id], (index, other)]
                if leaders[other] <= leaders[source] - 2:
                    return reached[other]
                queue.append(other)
    return []


def assign(
    partition_count: int,
    replication_factor: int,
    brokers: Sequence[BrokerIdentity],
    *,
    load: Load | None = None,
    first_leader_epoch: int = 0,
    recovering: bool = False,
) -> list[PartitionState]:
    """Return the states of new partitions: placed, with a leader, and every living replica in the ISR.

    That everybody is in sync holds for partitions that never had a record, and for no others. A broker with
    an empty incarnation is placed on but counts as dead. `first_leader_epoch` must lie above every epoch that
    this topic id ever had, in the bucket or on a broker. `recovering`: the partitions' records are in the bucket. Raises
    NotEnoughBrokers also when no replica of a partition lives.
    """
    by_id = {broker.broker_id: broker for broker in brokers}
    racks = [(broker.broker_id, broker.rack) for broker in brokers]
    placements = assign_replicas(partition_count, replication_factor, racks, load=load)
    return [
        new_partition(replicas, by_id, first_leader_epoch, recovering=recovering) for replicas in placements
    ]


def new_partition(
    replicas: Sequence[int],
    brokers: dict[int, BrokerIdentity],
    first_leader_epoch: int = 0,
    *,
    recovering: bool = False,
) -> PartitionState:
    """Return the first state of a new partition with the given replicas (see `assign`)."""
    alive = [broker_id for broker_id in replicas if broker_id in brokers and brokers[broker_id].incarnation]
    if not alive:
        raise NotEnoughBrokers(f"none of the brokers {list(replicas)} lives")
    leader = next((broker_id for broker_id in alive if not brokers[broker_id].draining), alive[0])
    assert leader != NO_LEADER
    return PartitionState(
        replicas=tuple(replicas),
        isr=tuple(ReplicaRef(broker_id, brokers[broker_id].generation) for broker_id in alive),
        leader=leader,
        leader_epoch=first_leader_epoch,
        leader_incarnation=brokers[leader].incarnation,
        recovering=recovering,
    )
