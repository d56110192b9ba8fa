"""`python -m benchmarks.profile_hot`: where a broker's CPU time goes under one of the benchmark's loads.

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
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import load, processes, raw_client, requests
from benchmarks.experiments import CONNECTIONS, IN_FLIGHT, PARTITIONS
from benchmarks.kafka_jars import REPOSITORY
from benchmarks.systems import HOST, Broker, Strandline

_TOPIC = "profile"
_RATE_HZ = 500
_WARM_UP_S = 2.0
_RECORDS = 100_000  # per pass of a load; passes repeat until the sampling ends
_REQUESTS = 20_000
# Where threads wait for work: some kernels show them as running.
_IDLE = ("_worker (concurrent/futures/thread.py", "EpollSelector.select (selectors.py")


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
    broker = Strandline(directory, options.flush)
    try:
        broker.prepare()
        broker.start()
        client = raw_client.RawClient(HOST, broker.port)
        first = requests.batch(load.values()[:1], int(time.time() * 1000)).data
        client.create_topic(_TOPIC.encode(), PARTITIONS)
        client.await_writable(_TOPIC.encode(), range(PARTITIONS), first)
        client.close()
        stacks = _sample(sampler, broker, LOADS[options.load], options.seconds, native=options.native)
    finally:
        broker.stop()
        shutil.rmtree(directory, ignore_errors=True)
    _print(stacks, options.top)
    return 0


def _sample(
    sampler: str, broker: Broker, run: Callable[[Broker], None], seconds: int, *, native: bool
) -> Counter[tuple[str, ...]]:
    stop = threading.Event()
    failures: list[Exception] = []

    def keep_busy() -> None:
        try:
            while not stop.is_set():
                run(broker)
        except (load.LoadError, raw_client.RequestFailedError, OSError) as failed:
            failures.append(failed)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    time.sleep(_WARM_UP_S)
    output = broker.directory / "stacks.txt"
    pid = broker.broker_pids()[0]
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


def _produce(batch_bytes: int) -> Callable[[Broker], None]:
    def run(broker: Broker) -> None:
        load.produce(broker.bootstrap, _TOPIC, range(PARTITIONS), _RECORDS, batch_bytes)

    return run


def _fetch(broker: Broker) -> None:
    if sum(load.end_offsets(broker.bootstrap, _TOPIC, range(PARTITIONS))) < _RECORDS:
        load.produce(broker.bootstrap, _TOPIC, range(PARTITIONS), _RECORDS, 1_000_000)
    load.fetch(broker.bootstrap, _TOPIC, PARTITIONS, _RECORDS)


def _saturated(broker: Broker) -> None:
    # fmt: off
    raw_client.saturated(HOST, broker.port, _TOPIC.encode(), range(CONNECTIONS), load.values()[0],
                         _REQUESTS, in_flight=IN_FLIGHT)
    # fmt: on


def _alone(broker: Broker) -> None:
    raw_client.alone(HOST, broker.port, _TOPIC.encode(), range(PARTITIONS), load.values()[0], 2_000)


LOADS: dict[str, Callable[[Broker], None]] = {
    "produce-1mb": _produce(1_000_000),
    "produce-16kb": _produce(16_384),
    "fetch": _fetch,
    "saturated": _saturated,
    "alone": _alone,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_hot", description=__doc__)
    parser.add_argument("load", choices=list(LOADS))
    parser.add_argument("--flush", default="Replicated", choices=["Fsync", "Replicated"])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--native", action="store_true", help="C frames too (slower)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
