"""The simulated bucket: what is on its way, what comes late, what traps do; and that each check of the ledger can fail."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import pytest
from tests.simulation.bucket import BUCKET_HOST, MAX_LATE_S, Bucket, Trap
from tests.simulation.journal import Journal
from tests.simulation.ledger import Ledger
from tests.simulation.loop import Process, VirtualLoop, no_collections, simulate
from tests.simulation.network import Links

from strandline_broker.log.config import LogConfig
from strandline_broker.wire.batch import Record, build_batch, set_base_offset
from strandline_tiered.content import PartsSource, pieces
from strandline_tiered.keys import ClaimName, ManifestName, Name, PartitionKeys, SegmentName
from strandline_tiered.manifest import Entry, Manifest, empty_manifest
from strandline_tiered.manifest_format import encode_manifest
from strandline_tiered.object_store import NoSuchObject, ObjectStore, Unavailable
from strandline_tiered.segment_object import Companions, SegmentInfo, build

KEYS = PartitionKeys(UUID(int=1), "t", UUID(int=2), 0)
PARTITION = ("t", 0)
HOST = "broker-0"


class World:
    """A bucket, its ledger, and one host's way to it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.journal = Journal(loop.time)
        self.links = Links(random.Random(1))
        self.bucket = Bucket(loop, self.links, random.Random(2), self.journal)
        self.ledger = Ledger(self.journal, self.bucket)
        self.store: ObjectStore = self.bucket.client(HOST, random.Random(3))

    @property
    def rules(self) -> list[str]:
        return [violation.rule for violation in self.journal.violations]

    def segment(self, base: int, value: bytes = b"p/0", epoch: int = 1, number: int = 0) -> Entry:
        """Put a segment of one record where it belongs."""
        batch = bytearray(build_batch([Record(timestamp=5, value=value)]))
        set_base_offset(memoryview(batch), base)
        info = SegmentInfo(KEYS.topic_id, 0, epoch, base, base + 1, 5, 5)
        source = build(info, PartsSource([bytes(batch)]), Companions())
        name = SegmentName(base, epoch, UUID(int=base + 100 * number))
        self.put(name, b"".join(pieces(source)))
        return Entry(base, base + 1, name, source.size, source.log_bytes, 0, 5, 5)

    def put(self, name: Name, data: bytes = b"") -> None:
        self.bucket.put(KEYS.key(name), data, if_absent=False)

    def manifest(self, epoch: int, sequence: int, *entries: Entry, log_start: int = 0) -> Manifest:
        """Put a manifest where it belongs."""
        end = entries[-1].end_offset if entries else log_start
        manifest = replace(
            empty_manifest(KEYS.topic_id, 0, log_start),
            name=ManifestName(epoch, sequence),
            end_offset=end,
            high_watermark=end,
            parts=entries,
        )
        self.put(manifest.name, encode_manifest(manifest))
        return manifest

    def delete(self, name: Name) -> None:
        self.bucket.delete([KEYS.key(name)])


def simulated(test: Callable[[World], Awaitable[None]]) -> None:
    async def main(loop: VirtualLoop) -> None:
        await test(World(loop))

    with no_collections():
        simulate(main, VirtualLoop())


CLAIM = KEYS.key(ClaimName(3))


def test_what_was_sent_arrives_although_its_sender_dies() -> None:
    async def test(world: World) -> None:
        writer = Process(world.loop, "writer")
        writer.spawn(world.store.put(CLAIM, ()))
        await asyncio.sleep(0.001)
        writer.kill()
        await asyncio.sleep(1.0)
        assert CLAIM in world.bucket.objects
        assert world.journal.counts["late puts"] == 1

    simulated(test)


def test_behind_a_cut_nobody_answers_and_what_was_sent_may_land_late() -> None:
    async def test(world: World) -> None:
        world.links.add_cut(HOST, BUCKET_HOST)
        with pytest.raises(Unavailable):
            await world.store.put(CLAIM, ())
        await asyncio.sleep(MAX_LATE_S)
        assert world.journal.counts["late puts"] > 0
        world.links.remove_cut(HOST, BUCKET_HOST)
        world.links.add_cut(BUCKET_HOST, HOST)
        with pytest.raises(Unavailable):
            await world.store.get(CLAIM)

    simulated(test)


def test_faults_are_those_of_one_host_and_end() -> None:
    async def test(world: World) -> None:
        world.bucket.set_faults([HOST], {"UNAVAILABLE": 1.0})
        with pytest.raises(Unavailable):
            await world.store.put(CLAIM, ())
        assert CLAIM not in world.bucket.objects
        await world.bucket.client("broker-1", random.Random(4)).put(CLAIM, ())
        world.bucket.heal()
        assert await world.store.get(CLAIM) == b""
        with pytest.raises(NoSuchObject):
            await world.store.get("nothing")

    simulated(test)


