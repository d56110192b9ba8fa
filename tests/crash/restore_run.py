"""Everything is lost but the bucket: `python -m tests.crash.restore_run --mb 30`.

Three brokers under `strandline dev`, with a bucket outside their directory. librdkafka writes numbered records whose bytes
can be computed again, and groups commit offsets in the middle and at the end. When segments and offsets are in the bucket
everything stops, and the directory with all volumes and the cluster store is deleted. `strandline tier restore` makes a new
one; it is started, and every restored record is compared, every committed offset, and what is written then. Exit status 1
means that something was not as it must be.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from tests.crash.dev_cluster import DevCluster
from tests.crash.made_records import FIRST_MS, RECORD_BYTES, record, write
from tests.crash.tiering_run import TOPIC, create_topic

from strandline_broker.coordinator.partitioning import partition_for
from strandline_tiered.bucket_reads import clusters, scan
from strandline_tiered.directory_store import DirectoryStore
from strandline_tiered.keys import PartitionKeys, SegmentName
from strandline_tiered.listing import PartitionListing
from strandline_tiered.offsets_store import load_newest_offsets

PARTITIONS = 3
HALFWAY, ALL = "halfway", "all"
OPTIONS = (
    "--config", "log_retention_check_interval_ms=500",
    "--config", "tiering_offsets_snapshot_interval_ms=1000",
    "--config", "offsets.topic.num.partitions=4",
)  # fmt: skip
IN_BUCKET_S = 120.0
READ_S = 60.0


@dataclass(slots=True)
class Outcome:
    """What was found; `ends` and `gaps` by partition."""

    written: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    gaps: dict[int, int] = field(default_factory=dict)
    restore_s: float = 0.0
    start_s: float = 0.0
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"written {self.written} records to each of {PARTITIONS} partitions",
            *(
                f"partition {number}: restored [0, {end}), gap {self.gaps[number]} to the last known high watermark"
                for number, end in sorted(self.ends.items())
            ),
            f"restore {self.restore_s:.2f} s, start of the restored cluster {self.start_s:.2f} s",
            *(f"FINDING {text}" for text in self.findings),
        ]
        return "\n".join(lines)


def commit(bootstrap: str, offsets: Mapping[str, int]) -> None:
    """Commit an offset for all partitions, group by group."""
    for group, offset in offsets.items():
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
        try:
            consumer.commit(
                offsets=[TopicPartition(TOPIC, number, offset) for number in range(PARTITIONS)],
                asynchronous=False,
            )
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


async def in_bucket(bucket: Path, groups: Sequence[str], enough: int) -> UUID:
    """Wait until partitions have `enough` records in the bucket, and the groups their offsets; return the cluster's id."""
    store = DirectoryStore(bucket)
    deadline = time.monotonic() + IN_BUCKET_S
    while time.monotonic() < deadline:
        async for cluster_id in clusters(store):
            if await _is_in_bucket(store, cluster_id, groups, enough):
                return cluster_id
        await asyncio.sleep(0.2)
    raise TimeoutError(f"not in the bucket after {IN_BUCKET_S:.0f} s")


async def _is_in_bucket(store: DirectoryStore, cluster_id: UUID, groups: Sequence[str], enough: int) -> bool:
    ends = []
    found: set[str] = set()
    offsets: list[PartitionKeys] = []
    async for listing in scan(store, cluster_id=cluster_id):
        if not isinstance(listing, PartitionListing):
            continue
        if listing.keys.topic == TOPIC and listing.manifest is not None:
            last = max(
                (name.base_offset for name in listing.sizes if isinstance(name, SegmentName)), default=0
            )
            ends.append(last)
        elif listing.offsets is not None:
            offsets.append(listing.keys)
    for keys in offsets:
        snapshot = await load_newest_offsets(store, keys)
        for group in groups:
            if snapshot is not None and len(snapshot.groups.get(group, ())) == PARTITIONS:
                assert partition_for(group, 4) == keys.partition
                found.add(group)
    return len(ends) == PARTITIONS and min(ends) >= enough and found == set(groups)


