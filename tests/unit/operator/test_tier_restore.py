"""`strandline tier restore` into the directory of `strandline dev`: what it makes, what it refuses, how it goes on."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result
from tests.unit.cluster.fake_api_server import NAMESPACE, FakeApiServer
from tests.unit.tiered.bucket_support import (
    OFFSETS,
    OLD,
    ORDERS,
    put_offsets,
    put_partition,
    put_topic,
)

from strandline_broker.cluster.model import (
    CLUSTER,
    CLUSTER_STATE,
    PARTITION_SET,
    TOPIC,
    ClusterState,
    Object,
    PartitionSet,
    Topic,
    new_object,
)
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.coordinator.partitioning import partition_for
from strandline_operator.cli import main
from strandline_operator.cli.layout import CLUSTER_NAME, DataDir
from strandline_operator.cli.restore_target import kubernetes_target
from strandline_operator.cli.tier_bucket import BucketChoice
from strandline_operator.cli.tier_restore import RestoreOptions
from strandline_operator.cli.tier_restore import restore as carry_out
from strandline_tiered.bucket_reads import read_manifest, read_offsets
from strandline_tiered.directory_store import DirectoryStore
from strandline_tiered.keys import ManifestName, OffsetsName, TopicKeys
from strandline_tiered.offsets_snapshot import TopicPartition
from strandline_tiered.restore_plan import Choice

KEYS = ORDERS.partition(0)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    async def fill() -> None:
        store = DirectoryStore(tmp_path / "bucket")
        await put_partition(store, KEYS, (0, 20, 60), high_watermark=71, claims=(4, 5))
        await put_topic(store, ORDERS, 2, config={"retention.ms": "-1"})
        await put_topic(store, TopicKeys(OLD, "table", UUID(int=5)), 1, config={"cleanup.policy": "compact"})
        await put_topic(store, TopicKeys(OLD, "gone", UUID(int=6)), 1, deleted_at_ms=7)
        await put_offsets(store, 3, {"readers": {("orders", 0): 65, ("orders", 1): 0, ("gone", 0): 1}})
        await put_topic(store, OFFSETS, 50)

    asyncio.run(fill())
    return tmp_path / "bucket"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "new"


def restore(bucket: Path, data_dir: Path, *arguments: str, source: object = OLD) -> Result:
    options = ["--bucket", str(bucket), "--dir", str(data_dir), "--from", str(source), *arguments]
    return CliRunner().invoke(main, ["tier", "restore", *options])


def objects(data_dir: Path, kind: str) -> list[Object]:
    async def read() -> list[Object]:
        store = SqliteStore(data_dir / "cluster.db")
        try:
            return (await store.list(kind))[0]
        finally:
            await store.close()

    return asyncio.run(read())


def create(data_dir: Path, kind: str, obj: Object) -> None:
    data_dir.mkdir(exist_ok=True)

    async def work() -> None:
        store = SqliteStore(data_dir / "cluster.db")
        try:
            await store.create(kind, obj)
        finally:
            await store.close()

    asyncio.run(work())


def state_of(data_dir: Path) -> ClusterState:
    (state,) = map(ClusterState.from_object, objects(data_dir, CLUSTER_STATE))
    return state


def cluster_id(data_dir: Path) -> UUID:
    return UUID(state_of(data_dir).cluster_id)


def test_a_dry_run_shows_everything_and_writes_nothing(bucket: Path, data_dir: Path) -> None:
    before = sorted(bucket.rglob("*"))
    result = restore(bucket, data_dir, "--dry-run")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == f"would restore cluster {OLD} into the cluster in {data_dir}"
    assert lines[2].split() == ["TOPIC", "PARTITION", "START", "END", "HIGH-WATERMARK", "GAP", "BYTES"]
    assert lines[3].split()[:6] == ["orders", "0", "0", "60", "71", "11"]
    assert lines[4].split()[:6] == ["orders", "1", "0", "0", "-", "unknown"]
    assert lines[7].split() == ["readers", "2", "1", "1"]
    assert "table: restored empty, it is compacted" in lines
    assert f"gone-{UUID(int=6)}: not restored, it is deleted" in lines
    assert not data_dir.exists()
    assert sorted(bucket.rglob("*")) == before


def test_the_store_and_the_bucket_have_everything_afterwards(bucket: Path, data_dir: Path) -> None:
    result = restore(bucket, data_dir, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    new = cluster_id(data_dir)
    assert (found["from"], found["clusterId"], found["dryRun"]) == (str(OLD), str(new), False)
    assert found["groups"] == [{"group": "readers", "offsets": 2, "movedBack": 1, "leftOut": 1}]
    orders = next(topic for topic in found["topics"] if topic["topic"] == "orders")
    assert orders["topicId"] == str(ORDERS.topic_id)
    assert [(one["startOffset"], one["endOffset"], one["gap"]) for one in orders["partitions"]] == [
        (0, 60, 11),
        (0, 0, 0),
    ]
    sets = {one.topic_name: one for one in map(PartitionSet.from_object, objects(data_dir, PARTITION_SET))}
    assert set(sets) == {"orders", "__consumer_offsets"}
    assert [state.leader_epoch for state in sets["orders"].partitions] == [6, 1]
    assert all(state.recovering and state.leader == -1 for one in sets.values() for state in one.partitions)
    assert sorted(topic.topic_name for topic in map(Topic.from_object, objects(data_dir, TOPIC))) == [
        "orders",
        "table",
    ]
    keys = TopicKeys(new, "orders", ORDERS.topic_id).partition(0)
    place = TopicKeys(new, "__consumer_offsets", OFFSETS.topic_id).partition(partition_for("readers", 50))

    async def read() -> None:
        store = DirectoryStore(bucket)
        manifest = await read_manifest(store, keys, ManifestName(6, 1))
        assert (manifest.end_offset, manifest.entry_count) == (60, 2)
        snapshot = await read_offsets(store, place, OffsetsName(5, 1))
        assert snapshot.groups["readers"][TopicPartition("orders", 0)].offset == 60

    asyncio.run(read())
    verified = CliRunner().invoke(
        main, ["tier", "verify", "--bucket", str(bucket), "--cluster", str(new), "--deep"]
    )
    assert verified.exit_code == 0, verified.output


@pytest.mark.parametrize("given", [None, 3, 1 << 40])
def test_no_producer_gets_an_id_that_one_of_the_lost_cluster_has(
    bucket: Path, data_dir: Path, given: int | None
) -> None:
    began_s = int(time.time())
    if given is not None:
        known = ClusterState(cluster=CLUSTER_NAME, cluster_id=str(uuid4()), next_producer_id_block=given)
        create(data_dir, CLUSTER_STATE, known.to_object())
    assert restore(bucket, data_dir).exit_code == 0
    block = state_of(data_dir).next_producer_id_block
    assert block >= max(began_s, given or 0)
    assert restore(bucket, data_dir).exit_code == 0
    assert state_of(data_dir).next_producer_id_block == block


def test_running_it_again_changes_nothing(bucket: Path, data_dir: Path) -> None:
    first = json.loads(restore(bucket, data_dir, "--json").stdout)
    files = {file: file.read_bytes() for file in bucket.rglob("*") if file.is_file()}
    second = json.loads(restore(bucket, data_dir, "--json").stdout)
    assert second["clusterId"] == first["clusterId"]
    assert second["progress"]["objects_kept"] == first["progress"]["objects"] == 2
    assert {file: file.read_bytes() for file in bucket.rglob("*") if file.is_file()} == files


def test_a_damaged_bucket_is_refused_before_anything_is_made(bucket: Path, data_dir: Path) -> None:
    file = next(bucket.glob(f"{OLD}/topics/orders-*/0/manifests/*.manifest"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    result = restore(bucket, data_dir)
    assert result.exit_code == 1
    assert str(file.relative_to(bucket)) in result.output
    assert "--leave-out TOPIC" in result.output
    assert (objects(data_dir, PARTITION_SET), objects(data_dir, CLUSTER_STATE)) == ([], [])
    assert restore(bucket, data_dir, "--leave-out", "orders").exit_code == 0


def test_a_missing_segment_is_told_and_the_restore_goes_on_later(bucket: Path, data_dir: Path) -> None:
    file = next(bucket.glob(f"{OLD}/topics/orders-*/0/00000000000000000020-*.seg"))
    whole = file.read_bytes()
    file.unlink()
    result = restore(bucket, data_dir)
    assert (result.exit_code, "is gone: does the cluster" in result.output) == (1, True), result.output
    assert objects(data_dir, TOPIC) == []
    before = cluster_id(data_dir)
    file.write_bytes(whole)
    assert restore(bucket, data_dir).exit_code == 0
    assert cluster_id(data_dir) == before


def refused(bucket: Path, data_dir: Path, message: str, *arguments: str, source: object = OLD) -> None:
    result = restore(bucket, data_dir, *arguments, source=source)
    assert (result.exit_code, message in result.output) == (1, True), result.output


def test_a_cluster_that_is_not_empty_is_refused(bucket: Path, tmp_path: Path) -> None:
    topic = new_object(TOPIC, "mine", {"clusterRef": {"name": CLUSTER_NAME}})
    create(tmp_path / "a", TOPIC, topic)
    refused(bucket, tmp_path / "a", "is not empty: it has the topic mine")
    restored = tmp_path / "b"
    assert restore(bucket, restored).exit_code == 0
    obj = next(
        obj for obj in objects(restored, PARTITION_SET) if obj["spec"]["topicName"] == "__consumer_offsets"
    )
    clean: dict[str, Any] = new_object(
        PARTITION_SET, obj["metadata"]["name"], obj["spec"], labels=obj["metadata"]["labels"]
    )
    create(tmp_path / "c", PARTITION_SET, clean)
    refused(bucket, tmp_path / "c", "restore before its first start")
    obj["metadata"] = {key: obj["metadata"][key] for key in ("name", "labels", "annotations")}
    obj["spec"]["partitions"][7]["leader"] = 0
    create(tmp_path / "d", PARTITION_SET, obj)
    refused(bucket, tmp_path / "d", "has been started since")


def test_another_source_or_the_cluster_itself_is_refused(bucket: Path, tmp_path: Path) -> None:
    assert restore(bucket, tmp_path / "a", "--topic", "orders").exit_code == 0
    refused(bucket, tmp_path / "a", "is not empty", source=uuid4())
    itself = ClusterState(cluster=CLUSTER_NAME, cluster_id=str(OLD)).to_object()
    create(tmp_path / "b", CLUSTER_STATE, itself)
    refused(bucket, tmp_path / "b", "itself: start it instead")
    never = uuid4()
    refused(
        bucket, tmp_path / "c", f"there is no cluster {never} in the bucket; there are: {OLD}", source=never
    )
    assert restore(bucket, tmp_path / "c").exit_code == 0


def test_volumes_and_running_clusters_are_refused(bucket: Path, tmp_path: Path) -> None:
    volume = tmp_path / "a" / "broker-1" / "data"
    volume.mkdir(parents=True)
    (volume / "meta.json").write_text("{}")
    refused(bucket, tmp_path / "a", "has the volume of a broker")
    layout = DataDir(tmp_path / "b")
    layout.acquire()
    try:
        refused(bucket, tmp_path / "b", "is in use by another `strandline dev`")
    finally:
        layout.release()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("restore",), "--from"),
        (("restore", "--from", str(OLD), "--namespace", "shop"), "needs --cluster-name and --bucket"),
        (("restore", "--from", str(OLD), "--cluster-name", "demo"), "needs --cluster-name and --bucket"),
        (("restore", "--from", "dev"), "is not a valid UUID"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(main, ["tier", *arguments])
    assert (result.exit_code, message in result.output) == (2, True), result.output


def test_into_kubernetes_before_and_after_the_cluster_is_applied(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with FakeApiServer() as server:
            (tmp_path / "config").write_text(KUBECONFIG % server.url)
            monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
            monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
            choice = BucketChoice(str(bucket), None, None, tmp_path)
            options = RestoreOptions(OLD, Choice(), None, dry_run=False, deep=True)
            first = await carry_out(choice, lambda: kubernetes_target(NAMESPACE, "demo"), options)
            async with kubernetes_target(NAMESPACE, "demo") as target:
                assert target.store is not None
                spec = {"replicas": 5, "config": {"offsets.topic.replication.factor": "2"}}
                await target.store.create(CLUSTER, new_object(CLUSTER, "demo", spec))
                (state,) = (await target.store.list(CLUSTER_STATE))[0]
                assert state["spec"]["clusterId"] == str(first.cluster_id)
                made = list(map(PartitionSet.from_object, (await target.store.list(PARTITION_SET))[0]))
                assert {one.cluster for one in made} == {"demo"}
                assert {len(partition.replicas) for one in made for partition in one.partitions} == {3}
                for one in made:
                    await target.store.delete_if(PARTITION_SET, one.name, uid=one.uid)
            second = await carry_out(choice, lambda: kubernetes_target(NAMESPACE, "demo"), options)
            assert second.cluster_id == first.cluster_id
            async with kubernetes_target(NAMESPACE, "demo") as target:
                assert target.store is not None
                made = list(map(PartitionSet.from_object, (await target.store.list(PARTITION_SET))[0]))
                factors = {one.topic_name: len(one.partitions[0].replicas) for one in made}
                assert factors == {"orders": 3, "__consumer_offsets": 2}
                used = {broker for one in made for state in one.partitions for broker in state.replicas}
                assert used == set(range(5))

    asyncio.run(scenario())


KUBECONFIG = """
current-context: here
contexts: [{name: here, context: {cluster: here}}]
clusters: [{name: here, cluster: {server: "%s"}}]
"""