@pytest.mark.parametrize(
    ("when", "at_once", "later"), [("before", False, False), ("after", True, True), ("late", False, True)]
)
def test_a_trap_ends_a_sender_before_or_after_its_request_or_has_it_land_late(
    when: str, at_once: bool, later: bool
) -> None:
    async def test(world: World) -> None:
        writer = Process(world.loop, "writer")
        world.bucket.traps.append(Trap("put claim", 0, when, lambda host: writer.kill()))
        writer.spawn(world.store.put(CLAIM, ()))
        await asyncio.sleep(0.09)
        assert not writer.alive
        assert (CLAIM in world.bucket.objects) is at_once
        await asyncio.sleep(MAX_LATE_S)
        assert (CLAIM in world.bucket.objects) is later
        assert world.bucket.traps == []

    simulated(test)


def test_a_trap_lets_others_pass_and_who_only_stands_still_goes_on() -> None:
    async def test(world: World) -> None:
        writer = Process(world.loop, "writer")
        world.bucket.traps.append(Trap("put claim", 1, "before", lambda host: writer.pause()))
        await writer.spawn(world.store.put(CLAIM, ()))
        before = writer.paused
        other = KEYS.key(ClaimName(4))
        writer.spawn(world.store.put(other, ()))
        await asyncio.sleep(1.0)
        assert (before, writer.paused) == (False, True)
        assert other not in world.bucket.objects
        writer.resume()
        await asyncio.sleep(1.0)
        assert other in world.bucket.objects

    simulated(test)


# -- the ledger --------------------------------------------------------------------------------------------------------


async def _sound(world: World) -> None:
    world.journal.log_starts[PARTITION] = 1
    first, second = world.segment(0), world.segment(1, b"p/1")
    world.manifest(1, 1, first, second)
    world.manifest(2, 1, second, log_start=1)
    world.delete(first.name)
    world.delete(ManifestName(1, 1))
    world.segment(1, b"p/1", epoch=2, number=1)
    world.ledger.begins_here(PARTITION, 2, HOST)
    assert world.ledger.read(PARTITION, 1, 2) == {1: b"p/1"}


async def _overwritten(world: World) -> None:
    world.manifest(1, 1, world.segment(0))
    world.manifest(1, 1)


async def _other_records(world: World) -> None:
    world.segment(0, b"p/0")
    world.segment(0, b"p/7", epoch=2, number=1)


async def _not_what_was_seen(world: World) -> None:
    world.journal.polled("somebody", PARTITION, 0, b"p/3")
    world.segment(0, b"p/0")


async def _names_nothing(world: World) -> None:
    entry = world.segment(0)
    world.delete(entry.name)
    world.manifest(1, 1, entry)


async def _deleted_while_named(world: World) -> None:
    entry = world.segment(0)
    world.manifest(1, 1, entry)
    world.delete(entry.name)


async def _truth_deleted(world: World) -> None:
    world.manifest(1, 1, world.segment(0))
    world.delete(ManifestName(1, 1))


async def _given_up_too_early(world: World) -> None:
    world.manifest(1, 1, world.segment(0))
    world.ledger.begins_here(PARTITION, 2, HOST)


async def _no_reason(world: World) -> None:
    world.segment(0)
    config = LogConfig(retention_ms=-1)
    world.ledger.asks_for_log_start(PARTITION, 1, config, 10, 0)


async def _not_asked_for(world: World) -> None:
    world.ledger.raises_log_start(PARTITION, 1, HOST)


async def _published_without_reason(world: World) -> None:
    world.manifest(1, 1, world.segment(1), log_start=1)


async def _garbage(world: World) -> None:
    world.put(SegmentName(0, 1, UUID(int=9)), b"garbage")


@pytest.mark.parametrize(
    ("what", "found"),
    [
        (_sound, []),
        (_overwritten, ["overwritten"]),
        (_other_records, ["uncommitted upload"]),
        (_not_what_was_seen, ["uncommitted upload"]),
        (_names_nothing, ["dangling manifest"]),
        (_deleted_while_named, ["dangling manifest"]),
        (_truth_deleted, ["truth deleted"]),
        (_given_up_too_early, ["deleted too early"]),
        (_no_reason, ["log start too high"]),
        (_not_asked_for, ["log start too high"]),
        (_published_without_reason, ["log start too high"]),
        (_garbage, ["unreadable object"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_rule_of_the_ledger_can_be_broken(
    what: Callable[[World], Awaitable[None]], found: list[str]
) -> None:
    async def test(world: World) -> None:
        await what(world)
        assert world.rules == found

    simulated(test)


@pytest.mark.parametrize(
    ("config", "requested", "right"),
    [
        (LogConfig(retention_ms=-1), 1, True),
        (LogConfig(retention_ms=-1, retention_bytes=60), 0, True),
        (LogConfig(retention_ms=-1, retention_bytes=1_000), 0, False),
        (LogConfig(retention_ms=4), 0, True),
        (LogConfig(retention_ms=5), 0, False),
    ],
)
def test_a_log_begins_later_for_a_reason(config: LogConfig, requested: int, right: bool) -> None:
    async def test(world: World) -> None:
        world.segment(0)
        world.segment(1, b"p/1")
        world.journal.delete_requests[PARTITION] = requested
        world.ledger.asks_for_log_start(PARTITION, 1, config, 10, 0)
        assert world.rules == ([] if right else ["log start too high"])
        assert world.journal.log_starts[PARTITION] == int(right)

    simulated(test)
