"""The operator away, and the API server away: brokers and clients must not notice."""

from __future__ import annotations

import os
import time

import pytest

from e2e.conftest import DEPLOYMENT, SYSTEM
from e2e.demo import Demo
from e2e.environment import Hooks
from e2e.kube import Kube, wait_for
from e2e.load import Underway
from e2e.measured import Measured

pytestmark = pytest.mark.e2e

OUTAGE_S = float(os.environ.get("E2E_OUTAGE_SECONDS", "120"))
# Nothing fails over here. What is left is a busy machine, and a broker that hands over while it stops.
UNAFFECTED_S = 5.0
# While the store is away nobody can take a broker out of an ISR: what it replicates waits until it is there again.
RESTARTED_S = 15.0


def test_the_operator_is_restarted(demo: Demo, kube: Kube, measured: Measured) -> None:
    with Underway(demo) as load:
        began = time.monotonic()
        kube.kubectl("delete", "pods", "--namespace", SYSTEM, "--all", "--wait=true")
        kube.kubectl("rollout", "status", "--namespace", SYSTEM, f"deployment/{DEPLOYMENT}", "--timeout=120s")
        demo.wait_until_ready()
        # Longer than a Lease lasts: a new operator that took living brokers for dead would have said so by now.
        _run_on(load, 15.0)
        gap_s = load.longest_gap(began, time.monotonic())
    measured.note("operator-restart", gap_s, load.summary)
    assert gap_s < UNAFFECTED_S


def test_the_operator_is_away_for_two_minutes(demo: Demo, kube: Kube, measured: Measured) -> None:
    with Underway(demo) as load:
        before = demo.leaderships(load.topic)
        began = time.monotonic()
        _scale(kube, 0)
        try:
            _run_on(load, OUTAGE_S)
        finally:
            _scale(kube, 1)
        assert demo.leaderships(load.topic) == before
        demo.wait_until_ready()
        _run_on(load, 15.0)
        gap_s = load.longest_gap(began, time.monotonic())
    measured.note("operator-down", gap_s, load.summary)
    assert gap_s < UNAFFECTED_S


def test_the_api_server_is_away_for_two_minutes(demo: Demo, hooks: Hooks, measured: Measured) -> None:
    with Underway(demo) as load:
        pod, partitions = demo.victim(load.topic)
        began = time.monotonic()
        hooks("api-down")
        try:
            _run_on(load, OUTAGE_S / 4)
            unaffected_s = load.longest_gap(began, time.monotonic())
            restarted = time.monotonic()
            hooks("signal", pod.node, pod.container_id, "TERM")
            _run_on(load, OUTAGE_S * 3 / 4)
            load.recovery(partitions, time.monotonic())
            restart_s = load.longest_gap(restarted, time.monotonic(), partitions)
            others = sorted(set(range(load.partitions)) - set(partitions))
            others_s = load.longest_gap(restarted, time.monotonic(), others)
        finally:
            hooks("api-up")
        wait_for(lambda: demo.broker(pod.broker_id).restarts > pod.restarts, 60.0, "the restart to be seen")
        demo.wait_until_ready()
        _run_on(load, 15.0)
        gap_s = load.longest_gap(began, time.monotonic())
    remark = (
        f"{pod.name} and its {len(partitions)} partitions were away {restart_s:.1f} s, the others at most "
        f"{others_s:.1f} s; before it {unaffected_s:.1f} s; {load.summary}"
    )
    measured.note("api-down", gap_s, remark)
    assert unaffected_s < UNAFFECTED_S
    assert max(restart_s, others_s) < RESTARTED_S


def _run_on(load: Underway, seconds: float) -> None:
    """Let the load run; what it cannot write for half a minute fails the test early."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(1.0)
        load.recovery(range(load.partitions), time.monotonic(), timeout_s=60.0)


def _scale(kube: Kube, replicas: int) -> None:
    kube.kubectl("scale", "--namespace", SYSTEM, f"deployment/{DEPLOYMENT}", f"--replicas={replicas}")
    if replicas:
        kube.kubectl("rollout", "status", "--namespace", SYSTEM, f"deployment/{DEPLOYMENT}", "--timeout=180s")
    else:
        kube.kubectl("wait", "--namespace", SYSTEM, "pods", "--all", "--for=delete", "--timeout=60s")
