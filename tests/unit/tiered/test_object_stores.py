from __future__ import annotations

from pathlib import Path

from tests.unit.tiered.store_contract import StoreContract, run

from strandline_tiered.directory_store import DirectoryStore
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.object_store import ObjectStore


class TestMemoryStore(StoreContract):
    def open_store(self, directory: Path) -> ObjectStore:
        return MemoryStore()


class TestDirectoryStore(StoreContract):
    def open_store(self, directory: Path) -> ObjectStore:
        return DirectoryStore(directory / "bucket")

    def test_nothing_half_written_is_ever_visible(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            store = DirectoryStore(tmp_path)
            await store.put("a", [b"x"])
            (tmp_path / ".incoming" / "torn").write_bytes(b"half")
            assert [info.key async for info in store.list("")] == ["a"]

        run(scenario())

    def test_two_instances_share_one_directory(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            await DirectoryStore(tmp_path).put("a/b", [b"x"])
            assert await DirectoryStore(tmp_path).get("a/b") == b"x"

        run(scenario())
