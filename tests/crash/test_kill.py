"""Nothing acknowledged is lost when the broker is killed. The harness run as a program goes on for longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.crash.history import Key
from tests.crash.kill_harness import run
from tests.crash.kill_load import Plan, decode, encode


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.crash)])
def test_kill_9_loses_and_repeats_nothing(kills: int, tmp_path: Path) -> None:
    plan = Plan(kills=kills, seed=kills, max_gap_s=1.0)
    outcome = run(plan, tmp_path)
    assert outcome.ok, str(outcome)
    assert outcome.kills == kills
    assert outcome.verdict.acked > 100
    assert outcome.verdict.read >= outcome.verdict.acked


def test_values_name_their_record_and_any_damage_shows() -> None:
    value = encode(Key("p1.0", 17))
    assert decode(value) == Key("p1.0", 17)
    for damaged in (
        value[:-1],
        value + b"x",
        value[:-1] + b"\0\0",
        b"",
        None,
        b"p1.0:x:",
        b"p1.0:18" + value[7:],
    ):
        assert decode(damaged) is None
