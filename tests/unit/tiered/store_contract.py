"""What every object store must do. Subclass `StoreContract` and implement `open_store`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from strandline_tiered.object_store import AlreadyThere, InvalidKey, NoSuchObject, ObjectStore


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


async def keys(store: ObjectStore, prefix: str, after: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix, after=after)]


class StoreContract:
    """The tests; collected through subclasses."""

    conditional_writes = True

    def open_store(self, directory: Path) -> ObjectStore:
        raise AssertionError("a subclass says which store")

    def test_what_is_put_is_read_back_whole_and_in_ranges(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            store = self.open_store(tmp_path)
            await store.put("a/b", [b"hello ", memoryview(b"tide")])
            assert await store.get("a/b") == b"hello tide"
            assert await store.get("a/b", 6) == b"tide"
            assert await store.get("a/b", 1, 4) == b"ell"
            assert await store.get("a/b", 8, 100) == b"de"
            assert await store.get("a/b", 100, 200) == b""
            assert (await store.head("a/b")).size == 10
            await store.put("empty", [])
            assert await store.get("empty") == b""
            await store.close()

        run(scenario())

    def test_an_object_that_is_not_there_is_said_to_be_missing(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            store = self.open_store(tmp_path)
            await store.put("a/b", [b"x"])
            for key in ("nothing", "a", "a/b/c"):
                with pytest.raises(NoSuchObject):
                    await store.get(key)
                with pytest.raises(NoSuchObject):
                    await store.head(key)
            await store.delete(["nothing", "a/b/c"])
            await store.close()

        run(scenario())

    def test_lists_are_ordered_by_bytes_bounded_by_prefix_and_resumable(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            store = self.open_store(tmp_path)
            names = ["t/0/10", "t/0/9", "t/0/a/b", "t/00", "t/1", "u", "t/0/é", "t/0/~"]
            for name in names:
                await store.put(name, [name.encode()])
            expected = sorted((name for name in names if name.startswith("t/0")), key=str.encode)
            assert await keys(store, "t/0") == expected
            assert await keys(store, "t/0/") == [name for name in expected if name != "t/00"]
            assert await keys(store, "t/0", after=expected[1]) == expected[2:]
            assert await keys(store, "nothing/") == []
            assert await keys(store, "") == sorted(names, key=str.encode)
            await store.close()

        run(scenario())

    def test_deleted_objects_are_gone_and_their_siblings_stay(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            store = self.open_store(tmp_path)
            for name in ("a/1", "a/2", "a/3"):
                await store.put(name, [b"x"])
            await store.delete(["a/1", "a/3"])
            assert await keys(store, "a/") == ["a/2"]
            await store.close()

        run(scenario())

    def test_a_conditional_put_has_one_winner(self, tmp_path: Path) -> None:
        if not self.conditional_writes:
            return

        async def scenario() -> None:
            store = self.open_store(tmp_path)

            async def attempt(number: int) -> bool:
                try:
                    await store.put("claim", [b"%d" % number], if_absent=True)
                except AlreadyThere:
                    return False
                return True

            outcomes = await asyncio.gather(*(attempt(number) for number in range(8)))
            assert sum(outcomes) == 1
            assert await store.get("claim") == b"%d" % outcomes.index(True)
            await store.close()

        run(scenario())

    @pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a/../b", "./a", "x" * 1025, "a\0b"])
    def test_a_key_that_cannot_be_stored_is_refused(self, tmp_path: Path, key: str) -> None:
        async def scenario() -> None:
            store = self.open_store(tmp_path)
            with pytest.raises(InvalidKey):
                await store.put(key, [b"x"])
            await store.close()

        run(scenario())
