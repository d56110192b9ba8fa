"""What one broker shows of what it keeps in the bucket besides segments: topics, group offsets, and what it removes.

Who uses it: `server.metrics`, at each scrape on the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from strandline_broker.server.bucket_keeper import BucketKeeper


@dataclass(frozen=True, slots=True)
class KeeperTotals:
    """Everything that one scrape shows, as plain values."""

    offsets_snapshots: int
    offsets_snapshot_bytes: int
    offsets_snapshot_failures: int
    offsets_unprotected_age_s: float
    topic_manifests: int
    topic_manifest_failures: int
    topic_manifests_pending: int
    sweeps: int
    swept_objects: int
    sweep_failures: int

    @classmethod
    def of(cls, keeper: BucketKeeper) -> KeeperTotals:
        """Copy the counters."""
        snapshots, topics, sweeper = keeper.snapshots, keeper.topics, keeper.sweeper
        return cls(
            offsets_snapshots=snapshots.written,
            offsets_snapshot_bytes=snapshots.written_bytes,
            offsets_snapshot_failures=snapshots.failures,
            offsets_unprotected_age_s=snapshots.stale_s,
            topic_manifests=topics.written,
            topic_manifest_failures=topics.failures,
            topic_manifests_pending=topics.pending,
            sweeps=sweeper.sweeps,
            swept_objects=sweeper.deleted,
            sweep_failures=sweeper.failures,
        )


def keeper_metrics(totals: KeeperTotals) -> Iterator[Metric]:
    """Yield every metric."""
    counter, gauge = CounterMetricFamily, GaugeMetricFamily
    for kind, name, text, value in (
        (counter, "offsets_snapshots", "Snapshots of group offsets written.", totals.offsets_snapshots),
        (counter, "offsets_snapshot_bytes", "Bytes of them.", totals.offsets_snapshot_bytes),
        (
            counter,
            "offsets_snapshot_failures",
            "Snapshots of group offsets, or collections of older ones, that failed and are tried again.",
            totals.offsets_snapshot_failures,
        ),
        (
            gauge,
            "offsets_unprotected_age_seconds",
            "For how long committed offsets of a partition led here have waited for a snapshot, at most.",
            totals.offsets_unprotected_age_s,
        ),
        (counter, "topic_manifests", "Topic manifests written.", totals.topic_manifests),
        (
            counter,
            "topic_manifest_failures",
            "Topic manifests, or collections of older ones, that failed.",
            totals.topic_manifest_failures,
        ),
        (
            gauge,
            "topic_manifests_pending",
            "Topics that the bucket does not know as they are now, of those that this broker tells of.",
            totals.topic_manifests_pending,
        ),
        (counter, "sweeps", "Looks for what is left of deleted topics.", totals.sweeps),
        (counter, "swept_objects", "Objects of deleted topics that were removed.", totals.swept_objects),
        (counter, "sweep_failures", "Such looks that failed and are tried again.", totals.sweep_failures),
    ):
        yield kind(f"strandline_tier_{name}", text, value)
