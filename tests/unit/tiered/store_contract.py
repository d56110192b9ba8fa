"""What every object store must do. Subclass `StoreContract` and implement `open_store`."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from strandline_tiered.object_store import AlreadyThere, InvalidKey, NoSuchObject, ObjectStore, SourceFailed


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


async def keys(store: ObjectStore, prefix: str, after: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix, after=after)]


MIB = 1 << 20


def pattern(length: int, seed: int = 0) -> bytes:
    """Bytes that differ everywhere, so that a piece in the wrong place shows."""
    return random.Random(seed).randbytes(length)


class FileLike:
    """A source that is read, as a segment is. `broken_from`: the first byte that cannot be read."""

    def __init__(self, data: bytes, broken_from: int | None = None) -> None:
        self._data = data
        self._broken_from = len(data) if broken_from is None else broken_from
        self.largest_read = 0

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, start: int, length: int) -> bytes:
        self.largest_read = max(self.largest_read, length)
        if start + length > self._broken_from:
            raise OSError(errno.EIO, "a bad sector")
        return self._data[start : start + length]


class StoreContract:
    """The tests; collected through subclasses."""

    conditional_writes = True
    atomic_conditions = True
    """Whether only one of several conditional puts at once succeeds; else it takes one that was there before."""
    many = 1003
    """Objects that fill more than one page of a list."""

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

    def test_a_large_object_is_read_from_its_source_piece_by_piece(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            store = self.open_store(tmp_path)
            data = pattern(6 * MIB + 7)
            source = FileLike(data)
            await store.put("large", source)
            assert source.largest_read <= MIB
            assert (await store.head("large")).size == len(data)
            assert await store.get("large", 5 * MIB - 3, 5 * MIB + 5) == data[5 * MIB - 3 : 5 * MIB + 5]
            assert await store.get("large", 6 * MIB) == data[-7:]
            assert await store.get("large") == data
            await store.close()

        run(scenario())

    @pytest.mark.parametrize("size", [3 * MIB, 6 * MIB])
    def test_a_source_that_cannot_be_read_leaves_no_object(self, tmp_path: Path, size: int) -> None:
        async def scenario() -> None:
            store = self.open_store(tmp_path)
            with pytest.raises(SourceFailed):
                await store.put("torn", FileLike(pattern(size), broken_from=size - 1))
            assert await keys(store, "") == []
            await store.close()

        run(scenario())

    def test_an_object_is_replaced_whole(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            store = self.open_store(tmp_path)
            await store.put("a", [b"long enough"])
            await store.put("a", [b"short"])
            assert await store.get("a") == b"short"
            await store.close()

        run(scenario())

    @pytest.mark.parametrize("size", [0, 11, 6 * MIB + 7])
    def test_a_copy_has_the_same_bytes_and_takes_the_place_of_what_was_there(
        self, tmp_path: Path, size: int
    ) -> None:
        async def scenario() -> None:
            store = self.open_store(tmp_path)
            data = pattern(size)
            await store.put("from/a b", FileLike(data))
            await store.put("to/there", [b"something else"])
            source = await store.head("from/a b")
            await store.copy(source, "to/there")
            await store.copy(source, "to/new")
            await store.copy(source, "to/new")
            await store.delete(["from/a b"])
            assert await store.get("to/there") == data
            assert await store.get("to/new") == data
            assert await keys(store, "") == ["to/new", "to/there"]
            with pytest.raises(NoSuchObject):
                await store.copy(source, "to/nothing")
            assert await keys(store, "to/nothing") == []
            await store.close()

        run(scenario())

    def test_lists_and_deletions_of_many_take_several_requests(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            store = self.open_store(tmp_path)
            names = [f"many/{number:05}" for number in range(self.many)]
            for first in range(0, len(names), 16):
                await asyncio.gather(*(store.put(name, [b"x"]) for name in names[first : first + 16]))
            assert await keys(store, "many/") == names
            assert await keys(store, "many/", after=names[-3]) == names[-2:]
            await store.delete(names[1:])
            assert await keys(store, "many/") == names[:1]
            await store.close()

        run(scenario())

    def test_a_large_conditional_put_spares_what_is_there(self, tmp_path: Path) -> None:
        if not self.conditional_writes:
            return

        async def scenario() -> None:
            store = self.open_store(tmp_path)
            await store.put("a", [b"first"], if_absent=True)
            with pytest.raises(AlreadyThere):
                await store.put("a", FileLike(pattern(6 * MIB)), if_absent=True)
            assert await store.get("a") == b"first"
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

            if self.atomic_conditions:
                outcomes = await asyncio.gather(*(attempt(number) for number in range(8)))
            else:
                outcomes = [await attempt(number) for number in range(8)]
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
