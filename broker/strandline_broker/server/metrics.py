"""Prometheus metrics of a broker, read from plain counters when somebody scrapes.

Nothing here runs on the hot path: components count in integers of their own, `take_snapshot` copies them on the event
loop (microseconds per partition), and `render` turns the copy into text, for which a thread is fine. Metrics are per
topic, not per partition: a broker with ten thousand partitions stays scrapable, and `/v1/partitions` has the details.

Imported only once the Kafka listeners are up, because prometheus_client takes its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from strandline_broker.log.cleaner import CleanerMetrics
from strandline_broker.server.disk_report import DiskTotals, disk_metrics
from strandline_broker.server.keeper_metrics import KeeperTotals, keeper_metrics
from strandline_broker.server.tier_metrics import TierTotals, tier_metrics

if TYPE_CHECKING:
    from strandline_broker.replica.partition import Partition
    from strandline_broker.server.broker import Broker
    from strandline_broker.server.replication import Replication


@dataclass(slots=True)
class TopicTotals:
    """Sums over the partitions of one topic on this broker."""

    partitions: int = 0
    leaders: int = 0
    under_replicated: int = 0
    under_min_isr: int = 0
    at_min_isr: int = 0
    recovering: int = 0
    offline: int = 0
    failed: int = 0
    max_lag: int = 0
    max_follower_lag: int = 0
    size_bytes: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    replicated_in: int = 0
    replicated_out: int = 0
    unsynced_records: int = 0

    def add(self, partition: Partition) -> None:
        """Count one more partition."""
        log, leadership = partition.log, partition.leadership
        self.partitions += 1
        if leadership is not None:
            self.leaders += 1
            state = leadership.state
            # As Kafka counts: who is only being added is not missed yet.
            self.under_replicated += len(state.isr) < len(state.replicas) - len(state.adding)
            self.under_min_isr += partition.isr_size < partition.min_isr
            self.at_min_isr += partition.isr_size == partition.min_isr
            self.recovering += state.recovering
            for broker_id, follower in leadership.followers.items():
                lag = log.end_offset - follower.log_end
                if lag > self.max_follower_lag and broker_id in state.replicas:
                    self.max_follower_lag = lag
        elif partition.leader_id < 0:
            self.offline += 1
        elif partition.lag > self.max_lag:
            self.max_lag = partition.lag
        self.failed += bool(log.failed)
        self.size_bytes += log.size_bytes
        self.bytes_in += partition.bytes_in
        self.bytes_out += partition.bytes_out
        self.replicated_in += partition.replicated_in
        self.replicated_out += partition.replicated_out
        self.unsynced_records += log.end_offset - log.synced_end


@dataclass(slots=True)
class ReplicationTotals:
    """What one broker does as a follower, and for the ISRs of what it leads. Throttles by direction."""

    followed_partitions: int = 0
    leaders_followed: int = 0
    connections: int = 0
    connection_failures: int = 0
    fetch_errors: int = 0
    isr_shrinks: int = 0
    isr_expansions: int = 0
    throttled_rates: dict[str, float] = field(default_factory=dict)
    throttled_bytes: dict[str, int] = field(default_factory=dict)
    throttled_waits: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, replication: Replication) -> ReplicationTotals:
        """Copy the counters."""
        fetchers, keeper = replication.fetchers, replication.keeper
        throttles = replication.throttles._asdict().items()
        return cls(
            followed_partitions=fetchers.followed_count,
            leaders_followed=fetchers.leader_count,
            connections=fetchers.counters.connections,
            connection_failures=fetchers.counters.failures,
            fetch_errors=fetchers.counters.refusals,
            isr_shrinks=keeper.shrinks,
            isr_expansions=keeper.expansions,
            throttled_rates={name: one.rate for name, one in throttles if one.rate is not None},
            throttled_bytes={name: one.passed_bytes for name, one in throttles},
            throttled_waits={name: one.held_back for name, one in throttles},
        )


@dataclass(slots=True)
class Snapshot:
    """Everything that one scrape shows, as plain values."""

    broker_id: int
    cluster_id: str
    ready: bool
    control_plane_away: bool
    storage_writable: bool
    storage_failures: int
    disk: DiskTotals = field(default_factory=DiskTotals)
    topics: dict[str, TopicTotals] = field(default_factory=dict)
    net: dict[str, int] = field(default_factory=dict)
    connections: dict[str, int] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    parked_fetches: int = 0
    fetch_sessions: int = 0
    sync_groups: int = 0
    replication: ReplicationTotals = field(default_factory=ReplicationTotals)
    cleaner: CleanerMetrics = field(default_factory=CleanerMetrics)
    uncleanable_logs: int = 0
    tier: TierTotals | None = None
    keeper: KeeperTotals | None = None


_NET_COUNTERS = (
    "connections_accepted",
    "accept_errors",
    "bytes_in",
    "bytes_out",
    "requests",
    "bursts",
    "memory_waits",
    "backlog_pauses",
    "in_flight_pauses",
    "throttles",
    "tls_handshakes",
    "certificate_reloads",
    "certificate_reload_failures",
    "request_memory_in_use_bytes",
)


def take_snapshot(broker: Broker) -> Snapshot:
    """Copy every counter; runs on the event loop."""
    net = broker.server.metrics
    snapshot = Snapshot(
        broker_id=broker.config.broker_id,
        cluster_id=broker.cluster_id,
        ready=broker.ready,
        control_plane_away=broker.view.fresh_since is None,
        storage_writable=broker.storage.health.writable,
        storage_failures=broker.storage.health.failures,
        disk=DiskTotals.of(broker.disk_watch),
        net={name: getattr(net, name) for name in _NET_COUNTERS},
        connections=dict(net.open_by_listener),
        closed={reason.value: count for reason, count in net.closed.items()},
        parked_fetches=broker.handlers.fetch.parked_count,
        fetch_sessions=len(broker.handlers.sessions),
        sync_groups=broker.syncs.flusher.groups,
        replication=ReplicationTotals.of(broker.replication),
    )
    if broker.cleaning is not None:
        snapshot.cleaner = replace(broker.cleaning.cleaner.metrics)
        snapshot.uncleanable_logs = len(broker.cleaning.cleaner.uncleanable)
    if broker.tiering is not None:
        snapshot.tier = TierTotals.of(broker.tiering)
    if broker.keeper is not None:
        snapshot.keeper = KeeperTotals.of(broker.keeper)
    topics = snapshot.topics
    for partition in broker.replicas:
        totals = topics.get(partition.topic)
        if totals is None:
            totals = topics[partition.topic] = TopicTotals()
        totals.add(partition)
    for topic, _, _ in broker.replicas.unopened():
        topics.setdefault(topic, TopicTotals()).failed += 1
    return snapshot


class MetricsRegistry:
    """The registry of one broker; several brokers in one process do not share anything."""

    def __init__(self) -> None:
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)

    def render(self, snapshot: Snapshot) -> bytes:
        """Return a snapshot in Prometheus' text format; safe in any thread."""
        registry = CollectorRegistry()
        registry.register(_SnapshotCollector(snapshot))
        return generate_latest(registry) + generate_latest(self._process)


