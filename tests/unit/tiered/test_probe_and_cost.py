"""What a bucket can do and what it costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tests.unit.tiered.store_contract import FileLike, StoreContract, keys, run

from strandline_tiered.cost import GIB, SECONDS_PER_MONTH, Prices, RequestCounts, monthly_cost
from strandline_tiered.counting_store import CountingStore
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind, ScriptedFaults
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.object_store import (
    Content,
    NoSuchObject,
    ObjectInfo,
    ObjectStore,
    Refused,
    Unavailable,
)
from strandline_tiered.probe import Capabilities, probe


class IgnoresConditions(MemoryStore):
    async def put(self, key: str, content: Content, *, if_absent: bool = False) -> None:
        await super().put(key, content)


class IgnoresRanges(MemoryStore):
    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        if (start, end) != (0, None):
            raise Refused("NoRangeReads", "whole objects only")
        return await super().get(key)


class ListsLate(MemoryStore):
    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        none: list[ObjectInfo] = []
        for info in none:
            yield info


class KeepsAll(MemoryStore):
    async def delete(self, keys: Sequence[str]) -> None:
        pass


class SmallOnly(MemoryStore):
    async def put(self, key: str, content: Content, *, if_absent: bool = False) -> None:
        if key.endswith("-large"):
            raise Refused("EntityTooLarge", "no parts here")
        await super().put(key, content, if_absent=if_absent)


@pytest.mark.parametrize(
    ("store", "usable", "words"),
    [
        (MemoryStore(), True, "conditional writes honoured; uploads in parts work"),
        (IgnoresConditions(), True, "conditional writes ignored"),
        (IgnoresRanges(), False, "no range reads"),
        (ListsLate(), False, "no lists that show"),
        (KeepsAll(), False, "no deletion"),
        (SmallOnly(), False, "no uploads in parts"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, MemoryStore) else "",
)
def test_what_a_bucket_can_do_is_found_out(store: MemoryStore, usable: bool, words: str) -> None:
    async def scenario() -> None:
        found = await probe(store, large_bytes=(3 << 20) + 5)
        assert found.usable is usable
        assert words in found.describe()
        assert found.reason == ("Ready" if usable else "Unusable")
        assert not store.objects or isinstance(store, KeepsAll)

    run(scenario())


@pytest.mark.parametrize(
    ("kind", "reason"), [(Kind.UNAVAILABLE, "Unavailable"), (Kind.REFUSED, "AccessDenied")]
)
@pytest.mark.parametrize("operation", ["put", "get", "list", "delete"])
def test_a_bucket_that_is_away_or_says_no_is_reported(kind: Kind, reason: str, operation: str) -> None:
    async def scenario() -> None:
        faults = ScriptedFaults([Fault(kind)] * 9, operations=[operation])
        found = await probe(FaultyStore(MemoryStore(), faults))
        assert not found.usable
        assert found.reason == reason

    run(scenario())


def test_the_large_upload_is_left_out_unless_asked_for() -> None:
    async def scenario() -> None:
        found = await probe(MemoryStore())
        assert found == Capabilities(
            range_reads=True, list_after_put=True, delete=True, conditional_writes=True
        )
        assert "not tried" in found.describe()

    run(scenario())


class TestCountingStore(StoreContract):
    def open_store(self, directory: Path) -> ObjectStore:
        return CountingStore(MemoryStore())


def test_requests_are_counted_as_a_bill_counts_them() -> None:
    async def scenario() -> None:
        memory = MemoryStore()
        store = CountingStore(memory, part_bytes=100)
        await store.put("a", [bytes(100)])
        await store.put("b", FileLike(bytes(250)))
        await store.get("b", 0, 50)
        await store.head("a")
        with pytest.raises(NoSuchObject):
            await store.get("c")
        memory.objects |= {f"k/{number:05}": b"" for number in range(2500)}
        assert len(await keys(store, "k/")) == 2500
        assert await keys(store, "nothing/") == []
        await store.delete([f"k/{number:05}" for number in range(2500)])
        expected = RequestCounts(
            puts=1 + 5, gets=3, lists=3 + 1, deletes=3, bytes_put=350, bytes_got=50, failures=1
        )
        assert store.counts == expected
        assert store.counts.answers == 8, "it answered all of them"
        earlier = store.counts.copy()
        await store.get("b")
        since = store.counts.since(earlier)
        assert (since, since.answers) == (RequestCounts(gets=1, bytes_got=250), 1)

    run(scenario())


def test_what_is_no_answer_is_not_counted_as_one() -> None:
    async def scenario() -> None:
        faulty = FaultyStore(MemoryStore(), ScriptedFaults([Fault(Kind.UNAVAILABLE)], operations=["get"]))
        store = CountingStore(faulty)
        with pytest.raises(Unavailable) as raised:
            await store.get("a")
        assert (store.counts.answers, store.counts.failures) == (0, 1)
        assert store.counts.last_failure == str(raised.value)
        with pytest.raises(NoSuchObject):
            await store.get("a")
        assert (store.counts.answers, store.counts.failures) == (1, 2)
        assert store.counts.last_failure == str(raised.value)

    run(scenario())


def test_a_month_is_estimated_from_an_hour() -> None:
    prices = Prices(
        per_gib_month=0.02, per_1000_puts=0.005, per_1000_gets=0.001, per_1000_lists=0.004, per_gib_got=0.1
    )
    counts = RequestCounts(puts=100, gets=1000, lists=50, deletes=7, bytes_put=5 * GIB, bytes_got=GIB)
    month = monthly_cost(100 * GIB, counts, 3600, prices)
    assert month.storage == pytest.approx(2.0)
    assert month.requests == pytest.approx(720 * (0.0005 + 0.001 + 0.0002))
    assert month.traffic == pytest.approx(72)
    assert month.total == pytest.approx(month.storage + month.requests + month.traffic)


def test_sixteen_puts_per_gib_are_next_to_nothing() -> None:
    assert monthly_cost(0, RequestCounts(puts=16), SECONDS_PER_MONTH, Prices()).total == pytest.approx(
        0.00008
    )


def test_no_time_no_requests() -> None:
    assert monthly_cost(GIB, RequestCounts(), 0, Prices()).total == pytest.approx(0.023)


def test_prices_are_configured_by_name() -> None:
    assert Prices.parse("") == Prices()
    assert Prices.parse(" per_gib_month=0.01, per_1000_puts = 1 ") == Prices(
        per_gib_month=0.01, per_1000_puts=1
    )
    for text in ("per_gib_month", "rent=5", "per_gib_month=-1", "per_gib_month=nan", "per_1000_gets=inf"):
        with pytest.raises(ValueError, match=r"."):
            Prices.parse(text)
