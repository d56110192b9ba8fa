"""`strandline tier ls`, `verify` and `scrub` on a directory, as a person runs them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.unit.tiered.bucket_support import (
    OFFSETS,
    OLD,
    ORDERS,
    put_offsets,
    put_partition,
    put_topic,
    segment,
)

from strandline_operator.cli import main
from strandline_tiered.directory_store import DirectoryStore

KEYS = ORDERS.partition(0)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    async def fill() -> None:
        store = DirectoryStore(tmp_path / "bucket")
        await put_partition(store, KEYS, (0, 20, 60), high_watermark=71, claims=(4, 5))
        await put_topic(store, ORDERS, 2, config={"retention.ms": "-1"})
        await put_offsets(store, 3, {"readers": {("orders", 0): 12}})
        await put_topic(store, OFFSETS, 50, deleted_at_ms=1_700_000_000_000)

    asyncio.run(fill())
    return tmp_path / "bucket"


def tier(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["tier", *arguments])


def test_ls_shows_clusters_topics_and_partitions(bucket: Path) -> None:
    result = tier("ls", "--bucket", str(bucket))
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == f"cluster {OLD}"
    assert f"topic __consumer_offsets ({OFFSETS.topic_id}): deleted at 2023-11-14T22:13:20Z" in lines
    assert "group offsets of partitions 3" in lines
    at = lines.index(
        f"topic orders ({ORDERS.topic_id}): 2 partitions, 3 replicas, 4-1 of 2023-11-14T22:30:00Z"
    )
    assert lines[at + 1].split() == [
        "PARTITION", "START", "END", "HIGH-WATERMARK", "SEGMENTS", "BYTES", "NEWEST", "WRITTEN", "MANIFEST", "CLAIMS",
    ]  # fmt: skip
    row = lines[at + 2].split()
    assert row[:5] == ["0", "0", "60", "71", "2"]
    assert row[-4:] == ["2023-11-14T22:13:20Z", "2023-11-14T22:30:00Z", "0000000004-0000000001", "4,5"]
    assert tier("ls", "--data-dir", str(bucket.parent)).output == result.output
    assert tier("ls", "--dir", str(bucket.parent), "--bucket", f"dir:{bucket}").output == result.output


def test_ls_as_json(bucket: Path) -> None:
    result = tier("ls", "--bucket", str(bucket), "--cluster", str(OLD), "--topic", "orders", "--json")
    (cluster,) = json.loads(result.output)["clusters"]
    (topic,) = cluster["topics"]
    assert (cluster["clusterId"], topic["topic"], topic["topicId"]) == (
        str(OLD),
        "orders",
        str(ORDERS.topic_id),
    )
    assert topic["manifest"]["config"] == {"retention.ms": "-1"}
    (partition,) = topic["partitions"]
    assert {
        key: partition[key] for key in ("startOffset", "endOffset", "highWatermark", "segments", "claims")
    } == {
        "startOffset": 0,
        "endOffset": 60,
        "highWatermark": 71,
        "segments": 2,
        "claims": [4, 5],
    }
    assert partition["objects"] == 5


def test_ls_says_what_cannot_be_read_and_when_nothing_is_there(bucket: Path, tmp_path: Path) -> None:
    next(bucket.glob("*/topics/orders-*/0/manifests/*.manifest")).write_bytes(b"broken")
    result = tier("ls", "--bucket", str(bucket))
    assert result.exit_code == 0
    assert "0000000004-0000000001.manifest cannot be read: 6 bytes are too few for SLMF" in result.output
    assert "nothing of ours is there" in tier("ls", "--bucket", str(bucket), "--topic", "nothing").output
    missing = tier("ls", "--bucket", str(tmp_path / "nowhere"))
    assert (missing.exit_code, "there is no bucket in" in missing.output) == (1, True)


def test_verify_names_damage_and_exits_with_1(bucket: Path) -> None:
    result = tier("verify", "--bucket", str(bucket))
    assert result.exit_code == 0, result.output
    assert "1 manifests, 0 pages, 2 segments, 1 snapshots of group offsets" in result.output
    file = next(bucket.glob("*/topics/orders-*/0/00000000000000000020-*.seg"))
    file.write_bytes(file.read_bytes()[:-10])
    result = tier("verify", "--bucket", str(bucket), "--deep")
    assert result.exit_code == 1
    assert (
        f"DAMAGE {file.relative_to(bucket)}: damaged segment, offsets 20 to 59 cannot be read"
        in result.output
    )
    assert result.output.splitlines()[-1].endswith("1 damaged")
    lines = [
        json.loads(line) for line in tier("verify", "--bucket", str(bucket), "--json").output.splitlines()
    ]
    assert [line["is_damage"] for line in lines[:-1]].count(True) == 1
    assert lines[-1]["damaged"] == 1


def test_scrub_reports_and_deletes_nothing(bucket: Path) -> None:
    entry, data = segment(KEYS, 60, 80, 3)
    asyncio.run(DirectoryStore(bucket).put(KEYS.key(entry.name), (data,)))
    before = sorted(bucket.rglob("*"))
    result = tier("scrub", "--bucket", str(bucket))
    assert result.exit_code == 0
    assert f"{KEYS.key(entry.name)} ({len(data)} bytes): for the next scrub of its leader" in result.output
    assert "1 objects" in result.output
    assert "nothing was deleted" in result.output
    (line,) = tier("scrub", "--bucket", str(bucket), "--json").output.splitlines()
    assert json.loads(line) == {"key": KEYS.key(entry.name), "size": len(data), "waitsFor": ""}
    assert sorted(bucket.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ls", "--bucket", "s3://"), "names no bucket"),
        (("ls", "--endpoint-url", "http://x"), "needs --bucket s3://"),
        (("ls", "--cluster", "mine"), "is not a valid UUID"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], message: str) -> None:
    result = tier(*arguments)
    assert (result.exit_code, message in result.output) == (2, True), result.output
