"""What a nemesis can do to a cluster. Each fault is a function of (site, rng) that does it, and says how it is undone.

A fault returns None when it cannot be done right now (nobody runs, another fault is in the way); the nemesis then picks
another one. `KINDS` groups the faults under the names that the command line takes.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tests.crash.fault_network import Network
from tests.crash.leaderships import elect_preferred, shuffle_replicas
from tests.crash.nemesis_cluster import NemesisCluster, send_signal


def _nothing() -> None:
    """Undo nothing."""


@dataclass(slots=True)
class Fault:
    """A fault that was done at `at` (monotonic seconds); `heal` undoes it when `lasts_s` have passed."""

    kind: str
    what: str
    partitions: frozenset[int]
    """Of the watched topic: those whose leader it hit."""
    at: float
    lasts_s: float = 0.0
    heal: Callable[[], None] = _nothing


@dataclass(slots=True)
class Site:
    """Where faults are done; `active` are those that still last."""

    cluster: NemesisCluster
    topic: str
    network: Network | None = None
    active: list[Fault] = field(default_factory=list)

    def lasting(self, *kinds: str) -> bool:
        """Say whether a fault of one of these kinds (any at all, without an argument) still lasts."""
        return any(not kinds or fault.kind in kinds for fault in self.active)

    def led_by(self, brokers: Iterable[int]) -> frozenset[int]:
        """Return the partitions of the watched topic that these brokers lead."""
        return self.cluster.state().led_by(frozenset(brokers), self.topic)


Inject = Callable[[Site, random.Random], Fault | None]


def _some_broker(site: Site, rng: random.Random) -> int:
    return rng.randrange(site.cluster.brokers)


def _some_leader(site: Site, rng: random.Random) -> int | None:
    leaders = [
        state.leader
        for place, state in sorted(site.cluster.state().partitions.items())
        if place.topic == site.topic and state.leader >= 0
    ]
    return rng.choice(leaders) if leaders else None


def _name(brokers: Iterable[int]) -> str:
    return " and ".join(f"broker {broker}" for broker in brokers)


# -- processes ---------------------------------------------------------------------------------------------------------


def _signal_all(
    site: Site, kind: str, brokers: list[int], number: signal.Signals, gap_s: float = 0.0
) -> Fault | None:
    hit = site.led_by(brokers)
    done: list[int] = []
    at = time.monotonic()
    for broker in brokers:
        if done:
            time.sleep(gap_s)
        at = time.monotonic()
        if site.cluster.send(broker, number) is not None:
            done.append(broker)
    if not done:
        return None
    return Fault(kind, f"{number.name} to {_name(done)}, {len(hit)} partitions led", hit, at)


def kill_one(site: Site, rng: random.Random) -> Fault | None:
    """SIGKILL to any broker; its supervisor sees it end and starts it again."""
    return _signal_all(site, "kill", [_some_broker(site, rng)], signal.SIGKILL)


def kill_leader(site: Site, rng: random.Random) -> Fault | None:
    """SIGKILL to the leader of some partition."""
    leader = _some_leader(site, rng)
    return None if leader is None else _signal_all(site, "kill leader", [leader], signal.SIGKILL)


def kill_two(site: Site, rng: random.Random) -> Fault | None:
    """SIGKILL to two brokers within a second."""
    brokers = rng.sample(range(site.cluster.brokers), min(2, site.cluster.brokers))
    return _signal_all(site, "kill two", brokers, signal.SIGKILL, rng.uniform(0, 1))


def kill_all(site: Site, rng: random.Random) -> Fault | None:
    """SIGKILL to all brokers at once."""
    brokers = list(range(site.cluster.brokers))
    rng.shuffle(brokers)
    return _signal_all(site, "kill all", brokers, signal.SIGKILL)


def stop_one(site: Site, rng: random.Random) -> Fault | None:
    """SIGTERM to a broker: it hands over, stops, and is started again."""
    return _signal_all(site, "restart", [_some_broker(site, rng)], signal.SIGTERM)


def stop_leader(site: Site, rng: random.Random) -> Fault | None:
    """SIGTERM to the leader of some partition."""
    leader = _some_leader(site, rng)
    return None if leader is None else _signal_all(site, "restart leader", [leader], signal.SIGTERM)


def _resume(pid: int) -> None:
    """Let a process go on, if nobody has ended it meanwhile."""
    send_signal(pid, signal.SIGCONT)


def _pause(site: Site, kind: str, broker: int, lasts_s: float) -> Fault | None:
    hit = site.led_by([broker])
    pid = site.cluster.send(broker, signal.SIGSTOP)
    if pid is None:
        return None
    return Fault(
        kind,
        f"broker {broker} stands still for {lasts_s:.1f} s, {len(hit)} partitions led",
        hit,
        time.monotonic(),
        lasts_s,
        lambda: _resume(pid),
    )


def pause_one(site: Site, rng: random.Random) -> Fault | None:
    """Stop any broker for a while, mostly shorter than its Lease lasts."""
    return _pause(site, "pause", _some_broker(site, rng), rng.uniform(2, 14))


def pause_leader(site: Site, rng: random.Random) -> Fault | None:
    """Stop a leader until its Lease is over and somebody else leads; then it wakes up and believes that it leads."""
    leader = _some_leader(site, rng)
    return None if leader is None else _pause(site, "pause leader", leader, rng.uniform(11, 25))


# -- controller and store ----------------------------------------------------------------------------------------------


def kill_controller(site: Site, rng: random.Random) -> Fault | None:
    """SIGKILL to `strandline dev`: the kernel asks its brokers to stop, and the next one finds them or their remains."""
    if site.lasting() or site.cluster.supervisor_pid is None:
        return None
    hit, at = site.led_by(range(site.cluster.brokers)), time.monotonic()
    away_s = rng.choice((0.0, rng.uniform(0, 5)))
    with_brokers = rng.random() < 0.4
    pids = [site.cluster.any_pid(broker) for broker in range(site.cluster.brokers)] if with_brokers else []
    site.cluster.kill_supervisor()
    for pid in pids:
        if pid is not None:
            send_signal(pid, signal.SIGKILL)
    time.sleep(away_s)
    site.cluster.start()
    what = f"SIGKILL to the supervisor{' and all brokers' if with_brokers else ''}, the next after {away_s:.1f} s"
    return Fault("kill controller", what, hit, at)


def pause_controller(site: Site, rng: random.Random) -> Fault | None:
    """Stop the controller: it wakes up with a view of the past."""
    pid = site.cluster.supervisor_pid
    if pid is None or site.lasting("pause controller"):
        return None
    os.kill(pid, signal.SIGSTOP)
    lasts_s = rng.uniform(2, 20)
    return Fault(
        "pause controller",
        f"the controller stands still for {lasts_s:.1f} s",
        frozenset(),
        time.monotonic(),
        lasts_s,
        lambda: _resume(pid),
    )


def second_controller(site: Site, rng: random.Random) -> Fault | None:
    """Run another controller on the same store for a while, one that is not told which processes ended."""
    if site.lasting("two controllers"):
        return None
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.lone_controller", str(site.cluster.store_file)],
        stdin=subprocess.DEVNULL,
        stdout=(site.cluster.data_dir / "second-controller.log").open("ab"),
        stderr=subprocess.STDOUT,
    )

    def end() -> None:
        process.kill()
        process.wait()

    lasts_s = rng.uniform(10, 30)
    return Fault("two controllers", f"for {lasts_s:.1f} s", frozenset(), time.monotonic(), lasts_s, end)


def lock_store(site: Site, rng: random.Random) -> Fault | None:
    """Keep everybody from writing to the cluster store, sometimes for longer than Leases last; reads go on."""
    if site.lasting("store"):
        return None
    connection = sqlite3.connect(site.cluster.store_file, isolation_level=None, timeout=5)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        connection.close()
        return None
    lasts_s = rng.uniform(2, 16)
    return Fault(
        "store",
        f"nobody can write to the store for {lasts_s:.1f} s",
        frozenset(),
        time.monotonic(),
        lasts_s,
        connection.close,
    )


# -- volumes -----------------------------------------------------------------------------------------------------------


def fill_disk(site: Site, rng: random.Random) -> Fault | None:
    """Leave a broker's volume without space."""
    broker = _some_leader(site, rng)
    if broker is None or broker not in site.cluster.volumes or site.lasting("full disk"):
        return None
    hit = site.led_by([broker])
    volume = site.cluster.volumes[broker]
    leave = rng.choice((0, 0, 5_000, 100_000))
    at = time.monotonic()
    volume.fill(leave)
    lasts_s = rng.uniform(3, 20)
    what = f"broker {broker} has {leave} bytes left for {lasts_s:.1f} s, {len(hit)} partitions led"
    return Fault("full disk", what, hit, at, lasts_s, volume.free)


