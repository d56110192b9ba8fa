"""Reads of what is only in the bucket: through a broker whose caches are empty, and by a bare client beside it.

Two topics: one partition with segments of the default size, which is the worst case for a reader (one stream), and several
partitions with small segments. Sequential reads take turns with the bare client, which gets the same objects in the same
chunks, as many at once as the broker's reader may. Both sides include their client: a Fetch client on a bare socket that
does not look at records, and a client for ranged GETs that does not look at bytes. What uploading and reading cost in
requests comes by the way.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import fetch_client, load, processes
from benchmarks.buckets import Bucket, FirstByte, ranges_of
from benchmarks.experiments import Metric, Numbers, cpu_of
from benchmarks.raw_client import RequestFailedError
from benchmarks.systems import HOST
from benchmarks.tiered_broker import TIERED, TieredBroker
from benchmarks.tiering_scale import BATCH_BYTES, Scale, TieringExperiment

CHUNK_BYTES = 4 << 20
CONCURRENCY = 6
"""As a broker's reader has them with the default of `tiering_cache_memory_bytes` (`bucket_log.reader_config`)."""
_APART = 3
"""Chunks between two places of which the first byte is measured: none finds what another one brought."""
_FIRST_FETCH_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class _Topic:
    name: str
    partitions: int
    segment_bytes: int
    records: int


def cold(bucket: Bucket, directory: Path, scale: Scale) -> Numbers:
    """Fill both topics, then read them cold, with a new broker process each time."""
    topics = (
        _Topic("large", 1, scale.large_segment_bytes, scale.large_records),
        _Topic("small", 4, scale.small_segment_bytes, scale.small_records),
    )
    broker = TieredBroker(directory, bucket)
    broker.prepare()
    numbers: Numbers = {}
    try:
        broker.start()
        for topic in topics:
            numbers |= _named(topic, _fill(broker, topic))
        broker.stop()
        for topic in topics:
            numbers |= _named(topic, _read(broker, bucket, topic, scale))
        numbers |= _first_bytes(broker, bucket, topics, scale)
    finally:
        broker.stop()
    return numbers


def _named(topic: _Topic, numbers: Numbers) -> Numbers:
    return {f"{topic.name}_{key}": value for key, value in numbers.items()}


def _fill(broker: TieredBroker, topic: _Topic) -> Numbers:
    """Write a topic, wait until only its tail is local, and tell what that cost."""
    before = broker.requests("put")
    broker.create(topic.name, topic.partitions, {**TIERED, "segment.bytes": str(topic.segment_bytes)})
    load.produce(broker.bootstrap, topic.name, range(topic.partitions), topic.records, BATCH_BYTES)
    broker.await_tail_only(topic.name, topic.partitions)
    uploaded = sum(row["tier"]["remoteBytes"] for row in broker.rows(topic.name).values())
    return {
        "puts_per_gb": (broker.requests("put") - before) / (uploaded / 1e9),
        "uploaded_mb": uploaded / 1e6,
    }


def _read(broker: TieredBroker, bucket: Bucket, topic: _Topic, scale: Scale) -> Numbers:
    ranges = ranges_of(bucket.objects(topic.name), CHUNK_BYTES)
    bucket.forget()
    bucket.read(ranges, CONCURRENCY)  # the bucket's own caches: whoever comes first must not pay for them
    passes: list[Numbers] = []
    for _ in range(scale.passes):
        bucket.forget()
        before = processes.machine_cpu_s()
        raw = bucket.read(ranges, CONCURRENCY)
        raw_machine_s = processes.machine_cpu_s() - before
        raw_mb_per_s = raw.size_bytes / 1e6 / raw.elapsed_s
        found = _read_cold(broker, bucket, topic)
        passes.append(
            {
                **found,
                "raw_mb_per_s": raw_mb_per_s,
                "raw_cpu_s_per_gb": raw.cpu_s / (raw.size_bytes / 1e9),
                "raw_machine_cores": raw_machine_s / raw.elapsed_s,
                "ratio": found["mb_per_s"] / raw_mb_per_s,
            }
        )
    medians = {key: statistics.median(one[key] for one in passes) for key in passes[0]}
    every = {
        f"{key}_{number}": one[key]
        for number, one in enumerate(passes, 1)
        for key in ("mb_per_s", "raw_mb_per_s")
    }
    return medians | every


def _read_cold(broker: TieredBroker, bucket: Bucket, topic: _Topic) -> Numbers:
    """Read a topic up to where the local log begins, with a new broker process."""
    broker.start()
    try:
        ends = broker.await_manifests(topic.name, topic.partitions)
        broker.settle()
        bucket.forget()
        client = fetch_client.FetchClient(HOST, broker.port, topic.name)
        gets, got = broker.requests("get"), _bytes_got(broker)
        try:
            before = processes.machine_cpu_s()
            with cpu_of(broker) as use:
                read = fetch_client.read(client, ends)
            machine_s = processes.machine_cpu_s() - before
        finally:
            client.close()
        gets, got = broker.requests("get") - gets, _bytes_got(broker) - got
    finally:
        broker.stop()
    if got < 0.95 * read.size_bytes:
        raise RequestFailedError(
            f"{topic.name}: only {got:.0f} of {read.size_bytes} bytes came from the bucket"
        )
    gigabytes = read.size_bytes / 1e9
    return {
        "mb_per_s": read.size_bytes / 1e6 / read.elapsed_s,
        "cpu_s_per_gb": use.broker_s / gigabytes,
        "busy_cores": use.broker_s / use.elapsed_s,
        "machine_cores": machine_s / use.elapsed_s,
        "gets_per_gb": gets / gigabytes,
        "bucket_bytes_per_byte": got / read.size_bytes,
    }


