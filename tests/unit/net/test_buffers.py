"""The pool alone: classes, the line, what is given back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strandline_broker.net.buffers import BufferPool, PoolBuffer, capacity_for

MIB = 1 << 20


class Line:
    def __init__(self, limit: int = 8 * MIB, cache: int = 4 * MIB) -> None:
        self.soon: list[Callable[[], None]] = []
        self.granted: list[tuple[str, PoolBuffer | None]] = []
        self.pool = BufferPool(limit, cache, self.soon.append)

    def wait(self, name: str, size: int) -> object:
        return self.pool.wait(size, lambda buffer: self.granted.append((name, buffer)))

    def contended(self) -> bool:
        return self.pool.contended

    def full(self) -> bool:
        return self.pool.full

    def turn(self) -> list[str]:
        soon = self.soon.copy()
        self.soon.clear()
        before = len(self.granted)
        for callback in soon:
            callback()
        return [name for name, _ in self.granted[before:]]

    def must_acquire(self, size: int) -> PoolBuffer:
        buffer = self.pool.try_acquire(size)
        assert buffer is not None
        assert len(buffer.view) >= size
        assert not buffer.view.readonly
        return buffer


@given(st.integers(1, 300 * MIB))
def test_capacity_is_enough_and_not_much_more(size: int) -> None:
    capacity = capacity_for(size)
    assert capacity >= size
    assert capacity == 272 * 1024 or capacity < 2 * size + 4096
    assert capacity_for(capacity) == capacity or size > 16 * MIB


def test_first_come_first_served() -> None:
    line = Line()  # seven MiB for large requests
    first = line.must_acquire(3 * MIB)
    second = line.must_acquire(2 * MIB)
    assert line.pool.try_acquire(2 * MIB) is None
    line.wait("large", 2 * MIB)
    # Small enough, but others came first.
    assert line.pool.try_acquire(1000) is None
    line.wait("small", 1000)
    assert line.contended()
    line.pool.release(second)
    assert len(line.granted) == 0  # never from inside of a release
    assert line.turn() == ["large", "small"]
    assert not line.contended()
    line.pool.release(first)
    assert line.turn() == []


def test_a_large_request_is_not_overtaken_for_ever() -> None:
    line = Line()
    held = [line.must_acquire(MIB) for _ in range(6)]
    line.wait("large", 4 * MIB)
    line.wait("small", MIB)
    for buffer in held[:2]:
        line.pool.release(buffer)
        assert line.turn() == []
    for buffer in held[2:]:
        line.pool.release(buffer)
    assert line.turn() == ["large", "small"]


def test_leaving_the_line() -> None:
    line = Line()
    held = line.must_acquire(4 * MIB)
    ticket = line.pool.wait(4 * MIB, lambda _: line.granted.append(("left", None)))
    line.wait("stays", 4 * MIB)
    ticket.cancel()
    line.pool.release(held)
    assert line.turn() == ["stays"]
    # Tickets that were cancelled do not stand in the way of others either.
    line.pool.wait(MIB, lambda _: None).cancel()
    assert not line.contended()
    assert line.pool.try_acquire(MIB) is not None


def test_the_small_share_and_its_gate() -> None:
    line = Line()
    line.pool.charge(MIB - 1)
    assert not line.full()
    line.pool.charge(1)
    assert line.full()
    line.must_acquire(3 * MIB)  # the other share is not touched
    line.wait("first", 0)
    line.wait("second", 0)
    line.pool.refund(MIB // 2)
    assert line.turn() == ["first", "second"]
    with pytest.raises(AssertionError, match="more memory given back"):
        line.pool.refund(MIB)


def test_the_gate_closes_again_behind_the_first_who_fills_it() -> None:
    line = Line()
    line.pool.charge(MIB)
    line.pool.wait(0, lambda _: line.pool.charge(MIB))
    line.wait("second", 0)
    line.pool.refund(MIB)
    assert line.turn() == []
    line.pool.refund(MIB)
    assert line.turn() == ["second"]


def test_the_cache_is_bounded_and_very_large_buffers_are_not_kept() -> None:
    line = Line(limit=64 * MIB)
    buffers = [line.must_acquire(MIB) for _ in range(10)]
    huge = line.must_acquire(20 * MIB)
    for buffer in [*buffers, huge]:
        line.pool.release(buffer)
    assert line.pool.in_use == 0
    assert line.pool._cached == 3 * capacity_for(MIB)
    reused = line.must_acquire(MIB)
    assert reused in buffers
    line.pool.trim()
    line.pool.trim()
    assert line.pool._cached == 0
    line.pool.release(reused)
    with pytest.raises(AssertionError, match="twice"):
        line.pool.release(reused)