def wipe_volume(site: Site, rng: random.Random) -> Fault | None:
    """Kill a broker and take its volume away; only while all others have everything."""
    if site.lasting() or site.cluster.state().problems(site.cluster.brokers):
        return None
    if any(len(state.replicas) < 3 for state in site.cluster.state().partitions.values()):
        return None  # the records would be gone, or be on one volume alone
    broker = _some_broker(site, rng)
    hit, at = site.led_by([broker]), time.monotonic()
    if not site.cluster.wipe_volume(broker):
        return None
    return Fault("wipe", f"broker {broker} lost its volume, {len(hit)} partitions led", hit, at)


# -- leaderships -------------------------------------------------------------------------------------------------------


def elect(site: Site, rng: random.Random) -> Fault | None:
    """Ask for the preferred leaders."""
    del rng
    at = time.monotonic()
    answer = elect_preferred(site.cluster.bootstrap, site.topic)
    return Fault("elect", f"ElectLeaders: {answer}", frozenset(), at)


def reassign(site: Site, rng: random.Random) -> Fault | None:
    """Give some partitions other replicas, or the same ones in another order, and ask for the preferred leaders.

    Partitions really move only where there are more brokers than replicas.
    """
    state, at = site.cluster.state(), time.monotonic()
    replicas = {p.partition: s.replicas for p, s in state.partitions.items() if p.topic == site.topic}
    if not replicas or all(len(of) < 2 for of in replicas.values()):
        return None
    chosen = frozenset(rng.sample(sorted(replicas), rng.randint(1, len(replicas))))
    targets = {n: rng.sample(range(site.cluster.brokers), len(replicas[n])) for n in sorted(chosen)}
    answer = shuffle_replicas(site.cluster.bootstrap, site.topic, targets)
    elected = elect_preferred(site.cluster.bootstrap, site.topic)
    return Fault("reassign", f"{len(chosen)} partitions: {answer}, ElectLeaders: {elected}", chosen, at)


