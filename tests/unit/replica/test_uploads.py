"""Segments on their way to the bucket: what they take along, how many at once, how fast."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.unit.replica.tiered_support import KEYS, PER_BATCH, LoopClock, archived, led, sealed, uploader
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.errors import KafkaError
from strandline_broker.log.producer_snapshot import decode
from strandline_broker.log.producers import snapshot_path
from strandline_broker.replica.remote import RemoteUnavailable
from strandline_broker.replica.uploads import Pace, producers_at
from strandline_tiered.content import PartsSource
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind, ScriptedFaults
from strandline_tiered.manifest import Entry
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.object_store import Content
from strandline_tiered.protocol_messages import SealedSegment, Upload
from strandline_tiered.segment_object import verify


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_an_object_holds_the_segment_and_what_is_known_of_it() -> None:
    async def test() -> None:
        partition, store = led(), MemoryStore()
        manifest = await archived(partition, store)
        for part, segment in zip(manifest.parts, partition.log.segments, strict=False):
            assert isinstance(part, Entry)
            data = store.objects[part.key(KEYS)]
            tail = verify(PartsSource([data]))
            assert data[: part.log_bytes] == segment.file.pread(segment.size, 0)
            assert (part.object_bytes, part.max_timestamp) == (len(data), segment.max_timestamp)
            info = tail.footer.info
            assert (info.topic_id, info.base_offset, info.end_offset) == (
                KEYS.topic_id,
                segment.base_offset,
                part.end_offset,
            )
            files = tail.companions
            for suffix, section in ((".index", files.offset_index), (".timeindex", files.time_index)):
                path = segment.path.removesuffix(".log") + suffix
                assert section == partition.log.disk.read_bytes(path)
        assert (
            sum(part.size for part in manifest.parts) == partition.log.size_bytes - partition.log.active.size
        )

    run(test())


def test_producers_are_those_of_the_segments_end_with_and_without_a_snapshot() -> None:
    partition = led()
    log = partition.log
    for number, segment in enumerate(sealed(partition)):
        segments = log.segments[: number + 1]
        for snapshots in (list(log.snapshots), [], log.snapshots[:2], [segment.end_offset + 1]):
            (producer,) = decode(producers_at(log, segments, snapshots, segment.end_offset))
            assert (producer.last_offset, producer.last_sequence) == (segment.end_offset - 1,) * 2
    # One that cannot be read is passed over.
    end = sealed(partition)[-1].end_offset
    log.disk.write_atomic(snapshot_path(log.directory, end), b"nothing")
    (producer,) = decode(producers_at(log, log.segments[:-1], list(log.snapshots), end))
    assert producer.last_offset == end - 1


def test_few_are_under_way_at_once() -> None:
    class Slow(MemoryStore):
        under_way = most = 0

        async def put(self, key: str, content: Content, *, if_absent: bool = False) -> None:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await asyncio.sleep(0)
            await super().put(key, content)
            self.under_way -= 1

    async def test() -> None:
        partition, store = led(), Slow()
        up = uploader(store)
        segments = sealed(partition)
        await asyncio.gather(*(up.upload(partition, KEYS, Upload(one.base_offset, one)) for one in segments))
        assert store.most == 2
        assert (up.uploads, up.under_way) == (len(segments), 0)
        assert up.uploaded_bytes == sum(map(len, store.objects.values()))

    run(test())


def test_what_fails_says_whose_fault_it_is() -> None:
    async def test() -> None:
        store = FaultyStore(MemoryStore())
        store.plan = ScriptedFaults([Fault(Kind.UNAVAILABLE)])
        partition, up = led(), uploader(store)
        first = sealed(partition)[0]
        with pytest.raises(RemoteUnavailable):
            await up.upload(partition, KEYS, Upload(0, first))
        with pytest.raises(KafkaError):
            await up.upload(partition, KEYS, Upload(PER_BATCH, SealedSegment(PER_BATCH, first.end_offset)))
        base = partition.log.active.base_offset
        with pytest.raises(KafkaError):
            await up.upload(partition, KEYS, Upload(base, SealedSegment(base, base + 1)))
        partition.log.disk.remove(partition.log.segments[1].path)
        partition.log.segments[1].forget_files()
        second = sealed(partition)[1]
        with pytest.raises(KafkaError):
            await up.upload(partition, KEYS, Upload(second.base_offset, second))
        assert up.uploads == 0
        assert up.under_way == 0

    run(test())


def test_bytes_pass_at_their_rate_whoever_sends_them() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        pace = Pace(1000, LoopClock())
        started = loop.time()
        passed: list[float] = []

        async def send(byte_count: int) -> None:
            await pace.take(byte_count)
            passed.append(loop.time() - started)

        await asyncio.gather(send(500), send(2000), send(1), send(10))
        assert passed == pytest.approx([0, 0.5, 2.5, 2.501], abs=1e-3)
        await asyncio.sleep(10)
        await send(1)
        assert passed[-1] == pytest.approx(12.501, abs=1e-3), "what was not used is not saved up"
        free = Pace(0, LoopClock())
        before = loop.time()
        await free.take(1 << 40)
        assert loop.time() - before < 1

    virtually(test)
