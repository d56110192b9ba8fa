"""`python -m benchmarks.tiering`: what tiered storage gives and costs, on a directory and on an S3 server, near and far.

Every experiment starts brokers of its own, alone on the machine, with a part of a bucket of its own. The S3 server is the
one that the environment names, see `benchmarks.buckets`. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import archiving, buckets, cold_reads, environment, report
from benchmarks.buckets import Bucket
from benchmarks.experiments import Numbers
from benchmarks.kafka_jars import REPOSITORY
from benchmarks.load import RECORD_BYTES, LoadError
from benchmarks.options import add_shared
from benchmarks.page_cache import PageCacheFiller
from benchmarks.raw_client import RequestFailedError
from benchmarks.systems import BrokerFailedError
from benchmarks.tiering_scale import FULL, QUICK, Scale, TieringExperiment

EXPERIMENTS = (cold_reads.EXPERIMENT, *archiving.EXPERIMENTS)
_FAILURES = (BrokerFailedError, LoadError, RequestFailedError, ProcessLookupError, OSError)
_BUCKETS = (buckets.DIRECTORY, buckets.S3, buckets.FAR_S3)
_COPIES = 3
"""Of what an experiment writes, on the disk at once: logs, bucket, and some."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for; 0 when nothing failed."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that brokers are ended and data removed
    scale = QUICK if options.quick else FULL
    chosen = [experiment for experiment in EXPERIMENTS if not options.only or experiment.name in options.only]
    base = Path(options.dir or REPOSITORY / ".cache")
    base.mkdir(parents=True, exist_ok=True)
    try:
        environment.require_disk(base)
        environment.require_space(base, _COPIES * (scale.large_records + scale.small_records) * RECORD_BYTES)
    except environment.NotADiskError as refused:
        print(refused, file=sys.stderr)
        return 2
    directory = Path(tempfile.mkdtemp(prefix="tiering-", dir=base))
    links = contextlib.ExitStack()
    try:
        failures: list[str] = []
        found, server = buckets.available(directory, options.buckets or _BUCKETS, links)
        session = _Session(directory, scale, failures, keep=options.keep)
        if options.fill_page_cache:
            session.filler = PageCacheFiller(directory, limit_bytes=64 << 30)
        try:
            session.run(chosen, found, options.repeats)
        finally:
            session.close()
        facts = environment.describe(directory) | server
        results = report.Results(facts, list(found), (), session.runs, failures)
    finally:
        links.close()
        if options.keep:
            print(f"data kept in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    saved = report.save(results, REPOSITORY / "benchmarks" / "results", prefix="tiering-")
    print("\n" + report.against_targets(results, chosen))
    print(f"all numbers: {saved}")
    return 1 if failures else 0


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
        self, experiments: Sequence[TieringExperiment], found: Mapping[str, Bucket], repeats: int
    ) -> None:
        """Run every experiment on every bucket."""
        for repeat in range(repeats):
            for experiment in experiments:
                for bucket in found.values():
                    if experiment.far or not bucket.far:
                        self._measure(experiment, bucket, repeat)

    def close(self) -> None:
        """Give the page cache back."""
        if self.filler is not None:
            self.filler.close()

    def _measure(self, experiment: TieringExperiment, bucket: Bucket, repeat: int) -> None:
        if self.filler is not None:
            self.filler.fill()
        part = f"{experiment.name}-{repeat}"
        directory = self._directory / re.sub(r"\W+", "-", f"{bucket.label}-{part}")
        scale = self._scale.far() if bucket.far else self._scale
        try:
            numbers = experiment.run(bucket.part(part), directory, scale)
        except _FAILURES as failed:
            failure = (
                f"{experiment.title}, {bucket.label}, repeat {repeat}: {type(failed).__name__}: {failed}"
            )
            print(f"FAILED: {failure}", file=sys.stderr, flush=True)
            self._failures.append(failure)
            return
        finally:
            if not self._keep:
                shutil.rmtree(directory, ignore_errors=True)
                bucket.part(part).remove()
        shown = ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())
        elapsed_s = time.monotonic() - self._began
        print(f"[{elapsed_s:6.0f} s] {experiment.name:<8} {bucket.label:<22} {shown}", flush=True)
        self.runs.setdefault(experiment.name, {}).setdefault(bucket.label, []).append(numbers)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiering", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small loads: does everything run?")
    add_shared(parser, (experiment.name for experiment in EXPERIMENTS))
    parser.add_argument("--buckets", action="append", choices=_BUCKETS)
    parser.add_argument("--repeats", type=int, default=1, help="runs of every experiment (default 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
