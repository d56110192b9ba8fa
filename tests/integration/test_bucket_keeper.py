"""What brokers keep in the bucket besides segments, and remove from it: on three real brokers over a directory."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.integration.replicated import Trio, trio
from tests.integration.support import run, until
from tests.integration.test_groups import ask, commit_body
from tests.integration.test_tiering import started, write

from strandline_broker.cluster.internal_topics import CONSUMER_OFFSETS
from strandline_broker.cluster.model import TOPIC, new_object
from strandline_broker.server.broker import Broker
from strandline_broker.server.metrics import MetricsRegistry, take_snapshot
from strandline_broker.wire.api_keys import ApiKey
from strandline_tiered.directory_store import DirectoryStore
from strandline_tiered.keys import PartitionKeys, TopicKeys
from strandline_tiered.offsets_snapshot import OffsetsSnapshot, TopicPartition
from strandline_tiered.offsets_store import load_newest_offsets
from strandline_tiered.topic_manifest import FINAL, TopicManifest
from strandline_tiered.topic_store import load_newest_topic_manifest

OFFSET_COMMIT_V = 9


class Bucket:
    """The directory that the brokers share, and what is in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = DirectoryStore(directory)

    def trio(self, snapshot_interval_ms: int = 1000) -> contextlib.AbstractAsyncContextManager[Trio]:
        """Three brokers with this bucket."""
        return trio(
            self.directory.parent,
            tiering_bucket=f"dir:{self.directory}",
            tiering_offsets_snapshot_interval_ms=str(snapshot_interval_ms),
            log_retention_check_interval_ms="100",
        )

    def keys(self, three: Trio, topic: str) -> TopicKeys:
        broker = next(iter(three.brokers.values()))
        view = broker.view.topic_by_name(topic)
        assert view is not None
        return TopicKeys(UUID(broker.cluster_id), topic, view.topic_id)

    async def topic(self, keys: TopicKeys) -> TopicManifest | None:
        return await load_newest_topic_manifest(self.store, keys)

    def below(self, keys: TopicKeys) -> set[str]:
        folder = self.directory / keys.prefix
        return {f"{keys.prefix}{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_file()}


async def eventually(look: Any, is_it: Any) -> Any:
    """Ask again and again until the answer is right, and return it."""
    async with asyncio.timeout(30):
        while not is_it(found := await look()):
            await asyncio.sleep(0.05)
    return found


async def patch_spec(three: Trio, **spec: Any) -> None:
    store = three.made.store
    topic = await store.get(TOPIC, "t")
    operations = [{"op": "add", "path": f"/spec/{name}", "value": value} for name, value in spec.items()]
    await store.patch_if(TOPIC, "t", uid=topic["metadata"]["uid"], tests=(), operations=operations)


async def commit(three: Trio, group: str, offset: int) -> PartitionKeys:
    """Commit an offset of partition 0; return the keys of the partition that holds it."""
    broker = next(iter(three.brokers.values()))
    await until(lambda: broker.view.topic_by_name(CONSUMER_OFFSETS) is not None)
    async with asyncio.timeout(20):
        while True:
            index = broker.groups.partition_of(group)
            leader = await coordinator(three, index)
            async with three.client(leader) as client:
                body = commit_body({0: offset}, group=group)
                answer = await ask(client, ApiKey.OFFSET_COMMIT, body, OFFSET_COMMIT_V)
                if answer.topics[0].partitions[0].error_code == 0:
                    break
            await asyncio.sleep(0.05)
    view = broker.view.topic_by_name(CONSUMER_OFFSETS)
    assert view is not None
    return PartitionKeys(UUID(broker.cluster_id), CONSUMER_OFFSETS, view.topic_id, index)


async def coordinator(three: Trio, index: int) -> Broker:
    def leads() -> list[Broker]:
        found = []
        for broker in three.brokers.values():
            partition = broker.replicas.find(CONSUMER_OFFSETS, index)
            if partition is not None and partition.is_leader:
                found.append(broker)
        return found

    await until(lambda: bool(leads()))
    return leads()[0]


def offset_in(snapshot: OffsetsSnapshot | None, group: str) -> int | None:
    found = snapshot.groups.get(group, {}).get(TopicPartition("t", 0)) if snapshot is not None else None
    return found.offset if found is not None else None


def test_topics_and_offsets_are_in_the_bucket_and_follow_what_happens(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = Bucket(tmp_path / "bucket")
        async with bucket.trio() as three:
            await started(three)
            keys = bucket.keys(three, "t")
            found = await eventually(lambda: bucket.topic(keys), lambda one: one is not None)
            assert (found.partitions, found.replicas, found.deleted_at_ms) == (1, 3, None)
            assert found.config["retention.ms"] == "-1"
            internal = await eventually(
                lambda: bucket.topic(bucket.keys(three, CONSUMER_OFFSETS)), lambda one: one is not None
            )
            assert internal.partitions == 50

            await patch_spec(three, config={"retention.ms": "7000"}, partitions=3)
            found = await eventually(
                lambda: bucket.topic(keys),
                lambda one: (one.config.get("retention.ms"), one.partitions) == ("7000", 3),
            )
            written_by = found.name.leader_epoch

            # A leader that crashes is followed by one that says it again, under its own epoch.
            leader = three.leader()
            assert leader is not None
            await three.crash(leader.config.broker_id)
            await eventually(lambda: bucket.topic(keys), lambda one: one.name.leader_epoch > written_by)

            partition = await commit(three, "g", 42)
            await eventually(
                lambda: load_newest_offsets(bucket.store, partition), lambda one: offset_in(one, "g") == 42
            )
            await commit(three, "g", 43)
            snapshot = await eventually(
                lambda: load_newest_offsets(bucket.store, partition), lambda one: offset_in(one, "g") == 43
            )
            # Offsets outlive their coordinator, here as in the log.
            served_by = await coordinator(three, partition.partition)
            await three.crash(served_by.config.broker_id)
            later = await eventually(
                lambda: load_newest_offsets(bucket.store, partition),
                lambda one: one.name.leader_epoch > snapshot.name.leader_epoch,
            )
            assert offset_in(later, "g") == 43
            left = next(iter(three.brokers.values()))
            text = MetricsRegistry().render(take_snapshot(left)).decode()
            assert "strandline_tier_topic_manifests_pending 0.0" in text
            assert "strandline_tier_offsets_snapshot_failures_total 0.0" in text

    run(scenario())


def test_a_clean_stop_saves_the_last_offsets(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = Bucket(tmp_path / "bucket")
        async with bucket.trio(snapshot_interval_ms=3_600_000) as three:
            await started(three)
            partition = await commit(three, "g", 42)
            assert await load_newest_offsets(bucket.store, partition) is None
            for broker_id in list(three.brokers):
                await three.stop(broker_id)
            assert offset_in(await load_newest_offsets(bucket.store, partition), "g") == 42

    run(scenario())


@pytest.mark.parametrize("undelete", [False, True])
def test_a_deleted_topic_leaves_the_bucket_after_its_grace_period(tmp_path: Path, undelete: bool) -> None:
    async def scenario() -> None:
        bucket = Bucket(tmp_path / "bucket")
        async with bucket.trio() as three:
            await started(three)
            await write(three, 0, 40)
            keys = bucket.keys(three, "t")
            other = bucket.keys(three, CONSUMER_OFFSETS)
            await until(lambda: any(key.endswith(".seg") for key in bucket.below(keys)))
            await patch_spec(three, deletionPolicy="Delete", deletionGracePeriod="1h" if undelete else "3s")
            topic = await three.made.store.get(TOPIC, "t")
            await three.made.store.delete_if(TOPIC, "t", uid=topic["metadata"]["uid"])
            await eventually(lambda: bucket.topic(keys), lambda one: one.deleted_at_ms)
            assert any(key.endswith(".seg") for key in bucket.below(keys)), "it waits"
            if undelete:
                await bring_back(three)
                await eventually(lambda: bucket.topic(keys), lambda one: one.deleted_at_ms is None)
                await three.in_sync(3)
                assert bucket.keys(three, "t") == keys
                return
            await eventually(lambda: bucket.topic(keys), lambda one: one.name == FINAL)
            await until(lambda: bucket.below(keys) == {keys.key(FINAL)})
            assert await bucket.topic(other) is not None

    run(scenario())


async def bring_back(three: Trio) -> None:
    spec = {"clusterRef": {"name": "test"}, "partitions": 1, "replicas": 3}
    obj = new_object(TOPIC, "t", spec)
    obj["metadata"]["annotations"] = {"strandline.io/undelete": "true"}
    await until(lambda: all(broker.view.topic_by_name("t") is None for broker in three.brokers.values()))
    await three.made.store.create(TOPIC, obj)
