"""A restore's part in the bucket: it writes what is sound, goes on after interruptions, and only reads the old prefix."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.unit.tiered.bucket_support import NEW, OFFSETS, OLD, ORDERS, put_offsets, put_partition, put_topic
from tests.unit.tiered.test_restore_plan import tiers

from strandline_operator.cli.batch_check import BatchCheck
from strandline_tiered.envelope import FormatError
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind, ScriptedFaults
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.object_store import (
    NoSuchObject,
    ObjectInfo,
    ObjectStore,
    Refused,
    Unavailable,
)
from strandline_tiered.restore_copying import BucketRestore, Progress
from strandline_tiered.restore_offsets import OffsetsPlan, plan_offsets
from strandline_tiered.restore_plan import Choice, TopicsPlan, plan_topics
from strandline_tiered.restore_reading import read_cluster
from strandline_tiered.verify import Totals, Verifier


class Watched(MemoryStore):
    """Counts copies, and bytes that came through here."""

    def __init__(self) -> None:
        super().__init__()
        self.copied: list[str] = []
        self.puts: list[str] = []

    async def copy(self, source: ObjectInfo, key: str) -> None:
        await super().copy(source, key)
        self.copied.append(key)

    async def put(self, key: str, content: object, *, if_absent: bool = False) -> None:
        await super().put(key, content, if_absent=if_absent)  # type: ignore[arg-type]
        self.puts.append(key)


def lost_cluster() -> Watched:
    async def fill() -> Watched:
        store = Watched()
        await put_partition(store, ORDERS.partition(0), (0, 20, 45, 60, 90), paged=2)
        await put_partition(store, ORDERS.partition(1), (7, 30), epoch=9)
        await put_topic(store, ORDERS, 2)
        await put_offsets(store, 3, {"readers": {("orders", 0): 120}})
        await put_topic(store, OFFSETS, 4)
        store.puts.clear()
        return store

    return asyncio.run(fill())


async def plans(store: ObjectStore) -> tuple[TopicsPlan, OffsetsPlan]:
    found = await read_cluster(store, OLD)
    topics = plan_topics(found, target=NEW, choice=Choice(), tiers=tiers)
    offsets = plan_offsets(
        found, topics.topics, target=NEW, choice=Choice(), partition_of=lambda *_: 2, restored_at_ms=0
    )
    return topics, offsets


def restore(
    store: ObjectStore, *, deep: bool = False, changed: Callable[[Progress], None] = lambda _: None
) -> Progress:
    async def work() -> Progress:
        topics, offsets = await plans(store)
        copying = BucketRestore(store, log_check=BatchCheck if deep else None, changed=changed)
        await copying.topics(topics.topics)
        await copying.offsets(offsets)
        return copying.progress

    return asyncio.run(work())


def verified(store: ObjectStore) -> Totals:
    return asyncio.run(Verifier(store, lambda _: None, log_check=BatchCheck).run(cluster_id=NEW))


def below(store: MemoryStore, cluster: object) -> dict[str, bytes]:
    return {key: data for key, data in store.objects.items() if key.startswith(str(cluster))}


def test_everything_is_copied_by_the_server_and_verifies() -> None:
    store = lost_cluster()
    before = below(store, OLD)
    seen: list[tuple[int, int]] = []
    progress = restore(store, changed=lambda now: seen.append((now.bytes, now.bytes_total)))
    assert below(store, OLD) == before
    assert len(store.copied) == progress.objects == progress.objects_total == 5
    assert progress.bytes == progress.bytes_total == sum(len(store.objects[key]) for key in store.copied)
    assert seen == sorted(seen)
    assert not [key for key in store.puts if key.endswith(".seg")]
    totals = verified(store)
    assert (totals.damaged, totals.unreferenced, totals.segments, totals.pages) == (0, 0, 5, 1)
    assert (totals.offsets, totals.topics) == (4, 2)
    for key, data in before.items():
        if key.endswith((".seg", ".page")):
            assert store.objects[key.replace(str(OLD), str(NEW))] == data


def test_a_second_run_copies_nothing_but_what_is_damaged() -> None:
    store = lost_cluster()
    restore(store)
    after = below(store, NEW)
    store.copied.clear()
    progress = restore(store)
    assert (store.copied, progress.objects_kept, progress.objects_repaired) == ([], 5, 0)
    assert below(store, NEW) == after, "every key has one content"
    torn = next(key for key in after if key.endswith(".seg"))
    store.objects[torn] = after[torn][:-1]
    progress = restore(store)
    assert (store.copied, progress.objects_kept, progress.objects_repaired) == ([torn], 4, 1)
    assert below(store, NEW) == after


@pytest.mark.parametrize("calls", range(0, 24, 3))
def test_an_interrupted_restore_goes_on_where_it_was(calls: int) -> None:
    inner = lost_cluster()
    faults = [*[None] * calls, Fault(Kind.UNAVAILABLE)]
    store = FaultyStore(inner, ScriptedFaults(faults, operations=("put", "copy", "get")))
    with pytest.raises(Unavailable):
        restore(store)
    for key in below(inner, NEW):
        if key.endswith(".manifest"):
            assert verified(inner).damaged == 0, "a manifest comes when all it names is there"
    done = list(inner.copied)
    restore(inner)
    assert sorted(inner.copied) == sorted(set(inner.copied)), "nothing was copied twice"
    assert inner.copied[: len(done)] == done
    assert (verified(inner).damaged, verified(inner).segments) == (0, 5)


class CannotCopy(Watched):
    attempts = 0

    async def copy(self, source: ObjectInfo, key: str) -> None:
        self.attempts += 1
        raise Refused("NotImplemented", "copy: NotImplemented (HTTP 501)")


def test_where_the_server_cannot_copy_objects_go_through_here() -> None:
    store = CannotCopy()
    store.objects = lost_cluster().objects
    progress = restore(store)
    assert progress.objects == 5
    assert store.attempts <= 5
    assert len([key for key in store.puts if key.endswith(".seg")]) == 5
    assert verified(store).damaged == 0


def test_a_refusal_for_another_reason_is_told() -> None:
    class Forbids(Watched):
        async def copy(self, source: ObjectInfo, key: str) -> None:
            raise Refused("AccessDenied", "copy: AccessDenied")

    store = Forbids()
    store.objects = lost_cluster().objects
    with pytest.raises(Refused, match="AccessDenied"):
        restore(store)


@pytest.mark.parametrize("can_copy", [True, False])
def test_damage_of_the_old_object_is_found(can_copy: bool) -> None:
    store = lost_cluster() if can_copy else CannotCopy()
    store.objects = lost_cluster().objects
    key = next(key for key in sorted(store.objects) if key.endswith(".seg"))
    whole = store.objects[key]
    store.objects[key] = whole[:300] + b"?" + whole[301:]
    with pytest.raises(
        FormatError, match=key.rpartition("/")[2] if can_copy else "do not fit their checksum"
    ):
        restore(store, deep=True)
    del store.objects[key]
    with pytest.raises(NoSuchObject):
        restore(store)


def test_a_copy_that_is_not_whole_is_told() -> None:
    class Tears(Watched):
        async def copy(self, source: ObjectInfo, key: str) -> None:
            await super().copy(source, key)
            self.objects[key] = self.objects[key][:-1]

    store = Tears()
    store.objects = lost_cluster().objects
    with pytest.raises(FormatError, match="the copy is not what"):
        restore(store)
