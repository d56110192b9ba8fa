"""`python -m benchmarks.replication`: three brokers at replication factor 3, Strandline beside Apache Kafka.

Every run has a fresh cluster of its own, alone on the machine; systems take turns within every repeat, in rotating order.
See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import environment, report
from benchmarks.clusters import Cluster, KafkaCluster, StrandlineCluster
from benchmarks.experiments import Numbers
from benchmarks.kafka_jars import REPOSITORY, KafkaUnavailableError, ensure_jars
from benchmarks.load import RECORD_BYTES, LoadError
from benchmarks.options import add_shared
from benchmarks.page_cache import PageCacheFiller
from benchmarks.raw_client import RequestFailedError
from benchmarks.replicated import FULL, QUICK, REPLICAS, ClusterExperiment, Scale
from benchmarks.replication_rows import EXPERIMENTS, FSYNC, KAFKA, KAFKA_FSYNC, KAFKA_SHORT, REPLICATED, SHORT
from benchmarks.systems import BrokerFailedError

_STRANDLINE_SHORT = {"lease_duration_ms": "3000", "lease_renew_ms": "1000"}
_KAFKA_SHORT = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "1000"}
_KAFKA_SYNC = {"log.flush.interval.messages": "1"}
SYSTEMS: Mapping[str, Callable[[Path], Cluster]] = {
    REPLICATED: lambda directory: StrandlineCluster(directory, REPLICATED, "Replicated"),
    KAFKA: lambda directory: KafkaCluster(directory, KAFKA),
    FSYNC: lambda directory: StrandlineCluster(directory, FSYNC, "Fsync"),
    KAFKA_FSYNC: lambda directory: KafkaCluster(directory, KAFKA_FSYNC, _KAFKA_SYNC),
    SHORT: lambda directory: StrandlineCluster(directory, SHORT, "Replicated", _STRANDLINE_SHORT),
    KAFKA_SHORT: lambda directory: KafkaCluster(directory, KAFKA_SHORT, _KAFKA_SHORT),
}
PAIRS = (
    report.Pair(REPLICATED, KAFKA),
    report.Pair(FSYNC, KAFKA_FSYNC),
    report.Pair(SHORT, KAFKA_SHORT),
)
_FAILURES = (BrokerFailedError, LoadError, RequestFailedError, ProcessLookupError, OSError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for; 0 when nothing failed."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that brokers are ended and data removed
    scale = QUICK if options.quick else FULL
    repeats = options.repeats or 1
    chosen = [experiment for experiment in EXPERIMENTS if not options.only or experiment.name in options.only]
    names = [
        name
        for name in SYSTEMS
        if (not options.systems or name in options.systems)
        and any(name in experiment.systems for experiment in chosen)
    ]
    base = Path(options.dir or REPOSITORY / ".cache")
    base.mkdir(parents=True, exist_ok=True)
    try:
        environment.require_disk(base)
        environment.require_space(base, 3 * REPLICAS * scale.records * RECORD_BYTES)
    except environment.NotADiskError as refused:
        print(refused, file=sys.stderr)
        return 2
    failures: list[str] = []
    if any(name.startswith("Kafka") for name in names):
        try:
            ensure_jars()
        except KafkaUnavailableError as missing:
            failures.append(f"Apache Kafka SKIPPED: {missing}")
            names = [name for name in names if not name.startswith("Kafka")]
    directory = Path(tempfile.mkdtemp(prefix="replication-", dir=base))
    try:
        session = _Session(directory, scale, failures, keep=options.keep)
        if options.fill_page_cache:
            session.filler = PageCacheFiller(directory, limit_bytes=64 << 30)
        try:
            session.run(chosen, names, repeats, options.minutes)
        finally:
            session.close()
        results = report.Results(environment.describe(directory), names, PAIRS, session.runs, failures)
    finally:
        if options.keep:
            print(f"data kept in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    saved = report.save(results, REPOSITORY / "benchmarks" / "results", prefix="replication-")
    print("\n" + report.markdown(results, chosen, budget="target"))
    if options.quick:
        print("--quick does not warm up a JVM: Kafka's numbers are too high. It shows that everything runs.")
    print(f"all numbers: {saved}")
    return 1 if any("SKIPPED" not in failure for failure in failures) else 0


class _Session:
    """All runs of one invocation."""

    def __init__(self, directory: Path, scale: Scale, failures: list[str], *, keep: bool) -> None:
        self.runs: dict[str, dict[str, list[Numbers]]] = {}
        self.filler: PageCacheFiller | None = None
        self._directory = directory
        self._scale = scale
        self._failures = failures
        self._keep = keep
        self._began = time.monotonic()

    def run(
        self,
        experiments: Sequence[ClusterExperiment],
        names: Sequence[str],
        repeats: int,
        minutes: float | None,
    ) -> None:
        """Run everything, one cluster at a time; begin nothing new after so many minutes."""
        for repeat in range(repeats):
            for experiment in experiments:
                taking_part = [name for name in names if name in experiment.systems]
                turn = repeat % max(len(taking_part), 1)
                for name in taking_part[turn:] + taking_part[:turn]:
                    if minutes is not None and time.monotonic() - self._began > 60 * minutes:
                        self._failures.append(f"{experiment.title}, {name}: SKIPPED, the time was up")
                    else:
                        self._measure(experiment, name, repeat)

    def close(self) -> None:
        """Give the page cache back."""
        if self.filler is not None:
            self.filler.close()

    def _measure(self, experiment: ClusterExperiment, name: str, repeat: int) -> None:
        if self.filler is not None:
            self.filler.fill()
        directory = self._directory / f"{name} {experiment.name} {repeat}".replace(" ", "-")
        cluster = SYSTEMS[name](directory)
        try:
            cluster.start()
            numbers = experiment.run(cluster, self._scale)
        except _FAILURES as failed:
            failure = f"{experiment.title}, {name}, repeat {repeat}: {type(failed).__name__}: {failed}"
            print(f"FAILED: {failure}", file=sys.stderr, flush=True)
            self._failures.append(failure)
            return
        finally:
            cluster.discard()
            if not self._keep:
                shutil.rmtree(directory, ignore_errors=True)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())
        elapsed_s = time.monotonic() - self._began
        print(f"[{elapsed_s:6.0f} s] {experiment.name:<12} {name:<22} {shown}", flush=True)
        self.runs.setdefault(experiment.name, {}).setdefault(name, []).append(numbers)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replication", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small loads, one fault each: minutes")
    add_shared(parser, (experiment.name for experiment in EXPERIMENTS))
    parser.add_argument("--systems", action="append", choices=list(SYSTEMS))
    parser.add_argument("--repeats", type=int, help="runs of every experiment (default 1)")
    parser.add_argument("--minutes", type=float, help="begin nothing new after so many minutes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
