"""Limits of replication, in virtual time."""

from __future__ import annotations

import pytest

from strandline_broker.replica.throttle import (
    BURST_S,
    MAX_WAIT_S,
    ReplicationThrottle,
    TokenBucket,
    parse_throttled_replicas,
)

MIB = 1 << 20


def _bucket(rate: float | None) -> TokenBucket:
    bucket = TokenBucket()
    bucket.set_rate(rate, 0.0)
    return bucket


def _time_for(bucket: TokenBucket, total: int, chunk: int) -> float:
    """Return the virtual time that it takes to copy `total` bytes in reads of `chunk`."""
    now, copied = 0.0, 0
    while copied < total:
        while (wait_s := bucket.wait_s(now)) > 0:
            assert wait_s <= MAX_WAIT_S
            now += wait_s
        bucket.spend(chunk, now)
        copied += chunk
    return now


@pytest.mark.parametrize(("rate", "chunk"), [(MIB, 10_000), (MIB, MIB), (100_000, MIB), (50 * MIB, MIB)])
def test_copying_takes_the_time_that_the_rate_says(rate: int, chunk: int) -> None:
    total = 100 * max(rate, chunk)
    expected = (total - chunk) / rate
    taken = _time_for(_bucket(rate), total, chunk)
    assert expected - BURST_S - 0.01 <= taken <= expected + 0.01


def test_without_a_limit_nothing_waits() -> None:
    assert _time_for(_bucket(None), 1000 * MIB, MIB) == 0


def test_what_is_not_used_is_kept_for_a_moment_only() -> None:
    bucket = _bucket(1000)
    assert bucket.wait_s(3600.0) == 0
    bucket.spend(1000, 3600.0)
    assert bucket.wait_s(3600.0) == pytest.approx(0.001)


def test_a_debt_is_paid_at_the_rate_of_the_moment() -> None:
    bucket = _bucket(1000)
    bucket.spend(1 << 30, 0.0)
    assert bucket.wait_s(0.0) == MAX_WAIT_S
    bucket.set_rate(1 << 30, 0.0)
    assert bucket.wait_s(0.0) == pytest.approx(1.0, abs=0.001)
    assert bucket.wait_s(1.0) == 0
    bucket.set_rate(None, 1.0)
    assert bucket.wait_s(1.0) == 0
    bucket.set_rate(10, 1.0)
    assert bucket.wait_s(1.0) == 0, "a throttle that is set anew owes nothing"


def test_a_lower_rate_takes_what_was_saved() -> None:
    bucket = _bucket(1000)
    bucket.set_rate(10, 0.0)
    bucket.spend(10, 0.0)
    assert bucket.wait_s(0.0) > 0


def test_nothing_passes_at_rate_zero() -> None:
    bucket = _bucket(0)
    assert bucket.wait_s(0.0) == bucket.wait_s(1e6) == MAX_WAIT_S


@pytest.mark.parametrize(
    ("text", "named", "not_named"),
    [
        ("*", [(0, 0), (7, 3)], []),
        ("0:1,3:2", [(0, 1), (3, 2)], [(0, 2), (1, 0), (3, 1)]),
        (" 0:1 , 3:2 ", [(0, 1), (3, 2)], []),
        ("", [], [(0, 0)]),
        ("x,0:1,2,:,3:-1", [(0, 1)], [(2, 0), (3, 1)]),
    ],
)
def test_throttled_replicas(
    text: str, named: list[tuple[int, int]], not_named: list[tuple[int, int]]
) -> None:
    parsed = parse_throttled_replicas(text)
    assert all(parsed.has(*replica) for replica in named)
    assert not any(parsed.has(*replica) for replica in not_named)


def test_only_what_the_topic_names_on_this_broker_is_throttled() -> None:
    throttle = ReplicationThrottle(2, {"a": "0:1,1:2", "b": "*", "c": ""}.__getitem__)
    throttle.passed("b", 0, 10_000, 0.0)
    assert throttle.passed_bytes == 0
    assert not throttle.names("b", 0), "without a rate nothing is"
    throttle.set_rate(1000, 0.0)
    named = {("a", 0): False, ("a", 1): True, ("b", 0): True, ("b", 9): True, ("c", 0): False}
    assert {key: throttle.names(*key) for key in named} == named
    for topic, partition in named:
        throttle.passed(topic, partition, 1000, 0.0)
    assert throttle.passed_bytes == 3000
    waits = {key: throttle.wait_s(*key, 0.0) > 0 for key in named}
    assert waits == named
    assert throttle.held_back == 3
