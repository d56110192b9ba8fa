"""SqliteStore keeps the contract, between processes too, and what it promises beyond it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster.store_contract import StoreContract, collect, names, put
from tests.unit.cluster.support import replace, run, topic_object

from strandline_broker.cluster.model import CLUSTER_STATE, LEASE, TOPIC, ClusterState, Object
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import ClusterStore, Gone, Invalid, Unavailable


class TestSqliteStore(StoreContract):
    history = 8

    async def open_store(self, place: Path, *, small_history: bool = False) -> ClusterStore:
        return SqliteStore(place / "cluster.db", history=self.history if small_history else 1_000)


# A process that fights for every epoch: it prints the epochs it won.
CONTENDER = """
import asyncio, sys
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.store import Conflict

async def main(path, rounds):
    store = SqliteStore(path)
    won = []
    uid = (await store.get("ClusterState", "dev"))["metadata"]["uid"]
    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        epoch = (await store.get("ClusterState", "dev"))["spec"]["nextProducerIdBlock"]
        if epoch >= rounds:
            break
        try:
            await store.patch_if("ClusterState", "dev", uid=uid, tests=[("/spec/nextProducerIdBlock", epoch)],
                operations=[{"op": "replace", "path": "/spec/nextProducerIdBlock", "value": epoch + 1}])
        except Conflict:
            continue
        won.append(epoch)
    await store.close()
    print(won, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_of_two_processes_exactly_one_wins_each_epoch(tmp_path: Path) -> None:
    path, rounds = tmp_path / "cluster.db", 60

    async def prepare() -> None:
        store = SqliteStore(path)
        await store.create(CLUSTER_STATE, ClusterState("dev").to_object())
        await store.close()

    run(prepare())
    command = [sys.executable, "-c", CONTENDER, str(path), str(rounds)]
    with contextlib.ExitStack() as stack:
        contenders = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(2)
        ]
        for contender in contenders:
            assert contender.stdout is not None
            assert contender.stdout.readline() == "ready\n"
        results = []
        for contender in contenders:
            assert contender.stdin is not None
            contender.stdin.write("\n")
            contender.stdin.flush()
        for contender in contenders:
            out, _ = contender.communicate(timeout=60)
            results.append(json.loads(out))
    assert sorted(results[0] + results[1]) == list(range(rounds))


def test_a_watch_sees_what_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "cluster.db"
    script = (
        "import asyncio, sys\n"
        "from strandline_broker.cluster.sqlite_store import SqliteStore\n"
        "from strandline_broker.cluster.model import ClusterState\n"
        "async def main():\n"
        "    store = SqliteStore(sys.argv[1])\n"
        "    await store.create('ClusterState', ClusterState('dev').to_object())\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )

    async def body() -> None:
        store = SqliteStore(path)
        _, version = await store.list(CLUSTER_STATE)
        watching = asyncio.create_task(collect(store.watch(CLUSTER_STATE, version), 1))
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(path))
        assert names(await watching) == [("ADDED", "dev")]
        assert await process.wait() == 0
        await store.close()

    run(body())


def test_everything_is_there_after_the_store_was_opened_again(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path / "cluster.db")
        _, version = await store.list(TOPIC)
        created = await store.create(TOPIC, topic_object("a"))
        await store.close()
        store = SqliteStore(tmp_path / "cluster.db")
        assert await store.get(TOPIC, "a") == created
        assert names(await collect(store.watch(TOPIC, version), 1)) == [("ADDED", "a")]
        await store.close()

    run(body())


def test_versions_of_another_file_are_gone(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path / "new.db")
        with pytest.raises(Gone):
            await collect(store.watch(TOPIC, "17"), 1)
        await store.close()

    run(body())


def test_a_store_in_memory_needs_no_polling() -> None:
    async def body() -> None:
        store = SqliteStore(":memory:", poll_interval_s=3600)
        _, version = await store.list(TOPIC)
        watching = asyncio.create_task(collect(store.watch(TOPIC, version), 1))
        await asyncio.sleep(0)
        await store.create(TOPIC, topic_object("a"))
        assert names(await watching) == [("ADDED", "a")]
        await store.close()

    run(body())


def test_a_write_whose_caller_was_cancelled_still_wakes_watches(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path / "cluster.db", poll_interval_s=3600)
        _, version = await store.list(TOPIC)
        watching = asyncio.create_task(collect(store.watch(TOPIC, version), 1))
        await asyncio.sleep(0)
        writing = asyncio.create_task(store.create(TOPIC, topic_object("a")))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert names(await watching) == [("ADDED", "a")]
        await store.close()

    run(body())


