"""A broker's life: clean stops, crashes, stores that are away, disks that fail, topics that go."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.integration.support import Cluster, batch, cluster, fetch, leads, produce, run, running, until
from tests.integration.test_produce_fetch import FETCH_V, PRODUCE_V, row, values

from strandline_broker.cluster.model import CLUSTER, CLUSTER_STATE, TOPIC, ClusterState, Object, new_object
from strandline_broker.cluster.store import ClusterStore, Unavailable
from strandline_broker.errors import ErrorCode
from strandline_broker.log.identity import IdentityError
from strandline_broker.log.log import Log
from strandline_broker.seams.disk import Buffer, DiskError, File
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.server.broker import Broker
from strandline_broker.wire.api_keys import ApiKey


class AwayStore:
    """A cluster store that cannot be reached."""

    def __getattr__(self, name: str) -> Any:
        async def refuse(*arguments: object, **keywords: object) -> None:
            raise Unavailable("the test took the store away")

        return refuse

    def watch(self, kind: str, version: str) -> AsyncIterator[object]:
        return _Refusing()


class _Refusing:
    """A watch of a store that is away."""

    def __aiter__(self) -> AsyncIterator[object]:
        return self

    async def __anext__(self) -> object:
        raise Unavailable("the test took the store away")

    async def aclose(self) -> None:
        """Nothing is held."""


class HeldStore:
    """A cluster store that lists nothing before it is let go."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store
        self.asked = asyncio.Event()
        self.let_go = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def list(self, kind: str) -> tuple[list[Object], str]:
        """See `ClusterStore.list`."""
        self.asked.set()
        await self.let_go.wait()
        return await self._store.list(kind)


async def crash(broker: Broker) -> None:
    """End a broker as `kill -9` does, as far as that goes inside one process: nothing is written, nothing said."""
    await broker.tasks.cancel()
    await broker.replication.fetchers.close()
    if broker.tiering is not None:
        await broker.tiering.close()
    await broker.server.close(0)
    await broker.syncs.flusher.drain()
    broker.disk_threads.shutdown()  # a log may just be opened there
    for log in broker.logs:
        log._forget_files()


async def write(made: Cluster, broker: Broker, *texts: bytes) -> list[int]:
    client = await made.connect(broker)
    codes = []
    for text in texts:
        answer = await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce("t", {0: batch(text)}))
        codes.append(int(row(answer).error_code))
    await client.close()
    return codes


async def read(made: Cluster, broker: Broker) -> list[bytes | None]:
    client = await made.connect(broker)
    answer = await client.ask(ApiKey.FETCH, FETCH_V, fetch("t", {0: 0}))
    await client.close()
    return [value for _, value in values(row(answer))]


