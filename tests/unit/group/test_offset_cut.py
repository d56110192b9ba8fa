"""A cut of an offset table is the table at one moment, whatever is written while it is taken."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from strandline_broker.group.offsets import Cut, OffsetTable
from strandline_broker.group.records import OffsetKey, OffsetValue

KEYS = st.builds(OffsetKey, st.sampled_from("abcd"), st.sampled_from(["t", "u"]), st.integers(0, 2))


def value(offset: int) -> OffsetValue:
    return OffsetValue(offset, -1, "", 0)


def contents(table: OffsetTable) -> dict[OffsetKey, int]:
    return {key: found.offset for key, _, found in table.items()}


def taken(cut: Cut) -> dict[OffsetKey, int]:
    found: dict[OffsetKey, int] = {}
    while (one := cut.take()) is not None:
        group, topics = one
        for topic, partitions in topics.items():
            for partition, offset in partitions.items():
                key = OffsetKey(group, topic, partition)
                assert key not in found, "each group is taken once"
                found[key] = offset[1].offset
    return found


@settings(deadline=None)
@given(
    st.dictionaries(KEYS, st.integers(0, 9)),
    st.lists(st.tuples(KEYS, st.none() | st.integers(10, 19))),
    st.data(),
)
def test_changes_after_the_cut_are_not_in_it(
    before: dict[OffsetKey, int], changes: list[tuple[OffsetKey, int | None]], data: st.DataObject
) -> None:
    table = OffsetTable()
    for key, offset in before.items():
        table.put(key, 0, value(offset))
    cut = table.cut()
    found: dict[OffsetKey, int] = {}
    for key, change in changes:
        if change is None:
            table.remove(key)
        else:
            table.put(key, 1, value(change))
        if data.draw(st.booleans()) and (one := cut.take()) is not None:
            group, topics = one
            found |= {
                OffsetKey(group, topic, partition): offset[1].offset
                for topic, partitions in topics.items()
                for partition, offset in partitions.items()
            }
    rest = taken(cut)
    assert not found.keys() & rest.keys()
    assert found | rest == before
    assert taken(table.cut()) == contents(table), "the next cut sees everything"


def test_what_is_put_or_removed_is_counted() -> None:
    table = OffsetTable()
    key = OffsetKey("g", "t", 0)
    table.put(key, 0, value(1))
    table.put(key, 0, value(1))
    assert table.changes == 2
    table.remove(key)
    assert table.changes == 3
    table.remove(key)
    assert table.changes == 3, "it was not there"


def test_only_the_group_that_changes_is_copied() -> None:
    table = OffsetTable()
    rng = random.Random(1)
    for number in range(1000):
        table.put(OffsetKey(f"g{number}", "t", 0), 0, value(rng.randrange(100)))
    before = contents(table)
    cut = table.cut()
    table.put(OffsetKey("g5", "t", 1), 1, value(7))
    table.put(OffsetKey("g5", "t", 0), 1, value(8))
    table.put(OffsetKey("new", "t", 0), 1, value(9))
    assert len(cut._kept) == 1
    assert taken(cut) == before
