"""Everything is lost but the bucket: `python -m tests.crash.restore_run --mb 100`.

Three brokers under `strandline dev`, with a bucket outside their directory. librdkafka writes real records
(`real_records`), and groups commit offsets in the middle and at the end. When segments and offsets are in the bucket
everything stops, and the directory with all volumes and the cluster store is deleted. `strandline tier restore` makes a
new one; it is started, and every restored record is compared by its digest, every committed offset, and what is written
then. Exit status 1 means that something was not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from tests.crash.dev_cluster import DevCluster
from tests.crash.real_records import Digests
from tests.crash.tiering_run import TOPIC, create_topic, write
from tests.crash.tiering_run import Outcome as Written

from strandline_tiered.bucket_reads import clusters, newest_manifest, read_manifest
from strandline_tiered.bucket_reads import scan as scan_bucket
from strandline_tiered.directory_store import DirectoryStore
from strandline_tiered.listing import PartitionListing
from strandline_tiered.offsets_store import load_newest_offsets

PARTITIONS = 3
SEGMENT_BYTES = 1 << 20
HALFWAY, ALL = "halfway", "all"
OPTIONS = (
    "--config", "log_retention_check_interval_ms=500",
    "--config", "tiering_offsets_snapshot_interval_ms=1000",
    "--config", "offsets.topic.num.partitions=4",
)  # fmt: skip
IN_BUCKET_S = 120.0
READ_S = 120.0
MORE = 500
"""Records that are written to each partition afterwards."""
_MIB = 1 << 20
_MANY = 20


@dataclass(slots=True)
class Outcome:
    """What was found; `written` records, `ends` and `gaps` by partition."""

    written: dict[int, int] = field(default_factory=dict)
    written_bytes: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    gaps: dict[int, int] = field(default_factory=dict)
    restored_bytes: int = 0
    restore_s: float = 0.0
    start_s: float = 0.0
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"written {sum(self.written.values())} records, {self.written_bytes / _MIB:.1f} MiB",
            *(
                f"partition {number}: restored [0, {end}) of {self.written[number]}, gap {self.gaps[number]} to the "
                "last known high watermark"
                for number, end in sorted(self.ends.items())
            ),
            f"restored {self.restored_bytes / _MIB:.1f} MiB in {self.restore_s:.2f} s, started in {self.start_s:.2f} s",
            *(f"FINDING {text}" for text in self.findings),
        ]
        return "\n".join(lines)


class Expected:
    """What is to be read: the records that were written first, and those that came behind the restored end."""

    def __init__(self, first: Sequence[Digests], ends: Mapping[int, int]) -> None:
        self._first = first
        self._ends = dict(ends)
        self._behind: dict[int, list[bytes]] = {number: [] for number in ends}

    @property
    def ends(self) -> dict[int, int]:
        """Where each partition ends."""
        return {number: end + len(self._behind[number]) for number, end in self._ends.items()}

    def more(self) -> Iterator[tuple[int, bytes]]:
        """Yield the next records for all partitions, and expect them."""
        for number in self._ends:
            for _ in range(MORE):
                value = b"behind the restored end, partition %d: %d" % (number, self.ends[number])
                self._behind[number].append(value)
                yield number, value

    def is_at(self, number: int, offset: int, key: bytes, value: bytes) -> bool:
        """Whether this is the record at an offset."""
        if offset < self._ends[number]:
            return self._first[number].is_at(offset, key, value)
        return self._behind[number][offset - self._ends[number]] == value


def commit(bootstrap: str, groups: Mapping[str, Mapping[int, int]]) -> None:
    """Commit offsets, by group and partition."""
    for group, offsets in groups.items():
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
        try:
            places = [TopicPartition(TOPIC, number, offset) for number, offset in offsets.items()]
            consumer.commit(offsets=places, asynchronous=False)
        finally:
            consumer.close()


def committed(bootstrap: str, group: str) -> dict[int, int]:
    """Return what a group committed, by partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        asked = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        return {found.partition: found.offset for found in consumer.committed(asked, timeout=30)}
    finally:
        consumer.close()


