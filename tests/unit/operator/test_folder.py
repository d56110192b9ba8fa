"""A folder of manifests: what is applied, what is pruned, and above all what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from strandline_broker.cluster.model import CLUSTER, TOPIC, new_object
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_operator.cli.folder import FolderSync

HEAD = "apiVersion: strandline.io/v1alpha1\n"
TOPIC_TEXT = HEAD + "kind: Topic\nmetadata: {name: %s}\nspec: {clusterRef: {name: prod}, partitions: %d}\n"
CLUSTER_TEXT = (
    HEAD
    + "kind: Cluster\nmetadata: {name: prod}\n"
    + "spec: {replicas: 5, kafkaAdmin: None, config: {retention.ms: '7'}}\n"
)


class Bench:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SqliteStore(":memory:")
        self.said: list[str] = []
        self.folder = self.sync()

    def sync(self) -> FolderSync:
        return FolderSync(self.path, self.store, self.said.append)

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.folder.sync()

    async def topics(self) -> dict[str, Any]:
        return {obj["metadata"]["name"]: obj for obj in (await self.store.list(TOPIC))[0]}


def play(path: Path, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        bench = Bench(path)
        try:
            await scenario(bench)
        finally:
            await bench.store.close()

    path.mkdir()
    asyncio.run(run())


def test_manifests_written_for_kubernetes_work_here(tmp_path: Path) -> None:
    async def scenario(b: Bench) -> None:
        given = {"replicas": 1, "flush": "Fsync", "tiering": {"bucket": "here"}}
        await b.store.create(CLUSTER, new_object(CLUSTER, "dev", given))
        b.write("all.yaml", CLUSTER_TEXT + "---\n" + TOPIC_TEXT % ("orders", 3))
        await b.look()
        assert (await b.topics())["orders"]["spec"]["clusterRef"] == {"name": "dev"}
        spec = (await b.store.get(CLUSTER, "dev"))["spec"]
        assert (spec["kafkaAdmin"], spec["config"]) == ("None", {"retention.ms": "7"})
        assert {key: spec[key] for key in given} == given, "the command line decides"
        b.said.clear()
        await b.look(3)
        assert b.said == []

    play(tmp_path / "m", scenario)


def test_a_file_that_goes_takes_its_topic_after_a_second_look(tmp_path: Path) -> None:
    async def scenario(b: Bench) -> None:
        b.write("a.yaml", TOPIC_TEXT % ("orders", 3))
        b.write("b.yaml", TOPIC_TEXT % ("clicks", 3))
        await b.look()
        (b.path / "b.yaml").unlink()
        await b.look()
        assert set(await b.topics()) == {"orders", "clicks"}, "an editor may be about to write it again"
        await b.look()
        assert set(await b.topics()) == {"orders"}

    play(tmp_path / "m", scenario)


def test_a_file_that_comes_back_at_once_takes_nothing(tmp_path: Path) -> None:
    async def scenario(b: Bench) -> None:
        b.write("a.yaml", TOPIC_TEXT % ("orders", 3))
        await b.look()
        uid = (await b.topics())["orders"]["metadata"]["uid"]
        (b.path / "a.yaml").unlink()
        await b.look()
        b.write("a.yaml", TOPIC_TEXT % ("orders", 4))
        await b.look(3)
        orders = (await b.topics())["orders"]
        assert (orders["metadata"]["uid"], orders["spec"]["partitions"]) == (uid, 4)

    play(tmp_path / "m", scenario)


def test_nothing_is_pruned_while_a_file_cannot_be_understood(tmp_path: Path) -> None:
    async def scenario(b: Bench) -> None:
        b.write("a.yaml", TOPIC_TEXT % ("orders", 3))
        await b.look()
        b.write("a.yaml", "kind: [")
        await b.look(4)
        assert set(await b.topics()) == {"orders"}
        assert sum("is not valid YAML" in line for line in b.said) == 1, "said once, not every second"

    play(tmp_path / "m", scenario)


def test_a_folder_that_is_away_deletes_nothing(tmp_path: Path) -> None:
    async def scenario(b: Bench) -> None:
        b.write("a.yaml", TOPIC_TEXT % ("orders", 3))
        await b.look()
        b.path.rename(tmp_path / "away")
        await b.look(4)
        assert set(await b.topics()) == {"orders"}

    play(tmp_path / "m", scenario)


def test_what_vanished_while_nobody_looked_is_reported_and_stays(tmp_path: Path) -> None:
    async def scenario(b: Bench) -> None:
        b.write("a.yaml", TOPIC_TEXT % ("orders", 3))
        await b.look()
        (b.path / "a.yaml").unlink()
        b.folder = b.sync()  # a new start
        await b.look(4)
        assert set(await b.topics()) == {"orders"}
        assert any("topic/orders came from a.yaml, which is gone; it stays" in line for line in b.said)

    play(tmp_path / "m", scenario)


def test_topics_of_others_are_never_pruned(tmp_path: Path) -> None:
    async def scenario(b: Bench) -> None:
        await b.store.create(TOPIC, new_object(TOPIC, "theirs", {"clusterRef": {"name": "dev"}}))
        b.write("a.yaml", TOPIC_TEXT % ("orders", 3))
        await b.look()
        (b.path / "a.yaml").unlink()
        await b.look(4)
        assert set(await b.topics()) == {"theirs"}

    play(tmp_path / "m", scenario)
