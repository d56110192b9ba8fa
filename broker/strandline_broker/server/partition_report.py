"""What `/v1/partitions` shows of each partition, and the rates in it. Pure but for the sampling times it is given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from strandline_broker.replica.partition import Partition

_Counters = tuple[Partition, int, int]


class RateSampler:
    """Bytes per second of each partition, over the last one to two sampling intervals.

    `sample` is called at a steady interval; memory is bounded by the partitions that exist.
    """

    def __init__(self) -> None:
        self._older: tuple[float, dict[tuple[str, int], _Counters]] | None = None
        self._newer: tuple[float, dict[tuple[str, int], _Counters]] | None = None

    def sample(self, partitions: Iterable[Partition], now: float) -> None:
        """Remember the counters; `now` in seconds of a monotonic clock."""
        counters = {(p.topic, p.index): (p, p.bytes_in, p.bytes_out) for p in partitions}
        self._older, self._newer = self._newer, (now, counters)

    def rates(self, partition: Partition, now: float) -> tuple[float, float]:
        """Return (bytes in, bytes out) per second; zero before the first sample."""
        sample = self._older or self._newer
        if sample is None or now <= sample[0]:
            return 0.0, 0.0
        known, bytes_in, bytes_out = sample[1].get((partition.topic, partition.index), (partition, 0, 0))
        if known is not partition:
            bytes_in = bytes_out = 0  # opened again since: its counters began anew
        seconds = now - sample[0]
        return (partition.bytes_in - bytes_in) / seconds, (partition.bytes_out - bytes_out) / seconds


def report(partitions: Iterable[Partition], sampler: RateSampler, now: float) -> list[dict[str, Any]]:
    """Return one JSON object per partition, by topic and number.

    Offsets are those of the next record; sizes in bytes. `role` is leader, follower (another broker leads), offline
    (nobody does) or failed (the log cannot be used, `problem` says why).
    """
    rows = []
    for partition in sorted(partitions, key=lambda p: (p.topic, p.index)):
        log = partition.log
        bytes_in, bytes_out = sampler.rates(partition, now)
        row: dict[str, Any] = {
            "topic": partition.topic,
            "partition": partition.index,
            "role": _role(partition),
            "leader": partition.leader_id,
            "leaderEpoch": partition.leader_epoch,
            "logStartOffset": log.start_offset,
            "highWatermark": partition.high_watermark,
            "lastStableOffset": partition.last_stable_offset,
            "syncedEndOffset": log.synced_end,
            "logEndOffset": log.end_offset,
            "sizeBytes": log.size_bytes,
            "bytesInPerSecond": round(bytes_in, 1),
            "bytesOutPerSecond": round(bytes_out, 1),
        }
        if log.failed:
            row["problem"] = log.failed
        rows.append(row)
    return rows


def _role(partition: Partition) -> str:
    if partition.log.failed:
        return "failed"
    if partition.is_leader:
        return "leader"
    return "follower" if partition.leader_id >= 0 else "offline"
