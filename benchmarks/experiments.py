"""The experiments: each runs one load against one running broker and returns named numbers.

Callers: `benchmarks.run`. The CPU figures are user + system time of the broker process over the load, divided
by the work; what supervises the broker is reported beside it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from confluent_kafka import KafkaException

from benchmarks import load, processes, raw_client, requests, segments
from benchmarks.systems import HOST, Broker, BrokerFailedError

PARTITIONS = 8
CONNECTIONS = 8  # each with a partition of its own
IN_FLIGHT = 5  # per connection: the default of Kafka's Java producer
_LARGE_BATCH_BYTES = 1_000_000
_SMALL_BATCH_BYTES = 16_384
_RETRY_S = 0.005
_START_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much one run of each experiment does."""

    records: int
    alone_requests: int
    saturated_requests: int
    settle_s: float


FULL = Scale(records=1_000_000, alone_requests=20_000, saturated_requests=100_000, settle_s=30)
QUICK = Scale(records=100_000, alone_requests=2_000, saturated_requests=20_000, settle_s=5)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table."""

    key: str
    title: str
    unit: str
    lower_is_better: bool = True
    budget: str = ""


Numbers = dict[str, float]
Run = Callable[[Broker, Scale, str], Numbers]


@dataclass(frozen=True, slots=True)
class Experiment:
    """A load and the rows that come of it. `run(broker, scale, suffix)`: suffix makes topic names unique."""

    name: str
    title: str
    run: Run
    metrics: tuple[Metric, ...]
    fresh: bool = False
    """Whether it wants a broker that is not started yet, with an empty folder."""


@dataclass(slots=True)
class CpuUse:
    """CPU seconds over a `with cpu_of(...)` block."""

    broker_s: float = 0.0
    supervisor_s: float = 0.0
    elapsed_s: float = 0.0
    pids: list[int] = field(default_factory=list)


@contextmanager
def cpu_of(broker: Broker) -> Iterator[CpuUse]:
    """Measure the CPU time of a broker over the block.

    Raises:
        BrokerFailedError: it was restarted meanwhile, so that the numbers would be those of two processes.

    """
    use = CpuUse(pids=broker.broker_pids())
    supervisors = broker.supervisor_pids()
    broker_before, supervisor_before = processes.cpu_s(use.pids), processes.cpu_s(supervisors)
    began = time.perf_counter()
    yield use
    use.elapsed_s = time.perf_counter() - began
    if broker.broker_pids()[0] != use.pids[0]:
        raise BrokerFailedError(f"{broker.label} restarted during the measurement: {broker.tail()}")
    use.broker_s = processes.cpu_s(use.pids) - broker_before
    use.supervisor_s = processes.cpu_s(supervisors) - supervisor_before


def _create(broker: Broker, topic: str) -> None:
    client = raw_client.RawClient(HOST, broker.port)
    try:
        client.create_topic(topic.encode(), PARTITIONS)
    finally:
        client.close()


def _produce(broker: Broker, scale: Scale, topic: str, batch_bytes: int) -> Numbers:
    _create(broker, topic)
    with cpu_of(broker) as use:
        moved = load.produce(broker.bootstrap, topic, range(PARTITIONS), scale.records, batch_bytes)
    ends = load.end_offsets(broker.bootstrap, topic, range(PARTITIONS))
    if sum(ends) != scale.records:
        raise load.LoadError(f"{broker.label} acknowledged {scale.records} records and holds {sum(ends)}")
    batches = segments.scan([broker.log_directory(topic, index) for index in range(PARTITIONS)])
    if batches.records != scale.records:
        raise load.LoadError(f"{broker.label} holds {batches.records} of {scale.records} records on disk")
    return _per_gb(use, moved) | {"batch_bytes": batches.mean_bytes}


def _per_gb(use: CpuUse, moved: load.Moved) -> Numbers:
    gigabytes = moved.value_bytes / 1e9
    return {
        "cpu_s_per_gb": use.broker_s / gigabytes,
        "supervisor_s_per_gb": use.supervisor_s / gigabytes,
        "mb_per_s": moved.value_bytes / 1e6 / moved.elapsed_s,
        "busy_cores": use.broker_s / use.elapsed_s,
    }


def _large_topic(suffix: str) -> str:
    return f"bench-large-{suffix}"


def produce_large(broker: Broker, scale: Scale, suffix: str) -> Numbers:
    """Produce with batches of ~1 MB."""
    return _produce(broker, scale, _large_topic(suffix), _LARGE_BATCH_BYTES)


def produce_small(broker: Broker, scale: Scale, suffix: str) -> Numbers:
    """Produce with batches of 16 KB."""
    return _produce(broker, scale, f"bench-small-{suffix}", _SMALL_BATCH_BYTES)


def fetch_cached(broker: Broker, scale: Scale, suffix: str) -> Numbers:
    """Read a topic of ~1 MB batches from the page cache (its files are read once before)."""
    topic = _large_topic(suffix)
    try:
        held = sum(load.end_offsets(broker.bootstrap, topic, range(PARTITIONS)))
    except KafkaException:
        held = 0
    if held != scale.records:  # run without `produce-1mb` before it
        produce_large(broker, scale, suffix)
    for partition in range(PARTITIONS):
        for segment in sorted(broker.log_directory(topic, partition).glob("*.log")):
            with segment.open("rb", buffering=0) as file, open("/dev/null", "wb") as sink:
                shutil.copyfileobj(file, sink, 1 << 20)
    with cpu_of(broker) as use:
        moved = load.fetch(broker.bootstrap, topic, range(PARTITIONS), scale.records)
    return _per_gb(use, moved)


def _one_record_topic(broker: Broker, name: str) -> tuple[bytes, bytes]:
    topic, value = name.encode(), load.values()[0]
    client = raw_client.RawClient(HOST, broker.port)
    try:
        client.create_topic(topic, PARTITIONS)
        client.await_writable(topic, range(PARTITIONS), requests.batch([value], int(time.time() * 1000)).data)
    finally:
        client.close()
    return topic, value


def _per_request(use: CpuUse, seen: raw_client.Latencies) -> Numbers:
    return {
        "cpu_us_per_request": use.broker_s / seen.requests * 1e6,
        "supervisor_us_per_request": use.supervisor_s / seen.requests * 1e6,
        "requests_per_s": seen.requests / seen.elapsed_s,
        "busy_cores": use.broker_s / use.elapsed_s,
        "p50_us": seen.p50_us,
        "p99_us": seen.p99_us,
        "p999_us": seen.p999_us,
    }


def one_record_saturated(broker: Broker, scale: Scale, suffix: str) -> Numbers:
    """One-record requests, several in flight on each of several connections."""
    topic, value = _one_record_topic(broker, f"bench-saturated-{suffix}")
    with cpu_of(broker) as use:
        seen = raw_client.saturated(
            HOST,
            broker.port,
            topic,
            range(CONNECTIONS),
            value,
            scale.saturated_requests,
            in_flight=IN_FLIGHT,
        )
    return _per_request(use, seen)


def one_record_alone(broker: Broker, scale: Scale, suffix: str) -> Numbers:
    """One-record requests, one after the other."""
    topic, value = _one_record_topic(broker, f"bench-alone-{suffix}")
    with cpu_of(broker) as use:
        seen = raw_client.alone(HOST, broker.port, topic, range(PARTITIONS), value, scale.alone_requests)
    return _per_request(use, seen)


def loaded_memory(broker: Broker, _scale: Scale, _suffix: str) -> Numbers:
    """Look at the memory of a broker that has just served all the other loads."""
    own = processes.memory(broker.broker_pids())
    return {"rss_mb": own.rss / 1e6, "pss_mb": own.pss / 1e6}


def life(broker: Broker, scale: Scale, _suffix: str) -> Numbers:
    """Start on an empty folder, settle, stop, start again."""
    broker.prepare()
    try:
        first_s = _exec_to_ack(broker)
        with cpu_of(broker) as idle:
            time.sleep(scale.settle_s)
        own, other = processes.memory(broker.broker_pids()), processes.memory(broker.supervisor_pids())
        broker.stop()
        again_s = _exec_to_ack(broker)
    finally:
        broker.stop()
    return {
        "start_s": first_s,
        "restart_s": again_s,
        "rss_mb": own.rss / 1e6,
        "pss_mb": own.pss / 1e6,
        "supervisor_pss_mb": other.pss / 1e6,
        "idle_cpu_percent": 100 * idle.broker_s / idle.elapsed_s,
        "supervisor_idle_cpu_percent": 100 * idle.supervisor_s / idle.elapsed_s,
    }


def _exec_to_ack(broker: Broker) -> float:
    topic, data = b"bench-first", requests.batch([load.values()[0]], int(time.time() * 1000)).data
    before = broker.exec()
    deadline = before + _START_TIMEOUT_S
    while True:
        broker.check()
        try:
            client = raw_client.RawClient(HOST, broker.port)
            try:
                client.create_topic(topic, 1)
                client.await_writable(topic, range(1), data)
                return time.perf_counter() - before
            finally:
                client.close()
        except (OSError, raw_client.RequestFailedError) as not_yet:
            if time.perf_counter() > deadline:
                raise BrokerFailedError(f"{broker.label}: {not_yet}; {broker.tail()}") from not_yet
            time.sleep(_RETRY_S)


def _throughput_metrics(what: str, budget: str) -> tuple[Metric, ...]:
    return (
        Metric("cpu_s_per_gb", f"{what}: broker CPU", "s/GB", budget=budget),
        Metric(
            "mb_per_s", f"{what}: throughput with the load on the same cores", "MB/s", lower_is_better=False
        ),
    )


def _request_metrics(what: str, budget: str) -> tuple[Metric, ...]:
    return (
        Metric("cpu_us_per_request", f"{what}: broker CPU", "us/request", budget=budget),
        Metric("requests_per_s", f"{what}: rate", "requests/s", lower_is_better=False),
        Metric("p50_us", f"{what}: latency p50", "us"),
        Metric("p99_us", f"{what}: latency p99", "us"),
        Metric("p999_us", f"{what}: latency p99.9", "us"),
    )


EXPERIMENTS = (
    Experiment(
        "produce-1mb",
        "produce, ~1 MB batches",
        produce_large,
        _throughput_metrics("produce, ~1 MB batches", "0.65"),
    ),
    Experiment(
        "fetch", "fetch from page cache", fetch_cached, _throughput_metrics("fetch from page cache", "0.28")
    ),
    Experiment(
        "produce-16kb",
        "produce, 16 KB batches",
        produce_small,
        _throughput_metrics("produce, 16 KB batches", "1.25"),
    ),
    Experiment(
        "saturated",
        "one-record produce, saturated",
        one_record_saturated,
        _request_metrics("one-record produce, saturated", "12"),
    ),
    Experiment(
        "alone",
        "one-record produce, alone",
        one_record_alone,
        _request_metrics("one-record produce, alone", "45"),
    ),
    Experiment(
        "loaded-memory",
        "memory after the loads",
        loaded_memory,
        (Metric("rss_mb", "memory after the loads, RSS", "MB"),),
    ),
    Experiment(
        "life",
        "start-up and idle",
        life,
        (
            Metric("rss_mb", "idle memory, RSS", "MB", budget="80"),
            Metric("pss_mb", "idle memory, PSS", "MB"),
            Metric("idle_cpu_percent", "idle CPU", "% of a core"),
            Metric("start_s", "start on an empty folder to the first acknowledged record", "s"),
            Metric("restart_s", "clean restart to the first acknowledged record", "s"),
        ),
        fresh=True,
    ),
)
