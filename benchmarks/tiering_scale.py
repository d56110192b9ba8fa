"""What the experiments of `benchmarks.tiering` share: their scale and their form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.buckets import Bucket
from benchmarks.experiments import Metric, Numbers

MIB = 1 << 20
BATCH_BYTES = 1_000_000
"""Of the loads that only fill a topic."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much one run of each experiment does."""

    large_segment_bytes: int
    """1 GiB is the default of `segment.bytes`."""
    large_records: int
    """Of one partition: two large segments and some."""
    small_segment_bytes: int
    small_records: int
    """Of several partitions with small segments."""
    far_large_records: int
    """One large segment and some: behind a link that takes as long as two without."""
    far_small_records: int
    passes: int
    """Cold reads, each beside one of the bare client."""
    first_bytes: int
    """Random places that are read first, at most."""
    slices: int
    """Turns with archiving and without, of hot produce."""
    slice_s: float
    replica_segment_bytes: int
    memory_segment_bytes: int
    memory_records: int

    def far(self) -> Scale:
        """Return what a bucket is measured with that is far away."""
        return replace(self, large_records=self.far_large_records, small_records=self.far_small_records)


FULL = Scale(
    large_segment_bytes=1 << 30,
    large_records=2_200_000,
    small_segment_bytes=16 * MIB,
    small_records=1_000_000,
    far_large_records=1_150_000,
    far_small_records=500_000,
    passes=3,
    first_bytes=100,
    slices=4,
    slice_s=20,
    replica_segment_bytes=64 * MIB,
    memory_segment_bytes=64 * MIB,
    memory_records=2_000_000,
)
QUICK = Scale(
    large_segment_bytes=64 * MIB,
    large_records=140_000,
    small_segment_bytes=8 * MIB,
    small_records=100_000,
    far_large_records=75_000,
    far_small_records=50_000,
    passes=1,
    first_bytes=10,
    slices=1,
    slice_s=3,
    replica_segment_bytes=4 * MIB,
    memory_segment_bytes=8 * MIB,
    memory_records=150_000,
)


@dataclass(frozen=True, slots=True)
class TieringExperiment:
    """A load on brokers of its own with a part of a bucket of its own, and the rows that come of it."""

    name: str
    title: str
    run: Callable[[Bucket, Path, Scale], Numbers]
    metrics: tuple[Metric, ...]
    far: bool = False
    """Whether distance matters: it is measured with a bucket that is far away, too."""
