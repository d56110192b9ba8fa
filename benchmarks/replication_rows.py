"""The table of experiments on three brokers: what runs, on which systems, and what its rows are called."""

from __future__ import annotations

from benchmarks import availability, replicated_loads
from benchmarks.experiments import Metric
from benchmarks.replicated import ClusterExperiment

REPLICATED, FSYNC = "Strandline Replicated", "Strandline Fsync"
KAFKA, KAFKA_FSYNC = "Kafka", "Kafka flush=1"
SHORT, KAFKA_SHORT = "Strandline lease 3 s", "Kafka session 3 s"

_BOTH_PROMISES = frozenset({REPLICATED, KAFKA, FSYNC, KAFKA_FSYNC})
_PAGE_CACHE = frozenset({REPLICATED, KAFKA})
# What is on the disk changes little about a failover: once is enough, with Strandline's default.
_STOPPED = frozenset({REPLICATED, KAFKA, SHORT, KAFKA_SHORT})
_KILLED = _STOPPED | {FSYNC}


def _failover_metrics(what: str, target: str) -> tuple[Metric, ...]:
    return (
        Metric("failover_median_s", f"{what} to acknowledged writes, median", "s", budget=target),
        Metric("failover_max_s", f"{what} to acknowledged writes, worst", "s", budget=target),
        Metric("election_median_s", f"{what} to new leaders, median", "s"),
        Metric("failed_records", f"{what}: records failed", "records", budget="0"),
    )


def _produce_metrics(what: str) -> tuple[Metric, ...]:
    return (
        Metric("leader_s_per_gb", f"{what}: CPU of the leader", "s/GB"),
        Metric("follower_s_per_gb", f"{what}: CPU of a follower", "s/GB"),
        Metric("brokers_s_per_gb", f"{what}: CPU of all three brokers", "s/GB"),
        Metric(
            "mb_per_s", f"{what}: throughput with the load on the same cores", "MB/s", lower_is_better=False
        ),
    )


def _request_metrics(what: str) -> tuple[Metric, ...]:
    return (
        Metric("leader_us_per_request", f"{what}: CPU of the leader", "us/request"),
        Metric("follower_us_per_request", f"{what}: CPU of a follower", "us/request"),
        Metric("requests_per_s", f"{what}: rate", "requests/s", lower_is_better=False),
        Metric("p50_us", f"{what}: latency p50", "us"),
        Metric("p99_us", f"{what}: latency p99", "us"),
        Metric("p999_us", f"{what}: latency p99.9", "us"),
    )


EXPERIMENTS = (
    ClusterExperiment(
        "kill",
        "failover after kill -9 of the leader",
        availability.kill_leader,
        _failover_metrics("kill -9 of a leader", "1 (Strandline)"),
        _KILLED,
    ),
    ClusterExperiment(
        "stop",
        "failover after SIGSTOP of the leader",
        availability.stop_leader,
        _failover_metrics("SIGSTOP of a leader", "lease or session + 1"),
        _STOPPED,
    ),
    ClusterExperiment(
        "roll",
        "rolling restart",
        availability.rolling_restart,
        (
            Metric("failed_records", "rolling restart: records failed", "records", budget="0"),
            Metric(
                "longest_gap_ms",
                "rolling restart: longest time without an acknowledgement on a partition",
                "ms",
                budget="300",
            ),
            Metric("quiet_gap_ms", "the same before the restart", "ms"),
            Metric("total_s", "rolling restart: all three brokers", "s"),
            Metric("one_broker_s", "rolling restart: SIGTERM to full in-sync replicas, one broker", "s"),
        ),
        _BOTH_PROMISES,
    ),
    ClusterExperiment(
        "rejoin",
        "back in all in-sync replicas after kill -9",
        availability.rejoin,
        (
            Metric("rejoin_s", "kill -9 of a follower that is behind, to full in-sync replicas", "s"),
            Metric("caught_up_mb", "of this the follower had missed", "MB"),
        ),
        _PAGE_CACHE,
    ),
    ClusterExperiment(
        "produce-1mb",
        "produce at factor 3, ~1 MB batches",
        replicated_loads.produce_large,
        _produce_metrics("produce, ~1 MB batches"),
        _BOTH_PROMISES,
    ),
    ClusterExperiment(
        "produce-16kb",
        "produce at factor 3, 16 KB batches",
        replicated_loads.produce_small,
        _produce_metrics("produce, 16 KB batches"),
        _BOTH_PROMISES,
    ),
    ClusterExperiment(
        "saturated",
        "one-record produce at factor 3, saturated",
        replicated_loads.one_record_saturated,
        _request_metrics("one-record produce, saturated"),
        _BOTH_PROMISES,
    ),
    ClusterExperiment(
        "alone",
        "one-record produce at factor 3, alone",
        replicated_loads.one_record_alone,
        _request_metrics("one-record produce, alone"),
        _BOTH_PROMISES,
    ),
    ClusterExperiment(
        "idle",
        "three brokers at rest",
        replicated_loads.idle,
        (
            Metric("rss_mb", "idle memory of three brokers, RSS", "MB"),
            Metric("pss_mb", "idle memory of three brokers, PSS", "MB"),
            Metric("controller_pss_mb", "idle memory of the controller, PSS", "MB"),
            Metric("idle_cpu_percent", "idle CPU of three brokers", "% of a core"),
            Metric("controller_idle_cpu_percent", "idle CPU of the controller", "% of a core"),
        ),
        _PAGE_CACHE,
    ),
)
