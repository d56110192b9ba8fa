"""What compaction costs: processor seconds per GB cleaned and microseconds per record, for several kinds of records.

    python -m benchmarks.clean [--megabytes N] [--in-process]

Each row fills a log with random keys, a quarter of the records the last of their key, and cleans it as a broker does, in a
child process. A record is looked at twice: for the offset map, and for the copy.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from strandline_broker.log.cleaner_child import ChildWorker
from strandline_broker.log.cleaner_plan import candidate, sources_of
from strandline_broker.log.cleaner_swap import Cleaning, Outcome, run_here
from strandline_broker.log.cleaner_work import InlineWorker, Job
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.wire.batch import Compression, Record, build_batch

NOW_MS = 1_700_000_000_000
CONFIG = LogConfig(cleanup_policy=frozenset({"compact", "delete"}), segment_bytes=64 << 20)
BATCH_BYTES = 64 << 10
KINDS = (
    ("1 KB values", 1000, 16, Compression.NONE),
    ("100 B values", 100, 16, Compression.NONE),
    ("100 B values, 40 B keys", 100, 40, Compression.NONE),
    ("100 B values, lz4", 100, 16, Compression.LZ4),
    ("100 B values, zstd", 100, 16, Compression.ZSTD),
)


def batches(
    byte_count: int, value_size: int, key_size: int, codec: Compression
) -> Iterator[tuple[bytearray, int]]:
    """Yield batches of `byte_count` bytes of records in all, and how many records each has."""
    rng = random.Random(1)
    count = max(1, BATCH_BYTES // (value_size + key_size + 8))
    keys = max(1, byte_count // (value_size + key_size + 8) // 4)
    text = (
        rng.randbytes(64 << 10)
        if codec is Compression.NONE
        else (b"%x" % rng.getrandbits(4 << 17))[: 64 << 10]
    )
    made = 0
    while made < byte_count:
        records = []
        for index in range(count):
            start = rng.randrange(len(text) - value_size)
            key = b"%0*d" % (key_size, rng.randrange(keys))
            records.append(Record(timestamp=NOW_MS + index, key=key, value=text[start : start + value_size]))
        made += count * (value_size + key_size + 8)
        yield bytearray(build_batch(records, compression=codec)), count


def fill(log: Log, byte_count: int, value_size: int, key_size: int, codec: Compression) -> int:
    """Fill a log; return how many records went in."""
    plain = log.config
    log.config = replace(plain, cleanup_policy=frozenset({"delete"}))  # no look at every key when appending
    total = 0
    for batch, count in batches(byte_count, value_size, key_size, codec):
        log.stage(memoryview(batch), 0, NOW_MS)
        log.commit()
        total += count
    log.roll(NOW_MS)
    log.sync()
    log.config = plain
    return total


def clean(log: Log, disk: LocalDisk, *, in_process: bool) -> tuple[Outcome, float, float]:
    """Clean a log; return the outcome, processor seconds and seconds."""
    best = candidate(log, None, log.end_offset, NOW_MS)
    job = Job(
        directory=log.directory,
        sources=tuple(sources_of(log, best.upper_offset)),
        first_dirty_offset=0,
        now_ms=NOW_MS,
        segment_bytes=log.config.segment_bytes,
        segment_index_bytes=log.config.segment_index_bytes,
        index_interval_bytes=log.config.index_interval_bytes,
        delete_retention_ms=log.config.delete_retention_ms,
        last_batches={},
        dedupe_buffer_bytes=1 << 30,
    )
    worker: ChildWorker | InlineWorker = InlineWorker(disk) if in_process else ChildWorker(disk)
    cpu, wall = time.process_time(), time.perf_counter()
    outcome = run_here(Cleaning(log, job, worker))
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    if isinstance(worker, ChildWorker):
        cpu_s += worker.cpu_s
    worker.close()
    return outcome, cpu_s, wall_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=200, help="size of each log (decompressed)")
    parser.add_argument("--in-process", action="store_true", help="no child process")
    parser.add_argument("--directory", type=Path, default=None, help="where to put the logs")
    arguments = parser.parse_args()
    print(f"{'records':26} {'log MB':>8} {'cleaned to':>10} {'us/record':>10} {'CPU s/GB':>9} {'MB/s':>7}")
    for name, value_size, key_size, codec in KINDS:
        root = tempfile.mkdtemp(dir=arguments.directory)
        try:
            disk = LocalDisk(root)
            log = Log.open(disk, "t-0", CONFIG, now_ms=NOW_MS, clean=False)
            records = fill(log, arguments.megabytes * 1_000_000, value_size, key_size, codec)
            size = log.size_bytes
            outcome, cpu_s, wall_s = clean(log, disk, in_process=arguments.in_process)
            assert not outcome.map_full
            print(
                f"{name:26} {size / 1e6:8.0f} {log.size_bytes / size:10.0%} {cpu_s / records * 1e6:10.2f} "
                f"{cpu_s / size * 1e9:9.2f} {size / wall_s / 1e6:7.0f}"
            )
        finally:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
