"""What `/v1/partitions` shows of each partition, the rates in it, and how far followers are. Pure: times are arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from strandline_broker.replica.partition import Partition

if TYPE_CHECKING:
    from strandline_broker.server.tiering import Tiering

_UNKNOWN = -1


class Rates(NamedTuple):
    """Bytes per second: from producers, to consumers, and from and to other replicas."""

    bytes_in: float
    bytes_out: float
    replicated_in: float
    replicated_out: float


_Counts = tuple[int, int, int, int]
_Sample = tuple[float, dict[tuple[str, int], tuple[Partition, _Counts]]]


def _counts(partition: Partition) -> _Counts:
    return partition.bytes_in, partition.bytes_out, partition.replicated_in, partition.replicated_out


class RateSampler:
    """Bytes per second of each partition, over the last one to two sampling intervals.

    `sample` is called at a steady interval; memory is bounded by the partitions that exist.
    """

    def __init__(self) -> None:
        self._older: _Sample | None = None
        self._newer: _Sample | None = None

    def sample(self, partitions: Iterable[Partition], now: float) -> None:
        """Remember the counters; `now` in seconds of a monotonic clock."""
        counters = {(p.topic, p.index): (p, _counts(p)) for p in partitions}
        self._older, self._newer = self._newer, (now, counters)

    def rates(self, partition: Partition, now: float) -> Rates:
        """Return what moves; nothing before the first sample."""
        sample = self._older or self._newer
        if sample is None or now <= sample[0]:
            return Rates(0.0, 0.0, 0.0, 0.0)
        known, then = sample[1].get((partition.topic, partition.index), (None, (0, 0, 0, 0)))
        if known is not partition:
            then = (0, 0, 0, 0)  # opened since: its counters began anew
        seconds = now - sample[0]
        return Rates(
            *((count - before) / seconds for count, before in zip(_counts(partition), then, strict=True))
        )


class FollowerProgress(NamedTuple):
    """A follower as its leader knows it; offsets and lag in records, -1 before its first fetch in this epoch."""

    broker_id: int
    log_end: int
    lag: int
    in_sync: bool


def followers_of(partition: Partition) -> Iterator[FollowerProgress]:
    """Yield the other replicas of a partition that is led here, in the order of its replicas; nobody's otherwise."""
    leadership = partition.leadership
    if leadership is None:
        return
    in_sync = leadership.state.isr_ids
    for broker_id in leadership.state.replicas:
        if broker_id == partition.leader_id:
            continue
        follower = leadership.followers.get(broker_id)
        log_end = follower.log_end if follower is not None else _UNKNOWN
        lag = max(partition.log.end_offset - log_end, 0) if log_end >= 0 else _UNKNOWN
        yield FollowerProgress(broker_id, log_end, lag, broker_id in in_sync)


def report(
    partitions: Iterable[Partition], sampler: RateSampler, now: float, tiering: Tiering | None = None
) -> list[dict[str, Any]]:
    """Return one JSON object per partition, by topic and number.

    Offsets are those of the next record; sizes in bytes; lags in records, -1 for unknown: a follower's behind its leader's
    high watermark, in `followers` behind the leader's log end. `role` is leader, follower (another broker leads), offline
    (nobody does) or failed (the log cannot be used, `problem` says why). Only a leader shows ISR and followers, whether its
    partition is `recovering` (design section 3.3), and, as `tier`, what is in the bucket.
    """
    rows = []
    for partition in sorted(partitions, key=lambda p: (p.topic, p.index)):
        log = partition.log
        rates = sampler.rates(partition, now)
        row: dict[str, Any] = {
            "topic": partition.topic,
            "partition": partition.index,
            "role": _role(partition),
            "leader": partition.leader_id,
            "leaderEpoch": partition.leader_epoch,
            "logStartOffset": partition.log_start_offset,
            "highWatermark": partition.high_watermark,
            "lastStableOffset": partition.last_stable_offset,
            "syncedEndOffset": log.synced_end,
            "logEndOffset": log.end_offset,
            "sizeBytes": log.size_bytes,
            "bytesInPerSecond": round(rates.bytes_in, 1),
            "bytesOutPerSecond": round(rates.bytes_out, 1),
            "replicationBytesInPerSecond": round(rates.replicated_in, 1),
            "replicationBytesOutPerSecond": round(rates.replicated_out, 1),
        }
        if partition.leadership is not None:
            row |= _leadership(partition)
        elif partition.leader_id >= 0:
            row["lag"] = partition.lag
        if partition.tier is not None:
            row |= _tier(partition, tiering)
        if log.failed:
            row["problem"] = log.failed
        rows.append(row)
    return rows


def _leadership(partition: Partition) -> dict[str, Any]:
    assert partition.leadership is not None
    state = partition.leadership.state
    return {
        "replicas": list(state.replicas),
        "isr": list(state.isr_ids),
        "eligibleLeaderReplicas": [ref.broker_id for ref in state.elr],
        "minInsyncReplicas": partition.min_isr,
        "partitionEpoch": state.partition_epoch,
        "recovering": state.recovering,
        "followers": [
            {"broker": one.broker_id, "logEndOffset": one.log_end, "lag": one.lag, "inSync": one.in_sync}
            for one in followers_of(partition)
        ],
    }


def _tier(partition: Partition, tiering: Tiering | None) -> dict[str, Any]:
    """Return what is shown of a tiered partition; bytes and milliseconds, -1 while the manifest is not loaded."""
    assert partition.tier is not None
    shown: dict[str, Any] = {
        "localLogStartOffset": partition.local_log_start_offset,
        "tieredThrough": partition.tier.tiered_through,
    }
    figures = tiering.figures(partition) if tiering is not None else None
    if figures is not None:
        shown["tier"] = {
            "state": figures.phase,
            "remoteBytes": figures.remote_bytes,
            "remoteLogStartOffset": figures.remote_log_start,
            "remoteEndOffset": figures.remote_end,
            "unprotectedBytes": figures.unprotected_bytes,
            "unprotectedAgeMs": figures.unprotected_age_ms,
            **({"problem": figures.problem} if figures.problem else {}),
        }
    return shown


def _role(partition: Partition) -> str:
    if partition.log.failed:
        return "failed"
    if partition.is_leader:
        return "leader"
    return "follower" if partition.leader_id >= 0 else "offline"
