"""What one broker shows of tiered storage: counters of its bucket, and bytes in either tier by topic.

Who uses it: `server.metrics` at each scrape, and `server.http` for `/v1/tiers`, on the event loop. Only leaders count: sums
over brokers are those of topics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from strandline_tiered.cost import MonthlyCost, RequestCounts, monthly_cost
from strandline_tiered.leadership import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from strandline_broker.server.tiering import TierFigures, Tiering


@dataclass(slots=True)
class TopicTier:
    """What of a topic is led here: bytes in the bucket, bytes that are not there yet, and how old these are.

    They are of `partitions`, and not of those that are `not_loaded`: their part of the bucket is not known yet.
    """

    partitions: int = 0
    remote_bytes: int = 0
    object_bytes: int = 0
    unprotected_bytes: int = 0
    unprotected_age_s: float = 0.0
    not_loaded: int = 0
    stuck: int = 0

    def add(self, figures: TierFigures) -> None:
        """Count a partition."""
        self.stuck += figures.phase == Phase.STUCK.value
        if figures.remote_end < 0:
            self.not_loaded += 1
            return
        self.partitions += 1
        self.remote_bytes += figures.remote_bytes
        self.object_bytes += figures.object_bytes
        self.unprotected_bytes += figures.unprotected_bytes
        self.unprotected_age_s = max(self.unprotected_age_s, figures.unprotected_age_ms / 1000)


@dataclass(slots=True)
class TierTotals:
    """Everything that one scrape shows of tiered storage, as plain values."""

    uploads: int = 0
    uploaded_bytes: int = 0
    uploads_under_way: int = 0
    failures: int = 0
    reads: int = 0
    read_bytes: int = 0
    read_failures: int = 0
    damaged: int = 0
    read_ahead: int = 0
    read_ahead_unused: int = 0
    cache_hits: int = 0
    cache_disk_hits: int = 0
    cache_bytes: int = 0
    requests: RequestCounts = field(default_factory=RequestCounts)
    cost: MonthlyCost = field(default_factory=lambda: MonthlyCost(0.0, 0.0, 0.0))
    usable: bool | None = None
    topics: dict[str, TopicTier] = field(default_factory=dict)

    @classmethod
    def of(cls, tiering: Tiering) -> TierTotals:
        """Copy the counters."""
        uploader, counters = tiering.uploader, tiering.reader.segments.counters
        totals = cls(
            uploads=uploader.uploads,
            uploaded_bytes=uploader.uploaded_bytes,
            uploads_under_way=uploader.under_way,
            failures=tiering.failures + sum(archiver.failures for archiver in tiering),
            reads=counters.requests,
            read_bytes=counters.bytes_fetched,
            read_failures=counters.failures,
            damaged=counters.damaged,
            read_ahead=counters.read_ahead,
            read_ahead_unused=counters.unused,
            cache_hits=counters.hits,
            cache_disk_hits=counters.disk_hits,
            cache_bytes=tiering.reader.kept_bytes,
        )
        totals.requests = tiering.counts.copy()
        totals.usable = tiering.capabilities.usable if tiering.capabilities is not None else None
        for archiver in tiering:
            figures = tiering.figures(archiver.partition)
            if figures is not None:
                totals.topics.setdefault(archiver.partition.topic, TopicTier()).add(figures)
        stored = sum(one.object_bytes for one in totals.topics.values())
        totals.cost = monthly_cost(stored, totals.requests, tiering.running_s, tiering.prices)
        return totals


def tier_report(broker_id: int, tiering: Tiering | None) -> dict[str, Any]:
    """Return the body of `/v1/tiers`: of each topic what is led here, in bytes and milliseconds.

    The operator sums it up over brokers, so topics are named by their ids: a name may be that of another one meanwhile.
    """
    topics: dict[tuple[str, UUID], TopicTier] = {}
    for archiver in tiering or ():
        partition = archiver.partition
        figures = tiering.figures(partition) if tiering is not None else None
        if figures is not None:
            key = partition.topic, UUID(bytes=partition.topic_id)
            topics.setdefault(key, TopicTier()).add(figures)
    return {
        "broker": broker_id,
        "topics": [
            {
                "topic": name,
                "topicId": str(topic_id),
                "partitions": one.partitions,
                "partitionsNotLoaded": one.not_loaded,
                "storedBytes": one.object_bytes,
                "unprotectedBytes": one.unprotected_bytes,
                "unprotectedAgeMs": round(one.unprotected_age_s * 1000),
            }
            for (name, topic_id), one in sorted(topics.items())
        ],
    }


def tier_metrics(totals: TierTotals) -> Iterator[Metric]:
    """Yield every metric."""
    for kind, name, text, value in (
        (CounterMetricFamily, "uploads", "Segments uploaded.", totals.uploads),
        (CounterMetricFamily, "uploaded_bytes", "Bytes of uploaded segments.", totals.uploaded_bytes),
        (GaugeMetricFamily, "uploads_under_way", "Segments being uploaded.", totals.uploads_under_way),
        (
            CounterMetricFamily,
            "failures",
            "Steps of archiving that failed and are tried again.",
            totals.failures,
        ),
        (CounterMetricFamily, "reads", "Ranges read from the bucket.", totals.reads),
        (CounterMetricFamily, "read_bytes", "Bytes read from the bucket.", totals.read_bytes),
        (CounterMetricFamily, "read_failures", "Reads that failed for good.", totals.read_failures),
        (CounterMetricFamily, "damaged", "Answers that did not fit their checksum.", totals.damaged),
        (CounterMetricFamily, "read_ahead", "Chunks read before anybody asked for them.", totals.read_ahead),
        (CounterMetricFamily, "read_ahead_unused", "Those that nobody asked for.", totals.read_ahead_unused),
        (CounterMetricFamily, "cache_hits", "Chunks that were in memory when asked for.", totals.cache_hits),
        (CounterMetricFamily, "cache_disk_hits", "Chunks that were on the disk.", totals.cache_disk_hits),
        (GaugeMetricFamily, "cache_bytes", "Memory of what was read and is kept.", totals.cache_bytes),
    ):
        yield kind(f"strandline_tier_{name}", text, value)
    yield from _bucket_metrics(totals)
    for name, text, attribute in (
        ("remote_bytes", "Bytes of log in the bucket.", "remote_bytes"),
        ("object_bytes", "Bytes of the objects that hold them.", "object_bytes"),
        ("unprotected_bytes", "Bytes of log that are not in the bucket yet.", "unprotected_bytes"),
        (
            "unprotected_age_seconds",
            "Age of the oldest segment that is not in the bucket.",
            "unprotected_age_s",
        ),
        ("not_loaded_partitions", "Led partitions whose part in the bucket is not known yet.", "not_loaded"),
        ("stuck_partitions", "Led partitions that are not tiered until somebody looks after them.", "stuck"),
    ):
        family = GaugeMetricFamily(f"strandline_tier_{name}", text, labels=("topic",))
        for topic, one in totals.topics.items():
            family.add_metric((topic,), getattr(one, attribute))
        yield family


def _bucket_metrics(totals: TierTotals) -> Iterator[Metric]:
    if totals.usable is not None:
        yield GaugeMetricFamily(
            "strandline_tier_bucket_usable", "1 if the bucket can do all that is needed.", int(totals.usable)
        )
    counts = totals.requests
    for name, text, values in (
        (
            "requests",
            "Requests that reached the bucket.",
            {"put": counts.puts, "get": counts.gets, "list": counts.lists, "delete": counts.deletes},
        ),
        ("request_bytes", "Bytes sent and received.", {"put": counts.bytes_put, "get": counts.bytes_got}),
    ):
        family = CounterMetricFamily(f"strandline_tier_{name}", text, labels=("kind",))
        for kind, value in values.items():
            family.add_metric((kind,), value)
        yield family
    yield CounterMetricFamily("strandline_tier_request_failures", "Requests that failed.", counts.failures)
    cost = GaugeMetricFamily(
        "strandline_tier_monthly_cost",
        "Estimate of 30 days, for what is led here, in the currency of tiering_prices.",
        labels=("part",),
    )
    for part in ("storage", "requests", "traffic"):
        cost.add_metric((part,), getattr(totals.cost, part))
    yield cost