class _SnapshotCollector(Collector):
    """Shows one snapshot, component by component."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry need not collect to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield from _broker_metrics(self._snapshot)
        yield from _net_metrics(self._snapshot)
        yield from _api_metrics(self._snapshot)
        yield from _replication_metrics(self._snapshot.replication)
        yield from _cleaner_metrics(self._snapshot)
        yield from _topic_metrics(self._snapshot.topics)
        if self._snapshot.tier is not None:
            yield from tier_metrics(self._snapshot.tier)
        if self._snapshot.keeper is not None:
            yield from keeper_metrics(self._snapshot.keeper)


def _broker_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    info = {"broker_id": str(snapshot.broker_id), "cluster_id": snapshot.cluster_id}
    yield InfoMetricFamily("strandline_broker", "Which broker this is.", value=info)
    yield GaugeMetricFamily(
        "strandline_broker_ready", "1 while the broker serves clients.", int(snapshot.ready)
    )
    yield GaugeMetricFamily(
        "strandline_broker_control_plane_away",
        "1 while the cluster store cannot be reached and the broker goes on with what it knew last.",
        int(snapshot.control_plane_away),
    )
    yield GaugeMetricFamily(
        "strandline_broker_storage_writable",
        "0 while the disk takes no writes and the others do without this broker as far as they can.",
        int(snapshot.storage_writable),
    )
    yield CounterMetricFamily(
        "strandline_broker_storage_failures",
        "Times that the disk stopped taking writes.",
        snapshot.storage_failures,
    )
    yield from disk_metrics(snapshot.disk)


def _net_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    net = snapshot.net
    yield _labelled(
        GaugeMetricFamily, "strandline_net_connections", "Open connections.", "listener", snapshot.connections
    )
    yield _labelled(
        CounterMetricFamily,
        "strandline_net_connections_closed",
        "Connections that ended or were refused.",
        "reason",
        snapshot.closed,
    )
    for name, text, key in (
        ("connections_accepted", "Connections accepted.", "connections_accepted"),
        ("accept_errors", "Failures to accept a connection.", "accept_errors"),
        ("received_bytes", "Bytes received from clients.", "bytes_in"),
        ("sent_bytes", "Bytes sent to clients.", "bytes_out"),
        ("requests", "Requests received.", "requests"),
        ("request_bursts", "Runs of requests handled together.", "bursts"),
        ("tls_handshakes", "TLS handshakes that succeeded.", "tls_handshakes"),
        (
            "certificate_reloads",
            "Times that a changed certificate was taken into use.",
            "certificate_reloads",
        ),
        (
            "certificate_reload_failures",
            "Times that a changed certificate was unusable.",
            "certificate_reload_failures",
        ),
    ):
        yield CounterMetricFamily(f"strandline_net_{name}", text, net[key])
    pauses = {
        "request_memory": net["memory_waits"],
        "unsent_answers": net["backlog_pauses"],
        "requests_in_flight": net["in_flight_pauses"],
        "disk_pressure": net["throttles"],
    }
    yield _labelled(
        CounterMetricFamily,
        "strandline_net_pauses",
        "Times that a connection was not read because a limit was reached.",
        "limit",
        pauses,
    )
    yield GaugeMetricFamily(
        "strandline_net_request_memory_bytes",
        "Memory held by requests that have not arrived in full or wait.",
        net["request_memory_in_use_bytes"],
    )


def _api_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily("strandline_fetch_parked", "Fetches that wait for data.", snapshot.parked_fetches)
    yield GaugeMetricFamily("strandline_fetch_sessions", "Fetch sessions kept.", snapshot.fetch_sessions)
    yield CounterMetricFamily(
        "strandline_log_sync_groups", "Groups of logs synced to disk together.", snapshot.sync_groups
    )


def _replication_metrics(totals: ReplicationTotals) -> Iterator[Metric]:
    for kind, name, text, value in (
        (
            GaugeMetricFamily,
            "followed_partitions",
            "Partitions copied from other brokers.",
            totals.followed_partitions,
        ),
        (
            GaugeMetricFamily,
            "leaders_followed",
            "Brokers that they are copied from.",
            totals.leaders_followed,
        ),
        (CounterMetricFamily, "connections", "Connections made to leaders.", totals.connections),
        (
            CounterMetricFamily,
            "connection_failures",
            "Connections to leaders that failed or could not be made.",
            totals.connection_failures,
        ),
        (
            CounterMetricFamily,
            "fetch_errors",
            "Times that a partition could not be copied, because of its leader's answer or of this disk.",
            totals.fetch_errors,
        ),
        (
            CounterMetricFamily,
            "isr_shrinks",
            "Replicas that leaders here took out of ISRs.",
            totals.isr_shrinks,
        ),
        (
            CounterMetricFamily,
            "isr_expansions",
            "Replicas that leaders here took into ISRs.",
            totals.isr_expansions,
        ),
    ):
        yield kind(f"strandline_replication_{name}", text, value)
    for kind, name, text, values in (
        (
            GaugeMetricFamily,
            "bytes_per_second",
            "Limit for throttled replicas, if set.",
            totals.throttled_rates,
        ),
        (CounterMetricFamily, "bytes", "Bytes of throttled replicas.", totals.throttled_bytes),
        (CounterMetricFamily, "waits", "Times that a throttled replica had to wait.", totals.throttled_waits),
    ):
        yield _labelled(kind, f"strandline_replication_throttle_{name}", text, "direction", values)


def _cleaner_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    cleaner = snapshot.cleaner
    yield GaugeMetricFamily(
        "strandline_log_cleaner_uncleanable_logs",
        "Compacted logs that are not cleaned any more, because cleaning them failed.",
        snapshot.uncleanable_logs,
    )
    for kind, name, text, value in (
        (GaugeMetricFamily, "max_dirty_ratio", "Dirty ratio of the dirtiest log.", cleaner.max_dirty_ratio),
        (GaugeMetricFamily, "last_duration_seconds", "Time of the last cleaning.", cleaner.last_duration_s),
        (CounterMetricFamily, "cleanings", "Cleanings that were completed.", cleaner.cleanings),
        (CounterMetricFamily, "failures", "Cleanings that failed.", cleaner.failed),
        (CounterMetricFamily, "aborts", "Cleanings ended by a change of the log.", cleaner.aborted),
        (CounterMetricFamily, "read_bytes", "Bytes read to clean.", cleaner.bytes_read),
        (CounterMetricFamily, "written_bytes", "Bytes of cleaned segments.", cleaner.bytes_written),
        (CounterMetricFamily, "freed_bytes", "Bytes that cleaning freed.", cleaner.bytes_freed),
        (CounterMetricFamily, "removed_records", "Records that cleaning removed.", cleaner.records_removed),
        (
            CounterMetricFamily,
            "keyless_records",
            "Records without a key that cleaning removed.",
            cleaner.records_without_key,
        ),
        (CounterMetricFamily, "cpu_seconds", "Processor time of the cleaner's processes.", cleaner.cpu_s),
    ):
        yield kind(f"strandline_log_cleaner_{name}", text, value)


def _topic_metrics(topics: dict[str, TopicTotals]) -> Iterator[Metric]:
    for kind, name, text, attribute in (
        (GaugeMetricFamily, "partitions", "Partitions of the topic on this broker.", "partitions"),
        (GaugeMetricFamily, "leaders", "Partitions of the topic that this broker leads.", "leaders"),
        (
            GaugeMetricFamily,
            "under_replicated_partitions",
            "Led partitions with replicas that are not in sync.",
            "under_replicated",
        ),
        (
            GaugeMetricFamily,
            "under_min_isr_partitions",
            "Led partitions that refuse acks=all because too few replicas are in sync.",
            "under_min_isr",
        ),
        (
            GaugeMetricFamily,
            "at_min_isr_partitions",
            "Led partitions that would refuse acks=all if one more replica were lost.",
            "at_min_isr",
        ),
        (
            GaugeMetricFamily,
            "recovering_partitions",
            "Led partitions that lost records, or were restored, and are brought in line with the bucket.",
            "recovering",
        ),
        (GaugeMetricFamily, "offline_partitions", "Partitions here that nobody leads.", "offline"),
        (
            GaugeMetricFamily,
            "max_lag_records",
            "Most that a replica here lacks of what its leader has committed.",
            "max_lag",
        ),
        (
            GaugeMetricFamily,
            "max_follower_lag_records",
            "Most that a follower lacks of a partition that is led here.",
            "max_follower_lag",
        ),
        (GaugeMetricFamily, "failed_partitions", "Replicas whose log cannot be used, or opened.", "failed"),
        (GaugeMetricFamily, "size_bytes", "Bytes of the topic on this broker's disk.", "size_bytes"),
        (
            GaugeMetricFamily,
            "unsynced_records",
            "Records written and not yet synced to disk.",
            "unsynced_records",
        ),
        (CounterMetricFamily, "received_bytes", "Bytes of batches accepted from producers.", "bytes_in"),
        (CounterMetricFamily, "sent_bytes", "Bytes of batches sent to consumers.", "bytes_out"),
        (
            CounterMetricFamily,
            "replication_received_bytes",
            "Bytes of batches copied from leaders.",
            "replicated_in",
        ),
        (
            CounterMetricFamily,
            "replication_sent_bytes",
            "Bytes of batches sent to followers.",
            "replicated_out",
        ),
    ):
        values = {topic: getattr(totals, attribute) for topic, totals in topics.items()}
        yield _labelled(kind, f"strandline_topic_{name}", text, "topic", values)


def _labelled(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    text: str,
    label: str,
    values: Mapping[str, float],
) -> Metric:
    family = kind(name, text, labels=(label,))
    for value, number in values.items():
        family.add_metric((value,), number)
    return family