def test_writes_that_wait_share_a_transaction_and_fail_on_their_own(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path / "cluster.db")
        created = await store.create(TOPIC, topic_object("a"))
        uid = created["metadata"]["uid"]
        commits: list[str] = []
        engine = store._writer._engine
        assert engine is not None
        engine._connection.set_trace_callback(commits.append)

        def patch(partitions: int, *, expected: int) -> Any:
            return store.patch_if(
                TOPIC,
                "a",
                uid=uid,
                tests=[("/spec/partitions", expected)],
                operations=[replace("/spec/partitions", partitions)],
            )

        outcomes = await asyncio.gather(
            patch(2, expected=1),
            patch(3, expected=1),
            store.create(TOPIC, topic_object("a")),
            store.create(TOPIC, topic_object("b")),
            patch(4, expected=2),
            return_exceptions=True,
        )
        kinds = [type(o).__name__ if isinstance(o, Exception) else "done" for o in outcomes]
        assert kinds == ["done", "Conflict", "AlreadyExists", "done", "done"]
        assert (await store.get(TOPIC, "a"))["spec"]["partitions"] == 4
        # The first may have begun alone.
        assert sum(statement == "COMMIT" for statement in commits) <= 2
        objects, version = await store.list(TOPIC)
        assert [obj["metadata"]["name"] for obj in objects] == ["a", "b"]
        assert int(version) == 4, "what failed left no trace"
        await store.close()

    run(body())


def test_news_does_not_wait_for_a_write_that_waits(tmp_path: Path) -> None:
    async def body() -> None:
        store, other = SqliteStore(tmp_path / "cluster.db"), SqliteStore(tmp_path / "cluster.db")
        _, version = await store.list(TOPIC)
        await other.create(TOPIC, topic_object("a"))
        with sqlite3.connect(tmp_path / "cluster.db", isolation_level=None) as holder:
            holder.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(store.create(TOPIC, topic_object("b")))
            await asyncio.sleep(0)
            assert names(await collect(store.watch(TOPIC, version), 1)) == [("ADDED", "a")]
            assert not writing.done()
            holder.execute("ROLLBACK")
        holder.close()
        await writing
        await store.close()
        await other.close()

    run(body())


def test_closing_ends_watches_and_refuses_further_calls(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path / "cluster.db")
        _, version = await store.list(TOPIC)

        async def watch() -> int:
            return len([event async for event in store.watch(TOPIC, version)])

        watching = asyncio.create_task(watch())
        await store.list(TOPIC)
        await store.close()
        assert await watching == 0
        with pytest.raises(Unavailable):
            await store.list(TOPIC)
        await store.close()

    run(body())


def test_the_validator_sees_old_and_new_and_may_fill_in_defaults(tmp_path: Path) -> None:
    seen: list[tuple[str, int | None, int]] = []

    def validator(kind: str, obj: Object, old: Object | None) -> None:
        obj["spec"].setdefault("replicas", 1)
        seen.append((kind, old["spec"]["partitions"] if old is not None else None, obj["spec"]["partitions"]))
        if old is not None and obj["spec"]["partitions"] < old["spec"]["partitions"]:
            raise Invalid("partitions cannot be decreased")

    async def body() -> None:
        store = SqliteStore(tmp_path / "cluster.db", validator=validator)
        created = await store.create(TOPIC, topic_object("a", partitions=3))
        assert created["spec"]["replicas"] == 1
        with pytest.raises(Invalid, match="cannot be decreased"):
            await put(store, created, replace("/spec/partitions", 2))
        assert (await store.get(TOPIC, "a"))["spec"]["partitions"] == 3
        assert seen == [(TOPIC, None, 3), (TOPIC, 3, 2)]
        await store.close()

    run(body())


def test_an_object_too_large_for_kubernetes_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path / "cluster.db")
        with pytest.raises(Invalid, match="limit"):
            await store.create(TOPIC, topic_object("a", config={"x": "y" * 1_000_000}))
        with pytest.raises(Invalid, match="JSON"):
            await store.create(TOPIC, topic_object("a", config={"x": object}))
        assert (await store.list(TOPIC))[0] == []
        await store.close()

    run(body())


@pytest.mark.parametrize("damage", ["garbage", "newer"])
def test_a_file_that_cannot_be_used_makes_the_store_unavailable(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "cluster.db"
    if damage == "garbage":
        path.write_bytes(b"this is no database" * 1000)
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version=99")

    async def body() -> None:
        store = SqliteStore(path)
        with pytest.raises(Unavailable):
            await store.get(LEASE, "x")
        await store.close()

    run(body())


def test_the_history_on_disk_stays_bounded(tmp_path: Path) -> None:
    path, history = tmp_path / "cluster.db", 10

    async def body() -> None:
        store = SqliteStore(path, history=history)
        obj = await store.create(TOPIC, topic_object("a"))
        for count in range(2, 100):
            obj = await put(store, obj, replace("/spec/partitions", count))
        await store.close()

    run(body())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (events,) = connection.execute("SELECT count(*) FROM events").fetchone()
    assert history <= events <= history + history // 4


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path / "cluster.db")
        with pytest.raises(Invalid, match="Secret"):
            await store.list("Secret")
        await store.close()

    run(body())