async def in_bucket(bucket: Path, groups: Sequence[str], enough: Mapping[int, int]) -> UUID:
    """Wait until each partition is in the bucket as far as `enough` says, and the groups' offsets; return the cluster's id.

    Raises TimeoutError.
    """
    store = DirectoryStore(bucket)
    deadline = time.monotonic() + IN_BUCKET_S
    while time.monotonic() < deadline:
        async for cluster_id in clusters(store):
            if await _is_in_bucket(store, cluster_id, groups, enough):
                return cluster_id
        await asyncio.sleep(0.2)
    raise TimeoutError(f"not in the bucket after {IN_BUCKET_S:.0f} s")


async def _is_in_bucket(
    store: DirectoryStore, cluster_id: UUID, groups: Sequence[str], enough: Mapping[int, int]
) -> bool:
    ends: dict[int, int] = {}
    found: set[str] = set()
    async for listing in scan_bucket(store, cluster_id=cluster_id):
        if not isinstance(listing, PartitionListing):
            continue
        if listing.keys.topic == TOPIC and (name := await newest_manifest(store, listing.keys)):
            ends[listing.keys.partition] = (await read_manifest(store, listing.keys, name)).end_offset
        snapshot = await load_newest_offsets(store, listing.keys) if listing.offsets else None
        if snapshot is not None:
            found.update(group for group in groups if len(snapshot.groups.get(group, ())) == PARTITIONS)
    return found == set(groups) and all(ends.get(number, 0) >= end for number, end in enough.items())


