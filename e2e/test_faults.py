"""What breaks a broker: every time its partitions must be written again soon, and nothing acknowledged may be lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from e2e.demo import BrokerPod, Demo
from e2e.environment import Hooks
from e2e.kube import wait_for
from e2e.load import Underway
from e2e.measured import Measured

pytestmark = pytest.mark.e2e

PROCESS_FAILOVER_S = 10.0
# Beyond the 10 s after which a Lease counts as given up: an election, and what a client needs to hear of it.
LEASE_FAILOVER_S = 30.0


class Fault:
    """Breaks the broker that leads most of a loaded topic, and measures how long the worst of its partitions rested."""

    def __init__(self, demo: Demo, measured: Measured, measure: str) -> None:
        self._demo = demo
        self._measured = measured
        self._measure = measure
        self.gap_s = 0.0

    @contextmanager
    def at(self, break_it: Callable[[BrokerPod], None], spared_node: str = "") -> Iterator[None]:
        """Break it. The block runs when the partitions are written again; then all must become well."""
        with Underway(self._demo) as load:
            pod, partitions = self._demo.victim(load.topic, spared_node)
            before = self._demo.leaderships(load.topic)
            began = time.monotonic()
            break_it(pod)
            wait_for(
                lambda: self._moved(load.topic, before, partitions), 2 * LEASE_FAILOVER_S, "leaders to change"
            )
            load.recovery(partitions, time.monotonic())
            yield
            self._demo.wait_until_ready()
            # To the end: what was asked for only now may have begun to hurt later, and coming back may hurt too.
            self.gap_s = load.longest_gap(began, load.recovery(partitions, time.monotonic()), partitions)
        remark = f"{pod.name}, leader of {len(partitions)} partitions; {load.summary}"
        self._measured.note(self._measure, self.gap_s, remark)

    def _moved(self, topic: str, before: dict[int, tuple[int, int]], partitions: list[int]) -> bool:
        now = self._demo.leaderships(topic)
        return all(now[partition] != before[partition] for partition in partitions)


def test_a_container_is_killed(demo: Demo, hooks: Hooks, measured: Measured) -> None:
    fault = Fault(demo, measured, "kill")
    with fault.at(lambda pod: hooks("signal", pod.node, pod.container_id, "KILL")):
        pass
    assert fault.gap_s < PROCESS_FAILOVER_S


def test_a_pod_is_deleted(demo: Demo, measured: Measured) -> None:
    fault = Fault(demo, measured, "delete-pod")
    with fault.at(demo.delete_pod):
        pass
    assert fault.gap_s < PROCESS_FAILOVER_S


def test_a_pod_is_deleted_without_grace(demo: Demo, measured: Measured) -> None:
    fault = Fault(demo, measured, "force-delete")
    with fault.at(lambda pod: demo.delete_pod(pod, "--force", "--grace-period=0")):
        pass
    assert fault.gap_s < LEASE_FAILOVER_S


def test_a_node_loses_its_power(demo: Demo, hooks: Hooks, measured: Measured, operator_node: str) -> None:
    off: list[str] = []

    def power_off(pod: BrokerPod) -> None:
        off.append(pod.node)
        hooks("node-off", pod.node)

    fault = Fault(demo, measured, "node-off")
    try:
        with fault.at(power_off, spared_node=operator_node):
            hooks("node-on", off.pop())
    finally:
        for node in off:
            hooks("node-on", node)
    assert fault.gap_s < LEASE_FAILOVER_S