def _bytes_got(broker: TieredBroker) -> float:
    return broker.counter("strandline_tier_request_bytes_total", 'kind="get"')


def _first_bytes(broker: TieredBroker, bucket: Bucket, topics: Sequence[_Topic], scale: Scale) -> Numbers:
    """Measure the first byte at random cold places: by Fetch, and by ranged GETs of chunks in the same objects."""
    rng = random.Random(1)
    fetched: list[float] = []
    raw: list[FirstByte] = []
    for topic in topics:
        objects = bucket.objects(topic.name)
        whole = [one for one in ranges_of(objects, CHUNK_BYTES) if one.end - one.start == CHUNK_BYTES]
        bucket.forget()
        raw += bucket.first_bytes(rng.sample(whole, min(scale.first_bytes, len(whole))))
        broker.start()
        try:
            ends = broker.await_manifests(topic.name, topic.partitions)
            places = _places(ends, sum(one.size_bytes for one in objects))
            broker.settle()
            bucket.forget()
            client = fetch_client.FetchClient(HOST, broker.port, topic.name)
            try:
                for partition, offset in rng.sample(places, min(scale.first_bytes, len(places))):
                    answer = client.fetch({partition: offset}, partition_max_bytes=_FIRST_FETCH_BYTES)
                    if not answer.rows or answer.rows[0].next_offset < 0:
                        raise RequestFailedError(f"{topic.name}-{partition} has nothing at {offset}")
                    fetched.append(answer.first_byte_s)
            finally:
                client.close()
        finally:
            broker.stop()
    return {
        **_quantiles("first", fetched),
        **_quantiles("raw_first", [one.first_s for one in raw]),
        **_quantiles("raw_chunk", [one.last_s for one in raw]),
        "first_samples": len(fetched),
        "raw_samples": len(raw),
    }


def _places(ends: dict[int, int], size_bytes: int) -> list[tuple[int, int]]:
    """Return (partition, offset) of places in the bucket that lie some chunks apart, about."""
    record_bytes = size_bytes / sum(ends.values())
    step = int(_APART * CHUNK_BYTES / record_bytes)
    return [(partition, offset) for partition, end in ends.items() for offset in range(step // 2, end, step)]


def _quantiles(name: str, seconds: Iterable[float]) -> Numbers:
    ordered = sorted(seconds)
    at = {
        share: ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 for share in (0.5, 0.9, 0.99)
    }
    return {f"{name}_p50_ms": at[0.5], f"{name}_p90_ms": at[0.9], f"{name}_p99_ms": at[0.99]}


def _read_metrics(name: str, what: str) -> tuple[Metric, ...]:
    return (
        Metric(
            f"{name}_ratio",
            f"cold sequential read / raw ranged GETs, {what}",
            "ratio",
            lower_is_better=False,
            budget="0.8",
        ),
        Metric(f"{name}_mb_per_s", f"cold sequential read, {what}", "MB/s", lower_is_better=False),
        Metric(f"{name}_raw_mb_per_s", f"raw ranged GETs, {what}", "MB/s", lower_is_better=False),
        Metric(f"{name}_cpu_s_per_gb", f"cold sequential read, {what}: broker CPU", "s/GB"),
        Metric(f"{name}_raw_cpu_s_per_gb", f"raw ranged GETs, {what}: CPU of the client", "s/GB"),
        Metric(f"{name}_machine_cores", f"cold sequential read, {what}: busy cores of the machine", "cores"),
        Metric(f"{name}_raw_machine_cores", f"raw ranged GETs, {what}: busy cores of the machine", "cores"),
        Metric(f"{name}_gets_per_gb", f"GET requests of a cold read, {what}", "per GB"),
        Metric(f"{name}_puts_per_gb", f"PUT requests of uploading, {what}", "per GB"),
    )


EXPERIMENT = TieringExperiment(
    "cold",
    "reads from the bucket",
    cold,
    (
        *_read_metrics("large", "one partition, large segments"),
        *_read_metrics("small", "4 partitions, small segments"),
        Metric("first_p50_ms", "first byte of a cold Fetch, p50", "ms"),
        Metric("first_p99_ms", "first byte of a cold Fetch, p99", "ms"),
        Metric("raw_first_p50_ms", "first byte of a raw ranged GET of a chunk, p50", "ms"),
        Metric("raw_first_p99_ms", "first byte of a raw ranged GET of a chunk, p99", "ms"),
        Metric("raw_chunk_p50_ms", "last byte of a raw ranged GET of a chunk, p50", "ms"),
        Metric("raw_chunk_p99_ms", "last byte of a raw ranged GET of a chunk, p99", "ms"),
    ),
    far=True,
)