def test_a_crashed_leader_waits_for_a_new_epoch_and_then_has_everything(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made:
            broker = made.broker()
            await broker.start()
            await made.create_topic("t")
            await leads(broker, "t")
            assert await write(made, broker, b"a", b"b") == [0, 0]
            before = broker.partition("t", 0).leader_epoch
            await made.stop_controller()
            await crash(broker)

            again = made.broker()
            await again.start()
            partition = again.replicas.partition("t", 0)
            assert not partition.is_leader, "the old epoch was given to another incarnation"
            assert await write(made, again, b"c") == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
            await made.start_controller()
            await leads(again, "t")
            assert again.partition("t", 0).leader_epoch > before
            assert await read(made, again) == [b"a", b"b"]
            await again.stop()

    run(scenario())


def test_a_cleanly_stopped_leader_serves_on_while_the_store_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made:
            async with running(made) as broker:
                await made.create_topic("t")
                await leads(broker, "t")
                assert await write(made, broker, b"a") == [0]
                epoch = broker.partition("t", 0).leader_epoch
            away: Any = AwayStore()
            again = made.broker(store=away)
            starting = asyncio.create_task(again.start())
            await until(lambda: hasattr(again, "replicas") and "t" in again.replicas.by_key)
            await leads(again, "t")
            assert again.partition("t", 0).leader_epoch == epoch
            assert await write(made, again, b"b") == [0]
            assert await read(made, again) == [b"a", b"b"]
            assert not again.ready
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await crash(again)

    run(scenario())


def test_a_crashed_leader_does_not_serve_while_the_store_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made:
            broker = made.broker()
            await broker.start()
            await made.create_topic("t")
            await leads(broker, "t")
            assert await write(made, broker, b"a") == [0]
            await crash(broker)
            away: Any = AwayStore()
            again = made.broker(store=away)
            starting = asyncio.create_task(again.start())
            await until(lambda: hasattr(again, "replicas") and "t" in again.replicas.by_key)
            assert await write(made, again, b"b") == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await crash(again)

    run(scenario())


def test_a_broker_with_an_empty_volume_tells_nobody_that_there_are_no_topics(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path, 2) as made, running(made) as first:
            await made.create_topic("t")
            await leads(first, "t")
            held: Any = HeldStore(made.store)
            second = made.broker(1, store=held)
            starting = asyncio.create_task(second.start())
            await held.asked.wait()
            with pytest.raises(KeyError):
                second.server.address("PLAINTEXT")
            held.let_go.set()
            await starting
            client = await made.connect(second)
            answer = await client.ask(ApiKey.METADATA, 9, {"topics": [{"name": "t"}]})
            assert [(topic.name, topic.error_code) for topic in answer.topics] == [("t", ErrorCode.NONE)]
            await client.close()
            await second.stop()

    run(scenario())


def test_a_volume_of_another_broker_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made:
            async with running(made):
                pass
            other = made.broker(1, disk=LocalDisk(tmp_path / "broker-0"))
            with pytest.raises(IdentityError, match="belongs to broker 0"):
                await other.start()
            other.disk_threads.shutdown()

    run(scenario())


class FullFile:
    """A file whose disk can be filled."""

    def __init__(self, file: File, disk: FillingDisk) -> None:
        self._file = file
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def append(self, buffers: Sequence[Buffer]) -> int:
        """Fail when the disk is full, with a part of the bytes written."""
        if self._disk.full and self._file.path.endswith(".log"):
            self._file.append([bytes(buffers[0])[:10]])
            raise DiskError(errno.ENOSPC, "no space left on device")
        return self._file.append(buffers)


class FillingDisk(LocalDisk):
    """A disk that is full whenever the test says so."""

    full = False

    def open(self, path: str, *, create: bool = False) -> Any:
        """Open a file that knows of its disk."""
        return FullFile(super().open(path, create=create), self)


def test_a_full_disk_refuses_writes_and_recovers_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = FillingDisk(tmp_path / "broker-0")
        async with cluster(tmp_path) as made, running(made, disk=disk) as broker:
            await made.create_topic("t")
            await leads(broker, "t")
            assert await write(made, broker, b"a") == [0]
            disk.full = True
            assert await write(made, broker, b"b", b"c") == [ErrorCode.KAFKA_STORAGE_ERROR] * 2
            assert await read(made, broker) == [b"a"], "reads go on"
            disk.full = False
            assert await write(made, broker, b"d") == [0]
            assert await read(made, broker) == [b"a", b"d"]

    run(scenario())


def test_a_failed_sync_acknowledges_nothing_and_the_partition_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strandline_broker.server.log_failures.RETRY_INTERVAL_S", 0.01)

    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made) as broker:
            await made.create_topic("t")
            await leads(broker, "t")
            assert await write(made, broker, b"a") == [0]
            file = broker.partition("t", 0).log.active.hold()
            original = type(file).datasync

            def fail(self: File) -> None:
                raise DiskError(errno.EIO, "input/output error")

            monkeypatch.setattr(type(file), "datasync", fail)
            assert await write(made, broker, b"b") == [ErrorCode.KAFKA_STORAGE_ERROR]
            monkeypatch.setattr(type(file), "datasync", original)

            async def retried() -> None:
                while await write(made, broker, b"c") != [0]:
                    await asyncio.sleep(0.01)

            async with asyncio.timeout(10):
                await retried()
            assert await read(made, broker) == [b"a", b"c"], "what was not synced is gone, nothing else"

    run(scenario())


def test_a_log_that_is_cut_back_takes_nothing_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strandline_broker.server.log_failures.RETRY_INTERVAL_S", 0.01)
    cutting, go_on = threading.Event(), threading.Event()
    truncate_to = Log.truncate_to

    def slowly(log: Log, offset: int) -> None:
        cutting.set()
        assert go_on.wait(30)
        truncate_to(log, offset)

    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made) as broker:
            await made.create_topic("t")
            await leads(broker, "t")
            assert await write(made, broker, b"a") == [0]
            log = broker.partition("t", 0).log
            monkeypatch.setattr(Log, "truncate_to", slowly)
            log.synced_end = 0  # as if the disk had not taken what it said it had
            log.fail("the test says so")
            await until(cutting.is_set)
            await made.create_topic("u")
            await until(lambda: broker.view.topic_by_name("u") is not None)
            assert await write(made, broker, b"b") == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
            go_on.set()
            await leads(broker, "u")
            await leads(broker, "t")
            assert await write(made, broker, b"c") == [0]
            assert await read(made, broker) == [b"c"], (
                "what was not synced is gone, what was acknowledged is not"
            )

    run(scenario())