# -- network -----------------------------------------------------------------------------------------------------------


def cut(site: Site, rng: random.Random) -> Fault | None:
    """Cut a broker off from others, in both directions or one, with or without its clients."""
    if site.network is None or site.lasting("cut"):
        return None
    broker = _some_leader(site, rng)
    if broker is None:
        broker = _some_broker(site, rng)
    hit = site.led_by([broker])
    lasts_s = rng.choice((rng.uniform(2, 12), rng.uniform(12, 30), rng.uniform(30, 45)))
    what, heal = site.network.cut(broker, rng)
    return Fault(
        "cut", f"{what} for {lasts_s:.1f} s, {len(hit)} partitions led", hit, time.monotonic(), lasts_s, heal
    )


def slow_link(site: Site, rng: random.Random) -> Fault | None:
    """Make a broker's link slow."""
    if site.network is None or site.lasting("slow link"):
        return None
    broker = _some_broker(site, rng)
    lasts_s = rng.uniform(5, 20)
    what, heal = site.network.slow(broker, rng)
    return Fault(
        "slow link", f"{what} for {lasts_s:.1f} s", site.led_by([broker]), time.monotonic(), lasts_s, heal
    )


KINDS: Mapping[str, tuple[Inject, ...]] = {
    "kill": (kill_one, kill_leader, kill_two, kill_all),
    "pause": (pause_one, pause_leader),
    "full-disk": (fill_disk,),
    "restart": (stop_one, stop_leader),
    "controller": (kill_controller, pause_controller, second_controller),
    "store": (lock_store,),
    "wipe": (wipe_volume,),
    "leaders": (elect, reassign),
    "partition": (cut, cut, slow_link),
}
