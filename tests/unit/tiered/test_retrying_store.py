"""Retries: what is tried again, for how long, and what an unknown outcome turns out to be. All on virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from tests.unit.tiered.store_contract import FileLike, keys, pattern
from tests.unit.tiered.virtual_time import virtually

from strandline_tiered.faulty_store import Fault, FaultyStore, Kind, RandomFaults, ScriptedFaults
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.object_store import AlreadyThere, NoSuchObject, Refused, SourceFailed, Unavailable
from strandline_tiered.retrying_store import RetryingStore, RetryPolicy

POLICY = RetryPolicy(deadline_s=60, attempt_timeout_s=5, first_wait_s=0.1, longest_wait_s=10)


def stores(
    faults: Sequence[Fault | None] = (), operations: Sequence[str] = ("put", "get", "head", "list", "delete")
) -> tuple[MemoryStore, RetryingStore]:
    memory = MemoryStore()
    faulty = FaultyStore(memory, ScriptedFaults(faults, operations=operations))
    return memory, RetryingStore(faulty, POLICY, rng=random.Random(7))


TRANSIENT = [
    Fault(Kind.UNAVAILABLE),
    Fault(Kind.SLOW_DOWN, 2.0),
    Fault(Kind.LOST_ANSWER),
    Fault(Kind.LATE, 3.0),
    Fault(Kind.STALLED, 1.0),
    Fault(Kind.DAMAGED),
    Fault(Kind.SLOW, 4.0),
    Fault(Kind.TWICE, 1.0),
]


@pytest.mark.parametrize("fault", TRANSIENT, ids=lambda fault: fault.kind.name)
def test_a_passing_fault_is_not_noticed(fault: Fault) -> None:
    async def scenario() -> None:
        memory, store = stores([fault])
        await store.put("a", [b"tide"], if_absent=True)
        assert memory.objects == {"a": b"tide"}
        memory, store = stores([fault])
        memory.objects["a"] = b"tide"
        assert await store.get("a") == b"tide"
        memory, store = stores([fault])
        memory.objects["a"] = b"tide"
        assert (await store.head("a")).size == 4
        memory, store = stores([fault])
        memory.objects |= {f"k/{n}": b"x" for n in range(10)}
        assert await keys(store, "k/") == [f"k/{n}" for n in range(10)]
        memory, store = stores([fault])
        memory.objects |= {"a": b"x", "b": b"y"}
        await store.delete(["a"])
        assert memory.objects == {"b": b"y"}

    virtually(scenario)


def test_a_storm_is_outlasted_and_the_store_is_left_alone_between() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        _, store = stores([Fault(Kind.SLOW_DOWN, 3.0)] * 5)
        await store.put("a", [b"x"])
        assert loop.time() >= 15
        assert store.retries == 5

    virtually(scenario)


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.STALLED])
def test_a_bucket_that_is_away_is_given_up_at_the_deadline(kind: Kind) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        _, store = stores([Fault(kind, 1e6)] * 1000)
        with pytest.raises(Unavailable, match="before the deadline"):
            await store.get("a", 0, 100)
        assert 40 <= loop.time() <= 61
        assert store.retries < 40

    virtually(scenario)


def test_waits_grow_and_are_bounded() -> None:
    bounds = [POLICY.longest_wait(failures) for failures in (1, 2, 3, 8, 1000)]
    assert bounds == [0.1, 0.2, 0.4, 10, 10]


@pytest.mark.parametrize(("kind", "error"), [(Kind.REFUSED, Refused)])
def test_a_refusal_is_not_tried_again(kind: Kind, error: type[Exception]) -> None:
    async def scenario() -> None:
        _, store = stores([Fault(kind)])
        with pytest.raises(error):
            await store.put("a", [b"x"])
        with pytest.raises(NoSuchObject):
            await store.get("a")
        with pytest.raises(SourceFailed):
            await store.put("a", FileLike(b"xyz", broken_from=1))
        assert store.retries == 0

    virtually(scenario)


def test_a_conditional_put_whose_answer_was_lost_knows_its_own_object() -> None:
    async def scenario() -> None:
        data = pattern(3 << 20)
        memory, store = stores([Fault(Kind.LOST_ANSWER)], ["put"])
        await store.put("a", FileLike(data), if_absent=True)
        assert memory.objects["a"] == data

    virtually(scenario)


@pytest.mark.parametrize("theirs", [b"xxxx", b"longer than ours", pattern(3 << 20)[:-1] + b"?"])
def test_a_conditional_put_that_lost_says_so_also_after_a_lost_answer(theirs: bytes) -> None:
    async def scenario() -> None:
        ours = pattern(3 << 20) if len(theirs) > 100 else b"ours"
        for faults in ([], [Fault(Kind.UNAVAILABLE)], [Fault(Kind.LOST_ANSWER)]):
            memory, store = stores(faults, ["put"])
            memory.objects["a"] = theirs
            with pytest.raises(AlreadyThere):
                await store.put("a", [ours], if_absent=True)
            assert memory.objects["a"] == theirs

    virtually(scenario)


def test_a_list_goes_on_behind_what_it_gave() -> None:
    async def scenario() -> None:
        memory, store = stores([Fault(Kind.DAMAGED)] * 4)
        memory.objects |= {f"k/{number:03}": b"x" for number in range(100)}
        assert await keys(store, "k/", after="k/009") == [f"k/{number:03}" for number in range(10, 100)]
        assert store.retries == 4

    virtually(scenario)


def test_a_large_object_gets_time_for_its_size() -> None:
    async def scenario() -> None:
        _, store = stores([Fault(Kind.SLOW, 12)])
        await store.put("a", [bytes(8 << 20)])
        assert store.retries == 0
        _, store = stores([Fault(Kind.SLOW, 12)])
        await store.put("a", [b"x"])
        assert store.retries == 1

    virtually(scenario)


def test_a_cancelled_operation_ends_at_once() -> None:
    async def scenario() -> None:
        _, store = stores([Fault(Kind.STALLED)])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await store.get("a")
        assert asyncio.get_running_loop().time() < 1.1

    virtually(scenario)


def test_writes_land_late_and_yet_never_other_content() -> None:
    async def scenario() -> None:
        rng = random.Random(3)
        rates = dict.fromkeys((Kind.LATE, Kind.LOST_ANSWER, Kind.TWICE, Kind.SLOW_DOWN, Kind.STALLED), 0.12)
        memory = MemoryStore()
        faulty = FaultyStore(memory, RandomFaults(rng, rates, longest_delay_s=20))
        store = RetryingStore(faulty, RetryPolicy(deadline_s=10_000, attempt_timeout_s=5), rng=rng)
        await asyncio.gather(
            *(store.put(f"k/{number}", [b"%d" % number], if_absent=number % 2 == 0) for number in range(200))
        )
        await faulty.landed()
        assert memory.objects == {f"k/{number}": b"%d" % number for number in range(200)}

    virtually(scenario)
