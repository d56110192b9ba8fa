"""Another replication factor for a partition: which brokers to add, which to leave. Deterministic.

Used by the controller for the change of a topic's `spec.replicas`. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from strandline_broker.cluster.model import BrokerIdentity

from .assignment import Load, NotEnoughBrokers


def with_factor(
    replicas: Sequence[int],
    factor: int,
    brokers: Sequence[BrokerIdentity],
    *,
    in_sync: Collection[int],
    load: Load,
) -> tuple[int, ...]:
    """Return the replicas of a partition with another factor, the preferred leader first.

    Added are brokers in racks that the partition is not in, then those with the fewest replicas; one of them becomes the
    preferred leader if that evens out leaderships. Left are replicas that are not in sync, then those that share a rack,
    then those on the brokers with the most; the preferred leader stays if it is in sync. `brokers` are those that may
    take replicas. Raises NotEnoughBrokers, and ValueError for a factor below one.
    """
    if factor < 1:
        raise ValueError(f"the replication factor must be at least 1, not {factor}")
    racks: dict[int, str | int] = {broker_id: broker_id for broker_id in replicas}
    racks |= {b.broker_id: b.rack if b.rack is not None else b.broker_id for b in brokers}
    result = list(replicas)
    while len(result) < factor:
        others = sorted(b.broker_id for b in brokers if b.broker_id not in result)
        if not others:
            raise NotEnoughBrokers(f"replication factor {factor} exceeds the {len(brokers)} brokers")
        used = Counter(racks[broker_id] for broker_id in result)
        result.append(min(others, key=lambda b: (used[racks[b]], load.replicas[b], b)))
    added = result[len(replicas) :]
    least = min(added, key=lambda b: load.leaders[b], default=None)
    if least is not None and load.leaders[least] + 1 < load.leaders[result[0]]:
        result.remove(least)
        result.insert(0, least)
    while len(result) > factor:
        used = Counter(racks[broker_id] for broker_id in result)
        preferred = result[0]
        leaving = max(
            result,
            key=lambda b: (
                b not in in_sync,
                b != preferred,
                used[racks[b]],
                load.replicas[b],
                result.index(b),
            ),
        )
        result.remove(leaving)
    return tuple(result)
