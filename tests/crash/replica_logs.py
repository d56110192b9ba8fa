"""Compares the logs of all replicas after a clean stop: below the high watermark they must be the same, byte for byte.

Pure but for reading files. Batches are compared, not segments: each replica rolls its segments by itself. A batch that is
wrong in itself (checksum, magic, an offset that does not follow) is a finding of its replica.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.crash.storm_check import Place

from strandline_broker.log.checkpoints import HIGH_WATERMARKS, read_offsets
from strandline_broker.log.names import LOG_SUFFIX, parse_log_directory, split_name
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.wire.batch import HEADER_SIZE, LOG_OVERHEAD, MAGIC, crc_ok, read_header

EXAMPLES_KEPT = 5


class StoredBatch(NamedTuple):
    """A batch of one replica; `digest` covers all of its bytes, the base offset and the leader epoch among them."""

    base_offset: int
    last_offset: int
    leader_epoch: int
    digest: bytes


@dataclass(slots=True)
class ReplicaLog:
    """What one replica holds of one partition."""

    batches: list[StoredBatch] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The offset after the last record."""
        return self.batches[-1].last_offset + 1 if self.batches else 0


@dataclass(slots=True)
class Comparison:
    """Counts, and what contradicts."""

    partitions: int = 0
    batches: int = 0
    findings: list[str] = field(default_factory=list)


def read_batches(data: bytes, name: str, log: ReplicaLog) -> None:
    """Append the batches of one segment's bytes to a replica's log, and what is wrong with them to its faults."""
    position = 0
    view = memoryview(data)
    while position < len(data):
        where = f"{name} at byte {position}"
        if len(data) - position < HEADER_SIZE:
            log.faults.append(f"{where}: {len(data) - position} bytes are no batch")
            return
        header = read_header(data, position)
        if header.magic != MAGIC or not HEADER_SIZE <= header.length + LOG_OVERHEAD <= len(data) - position:
            log.faults.append(f"{where}: no batch (magic {header.magic}, length {header.length})")
            return
        content = view[position : position + header.size]
        if not crc_ok(content):
            log.faults.append(f"{where}: wrong checksum, offset {header.base_offset}")
        if log.batches and header.base_offset < log.end:
            log.faults.append(f"{where}: offset {header.base_offset} after {log.end - 1}")
        if log.batches and header.leader_epoch < log.batches[-1].leader_epoch:
            log.faults.append(f"{where}: epoch {header.leader_epoch} after {log.batches[-1].leader_epoch}")
        log.batches.append(
            StoredBatch(
                header.base_offset,
                header.last_offset,
                header.leader_epoch,
                hashlib.blake2b(content, digest_size=16).digest(),
            )
        )
        position += header.size


def read_replica(directory: Path) -> ReplicaLog:
    """Read all segments of one replica."""
    log = ReplicaLog()
    segments = [path for path in directory.iterdir() if split_name(path.name)[1] == LOG_SUFFIX]
    for path in sorted(segments):
        read_batches(path.read_bytes(), f"{path.parent.name}/{path.name}", log)
    return log


def compare(place: Place, logs: Mapping[int, ReplicaLog], high_watermark: int, compacted: bool) -> list[str]:
    """Return how the replicas of one partition contradict each other below the high watermark.

    Where replicas compact by themselves only each log in itself is judged.
    """
    name = f"{place.topic}-{place.partition}"
    found = [f"broker {broker}, {fault}" for broker, log in sorted(logs.items()) for fault in log.faults]
    if compacted:
        return found
    for broker, log in sorted(logs.items()):
        if log.end < high_watermark:
            found.append(
                f"{name}: broker {broker} ends at {log.end}, below the high watermark {high_watermark}"
            )
    committed = {
        broker: [batch for batch in log.batches if batch.last_offset < high_watermark]
        for broker, log in logs.items()
    }
    (first, expected), *others = sorted(committed.items())
    for broker, batches in others:
        found += [
            f"{name}: broker {first} has {left}, broker {broker} has {right}"
            for left, right in _differences(expected, batches)
        ]
    return found


def _differences(left: Sequence[StoredBatch], right: Sequence[StoredBatch]) -> Iterator[tuple[str, str]]:
    """Yield the first few offsets at which two replicas differ; they may start at different offsets."""
    start = max((batches[0].base_offset if batches else 0) for batches in (left, right))
    by_offset: dict[int, list[StoredBatch | None]] = defaultdict(lambda: [None, None])
    for side, batches in enumerate((left, right)):
        for batch in batches:
            if batch.base_offset >= start:
                by_offset[batch.base_offset][side] = batch
    differing = [pair for _, pair in sorted(by_offset.items()) if pair[0] != pair[1]]
    for one, other in differing[:EXAMPLES_KEPT]:
        yield _show(one), _show(other)


def _show(batch: StoredBatch | None) -> str:
    if batch is None:
        return "nothing there"
    return (
        f"{batch.base_offset}..{batch.last_offset} of epoch {batch.leader_epoch} ({batch.digest.hex()[:8]})"
    )


def compare_all(
    data_dirs: Mapping[int, Path], replicas: Mapping[Place, Iterable[int]], compacted: frozenset[str]
) -> Comparison:
    """Compare all partitions of stopped brokers; `replicas` says who must have what."""
    outcome = Comparison()
    watermarks: dict[Place, int] = defaultdict(int)
    for directory in data_dirs.values():
        for (topic, partition), offset in read_offsets(LocalDisk(directory), HIGH_WATERMARKS).items():
            place = Place(topic, partition)
            watermarks[place] = max(watermarks[place], offset)
    for place, brokers in sorted(replicas.items()):
        logs = {}
        for broker in brokers:
            directory = data_dirs[broker] / f"{place.topic}-{place.partition}"
            if parse_log_directory(directory.name) is None or not directory.is_dir():
                outcome.findings.append(f"broker {broker} has no {directory.name}")
                continue
            logs[broker] = read_replica(directory)
        outcome.partitions += 1
        outcome.batches += sum(len(log.batches) for log in logs.values())
        if logs:
            outcome.findings += compare(place, logs, watermarks[place], place.topic in compacted)
    return outcome
