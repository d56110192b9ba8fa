"""`python -m benchmarks.profile_hot`: where a broker's CPU time goes under one of the benchmark's loads.

With `--role leader` or `follower` the load goes to three brokers at replication factor 3, to partitions that one leads.

Samples the running broker with py-spy (`pip install py-spy`; attaching needs root or ptrace permission), so that
nothing in the broker is slowed down or changed. Prints functions by their own time and by time with callees.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import load, processes, raw_client, requests
from benchmarks.clusters import BROKERS, StrandlineCluster
from benchmarks.experiments import IN_FLIGHT, PARTITIONS
from benchmarks.kafka_jars import REPOSITORY
from benchmarks.replicated import led_by_one
from benchmarks.systems import HOST, Strandline

_TOPIC = "profile"
_RATE_HZ = 500
_WARM_UP_S = 2.0
_RECORDS = 100_000  # per pass of a load; passes repeat until the sampling ends
_REQUESTS = 20_000
# Where threads wait for work: some kernels show them as running.
_IDLE = ("_worker (concurrent/futures/thread.py", "EpollSelector.select (selectors.py")


class _Target(NamedTuple):
    """What is loaded, and the process that is sampled."""

    bootstrap: str
    port: int
    """Of the broker that leads the partitions."""
    partitions: list[int]
    pid: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile what the arguments ask for; 2 without py-spy."""
    options = _parser().parse_args(arguments)
    sampler = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if sampler is None:
        print("py-spy is not installed: pip install py-spy", file=sys.stderr)
        return 2
    base = REPOSITORY / ".cache"
    base.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="profile-", dir=base))
    start = _start_one if options.role == "alone" else _start_three
    try:
        with start(directory, options.flush, options.role) as target:
            output = directory / "stacks.txt"
            stacks = _sample(
                sampler, target, LOADS[options.load], options.seconds, output, native=options.native
            )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    _print(stacks, options.top)
    return 0


@contextmanager
def _start_one(directory: Path, flush: str, _role: str) -> Iterator[_Target]:
    broker = Strandline(directory, flush)
    try:
        broker.prepare()
        broker.start()
        client = raw_client.RawClient(HOST, broker.port)
        client.create_topic(_TOPIC.encode(), PARTITIONS)
        client.close()
        yield _writable(
            _Target(broker.bootstrap, broker.port, list(range(PARTITIONS)), broker.broker_pids()[0])
        )
    finally:
        broker.stop()


@contextmanager
def _start_three(directory: Path, flush: str, role: str) -> Iterator[_Target]:
    cluster = StrandlineCluster(directory, "profiled", flush)
    try:
        cluster.start()
        leader, partitions = led_by_one(cluster, _TOPIC, PARTITIONS)
        pid = cluster.pids_of(leader if role == "leader" else (leader + 1) % BROKERS)[0]
        numbers = [partition.number for partition in partitions]
        yield _writable(_Target(cluster.bootstrap, cluster.port(leader), numbers, pid))
    finally:
        cluster.discard()


def _writable(target: _Target) -> _Target:
    """Wait until every partition takes a record."""
    client = raw_client.RawClient(HOST, target.port)
    try:
        first = requests.batch(load.values()[:1], int(time.time() * 1000)).data
        client.await_writable(_TOPIC.encode(), target.partitions, first)
    finally:
        client.close()
    return target


def _sample(
    sampler: str, target: _Target, run: Callable[[_Target], None], seconds: int, output: Path, *, native: bool
) -> Counter[tuple[str, ...]]:
    stop = threading.Event()
    failures: list[Exception] = []

    def keep_busy() -> None:
        try:
            while not stop.is_set():
                run(target)
        except (load.LoadError, raw_client.RequestFailedError, OSError) as failed:
            failures.append(failed)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    time.sleep(_WARM_UP_S)
    pid = target.pid
    before, began = processes.cpu_s([pid]), time.perf_counter()
    # fmt: off
    command = [sampler, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(_RATE_HZ),
               "--format", "raw", "--output", str(output), *(["--native"] if native else [])]
    # fmt: on
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    used, took = processes.cpu_s([pid]) - before, time.perf_counter() - began
    stop.set()
    busy.join()
    if failures:
        raise failures[0]
    if done.returncode != 0 or not output.exists():
        raise SystemExit(f"py-spy failed: {done.stderr[-1000:]}")
    print(f"broker: {used:.2f} CPU seconds in {took:.1f} s ({used / took:.0%} of a core)")
    return _stacks(output.read_text())


def _stacks(text: str) -> Counter[tuple[str, ...]]:
    """Parse collapsed stacks: `frame;frame;frame count` per line."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        frames, _blank, count = line.rpartition(" ")
        stack = tuple(_without_line(frame) for frame in frames.split(";"))
        if not stack[-1].startswith(_IDLE):
            found[stack] += int(count)
    return found


def _without_line(frame: str) -> str:
    name, colon, _number = frame.rpartition(":")
    return name + ")" if colon else frame


def _print(stacks: Counter[tuple[str, ...]], top: int) -> None:
    own: Counter[str] = Counter()
    with_callees: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        for frame in set(stack):
            with_callees[frame] += count
    total = max(own.total(), 1)
    for title, counted in (("own time", own), ("time with callees", with_callees)):
        print(f"\n{title}, of {total} samples")
        for frame, count in counted.most_common(top):
            print(f"{count / total:7.1%}  {frame}")


def _produce(batch_bytes: int) -> Callable[[_Target], None]:
    def run(target: _Target) -> None:
        load.produce(target.bootstrap, _TOPIC, target.partitions, _RECORDS, batch_bytes)

    return run


def _fetch(target: _Target) -> None:
    if sum(load.end_offsets(target.bootstrap, _TOPIC, target.partitions)) < _RECORDS:
        load.produce(target.bootstrap, _TOPIC, target.partitions, _RECORDS, 1_000_000)
    load.fetch(target.bootstrap, _TOPIC, target.partitions, _RECORDS)


def _saturated(target: _Target) -> None:
    value = load.values()[0]
    raw_client.saturated(
        HOST, target.port, _TOPIC.encode(), target.partitions, value, _REQUESTS, in_flight=IN_FLIGHT
    )


def _alone(target: _Target) -> None:
    raw_client.alone(HOST, target.port, _TOPIC.encode(), target.partitions, load.values()[0], 2_000)


LOADS: dict[str, Callable[[_Target], None]] = {
    "produce-1mb": _produce(1_000_000),
    "produce-16kb": _produce(16_384),
    "fetch": _fetch,
    "saturated": _saturated,
    "alone": _alone,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_hot", description=__doc__)
    parser.add_argument("load", choices=list(LOADS))
    parser.add_argument("--role", default="alone", choices=["alone", "leader", "follower"])
    parser.add_argument("--flush", default="Replicated", choices=["Fsync", "Replicated"])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--native", action="store_true", help="C frames too (slower)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