def restore(bucket: Path, data_dir: Path, source: UUID, *more: str) -> dict[str, Any]:
    """Run `strandline tier restore` as a person does; return its report."""
    command = [
        str(Path(sys.executable).with_name("strandline")), "tier", "restore",
        "--bucket", str(bucket), "--dir", str(data_dir), "--from", str(source), "--json", *more,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode}\n{done.stdout}{done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def compare(bootstrap: str, ends: Mapping[int, int], findings: list[str]) -> None:
    """Read everything there is, and compare every byte."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"compare-{time.time_ns()}",
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
        }
    )
    expected = dict.fromkeys(ends, 0)
    deadline = time.monotonic() + READ_S
    try:
        for number, end in ends.items():
            low, high = consumer.get_watermark_offsets(TopicPartition(TOPIC, number), timeout=30)
            if (low, high) != (0, end):
                findings.append(f"partition {number} has [{low}, {high}) instead of [0, {end})")
        consumer.assign([TopicPartition(TOPIC, number, 0) for number in ends])
        while expected != ends:
            if time.monotonic() > deadline:
                findings.append(f"read as far as {expected}, restored was {dict(ends)}")
                return
            for message in consumer.consume(1000, timeout=1.0):
                _compare(message, expected, findings)
            if len(findings) > 20:
                return
    finally:
        consumer.close()


def _compare(message: Message, expected: dict[int, int], findings: list[str]) -> None:
    if message.error() is not None:
        findings.append(f"an error while reading: {message.error()}")
        return
    number, offset = message.partition(), message.offset()
    assert number is not None
    assert offset is not None
    if offset != expected[number]:
        findings.append(f"offset {offset} of partition {number} after {expected[number] - 1}")
    if message.value() != record(number, offset):
        findings.append(f"other bytes at offset {offset} of partition {number}")
    expected[number] = offset + 1


def go_on(bootstrap: str, ends: Mapping[int, int], count: int, findings: list[str]) -> dict[int, int]:
    """Write `count` records to each partition, which must come right behind what is restored; return the new ends."""
    landed: dict[int, list[int]] = {number: [] for number in ends}

    def delivered(error: object, message: Message) -> None:
        number, offset = message.partition(), message.offset()
        if error is not None or number is None or offset is None:
            findings.append(f"not taken: {error}")
        else:
            landed[number].append(offset)

    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
    for number, end in ends.items():
        for at in range(end, end + count):
            producer.produce(
                TOPIC,
                record(number, at),
                partition=number,
                timestamp=FIRST_MS + at,
                on_delivery=delivered,
            )
    producer.flush(READ_S)
    for number, end in ends.items():
        if sorted(landed[number]) != list(range(end, end + count)):
            findings.append(f"partition {number}: written at {landed[number][:1]}.. instead of {end}..")
    return {number: end + count for number, end in ends.items()}


def run(work: Path, *, mb: int) -> Outcome:
    """Write, lose everything, restore, compare, go on."""
    bucket, before, after = work / "bucket", work / "before", work / "after"
    count = (mb << 20) // (RECORD_BYTES * PARTITIONS)
    outcome = Outcome(written=count)
    options = (*OPTIONS, "--bucket", str(bucket))
    with DevCluster(before, brokers=3, options=options) as cluster:
        create_topic(cluster.bootstrap, PARTITIONS, 1 << 20, 1 << 20)
        write(cluster.bootstrap, TOPIC, PARTITIONS, count)
        commit(cluster.bootstrap, {HALFWAY: count // 2, ALL: count})
        # All but the open segment, and one that may be on its way.
        enough = count - 3 * (1 << 20) // RECORD_BYTES
        source = asyncio.run(in_bucket(bucket, (HALFWAY, ALL), enough))
    shutil.rmtree(before)
    began = time.monotonic()
    outcome.report = restore(bucket, after, source)
    outcome.restore_s = time.monotonic() - began
    _judge_report(outcome)
    began = time.monotonic()
    with DevCluster(after, brokers=3, options=options) as cluster:
        outcome.start_s = time.monotonic() - began
        bootstrap = cluster.bootstrap
        compare(bootstrap, outcome.ends, outcome.findings)
        for group, wanted in ((HALFWAY, count // 2), (ALL, count)):
            expected = {number: min(wanted, end) for number, end in outcome.ends.items()}
            found = committed(bootstrap, group)
            if found != expected:
                outcome.findings.append(f"group {group} has {found} instead of {expected}")
        ends = go_on(bootstrap, outcome.ends, 500, outcome.findings)
        compare(bootstrap, ends, outcome.findings)
        commit(bootstrap, {HALFWAY: 7})
    # What was restored is the cluster's own by now: it survives a start like any other.
    with DevCluster(after, brokers=3, options=options) as cluster:
        compare(cluster.bootstrap, ends, outcome.findings)
        if (found := committed(cluster.bootstrap, HALFWAY)) != dict.fromkeys(ends, 7):
            outcome.findings.append(f"after another start group {HALFWAY} has {found}")
    return outcome


def _judge_report(outcome: Outcome) -> None:
    (topic,) = (topic for topic in outcome.report["topics"] if topic["topic"] == TOPIC)
    for one in topic["partitions"]:
        number = one["partition"]
        outcome.ends[number], outcome.gaps[number] = one["endOffset"], one["gap"]
        if one["startOffset"] != 0 or not 0 < one["endOffset"] <= one["highWatermark"] <= outcome.written:
            outcome.findings.append(f"the report says of partition {number}: {one}")
    groups = {one["group"]: one for one in outcome.report["groups"]}
    moved = sum(end < outcome.written for end in outcome.ends.values())
    if groups[ALL] != {"group": ALL, "offsets": PARTITIONS, "movedBack": moved, "leftOut": 0}:
        outcome.findings.append(f"the report says of group {ALL}: {groups[ALL]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=int, default=30, help="MiB to write")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        outcome = run(Path(directory), mb=arguments.mb)
    print(outcome)  # noqa: T201 - the answer
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
