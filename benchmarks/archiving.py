"""What archiving costs those who do not ask for it: latency of hot producers, memory, and bytes for a new replica.

Latency and memory are compared with the same writes to a topic that is not tiered, on the same broker in turns, or on an
equal one. Whatever serves the bucket shares the machine, too; latency is judged beside a bucket that takes as much from
somebody else (`benchmarks.bare_uploads`), and shown beside one that takes nothing.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from benchmarks import load, paced, processes, requests
from benchmarks.buckets import Bucket, DirectoryBucket
from benchmarks.experiments import Metric, Numbers, cpu_of
from benchmarks.raw_client import RawClient, RequestFailedError
from benchmarks.systems import HOST
from benchmarks.tiered_broker import TIERED, TieredBroker
from benchmarks.tiering_scale import BATCH_BYTES, MIB, Scale, TieringExperiment

_HOT, _ARCHIVED, _PLAIN = "hot", "archived", "plain"
_BUSY, _IDLE = "busy_bucket", "idle_bucket"
_TURNS = (_ARCHIVED, _BUSY, _IDLE)
"""The writer's topic is archived, or it is not: then the bucket is busy all the same, or idle."""
_HOT_PARTITIONS = 4
_HOT_RATE = 100.0
_WRITTEN_PARTITIONS = 2
_WRITTEN_BYTES_PER_S = 16_000_000
_WRITTEN_SEGMENT_BYTES = 8 * MIB
_LEAD_IN_S = 2.0
_MOVED = "moved"
_SEALED_SEGMENTS = 19
"""And one that is open and nearly full: a twentieth of the partition is not tiered."""
_MEMORY_PARTITIONS = 8


def _plain(segment_bytes: int) -> dict[str, str]:
    """Return settings of a topic that is not tiered and loses its sealed segments as early as a tiered one."""
    return {
        "remote.storage.enable": "false",
        "segment.bytes": str(segment_bytes),
        "retention.ms": "-1",
        "retention.bytes": "1",
    }


# -- latency -----------------------------------------------------------------------------------------------------------


def hot(bucket: Bucket, directory: Path, scale: Scale) -> Numbers:
    """Measure one-record produce beside a steady writer whose topic is archived, or is not."""
    numbers: Numbers = {}
    for flush in ("Fsync", "Replicated"):
        broker = TieredBroker(directory / flush, bucket.part(flush), flush=flush)
        broker.prepare()
        broker.start()
        try:
            found = _hot(broker, bucket.part(f"{flush}-bare"), scale)
        finally:
            broker.stop()
        numbers |= {f"{flush.lower()}_{key}": value for key, value in found.items()}
    return numbers


def _hot(broker: TieredBroker, bucket: Bucket, scale: Scale) -> Numbers:
    segment = {"segment.bytes": str(_WRITTEN_SEGMENT_BYTES)}
    broker.create(_HOT, _HOT_PARTITIONS, _plain(1 << 30) | {"retention.bytes": "-1"})
    broker.create(_ARCHIVED, _WRITTEN_PARTITIONS, TIERED | segment)
    broker.create(_PLAIN, _WRITTEN_PARTITIONS, _plain(_WRITTEN_SEGMENT_BYTES))
    took: dict[str, list[float]] = {kind: [] for kind in _TURNS}
    busy: dict[str, list[float]] = {kind: [] for kind in _TURNS}
    uploaded, numbers = 0.0, {}
    # The first turn warms up; every other one goes the other way round.
    for turn in range(scale.slices + 1):
        for kind in _TURNS if turn % 2 else reversed(_TURNS):
            before = _uploaded(broker)
            found, used = _slice(broker, bucket, kind, scale.slice_s)
            if kind == _ARCHIVED:
                broker.await_tail_only(_ARCHIVED, _WRITTEN_PARTITIONS)
            if turn:
                took[kind] += found
                busy[kind].append(used)
                uploaded += _uploaded(broker) - before
                numbers[f"{kind}_p99_us_{turn}"] = _quantile(found, 0.99)
    written = scale.slices * scale.slice_s * _WRITTEN_BYTES_PER_S
    if uploaded < 0.8 * written:
        raise RequestFailedError(f"{uploaded:.0f} bytes were archived in parallel, of {written:.0f} written")
    for kind, found in took.items():
        numbers |= {
            f"{kind}_p50_us": _quantile(found, 0.5),
            f"{kind}_p99_us": _quantile(found, 0.99),
            f"{kind}_busy_cores": sum(busy[kind]) / len(busy[kind]),
        }
    for share in ("p50", "p99"):
        numbers[f"{share}_ratio"] = numbers[f"{_ARCHIVED}_{share}_us"] / numbers[f"{_BUSY}_{share}_us"]
    return numbers | {"requests": float(len(took[_ARCHIVED]))}


