from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.coordinator.support import FakeLoop

from strandline_broker.coordinator.timers import Timers


class Bench:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.fired: list[tuple[Hashable, Hashable, int, float]] = []
        self.timers = Timers(cast("Any", self.loop), self.fire)

    def fire(self, owner: Hashable, key: Hashable, payload: int) -> None:
        self.fired.append((owner, key, payload, self.loop.now))


def test_timers_fire_once_in_the_order_of_their_deadlines() -> None:
    bench = Bench()
    bench.timers.set("a", "late", 2.0, 20)
    bench.timers.set("a", "early", 1.0, 10)
    bench.loop.advance(5)
    assert bench.fired == [("a", "early", 10, 1.0), ("a", "late", 20, 2.0)]
    assert len(bench.timers) == 0


def test_a_timer_that_is_set_again_fires_at_its_new_deadline_only() -> None:
    bench = Bench()
    bench.timers.set("a", "k", 1.0, 1)
    bench.timers.set("a", "k", 3.0, 3)
    bench.loop.advance(2)
    assert bench.fired == []
    bench.timers.set("a", "k", 2.5, 2)
    bench.loop.advance(5)
    assert bench.fired == [("a", "k", 2, 2.5)]


def test_cancelled_and_dropped_timers_do_not_fire() -> None:
    bench = Bench()
    bench.timers.set("a", "x", 1.0, 0)
    bench.timers.set("a", "y", 1.0, 0)
    bench.timers.set("b", "x", 1.0, 0)
    bench.timers.cancel("a", "x")
    bench.timers.cancel("a", "never set")
    bench.timers.drop("b")
    assert len(bench.timers) == 1
    bench.loop.advance(2)
    assert [entry[:2] for entry in bench.fired] == [("a", "y")]


def test_heartbeats_neither_grow_the_heap_nor_arm_the_loop_again() -> None:
    bench = Bench()
    for beat in range(10_000):
        bench.timers.set("a", "session", 10.0 + beat, beat)
    assert len(bench.timers._heap) == 1
    assert bench.loop.armed == 1


def test_timers_that_come_and_go_leave_nothing_behind() -> None:
    bench = Bench()
    for number in range(10_000):
        bench.timers.set("a", number, 100.0, 0)
        bench.timers.cancel("a", number)
    assert len(bench.timers._heap) < 200
    bench.timers.set("a", "last", 1.0, 7)
    bench.loop.advance(200)
    assert [entry[2] for entry in bench.fired] == [7]


def test_a_failing_timer_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    loop = FakeLoop()
    fired: list[Hashable] = []

    def fire(owner: Hashable, key: Hashable, payload: int) -> None:
        fired.append(key)
        if key == 1:
            raise RuntimeError("a bug")

    timers = Timers(cast("Any", loop), fire)
    timers.set("a", 1, 1.0, 0)
    timers.set("a", 2, 2.0, 0)
    with caplog.at_level(logging.CRITICAL, "strandline_broker"):
        loop.advance(3)
    assert fired == [1, 2]


def test_a_timer_may_set_itself_again() -> None:
    loop = FakeLoop()
    fired: list[float] = []

    def fire(owner: Hashable, key: Hashable, payload: int) -> None:
        fired.append(loop.now)
        if len(fired) < 3:
            timers.set(owner, key, loop.now + 1, 0)

    timers = Timers(cast("Any", loop), fire)
    timers.set("a", "k", 1.0, 0)
    loop.advance(10)
    assert fired == [1.0, 2.0, 3.0]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "cancel", "drop", "advance"]),
            st.integers(0, 2),
            st.integers(0, 3),
            st.floats(0, 5),
        ),
        max_size=60,
    )
)
def test_whatever_happens_each_timer_fires_at_its_last_deadline(
    steps: list[tuple[str, int, int, float]],
) -> None:
    bench = Bench()
    expected: dict[tuple[int, int], float] = {}
    due: list[tuple[float, int, int]] = []
    for action, owner, key, value in steps:
        if action == "set":
            expected[owner, key] = bench.loop.now + value
            bench.timers.set(owner, key, bench.loop.now + value, 0)
        elif action == "cancel":
            expected.pop((owner, key), None)
            bench.timers.cancel(owner, key)
        elif action == "drop":
            expected = {name: at for name, at in expected.items() if name[0] != owner}
            bench.timers.drop(owner)
        else:
            end = bench.loop.now + value
            due += sorted((at, *name) for name, at in expected.items() if at <= end)
            expected = {name: at for name, at in expected.items() if at > end}
            bench.loop.advance(value)
    assert sorted((at, owner, key) for owner, key, _, at in bench.fired) == sorted(due)
    assert len(bench.timers) == len(expected)