def test_a_deleted_topic_is_hidden_at_once_and_its_name_can_be_used_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made) as broker:
            client = await made.connect(broker)
            for round_number in range(2):
                created = await client.ask(
                    ApiKey.CREATE_TOPICS,
                    5,
                    {
                        "topics": [
                            {
                                "name": "t",
                                "num_partitions": 1,
                                "replication_factor": 1,
                                "assignments": [],
                                "configs": [],
                            }
                        ],
                        "timeout": 5000,
                        "validate_only": False,
                    },
                )
                assert created.topics[0].error_code == ErrorCode.NONE
                await leads(broker, "t")
                assert await write(made, broker, b"%d" % round_number) == [0]
                assert await read(made, broker) == [b"%d" % round_number]
                deleted = await client.ask(ApiKey.DELETE_TOPICS, 4, {"topic_names": ["t"], "timeout": 5000})
                assert deleted.responses[0].error_code == ErrorCode.NONE
                await until(lambda: "t" not in broker.replicas.by_key)
                unknown = await client.ask(ApiKey.PRODUCE, PRODUCE_V, produce("t", {0: batch(b"x")}))
                assert row(unknown).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            await client.close()

    run(scenario())


def test_a_topic_object_that_is_lost_loses_no_data(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made, running(made) as broker:
            await made.create_topic("t")
            await leads(broker, "t")
            assert await write(made, broker, b"a") == [0]
            topic = await made.store.get(TOPIC, "t")
            await made.store.delete_if(TOPIC, "t", uid=topic["metadata"]["uid"])
            await until(made.controller.quiet.is_set)
            assert await read(made, broker) == [b"a"]
            assert await write(made, broker, b"b") == [0]

    run(scenario())


def test_a_second_process_under_the_same_id_ends_the_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made:
            first = made.broker(lease_renew_ms="20")
            await first.start()
            second = made.broker(disk=LocalDisk(tmp_path / "elsewhere"))
            await second.start()
            await until(lambda: bool(made.lost))
            assert "another process runs as broker 0" in made.lost[0]
            await second.stop()
            with contextlib.suppress(OSError):
                await first.stop()

    run(scenario())


def test_a_new_volume_in_a_cluster_that_was_applied_again_gets_the_id_of_the_old_ones(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path, brokers=2) as made:
            async with running(made, broker_id=0) as first:
                cluster_id = first.cluster_id
            uid = (await made.store.get(CLUSTER, "test"))["metadata"]["uid"]
            assert cluster_id == uid
            await made.store.delete_if(CLUSTER, "test", uid=uid)
            again = await made.store.create(CLUSTER, new_object(CLUSTER, "test", {"replicas": 2}))
            assert again["metadata"]["uid"] != uid
            async with running(made, broker_id=0) as old, running(made, broker_id=1) as new:
                assert old.cluster_id == new.cluster_id == cluster_id

    run(body())


def test_a_new_volume_waits_until_its_cluster_has_an_id(tmp_path: Path) -> None:
    async def body() -> None:
        async with cluster(tmp_path) as made:
            await made.stop_controller()
            for kind in (CLUSTER_STATE, CLUSTER):
                for obj in (await made.store.list(kind))[0]:
                    await made.store.delete_if(kind, obj["metadata"]["name"], uid=obj["metadata"]["uid"])
            await made.store.create(CLUSTER, new_object(CLUSTER, "test", {"replicas": 1}))
            await made.store.create(CLUSTER_STATE, ClusterState("test").to_object())
            broker = made.broker()
            starting = asyncio.create_task(broker.start())
            await asyncio.wait({starting}, timeout=0.3)
            assert not starting.done()
            await made.start_controller()
            async with asyncio.timeout(10):
                await starting
            assert broker.cluster_id == (await made.store.get(CLUSTER, "test"))["metadata"]["uid"]
            await broker.stop()

    run(body())
