"""When a filling disk slows producers down or refuses them, how slow, and when it ceases to."""

from __future__ import annotations

import pytest

from strandline_broker.errors import ErrorCode
from strandline_broker.replica.disk_pressure import (
    BURST_S,
    HORIZON_S,
    LEAST_RATE,
    MAX_DEBT_S,
    MAX_PAUSE_S,
    DiskPressure,
    Pressure,
)

SIZE = 100 << 30


def pressure(used_percent: float = 0.0, throttle: int = 85, refuse: int = 95) -> DiskPressure:
    made = DiskPressure(throttle, refuse)
    fill(made, used_percent)
    return made


def fill(made: DiskPressure, used_percent: float) -> Pressure:
    made.measured(round(SIZE * (100 - used_percent) / 100), SIZE)
    return made.level


def test_levels_follow_the_disk_with_hysteresis() -> None:
    made = pressure()
    seen = [
        fill(made, used)
        for used in (
            84.9,
            85.1,
            84.0,
            83.1,
            82.9,
            84.9,
            86,
            94.9,
            95.1,
            94,
            93.1,
            92.9,
            94.9,
            83.1,
            82.9,
            99,
            50,
        )
    ]
    free, throttled, refused = Pressure.FREE, Pressure.THROTTLED, Pressure.REFUSED
    assert seen == [
        free, throttled, throttled, throttled, free, free, throttled, throttled,
        refused, refused, refused, throttled, throttled, throttled, free, refused, free,
    ]  # fmt: skip


def test_a_change_is_news_once() -> None:
    made = DiskPressure(85, 95)
    free = SIZE // 100
    assert not made.measured(20 * free, SIZE)
    assert made.measured(10 * free, SIZE)
    assert not made.measured(9 * free, SIZE)
    assert made.measured(4 * free, SIZE)
    assert made.refuses
    assert made.measured(50 * free, SIZE)
    assert (made.refuses, made.level) == (False, Pressure.FREE)


@pytest.mark.parametrize(
    ("throttle", "refuse", "level"),
    [(100, 100, Pressure.FREE), (85, 100, Pressure.THROTTLED), (90, 90, Pressure.REFUSED)],
)
def test_marks_can_be_switched_off(throttle: int, refuse: int, level: Pressure) -> None:
    assert pressure(100, throttle, refuse).level is level


def test_nothing_is_known_before_the_first_look() -> None:
    made = DiskPressure(85, 95)
    assert (made.level, made.used_ratio, made.pause_s(1 << 30, 0.0)) == (Pressure.FREE, 0.0, 0.0)
    assert made.rate is None


def test_what_is_left_would_last_for_the_horizon() -> None:
    made = pressure(85)
    assert made.rate == pytest.approx(0.10 * SIZE / HORIZON_S)
    fill(made, 90)
    assert made.rate == pytest.approx(0.05 * SIZE / HORIZON_S)
    fill(made, 94.9999)
    assert made.rate == LEAST_RATE
    assert pressure(90, 85, 100).rate == pytest.approx(0.10 * SIZE / HORIZON_S)


def test_whoever_writes_less_than_the_rate_notices_nothing() -> None:
    made = pressure(90)
    assert made.rate is not None
    step = int(made.rate / 10)
    assert all(made.pause_s(step, 100 + number / 10) == 0 for number in range(1000))
    assert made.throttled == 0


def test_whoever_writes_more_is_held_to_it() -> None:
    made = pressure(90)
    assert made.rate is not None
    request = int(made.rate / 2)
    now, sent = 100.0, 0
    while now < 160:
        sent += request
        now += made.pause_s(request, now)
    assert sent == pytest.approx(made.rate * (60 + BURST_S), rel=0.02)
    assert made.throttled > 0


def test_pauses_and_debts_are_bounded() -> None:
    made = pressure(90)
    assert made.rate is not None
    for _ in range(1000):
        # So many connections, with a request each.
        assert made.pause_s(int(made.rate), 100.0) <= MAX_PAUSE_S
    assert made.pause_s(0, 100.0 + MAX_DEBT_S - BURST_S - 0.5) == pytest.approx(0.5)
    assert made.pause_s(0, 100.0 + MAX_DEBT_S) == 0


def test_who_is_refused_pauses_and_pays_for_nothing() -> None:
    made = pressure(96)
    assert made.pause_s(1 << 40, 100.0) == MAX_PAUSE_S
    fill(made, 90)
    assert made.pause_s(1, 100.0) == 0
    error = pressure(96).refusal()
    assert error.code is ErrorCode.KAFKA_STORAGE_ERROR
    assert "96%" in str(error)
