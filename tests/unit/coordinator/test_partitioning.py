from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strandline_broker.coordinator.partitioning import java_hash, partition_for


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("a", 97),
        ("hello", 99162322),
        ("Hello, World!", 1498789909),
        ("polygenelubricants", -(1 << 31)),
        ("\U0001f600", 55357 * 31 + 56832),  # a surrogate pair counts as two
        ("\ud800", 0xD800),
    ],
)
def test_hashes_are_those_of_java(text: str, expected: int) -> None:
    assert java_hash(text) == expected


def test_the_one_hash_without_an_absolute_value_goes_to_partition_0() -> None:
    assert partition_for("polygenelubricants", 50) == 0


def test_negative_hashes_are_taken_by_their_absolute_value() -> None:
    text = "console-consumer-1"
    assert partition_for(text, 50) == abs(java_hash(text)) % 50


@given(st.text(), st.integers(1, 10_000))
def test_every_group_has_a_partition(group_id: str, count: int) -> None:
    assert 0 <= partition_for(group_id, count) < count
