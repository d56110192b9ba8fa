"""Rows about time without service: failover, rolling restart, and the way back of a broker into the in-sync replicas.

Callers: `benchmarks.replication`.
"""

from __future__ import annotations

import signal
import statistics
import time

from benchmarks import load, processes
from benchmarks.cluster_view import Observer, await_full, topic_of
from benchmarks.clusters import BROKERS, Cluster
from benchmarks.experiments import Numbers
from benchmarks.replicated import Scale, create_topics
from benchmarks.steady_load import SteadyLoad

_TOPIC = "steady"
_PARTITIONS = 12
_INTERVAL_S = 0.02
_AFTER_FAULT_S = 0.01
# `strandline dev` delays the restart of what ran for less than 10 s, as a kubelet does; so must nobody's victim be younger.
_VICTIM_AGE_S = 11.0
_SETTLE_S = 1.0
_CATCH_UP_TOPIC = "catch-up"
_CATCH_UP_BATCH_BYTES = 1_000_000


def kill_leader(cluster: Cluster, scale: Scale) -> Numbers:
    """`kill -9` the leader of a partition, again and again; it is started again at once."""
    return _failovers(cluster, scale, signal.SIGKILL)


def stop_leader(cluster: Cluster, scale: Scale) -> Numbers:
    """SIGSTOP the leader of a partition, again and again: only its silence tells. It goes on after the failover."""
    return _failovers(cluster, scale, signal.SIGSTOP)


def _failovers(cluster: Cluster, scale: Scale, number: signal.Signals) -> Numbers:
    create_topics(cluster, [_TOPIC], _PARTITIONS)
    took: list[float] = []
    elected: list[float] = []
    with SteadyLoad(cluster.bootstrap, _TOPIC, _PARTITIONS, interval_s=_INTERVAL_S) as steady:
        for _ in range(scale.faults):
            time.sleep(_SETTLE_S)
            election_s, failover_s = _one_failover(cluster, steady, number)
            elected.append(election_s)
            took.append(failover_s)
    return {
        "failover_median_s": statistics.median(took),
        "failover_max_s": max(took),
        "election_median_s": statistics.median(elected),
        "election_max_s": max(elected),
        "failed_records": steady.failures.total(),
    }


def _one_failover(cluster: Cluster, steady: SteadyLoad, number: signal.Signals) -> tuple[float, float]:
    """Fault the leader of partition 0; return the seconds to new leaders, and to acknowledged writes, of all it led."""
    before = topic_of(cluster, _TOPIC)
    victim = before[0].leader
    led = [partition.number for partition in before if partition.leader == victim]
    _await_age(cluster, victim)
    witness = Observer(cluster, (victim + 1) % BROKERS)
    try:
        witness.look()  # connected before the fault
        pid = cluster.signal(victim, number)
        began = time.monotonic()
        if number == signal.SIGKILL:
            cluster.revive(victim)
        elected_at = witness.wait_until(
            lambda view: all(p.leader not in (victim, -1) for p in view.of(_TOPIC)), "new leaders"
        )
        acknowledged_at = steady.await_recovery(led, began + _AFTER_FAULT_S)
    finally:
        witness.close()
        if number == signal.SIGSTOP:
            cluster.signal(victim, signal.SIGCONT)
    if number == signal.SIGKILL:
        cluster.await_another_process(victim, pid)
    await_full(cluster)
    return elected_at - began, acknowledged_at - began


def _await_age(cluster: Cluster, broker: int) -> None:
    pid = cluster.pids_of(broker)[0]
    while processes.age_s(pid) < _VICTIM_AGE_S:
        time.sleep(0.1)


def rolling_restart(cluster: Cluster, _scale: Scale) -> Numbers:
    """SIGTERM one broker after the other under load, each when the one before is back in all in-sync replicas."""
    create_topics(cluster, [_TOPIC], _PARTITIONS)
    with SteadyLoad(cluster.bootstrap, _TOPIC, _PARTITIONS, interval_s=_INTERVAL_S) as steady:
        for broker in range(BROKERS):
            _await_age(cluster, broker)
        quiet = time.monotonic()
        time.sleep(_SETTLE_S)
        began = time.monotonic()
        down: list[float] = []
        for broker in range(BROKERS):
            told = time.monotonic()
            pid = cluster.signal(broker, signal.SIGTERM)
            cluster.revive(broker)
            cluster.await_another_process(broker, pid)
            await_full(cluster, [other for other in range(BROKERS) if other != broker])
            down.append(await_full(cluster, [broker]) - told)
        ended = time.monotonic()
        time.sleep(_SETTLE_S)
        after = time.monotonic()
    return {
        "failed_records": steady.failures.total(),
        "longest_gap_ms": 1000 * steady.longest_gap_s(began, after),
        "quiet_gap_ms": 1000 * steady.longest_gap_s(quiet, began),
        "total_s": ended - began,
        "one_broker_s": statistics.median(down),
        "client_errors": steady.client_errors.total(),
    }


def rejoin(cluster: Cluster, scale: Scale) -> Numbers:
    """Stop a broker until the others do without it, write what it will have to catch up, kill it, time its way back."""
    create_topics(cluster, [_CATCH_UP_TOPIC], _PARTITIONS)
    victim = BROKERS - 1
    witness = Observer(cluster, 0)
    try:
        _await_age(cluster, victim)
        pid = cluster.signal(victim, signal.SIGSTOP)
        witness.wait_until(
            lambda view: all(victim not in p.isr for p in view.partitions if len(p.replicas) > 1),
            "the stopped broker out of the in-sync replicas",
        )
        # fmt: off
        moved = load.produce(cluster.bootstrap, _CATCH_UP_TOPIC, range(_PARTITIONS), scale.catch_up_records,
                             _CATCH_UP_BATCH_BYTES)
        # fmt: on
        began = time.monotonic()
        cluster.signal(victim, signal.SIGKILL)
        cluster.revive(victim)
        back_at = witness.wait_until(
            lambda view: view.full, "the killed broker back in sync", confirmations=3
        )
        cluster.await_another_process(victim, pid)
    finally:
        witness.close()
    return {"rejoin_s": back_at - began, "caught_up_mb": moved.value_bytes / 1e6}
