"""The two caches of chunks: bounds, order of eviction, damage, full disks."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.tiered.store_contract import pattern, run

from strandline_tiered.chunk_cache import ChunkCache, ChunkName
from strandline_tiered.disk_cache import MAX_PENDING, DiskCache


def name(number: int, key: str = "k") -> ChunkName:
    return ChunkName(key, number)


def put(cache: ChunkCache[str], number: int, size: int, *, unused: bool = False) -> list[int]:
    evicted = cache.reserve(size)
    cache.fill(name(number), str(number), size, unused=unused)
    return [found.name.start for found in evicted]


def test_the_least_recently_used_goes_first() -> None:
    cache: ChunkCache[str] = ChunkCache(30)
    for number in (1, 2, 3):
        assert put(cache, number, 10) == []
    assert cache.get(name(1)) == "1"
    assert put(cache, 4, 15) == [2, 3]
    assert [n for n in range(5) if name(n) in cache] == [1, 4]
    assert cache.used_bytes == 25


def test_what_is_on_its_way_counts() -> None:
    cache: ChunkCache[str] = ChunkCache(30)
    cache.reserve(25)
    with pytest.raises(MemoryError):
        cache.reserve(6)
    cache.release(25)
    cache.reserve(30)


def test_what_was_read_ahead_counts_until_it_is_asked_for() -> None:
    cache: ChunkCache[str] = ChunkCache(30)
    put(cache, 1, 10, unused=True)
    put(cache, 2, 10, unused=True)
    assert cache.unused_bytes == 20
    cache.get(name(1))
    cache.get(name(1))
    assert cache.unused_bytes == 10
    assert [found.unused for found in cache.reserve(30)] == [True, False]
    assert cache.unused_bytes == 0


@given(st.lists(st.tuples(st.sampled_from("rgdo"), st.integers(0, 5), st.integers(1, 12), st.booleans())))
def test_sums_are_right(steps: list[tuple[str, int, int, bool]]) -> None:
    cache: ChunkCache[str] = ChunkCache(20)
    sizes: dict[int, tuple[int, bool]] = {}
    for step, number, size, unused in steps:
        if step == "r":
            for gone in put(cache, number, size, unused=unused):
                del sizes[gone]
            sizes[number] = (size, unused)
        elif step == "g" and cache.get(name(number)) is not None:
            sizes[number] = (sizes[number][0], False)
        elif step == "d":
            cache.discard(name(number))
            sizes.pop(number, None)
        elif step == "o":
            cache.discard_object("k")
            sizes.clear()
        assert cache.used_bytes == sum(size for size, _ in sizes.values()) <= 20
        assert cache.unused_bytes == sum(size for size, unused in sizes.values() if unused)
        assert len(cache) == len(sizes)


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


async def inline(work: Callable[..., Any], /, *arguments: Any) -> Any:
    return work(*arguments)


async def fill(disk: DiskCache, *numbers: int, size: int = 1000) -> None:
    for number in numbers:
        disk.offer(name(number), pattern(size, number))
        await disk.close()


def test_chunks_survive_on_the_disk_within_the_bound_and_only_this_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = DiskCache(tmp_path, 3500)
        disk.open()
        await fill(disk, 1, 2, 3)
        assert await disk.load(name(1)) == pattern(1000, 1)
        await fill(disk, 4)
        assert await disk.load(name(2)) is None
        for number in (1, 3, 4):
            assert await disk.load(name(number)) == pattern(1000, number)
        assert disk.used_bytes == sum(path.stat().st_size for path in files(tmp_path)) <= 3500
        (tmp_path / "somebody-elses").write_text("stays")
        DiskCache(tmp_path, 3500).open()
        assert [path.name for path in files(tmp_path)] == ["somebody-elses"]
        assert await disk.load(name(1)) is None

    run(scenario())


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "other"])
def test_a_damaged_file_is_dropped(tmp_path: Path, harm: str) -> None:
    async def scenario() -> None:
        disk = DiskCache(tmp_path, 10_000, in_thread=inline)
        await fill(disk, 1)
        (path,) = files(tmp_path)
        content = bytearray(path.read_bytes())
        if harm == "other":
            await fill(disk, 2)
            content = bytearray(next(p for p in files(tmp_path) if p != path).read_bytes())
        elif harm == "flip":
            content[500] ^= 1
        path.write_bytes(content[: {"cut": 700, "empty": 0}.get(harm)])
        assert await disk.load(name(1)) is None
        assert disk.damaged == 1
        await disk.close()
        assert not path.exists()
        assert name(1) not in disk

    run(scenario())


def test_a_full_disk_makes_the_cache_smaller_and_nothing_fail(tmp_path: Path) -> None:
    async def scenario() -> None:
        full = True

        async def in_thread(work: Callable[..., Any], /, *arguments: Any) -> Any:
            if full and len(arguments) == 3:
                raise OSError(errno.ENOSPC, "no space left on device")
            return work(*arguments)

        disk = DiskCache(tmp_path, 10_000, in_thread=in_thread)
        await fill(disk, 1, 2)
        assert disk.failures == 2
        assert disk.used_bytes == 0
        assert await disk.load(name(1)) is None
        full = False
        await fill(disk, 1)
        assert await disk.load(name(1)) == pattern(1000, 1)

    run(scenario())


def test_what_the_disk_cannot_keep_up_with_is_not_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()

        async def in_thread(work: Callable[..., Any], /, *arguments: Any) -> Any:
            await go_on.wait()
            return work(*arguments)

        disk = DiskCache(tmp_path, 100_000, in_thread=in_thread)
        for number in range(10):
            disk.offer(name(number), pattern(1000, number))
        assert sum(name(number) in disk for number in range(10)) == MAX_PENDING
        go_on.set()
        await disk.close()
        assert await disk.load(name(0)) == pattern(1000, 0)

    run(scenario())