def _slice(broker: TieredBroker, bucket: Bucket, kind: str, seconds: float) -> tuple[list[float], float]:
    """Return the latencies beside one writer, and how many cores the broker kept busy."""
    with contextlib.ExitStack() as beside:
        if kind == _BUSY:
            beside.enter_context(bucket.bare_uploads(_WRITTEN_SEGMENT_BYTES, _WRITTEN_BYTES_PER_S))
        topic = _ARCHIVED if kind == _ARCHIVED else _PLAIN
        beside.enter_context(paced.writer(broker.bootstrap, topic, _WRITTEN_PARTITIONS, _WRITTEN_BYTES_PER_S))
        time.sleep(_LEAD_IN_S)
        with cpu_of(broker) as use:
            found = paced.latencies(
                HOST,
                broker.port,
                _HOT.encode(),
                range(_HOT_PARTITIONS),
                load.values()[0],
                _HOT_RATE,
                seconds,
            )
    return found, use.broker_s / use.elapsed_s


def _uploaded(broker: TieredBroker) -> float:
    return broker.counter("strandline_tier_uploaded_bytes_total")


def _quantile(seconds: list[float], share: float) -> float:
    """Return a quantile in microseconds."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e6


# -- a new replica -----------------------------------------------------------------------------------------------------


def new_replica(bucket: Bucket, directory: Path, scale: Scale) -> Numbers:
    """Move a replica of a partition that is tiered but for a twentieth to a broker that has nothing of it."""
    broker = TieredBroker(directory, bucket, brokers=3)
    broker.prepare()
    broker.start()
    try:
        return _move(broker, scale.replica_segment_bytes)
    finally:
        broker.stop()


def _move(broker: TieredBroker, segment_bytes: int) -> Numbers:
    broker.create(_MOVED, 1, TIERED | {"segment.bytes": str(segment_bytes)}, replicas=2)
    _write(broker, int((_SEALED_SEGMENTS + 0.4) * segment_bytes))
    row = broker.led(_MOVED)[0]
    leader = row["broker"]
    # Nearly full, but not so full that the next batch seals it.
    while row["tier"]["unprotectedBytes"] < 0.9 * segment_bytes:
        broker.await_tail_only(_MOVED, 1, leader)
        _write(broker, segment_bytes // 20)
        row = broker.led(_MOVED)[0]
    broker.await_tail_only(_MOVED, 1, leader)
    tier = broker.led(_MOVED)[0]["tier"]
    size = tier["remoteBytes"] + tier["unprotectedBytes"]
    (new,) = set(range(broker.brokers)) - set(row["replicas"])
    before = _copied(broker, new)
    began = time.monotonic()
    client = RawClient(HOST, broker.port + leader)
    try:
        answer = client.ask(requests.alter_reassignments(_MOVED.encode(), {0: [leader, new]}, 1))
    finally:
        client.close()
    if code := requests.alter_reassignments_error(answer):
        raise RequestFailedError(f"AlterPartitionReassignments: error {code}")
    broker.wait_until(
        lambda: all(
            set(one["isr"]) == set(one["replicas"]) == {leader, new} for one in broker.led(_MOVED).values()
        ),
        f"broker {new} is in sync",
    )
    took = time.monotonic() - began
    replicated, got = (after - former for after, former in zip(_copied(broker, new), before, strict=True))
    if replicated < tier["unprotectedBytes"]:
        raise RequestFailedError(
            f"broker {new} copied {replicated:.0f} bytes, less than is not tiered: {tier}"
        )
    return {
        "size_mb": size / 1e6,
        "tiered_percent": 100 * tier["remoteBytes"] / size,
        "replicated_mb": replicated / 1e6,
        "from_bucket_mb": got / 1e6,
        "copied_percent": 100 * (replicated + got) / size,
        "in_sync_s": took,
    }


def _write(broker: TieredBroker, size_bytes: int) -> None:
    records = max(1, size_bytes // load.RECORD_BYTES)
    load.produce(broker.all_bootstrap, _MOVED, [0], records, min(BATCH_BYTES, max(size_bytes // 4, 10_000)))


def _copied(broker: TieredBroker, new: int) -> tuple[float, float]:
    """Return the bytes that a broker got from leaders, of the topic, and from the bucket, of everything."""
    return (
        broker.counter("strandline_topic_replication_received_bytes_total", f'topic="{_MOVED}"', new),
        broker.counter("strandline_tier_request_bytes_total", 'kind="get"', new),
    )


# -- memory ------------------------------------------------------------------------------------------------------------


def memory(bucket: Bucket, directory: Path, scale: Scale) -> Numbers:
    """Compare the most memory of a broker that archives with that of one that takes the same records and does not.

    The other one has a directory as bucket, so what is loaded to speak S3 counts as the archiver's.
    """
    unused = DirectoryBucket(directory / "unused")
    plain = _peak(TieredBroker(directory / _PLAIN, unused), scale, archive=False)
    archived = _peak(TieredBroker(directory / _ARCHIVED, bucket), scale, archive=True)
    return {
        "plain_peak_mb": plain / 1e6,
        "archived_peak_mb": archived / 1e6,
        "archiver_mb": (archived - plain) / 1e6,
    }


def _peak(broker: TieredBroker, scale: Scale, *, archive: bool) -> int:
    segment_bytes = scale.memory_segment_bytes
    config = TIERED | {"segment.bytes": str(segment_bytes)} if archive else _plain(segment_bytes)
    topic = _ARCHIVED if archive else _PLAIN
    broker.prepare()
    broker.start()
    try:
        broker.create(topic, _MEMORY_PARTITIONS, config)
        load.produce(broker.bootstrap, topic, range(_MEMORY_PARTITIONS), scale.memory_records, BATCH_BYTES)
        if archive:
            broker.await_tail_only(topic, _MEMORY_PARTITIONS)
        pid = broker.pid_of(0)
        assert pid is not None, "it has just answered"
        return processes.peak_rss(pid)
    finally:
        broker.stop()


# -- rows --------------------------------------------------------------------------------------------------------------


def _hot_metrics(flush: str) -> tuple[Metric, ...]:
    what = f"one-record produce, {flush}, 100/s beside 16 MB/s"
    key = flush.lower()
    kinds = {
        _ARCHIVED: "with archiving",
        _BUSY: "without, the bucket as busy",
        _IDLE: "without, the bucket idle",
    }
    return (
        Metric(
            f"{key}_p99_ratio",
            f"{what}: p99 with archiving / without, the bucket as busy",
            "ratio",
            budget="1.2",
        ),
        Metric(f"{key}_p50_ratio", f"{what}: p50 with archiving / without, the bucket as busy", "ratio"),
        *(
            Metric(f"{key}_{kind}_{share}_us", f"{what}: {share} {how}", "us")
            for share in ("p99", "p50")
            for kind, how in kinds.items()
        ),
        *(
            Metric(f"{key}_{kind}_busy_cores", f"{what}: busy cores of the broker {how}", "cores")
            for kind, how in kinds.items()
            if kind != _BUSY
        ),
    )


EXPERIMENTS = (
    TieringExperiment(
        "hot",
        "latency of producers beside the archiver",
        hot,
        (*_hot_metrics("Fsync"), *_hot_metrics("Replicated")),
    ),
    TieringExperiment(
        "replica",
        "a new replica of a tiered partition",
        new_replica,
        (
            Metric("copied_percent", "new replica: bytes copied, of the partition's", "%", budget="6"),
            Metric("tiered_percent", "of the partition in the bucket", "%", lower_is_better=False),
            Metric("size_mb", "size of the partition", "MB"),
            Metric("in_sync_s", "new replica: until it is in sync", "s"),
        ),
    ),
    TieringExperiment(
        "memory",
        "memory of the archiver",
        memory,
        (
            Metric("archiver_mb", "peak memory with archiving less without, RSS", "MB", budget="64"),
            Metric("archived_peak_mb", "peak memory with archiving, RSS", "MB"),
            Metric("plain_peak_mb", "peak memory without, RSS", "MB"),
        ),
    ),
)
