"""`python -m benchmarks.run`: Strandline beside Apache Kafka under the same load in one session.

Every experiment runs against one system after the other (A B C, then B C A, ...), after a warm-up round that
is not counted; the table shows medians. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import environment, report
from benchmarks.experiments import EXPERIMENTS, FULL, QUICK, Experiment, Numbers, Scale
from benchmarks.kafka_jars import REPOSITORY, KafkaUnavailableError, ensure_jars
from benchmarks.load import RECORD_BYTES, LoadError
from benchmarks.options import add_shared
from benchmarks.page_cache import PageCacheFiller
from benchmarks.raw_client import RequestFailedError
from benchmarks.systems import Broker, BrokerFailedError, Kafka, Strandline

REPLICATED, FSYNC = "Strandline Replicated", "Strandline Fsync"
KAFKA, KAFKA_FSYNC = "Kafka", "Kafka flush=1"
SYSTEMS: dict[str, Callable[[Path], Broker]] = {
    REPLICATED: lambda directory: Strandline(directory, "Replicated"),
    KAFKA: lambda directory: Kafka(directory, KAFKA),
    FSYNC: lambda directory: Strandline(directory, "Fsync"),
    KAFKA_FSYNC: lambda directory: Kafka(directory, KAFKA_FSYNC, {"log.flush.interval.messages": "1"}),
}
# Fsync acknowledges what is on disk; so does Kafka only when told to sync after every message.
PAIRS = (
    report.Pair(REPLICATED, KAFKA),
    report.Pair(FSYNC, KAFKA_FSYNC),
    report.Pair(FSYNC, KAFKA, same_promise=False),
)
_FAILURES = (BrokerFailedError, LoadError, RequestFailedError, OSError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for; 0 when nothing failed."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that brokers are stopped and data removed
    scale = QUICK if options.quick else FULL
    repeats = options.repeats or (1 if options.quick else 3)
    chosen = [experiment for experiment in EXPERIMENTS if not options.only or experiment.name in options.only]
    base = Path(options.dir or REPOSITORY / ".cache")
    base.mkdir(parents=True, exist_ok=True)
    names = [name for name in SYSTEMS if not options.systems or name in options.systems]
    try:
        environment.require_disk(base)
        # Per round two produce loads, and some.
        environment.require_space(base, 5 * len(names) * (repeats + 1) * scale.records * RECORD_BYTES // 2)
    except environment.NotADiskError as refused:
        print(refused, file=sys.stderr)
        return 2
    failures: list[str] = []
    if any(name in (KAFKA, KAFKA_FSYNC) for name in names):
        try:
            ensure_jars()
        except KafkaUnavailableError as missing:
            failures.append(f"Apache Kafka SKIPPED: {missing}")
            names = [name for name in names if name not in (KAFKA, KAFKA_FSYNC)]
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    try:
        session = _Session(directory, names, scale, repeats, failures)
        if options.fill_page_cache:
            session.filler = PageCacheFiller(directory, limit_bytes=64 << 30)
        try:
            session.run(chosen)
        finally:
            session.close()
        results = report.Results(environment.describe(directory), names, PAIRS, session.runs, failures)
    finally:
        if options.keep:
            print(f"data kept in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    saved = report.save(results, REPOSITORY / "benchmarks" / "results")
    print("\n" + report.markdown(results, chosen))
    if options.quick:
        print("--quick does not warm up a JVM: Kafka's numbers are too high. It shows that everything runs.")
    print(f"all numbers: {saved}")
    return 1 if any("SKIPPED" not in failure for failure in failures) else 0


class _Session:
    """All runs of one invocation."""

    def __init__(
        self, directory: Path, names: list[str], scale: Scale, repeats: int, failures: list[str]
    ) -> None:
        self.runs: dict[str, dict[str, list[Numbers]]] = {}
        self.filler: PageCacheFiller | None = None
        self._directory = directory
        self._names = names
        self._scale = scale
        self._repeats = repeats
        self._failures = failures
        self._began = time.monotonic()

    def run(self, experiments: Sequence[Experiment]) -> None:
        """Run the loads first, with all brokers up; then the lives, one broker at a time."""
        loads = [experiment for experiment in experiments if not experiment.fresh]
        if loads:
            brokers = self._start_all()
            try:
                for repeat in range(self._repeats + 1):
                    for experiment in loads:
                        for name in _rotated(list(brokers), repeat):
                            self._measure(experiment, name, brokers[name], repeat)
            finally:
                for broker in brokers.values():
                    self._stop(broker)
        for experiment in experiments:
            if experiment.fresh:
                for repeat in range(1, self._repeats + 1):
                    for name in _rotated(self._names, repeat):
                        broker = SYSTEMS[name](
                            self._directory / f"{name} {experiment.name} {repeat}".replace(" ", "-")
                        )
                        self._measure(experiment, name, broker, repeat)
                        shutil.rmtree(broker.directory, ignore_errors=True)

    def close(self) -> None:
        """Give the page cache back."""
        if self.filler is not None:
            self.filler.close()

    def _start_all(self) -> dict[str, Broker]:
        brokers = {}
        for name in self._names:
            broker = SYSTEMS[name](self._directory / name.replace(" ", "-"))
            try:
                broker.prepare()
                broker.start()
            except _FAILURES as failed:
                self._fail(f"{name} did not start: {failed}")
            else:
                brokers[name] = broker
        return brokers

    def _stop(self, broker: Broker) -> None:
        try:
            broker.stop()
        except _FAILURES as failed:
            self._fail(str(failed))

    def _measure(self, experiment: Experiment, name: str, broker: Broker, repeat: int) -> None:
        if self.filler is not None:
            self.filler.fill()
        try:
            numbers = experiment.run(broker, self._scale, str(repeat))
        except _FAILURES as failed:
            self._fail(f"{experiment.title}, {name}, repeat {repeat}: {type(failed).__name__}: {failed}")
            return
        shown = ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())
        what = "warm-up" if repeat == 0 else f"repeat {repeat}"
        print(
            f"[{time.monotonic() - self._began:6.0f} s] {experiment.name:<12} {name:<22} {what}: {shown}",
            flush=True,
        )
        if repeat:
            self.runs.setdefault(experiment.name, {}).setdefault(name, []).append(numbers)

    def _fail(self, message: str) -> None:
        print(f"FAILED: {message}", file=sys.stderr, flush=True)
        self._failures.append(message)


def _rotated(names: list[str], by: int) -> list[str]:
    by %= max(len(names), 1)
    return names[by:] + names[:by]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small loads, one repeat: minutes instead of an hour"
    )
    add_shared(parser, (experiment.name for experiment in EXPERIMENTS))
    parser.add_argument("--systems", action="append", choices=list(SYSTEMS))
    parser.add_argument("--repeats", type=int, help="counted repeats (default 3, with --quick 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
