"""Records of a bucket: every offset, every time, whatever lies between, and what is wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from tests.unit.replica.tiered_support import (
    KEYS,
    MEMORY_BYTES,
    NOW_MS,
    PER_BATCH,
    append,
    archived,
    in_bucket,
    led,
    sealed,
)

from strandline_broker.replica.bucket_log import BucketLog, BucketReader
from strandline_broker.replica.remote import NotRemote, RemoteCorrupt, RemoteGone, RemoteUnavailable
from strandline_broker.wire.batch import iter_batches, iter_records
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind, ScriptedFaults
from strandline_tiered.manifest import Entry
from strandline_tiered.manifest_events import Spilled, apply
from strandline_tiered.manifest_format import make_page
from strandline_tiered.memory_store import MemoryStore


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def offsets(data: bytes | memoryview) -> list[int]:
    return [
        record.offset
        for position, header in iter_batches(data)
        for record in iter_records(memoryview(data)[position : position + header.size])
    ]


async def read_on(log: BucketLog, offset: int, max_bytes: int) -> list[int]:
    """Read as a consumer does, to the end."""
    found: list[int] = []
    while offset < log.end_offset:
        seen = [one for one in offsets(await log.read(offset, max_bytes)) if one >= offset]
        assert seen[0] == offset, "whole batches from the one that holds the offset on"
        found += seen
        offset = seen[-1] + 1
    return found


@pytest.mark.parametrize("max_bytes", [1, 250, 1000, 1 << 20])
@pytest.mark.parametrize("segment_bytes", [300, 1000, 4000])
def test_every_offset_is_found(max_bytes: int, segment_bytes: int) -> None:
    async def test() -> None:
        partition = led(segment_bytes=segment_bytes)
        log = await in_bucket(partition, MemoryStore())
        assert log.end_offset == partition.log.active.base_offset
        for offset in range(log.end_offset):
            # By a reader that knows nothing, too.
            fresh = BucketLog(BucketReader(log._reader._store, MEMORY_BYTES), KEYS, log.manifest)
            data = await fresh.read(offset, max_bytes)
            found = offsets(data)
            assert found[0] <= offset < found[0] + PER_BATCH
            assert len(data) <= max(max_bytes, 300), "no more than asked for, but at least one batch"
        assert await read_on(log, 0, max_bytes) == list(range(log.end_offset))

    run(test())


def test_the_bytes_are_those_of_the_log() -> None:
    async def test() -> None:
        partition = led()
        log = await in_bucket(partition, MemoryStore())
        first = partition.log.segments[0]
        assert bytes(await log.read(0, 1 << 20)) == first.file.pread(first.size, 0)

    run(test())


def test_batches_larger_than_what_is_asked_for_come_whole() -> None:
    async def test() -> None:
        partition = led(2, segment_bytes=100_000)
        append(partition, 2, 2, value_bytes=9_000)
        append(partition, 4, 1)
        partition.log.roll(NOW_MS)
        log = await in_bucket(partition, MemoryStore())
        assert log.end_offset == 5 * PER_BATCH
        for offset in range(log.end_offset):
            assert offset in offsets(await log.read(offset, 100))

    run(test())


def test_who_reads_on_reads_each_byte_once() -> None:
    async def test() -> None:
        partition = led(60, segment_bytes=4000)
        log = await in_bucket(partition, MemoryStore())
        reader = log._reader
        await read_on(log, 0, 1 << 20)
        objects = sum(part.object_bytes for part in log.manifest.parts if isinstance(part, Entry))
        counters = reader.segments.counters
        assert counters.bytes_fetched == objects, "tails and logs, and nothing twice"
        assert counters.read_ahead > 0, "into the next segments"
        await reader.close()

    run(test())


def test_pages_of_old_entries_are_looked_into() -> None:
    async def test() -> None:
        store = MemoryStore()
        log = await in_bucket(led(60), store)
        entries = tuple(part for part in log.manifest.parts if isinstance(part, Entry))
        page, data = make_page(entries[:5], 1, UUID(int=5))
        store.objects[KEYS.key(page.name)] = data
        log.manifest = apply(log.manifest, Spilled(page))
        assert await read_on(log, 0, 1 << 20) == list(range(log.end_offset))
        for offset in (0, page.end_offset - 1, page.end_offset):
            found = await log.offset_for_timestamp(NOW_MS + 1000 * offset, log.end_offset)
            assert found is not None
            assert found.offset == offset
        latest = await log.max_timestamp(page.end_offset)
        assert latest is not None
        assert latest.offset == page.end_offset - 1
        del store.objects[KEYS.key(page.name)]
        with pytest.raises(RemoteCorrupt):
            await BucketLog(BucketReader(store, MEMORY_BYTES), KEYS, log.manifest).read(0, 100)

    run(test())


class _Changing(MemoryStore):
    """Has `change` done at the next GET of a key, just before it is answered."""

    key = ""

    def __init__(self, change: Callable[[], None]) -> None:
        super().__init__()
        self._change = change

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        if key == self.key:
            self._change()
        return await super().get(key, start, end)


@pytest.mark.parametrize("look_up", ["read", "time", "latest"])
def test_who_reads_while_a_page_is_replaced_reads_by_the_manifest_that_follows(look_up: str) -> None:
    """Its entries are in the next manifest again, and the page is deleted behind that."""

    async def test() -> None:
        def replaced() -> None:
            del store.objects[store.key]
            log.manifest = without_page

        store = _Changing(replaced)
        log = await in_bucket(led(60), store)
        without_page = log.manifest
        entries = tuple(part for part in log.manifest.parts if isinstance(part, Entry))
        page, data = make_page(entries[:5], 1, UUID(int=5))
        store.key = KEYS.key(page.name)
        store.objects[store.key] = data
        log.manifest = apply(log.manifest, Spilled(page))
        if look_up == "read":
            assert offsets(await log.read(1, 1))[0] == 0
        elif look_up == "time":
            found = await log.offset_for_timestamp(NOW_MS + 1000, log.end_offset)
            assert found is not None
            assert found.offset == 1
        else:
            latest = await log.max_timestamp(2)
            assert latest is not None
            assert latest.offset == 1
        assert log.manifest is without_page

    run(test())


def test_a_clipped_entry_begins_where_the_one_before_ends() -> None:
    async def test() -> None:
        partition = led()
        start = sealed(partition)[1].base_offset + PER_BATCH
        log = await in_bucket(partition, MemoryStore(), start=start)
        entry = log.manifest.parts[0]
        assert isinstance(entry, Entry)
        assert (entry.start_offset, entry.start_position) == (start, partition.log.segments[1].size // 3)
        assert await read_on(log, start, 1 << 20) == list(range(start, log.end_offset))
        with pytest.raises(NotRemote):
            await log.read(start - 1, 100)

    run(test())


def test_times_lead_to_offsets() -> None:
    async def test() -> None:
        partition = led()
        log = await in_bucket(partition, MemoryStore())
        end = log.end_offset
        for offset in range(end):
            for late in (0, 1):
                found = await log.offset_for_timestamp(NOW_MS + 1000 * offset - late, end)
                assert found is not None
                assert (found.offset, found.timestamp, found.leader_epoch) == (
                    offset,
                    NOW_MS + 1000 * offset,
                    1,
                )
        assert await log.offset_for_timestamp(NOW_MS + 1000 * end, end) is None
        assert await log.offset_for_timestamp(NOW_MS + 1000 * 50, 50) is None, "only below the end"
        for upper in (1, 2, 50, end):
            latest = await log.max_timestamp(upper)
            assert latest is not None
            assert (latest.offset, latest.timestamp) == (upper - 1, NOW_MS + 1000 * (upper - 1))

    run(test())


def test_what_lies_below_the_log_start_has_no_time() -> None:
    async def test() -> None:
        log = await in_bucket(led(), MemoryStore())
        log.manifest = replace(log.manifest, log_start=16)
        found = await log.offset_for_timestamp(0, log.end_offset)
        assert found is not None
        assert found.offset == 16
        with pytest.raises(NotRemote):
            await log.read(15, 100)

    run(test())


def test_a_new_replica_learns_epochs_and_producers() -> None:
    async def test() -> None:
        partition = led()
        store = MemoryStore()
        manifest = await archived(partition, store)
        reader = BucketReader(store, MEMORY_BYTES)
        for part in manifest.parts:
            tail = await reader.tail_state(part.key(KEYS), part.end_offset)
            (producer,) = tail.producers
            assert (producer.producer_id, producer.last_offset) == (7, part.end_offset - 1)
            assert producer.last_sequence == part.end_offset - 1
            assert list(tail.epochs) == [(1, 0)]
        with pytest.raises(RemoteCorrupt):
            await reader.tail_state(manifest.parts[0].key(KEYS), 1)
        with pytest.raises(RemoteCorrupt):
            await reader.tail_state(KEYS.prefix + "nothing", 1)

    run(test())


def test_what_is_damaged_or_gone_is_never_served() -> None:
    async def test() -> None:
        store = MemoryStore()
        log = await in_bucket(led(), store)
        first = log.manifest.parts[0]
        assert isinstance(first, Entry)
        key = first.key(KEYS)
        whole = store.objects[key]
        for position in (20, 200, first.log_bytes + 3, first.object_bytes - 5):
            store.objects[key] = whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]
            fresh = BucketLog(BucketReader(store, MEMORY_BYTES), KEYS, log.manifest)
            with pytest.raises(RemoteCorrupt):
                await fresh.read(0, 1 << 20)
        del store.objects[key]
        with pytest.raises(RemoteGone):
            await BucketLog(BucketReader(store, MEMORY_BYTES), KEYS, log.manifest).read(0, 1 << 20)
        # Retention took it after this reader had found it.
        log.manifest = replace(log.manifest, log_start=first.end_offset)
        with pytest.raises(NotRemote):
            await log.read(0, 1 << 20)

    run(test())


def test_a_bucket_that_is_away_is_no_damage() -> None:
    async def test() -> None:
        store = FaultyStore(MemoryStore())
        log = BucketReader(store, MEMORY_BYTES).log_of(KEYS, await archived(led(), store))
        store.plan = ScriptedFaults([Fault(Kind.UNAVAILABLE)] * 2, operations=("get",))
        for _ in range(2):
            with pytest.raises(RemoteUnavailable):
                await log.read(0, 100)
        assert offsets(await log.read(0, 1))[0] == 0

    run(test())
