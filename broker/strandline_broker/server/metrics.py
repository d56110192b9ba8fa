"""Prometheus metrics of a broker, read from plain counters when somebody scrapes.

Nothing here runs on the hot path: components count in integers of their own, `take_snapshot` copies them on the event
loop (microseconds per partition), and `render` turns the copy into text, for which a thread is fine. Metrics are per
topic, not per partition: a broker with ten thousand partitions stays scrapable, and `/v1/partitions` has the details.

Imported only once the Kafka listeners are up, because prometheus_client takes its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from strandline_broker.log.cleaner import CleanerMetrics

if TYPE_CHECKING:
    from strandline_broker.server.broker import Broker


@dataclass(slots=True)
class TopicTotals:
    """Sums over the partitions of one topic on this broker."""

    partitions: int = 0
    leaders: int = 0
    under_min_isr: int = 0
    failed: int = 0
    size_bytes: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    unsynced_records: int = 0


@dataclass(slots=True)
class Snapshot:
    """Everything that one scrape shows, as plain values."""

    broker_id: int
    cluster_id: str
    ready: bool
    control_plane_away: bool
    topics: dict[str, TopicTotals] = field(default_factory=dict)
    net: dict[str, int] = field(default_factory=dict)
    connections: dict[str, int] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    parked_fetches: int = 0
    fetch_sessions: int = 0
    sync_groups: int = 0
    cleaner: CleanerMetrics = field(default_factory=CleanerMetrics)
    uncleanable_logs: int = 0


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
        net={name: getattr(net, name) for name in _NET_COUNTERS},
        connections=dict(net.open_by_listener),
        closed={reason.value: count for reason, count in net.closed.items()},
        parked_fetches=broker.fetch.parked_count,
        fetch_sessions=len(broker.sessions),
        sync_groups=broker.flusher.groups,
    )
    if broker.cleaning is not None:
        snapshot.cleaner = replace(broker.cleaning.cleaner.metrics)
        snapshot.uncleanable_logs = len(broker.cleaning.cleaner.uncleanable)
    topics = snapshot.topics
    for partition in broker.replicas:
        totals = topics.get(partition.topic)
        if totals is None:
            totals = topics[partition.topic] = TopicTotals()
        log = partition.log
        totals.partitions += 1
        if partition.is_leader:
            totals.leaders += 1
            totals.under_min_isr += partition.isr_size < partition.min_isr
        totals.failed += bool(log.failed)
        totals.size_bytes += log.size_bytes
        totals.bytes_in += partition.bytes_in
        totals.bytes_out += partition.bytes_out
        totals.unsynced_records += log.end_offset - log.synced_end
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
        yield from _cleaner_metrics(self._snapshot)
        yield from _topic_metrics(self._snapshot.topics)


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
            "under_min_isr_partitions",
            "Led partitions that refuse acks=all because too few replicas are in sync.",
            "under_min_isr",
        ),
        (GaugeMetricFamily, "failed_partitions", "Partitions whose log cannot be used.", "failed"),
        (GaugeMetricFamily, "size_bytes", "Bytes of the topic on this broker's disk.", "size_bytes"),
        (
            GaugeMetricFamily,
            "unsynced_records",
            "Records written and not yet synced to disk.",
            "unsynced_records",
        ),
        (CounterMetricFamily, "received_bytes", "Bytes of batches accepted from producers.", "bytes_in"),
        (CounterMetricFamily, "sent_bytes", "Bytes of batches sent to readers.", "bytes_out"),
    ):
        values = {topic: getattr(totals, attribute) for topic, totals in topics.items()}
        yield _labelled(kind, f"strandline_topic_{name}", text, "topic", values)


def _labelled(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    text: str,
    label: str,
    values: dict[str, int],
) -> Metric:
    family = kind(name, text, labels=(label,))
    for value, number in values.items():
        family.add_metric((value,), number)
    return family
