"""Schedules that once broke a rule, made small. Each says what was wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.simulation.schedule import Schedule, Step, draw, topics
from tests.simulation.simulation import run_schedule


def check(*steps: Step, **details: Any) -> None:
    schedule = Schedule(0, topics(), steps, duration_s=steps[-1].at + 10, **details)
    verdict = run_schedule(schedule)
    assert verdict.ok, verdict.violations


def test_a_leader_that_waits_for_a_new_epoch_serves_no_readers() -> None:
    """It answered consumers as a follower does, with an old high watermark, in the epoch that it had led."""
    check(Step(8.0, "blackout", {"nodes": [0], "how": "kill", "lasts": 5.0}))


def test_a_leader_that_lost_bytes_to_a_failed_sync_does_not_lead_again_as_if_nothing_had_happened() -> None:
    """With `flush: Replicated` it cut its log at the synced end, was elected again at once, and others cut theirs."""
    steps = [
        Step(at, "failing-sync", {"node": node, "skip": skip, "times": 2})
        for node, at in enumerate((8.0, 17.0, 26.0))
        for skip in (0, 3)
    ]
    check(*steps, flush="Replicated")


def test_a_controller_that_held_everybody_for_dead_wakes_up_when_a_lease_is_renewed() -> None:
    """It waited for something more than a renewal, for ever, while no partition had a leader."""
    check(Step(8.0, "watch-lag", {"host": "controller-0", "lag": 6.0, "lasts": 7.0}))


def test_who_reads_offsets_from_a_coordinator_that_was_replaced_unawares_may_find_the_past() -> None:
    """Cut off from the store alone, it told what was committed in its epoch: the price of invariant 3."""
    kept = ("slow-link", "store", "kill", "cut-brokers", "power-off", "isolate", "elect-preferred")
    schedule = draw(450)
    steps = tuple(step for step in schedule.steps if step.kind in kept)
    verdict = run_schedule(dataclasses.replace(schedule, steps=steps))
    assert verdict.ok, verdict.violations
