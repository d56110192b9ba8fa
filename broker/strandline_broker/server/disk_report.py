"""What is shown of how full a broker's disk is: in `/metrics`, and as JSON at `/v1/storage`.

Who uses it: `server.metrics` and `server.http`, on the event loop. Sizes are bytes, and known only where there is a bucket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from strandline_broker.replica.disk_pressure import Pressure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from strandline_broker.server.disk_watch import DiskWatch
    from strandline_broker.server.storage_health import StorageHealth

_LEVELS: Final = {Pressure.FREE: 0, Pressure.THROTTLED: 1, Pressure.REFUSED: 2}


@dataclass(slots=True)
class DiskTotals:
    """What one scrape shows, as plain values; sizes are -1 where they are not known."""

    size_bytes: int = -1
    free_bytes: int = -1
    pressure: Pressure = Pressure.FREE
    rate: float | None = None
    throttled: int = 0
    refused: int = 0
    released_bytes: int = 0

    @classmethod
    def of(cls, watch: DiskWatch) -> DiskTotals:
        """Copy the counters."""
        pressure = watch.pressure
        return cls(
            size_bytes=pressure.total_bytes,
            free_bytes=pressure.free_bytes,
            pressure=pressure.level,
            rate=pressure.rate,
            throttled=pressure.throttled,
            refused=pressure.refused,
            released_bytes=watch.retention.freed_bytes,
        )


def disk_metrics(totals: DiskTotals) -> Iterator[Metric]:
    """Yield every metric; none before the disk was measured."""
    if totals.size_bytes < 0:
        return
    yield GaugeMetricFamily("strandline_disk_size_bytes", "Size of the broker's volume.", totals.size_bytes)
    yield GaugeMetricFamily("strandline_disk_free_bytes", "What is free of it.", totals.free_bytes)
    yield GaugeMetricFamily(
        "strandline_disk_pressure",
        "0 while producers may write as they like, 1 while they are slowed down, 2 while they are refused.",
        _LEVELS[totals.pressure],
    )
    if totals.rate is not None:
        yield GaugeMetricFamily(
            "strandline_disk_produce_limit_bytes_per_second",
            "What producers may write while they are slowed down.",
            totals.rate,
        )
    for name, text, value in (
        ("throttled_requests", "Bursts of produce requests that were followed by a pause.", totals.throttled),
        ("refused_batches", "Batches that were refused because the disk is too full.", totals.refused),
        ("released_bytes", "Bytes deleted here soon after they were in the bucket.", totals.released_bytes),
    ):
        yield CounterMetricFamily(f"strandline_disk_{name}", text, value)


def storage_report(broker_id: int, health: StorageHealth, watch: DiskWatch) -> dict[str, Any]:
    """Return the body of `/v1/storage`: sizes in bytes, -1 where they are not known; the limit null for none."""
    totals = DiskTotals.of(watch)
    return {
        "broker": broker_id,
        "writable": health.writable,
        "sizeBytes": totals.size_bytes,
        "freeBytes": totals.free_bytes,
        "producers": totals.pressure.value,
        "producersBytesPerSecond": round(totals.rate) if totals.rate is not None else None,
    }