def restore(bucket: Path, data_dir: Path, source: UUID, *more: str) -> dict[str, Any]:
    """Run `strandline tier restore` as a person does; return its report. Raises RuntimeError."""
    command = [
        str(Path(sys.executable).with_name("strandline")), "tier", "restore",
        "--bucket", str(bucket), "--dir", str(data_dir), "--from", str(source), "--json", *more,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode}\n{done.stdout}{done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def compare(bootstrap: str, expected: Expected, findings: list[str]) -> None:
    """Read everything there is, and compare every record."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"compare-{time.time_ns()}",
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
        }
    )
    ends = expected.ends
    read = dict.fromkeys(ends, 0)
    deadline = time.monotonic() + READ_S
    try:
        for number, end in ends.items():
            found = _bounds(consumer, number, deadline)
            if found != (0, end):
                findings.append(f"partition {number} has {found} instead of [0, {end})")
        consumer.assign([TopicPartition(TOPIC, number, 0) for number in ends])
        while read != ends and len(findings) < _MANY:
            if time.monotonic() > deadline:
                findings.append(f"read as far as {read}, expected {ends}")
                return
            for message in consumer.consume(1000, timeout=1.0):
                _compare(message, expected, read, findings)
    finally:
        consumer.close()


def _bounds(consumer: Consumer, number: int, deadline: float) -> tuple[int, int]:
    """Return the first offset and the end of a partition, as soon as it has a leader that serves.

    `Consumer.get_watermark_offsets` would not do: where one of its two requests is told to try again, it may return the end
    as the first offset.
    """
    bounds = []
    for special in (OFFSET_BEGINNING, OFFSET_END):
        while True:
            try:
                (found,) = consumer.offsets_for_times([TopicPartition(TOPIC, number, special)], timeout=30)
                if found.error is None:
                    bounds.append(found.offset)
                    break
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
            assert time.monotonic() < deadline, f"partition {number} is not served"
            time.sleep(0.1)
    return bounds[0], bounds[1]


def _compare(message: Message, expected: Expected, read: dict[int, int], findings: list[str]) -> None:
    if message.error() is not None:
        findings.append(f"an error while reading: {message.error()}")
        return
    number, offset = message.partition(), message.offset()
    assert number is not None
    assert offset is not None
    if offset != read[number]:
        findings.append(f"offset {offset} of partition {number} after {read[number] - 1}")
    if not expected.is_at(number, offset, message.key() or b"", message.value() or b""):
        findings.append(f"another record at offset {offset} of partition {number}")
    read[number] = offset + 1


def go_on(bootstrap: str, expected: Expected, findings: list[str]) -> None:
    """Write more records, which must come right behind what is restored."""
    landed: dict[int, list[int]] = {number: [] for number in expected.ends}
    before = expected.ends

    def delivered(error: object, message: Message) -> None:
        number, offset = message.partition(), message.offset()
        if error is not None or number is None or offset is None:
            findings.append(f"not taken: {error}")
        else:
            landed[number].append(offset)

    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
    for number, value in expected.more():
        producer.produce(TOPIC, value, partition=number, on_delivery=delivered)
    producer.flush(READ_S)
    for number, end in before.items():
        if sorted(landed[number]) != list(range(end, end + MORE)):
            findings.append(
                f"partition {number}: written at {sorted(landed[number])[:1]}.. instead of {end}.."
            )


def run(work: Path, *, mb: int) -> Outcome:
    """Write, lose everything, restore, compare, go on."""
    bucket, before, after = work / "bucket", work / "before", work / "after"
    outcome = Outcome()
    findings = outcome.findings
    options = (*OPTIONS, "--bucket", str(bucket))
    with DevCluster(before, brokers=3, options=options) as cluster:
        create_topic(cluster.bootstrap, PARTITIONS, SEGMENT_BYTES, SEGMENT_BYTES)
        first = write(cluster.bootstrap, PARTITIONS, mb << 20, Written())
        outcome.written = {number: len(one) for number, one in enumerate(first)}
        outcome.written_bytes = mb << 20
        halfway = {number: count // 2 for number, count in outcome.written.items()}
        commit(cluster.bootstrap, {HALFWAY: halfway, ALL: outcome.written})
        source = asyncio.run(in_bucket(bucket, (HALFWAY, ALL), halfway))
    shutil.rmtree(before)
    began = time.monotonic()
    outcome.report = restore(bucket, after, source)
    outcome.restore_s = time.monotonic() - began
    _judge_report(outcome)
    expected = Expected(first, outcome.ends)
    began = time.monotonic()
    with DevCluster(after, brokers=3, options=options) as cluster:
        outcome.start_s = time.monotonic() - began
        compare(cluster.bootstrap, expected, findings)
        for group, offsets in ((HALFWAY, halfway), (ALL, outcome.ends)):
            if (found := committed(cluster.bootstrap, group)) != offsets:
                findings.append(f"group {group} has {found} instead of {offsets}")
        go_on(cluster.bootstrap, expected, findings)
        compare(cluster.bootstrap, expected, findings)
        commit(cluster.bootstrap, {HALFWAY: dict.fromkeys(halfway, 7)})
    # What was restored is the cluster's own by now: it survives a start like any other.
    with DevCluster(after, brokers=3, options=options) as cluster:
        compare(cluster.bootstrap, expected, findings)
        if (found := committed(cluster.bootstrap, HALFWAY)) != dict.fromkeys(halfway, 7):
            findings.append(f"after another start group {HALFWAY} has {found}")
    return outcome


def _judge_report(outcome: Outcome) -> None:
    (topic,) = (topic for topic in outcome.report["topics"] if topic["topic"] == TOPIC)
    for one in topic["partitions"]:
        number = one["partition"]
        outcome.ends[number], outcome.gaps[number] = one["endOffset"], one["gap"]
        outcome.restored_bytes += one["objectBytes"]
        known = one["highWatermark"]
        if one["startOffset"] != 0 or not 0 < one["endOffset"] <= known <= outcome.written[number]:
            outcome.findings.append(f"the report says of partition {number}: {one}")
        if one["gap"] != known - one["endOffset"]:
            outcome.findings.append(f"the report says of the gap of partition {number}: {one}")
    groups = {one["group"]: one for one in outcome.report["groups"]}
    moved = sum(end < outcome.written[number] for number, end in outcome.ends.items())
    if groups[ALL] != {"group": ALL, "offsets": PARTITIONS, "movedBack": moved, "leftOut": 0}:
        outcome.findings.append(f"the report says of group {ALL}: {groups[ALL]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=int, default=100, help="MiB to write")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        outcome = run(Path(directory), mb=arguments.mb)
    print(outcome)  # noqa: T201 - the answer
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
