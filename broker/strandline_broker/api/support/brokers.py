"""Which brokers clients are told of. Pure.

A broker is named when its Lease is held and its state is `running` or `draining`, and under the address of
the listener that the client came in by. Nobody here judges liveness by time: a broker that died leaves the
ISR and its leaderships by the controller's doing, and a client that tries it finds the next one. Only what is shown as an
offline replica looks at Leases that stand still, and then only where the controller does not say otherwise.

The broker that answers (`own_id`) always names itself: it evidently lives, although the store may still show its last
life or its start. A client that is told of no broker at all forgets the one it talks to; librdkafka never recovers.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from strandline_broker.cluster.cache import ClusterCache
from strandline_broker.cluster.model import NO_LEADER, BrokerLease, BrokerPhase, PartitionState

_SERVING = (BrokerPhase.RUNNING, BrokerPhase.DRAINING)


class BrokerAddress(NamedTuple):
    """A broker and how to reach it."""

    broker_id: int
    host: str
    port: int
    rack: str | None


def is_live(lease: BrokerLease | None) -> bool:
    """Say whether a broker is up and past its recovery, as far as its Lease tells."""
    return lease is not None and lease.held and lease.state in _SERVING


def live_brokers(view: ClusterCache, listener: str, own_id: int = -1) -> list[BrokerAddress]:
    """Return the brokers that can be reached by `listener`, in order of their ids."""
    return [
        BrokerAddress(broker_id, *lease.listeners[listener], lease.rack)
        for broker_id, lease in sorted(view.leases.items())
        if (is_live(lease) or broker_id == own_id) and listener in lease.listeners
    ]


def controller_id(view: ClusterCache, listener: str, own_id: int = -1) -> int:
    """Return the broker that clients send admin requests to, or -1.

    Every broker takes them, so it is the lowest live one.
    """
    brokers = live_brokers(view, listener, own_id)
    return brokers[0].broker_id if brokers else -1


def leader_endpoints(view: ClusterCache, listener: str, leaders: Collection[int]) -> list[BrokerAddress]:
    """Return where the named leaders are, for the hints of KIP-951; clients skip a leader without an address."""
    return [broker for broker in live_brokers(view, listener) if broker.broker_id in leaders]


def offline_replicas(
    state: PartitionState, reachable: AbstractSet[int], silent: AbstractSet[int]
) -> list[int]:
    """Return the replicas of a partition that clients should take for dead.

    `silent` are the brokers whose Leases stand still (`ClusterView.silent_brokers`); whoever is in the ISR of a partition
    that has a leader counts as alive all the same.
    """
    vouched_for = state.isr_ids if state.leader != NO_LEADER else ()
    return [
        replica
        for replica in state.replicas
        if replica not in reachable or (replica in silent and replica not in vouched_for)
    ]
