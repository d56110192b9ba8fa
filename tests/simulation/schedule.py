"""What happens in one schedule, drawn from a seed before anything runs: the cluster, its clients, and every fault.

A schedule is data, so that shrinking can leave out single faults and operations and run the rest again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

DURATION_S = 60.0
"""For so long clients work; faults come between FIRST_FAULT_S and LAST_FAULT_S and are over by DURATION_S."""
FIRST_FAULT_S = 4.0
LAST_FAULT_S = 48.0
FAULTS_LEAST = 5
OPERATIONS_LEAST = 1_000
"""Client operations (`journal.OPERATIONS`) of a drawn schedule: who did fewer by DURATION_S works on."""
INTERVAL_S = 1.3
"""Between two batches of a producer for one partition: not much more work than OPERATIONS_LEAST, for seeds to be cheap."""
BROKERS = 3


@dataclass(frozen=True)
class Step:
    """One fault or operation: at which time, what, and its details (`faults.py` knows what they mean)."""

    at: float
    kind: str
    details: dict[str, Any]

    def __str__(self) -> str:
        details = " ".join(f"{name}={value}" for name, value in self.details.items())
        return f"{self.at:7.3f} {self.kind} {details}"


@dataclass(frozen=True)
class TopicPlan:
    """A topic that is there from the start."""

    name: str
    partitions: int
    config: dict[str, str]

    @property
    def may_lose(self) -> bool:
        """Whether unclean elections may lose records of it, acknowledged ones too: what is in the bucket stays."""
        return self.config.get("unclean.leader.election.enable") == "true"


@dataclass(frozen=True)
class Schedule:
    """See the module."""

    seed: int
    topics: tuple[TopicPlan, ...]
    steps: tuple[Step, ...]
    flush: str = "Fsync"
    producers: int = 2
    interval_s: float = 0.3
    consumers: int = 1
    members: int = 2
    settings: dict[str, str] = field(default_factory=dict)
    duration_s: float = DURATION_S
    operations: int = 0
    """So many client operations at least; see OPERATIONS_LEAST."""
    tiering: bool = False
    """Whether there is a bucket (`tiering_schedule.py`)."""


def topics(minimum_a: str = "2", minimum_b: str = "2", segment_bytes: int = 20_000) -> tuple[TopicPlan, ...]:
    """Return the two topics of all schedules; `minimum_...` is their min.insync.replicas."""
    return (
        TopicPlan("a", 2, {"min.insync.replicas": minimum_a, "internal.segment.bytes": str(segment_bytes)}),
        TopicPlan("b", 1, {"min.insync.replicas": minimum_b}),
    )


Draw = Callable[[random.Random], dict[str, Any]]


def _node(rng: random.Random) -> int:
    return rng.randrange(BROKERS)


def _down(rng: random.Random) -> float:
    """Short enough to be missed by a Lease, or long enough to be noticed."""
    return round(rng.choice((rng.uniform(0.3, 1.5), rng.uniform(2, 8))), 3)


def _lasting(rng: random.Random) -> float:
    return round(rng.choice((rng.uniform(0.2, 2), rng.uniform(2, 9))), 3)


def _kill(rng: random.Random) -> dict[str, Any]:
    return {"node": _node(rng), "down": _down(rng)}


def _power_off(rng: random.Random) -> dict[str, Any]:
    within = rng.choice((0, 0, rng.randint(1, 60)))
    stall = rng.choice((0.0, 0.0, 0.5))
    return {
        "node": _node(rng),
        "down": _down(rng),
        "torn": rng.random() < 0.5,
        "within": within,
        "stall": stall,
    }


def _pause(rng: random.Random) -> dict[str, Any]:
    return {"node": _node(rng), "lasts": _lasting(rng)}


def _cut_brokers(rng: random.Random) -> dict[str, Any]:
    first, second = rng.sample(range(BROKERS), 2)
    return {
        "hosts": [f"broker-{first}", f"broker-{second}"],
        "both": rng.random() < 0.6,
        "reset": rng.random() < 0.5,
        "lasts": _lasting(rng),
    }


def _isolate(rng: random.Random) -> dict[str, Any]:
    """Cut a broker off from the other brokers, from the store too, or from the store only."""
    return {"node": _node(rng), "store": rng.choice(("too", "only", "no")), "lasts": _lasting(rng)}


def _cut_controller(rng: random.Random) -> dict[str, Any]:
    return {
        "hosts": ["controller-0", "store"],
        "both": rng.random() < 0.6,
        "reset": False,
        "lasts": _lasting(rng),
    }


def _cut_client(rng: random.Random) -> dict[str, Any]:
    return {
        "client": rng.randrange(6),
        "node": _node(rng),
        "both": rng.random() < 0.5,
        "lasts": _lasting(rng),
    }


def _reset(rng: random.Random) -> dict[str, Any]:
    return {"node": _node(rng), "clients": rng.random() < 0.7}


def _slow_link(rng: random.Random) -> dict[str, Any]:
    first, second = rng.sample(range(BROKERS), 2)
    extra = round(rng.uniform(0.05, 1.0), 3)
    return {"hosts": [f"broker-{first}", f"broker-{second}"], "extra": extra, "lasts": _lasting(rng)}


def _slow_disk(rng: random.Random) -> dict[str, Any]:
    return {"node": _node(rng), "stall": round(rng.choice((0.05, 0.3, 2.0)), 3), "lasts": _lasting(rng)}


def _full_disk(rng: random.Random) -> dict[str, Any]:
    return {"node": _node(rng), "room": rng.choice((0, 200, 5_000)), "lasts": _lasting(rng)}


def _failing_sync(rng: random.Random) -> dict[str, Any]:
    return {"node": _node(rng), "skip": rng.randint(0, 5), "times": rng.randint(1, 3)}


def _store(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(("away", "refused", "lost_answer", "late_write"))
    return {"what": kind, "chance": round(rng.uniform(0.2, 0.9), 2), "lasts": _lasting(rng)}


def _watch(rng: random.Random) -> dict[str, Any]:
    host = rng.choice([*(f"broker-{number}" for number in range(BROKERS)), "controller-0"])
    return {"host": host, "lag": round(rng.uniform(0.2, 4.0), 3), "lasts": _lasting(rng)}


def _end_watches(rng: random.Random) -> dict[str, Any]:
    host = rng.choice([*(f"broker-{number}" for number in range(BROKERS)), "controller-0"])
    return {"host": host, "how": rng.choice(("end", "gone", "unavailable"))}


def _clock(rng: random.Random) -> dict[str, Any]:
    return {"node": _node(rng), "ms": rng.choice((-3_600_000, -30_000, -2_000, 2_000, 30_000, 3_600_000))}


def _controller(rng: random.Random) -> dict[str, Any]:
    return {"how": rng.choice(("restart", "pause", "second")), "lasts": _lasting(rng)}


def _blackout(rng: random.Random) -> dict[str, Any]:
    """The store is away, and brokers are started anew from what they remember."""
    return {
        "nodes": sorted(rng.sample(range(BROKERS), rng.randint(1, BROKERS))),
        "how": rng.choice(("kill", "stop", "power")),
        "lasts": round(rng.uniform(3, 8), 3),
    }


def _power_cut(rng: random.Random) -> dict[str, Any]:
    """All machines lose their power at once, perhaps while their disks are behind."""
    return {
        "down": [round(rng.uniform(0.3, 3), 3) for _ in range(BROKERS)],
        "torn": rng.random() < 0.5,
        "stall": rng.choice((0.0, 0.3, 1.0)),
    }


def _election(rng: random.Random) -> dict[str, Any]:
    return {}


def _min_isr(rng: random.Random) -> dict[str, Any]:
    return {"topic": "b", "value": rng.choice((1, 2, 2, 3))}


def _reassign(rng: random.Random) -> dict[str, Any]:
    replicas = rng.sample(range(BROKERS), rng.choice((2, 3, 3)))
    return {"topic": rng.choice("ab"), "partition": 0, "replicas": replicas}


def _add_partitions(rng: random.Random) -> dict[str, Any]:
    return {"topic": "a", "count": rng.randint(3, 4)}


def _create_topic(rng: random.Random) -> dict[str, Any]:
    return {"topic": f"new-{rng.randrange(1000)}", "partitions": rng.randint(1, 2)}


FAULTS: dict[str, tuple[int, Draw]] = {
    "kill": (5, _kill),
    "power-off": (6, _power_off),
    "stop": (4, _kill),
    "wipe": (1, _kill),
    "pause": (4, _pause),
    "cut-brokers": (5, _cut_brokers),
    "isolate": (5, _isolate),
    "cut-controller": (1, _cut_controller),
    "cut-client": (3, _cut_client),
    "reset": (3, _reset),
    "slow-link": (2, _slow_link),
    "slow-disk": (3, _slow_disk),
    "full-disk": (2, _full_disk),
    "failing-sync": (2, _failing_sync),
    "store": (5, _store),
    "watch-lag": (3, _watch),
    "end-watches": (2, _end_watches),
    "clock": (2, _clock),
    "controller": (3, _controller),
    "blackout": (2, _blackout),
    "power-cut": (3, _power_cut),
}
OPERATIONS: dict[str, tuple[int, Draw]] = {
    "elect-preferred": (3, _election),
    "min-isr": (2, _min_isr),
    "reassign": (4, _reassign),
    "add-partitions": (1, _add_partitions),
    "create-topic": (1, _create_topic),
}


def draw(seed: int) -> Schedule:
    """Return the schedule of a seed."""
    rng = random.Random(f"schedule {seed}")
    replicated = rng.random() < 0.15
    steps: list[Step] = []
    for table, count in ((FAULTS, rng.randint(FAULTS_LEAST, 11)), (OPERATIONS, rng.randint(0, 4))):
        steps += [draw_step(rng, table) for _ in range(count)]
    steps.sort(key=_at)
    minimum_b = rng.choice(("1", "2", "2"))
    plans = topics(minimum_b=minimum_b, segment_bytes=rng.choice((5_000, 50_000)))
    steps = allowed(steps, minimum_b, replicated=replicated)
    while sum(step.kind in FAULTS for step in steps) < FAULTS_LEAST:
        # Others for those that were left out.
        steps = allowed(sorted([*steps, draw_step(rng, FAULTS)], key=_at), minimum_b, replicated=replicated)
    return Schedule(
        seed,
        plans,
        tuple(steps),
        flush="Replicated" if replicated else "Fsync",
        interval_s=INTERVAL_S,
        operations=OPERATIONS_LEAST,
    )


def draw_step(rng: random.Random, table: dict[str, tuple[int, Draw]]) -> Step:
    """Return one of the steps of a table, by their weights."""
    kind = rng.choices(list(table), [weight for weight, _ in table.values()])[0]
    at = round(rng.uniform(FIRST_FAULT_S, LAST_FAULT_S), 3)
    return Step(at, kind, table[kind][1](rng))


def _at(step: Step) -> float:
    return step.at


def allowed(steps: list[Step], minimum_b: str, *, replicated: bool) -> list[Step]:
    """Leave out what may lose acknowledged records by right: those losses are no bugs.

    A wiped volume may hold the only copy of what one replica acknowledged alone, and so may a machine without power
    where acknowledgement comes from page cache. One such end in a schedule is survived when two replicas acknowledge.
    """
    kept: list[Step] = []
    losses = 0
    for step in steps:
        loses = step.kind == "wipe" or (
            replicated
            and (
                step.kind in ("power-off", "power-cut", "failing-sync") or step.details.get("how") == "power"
            )
        )
        if loses:
            losses += 1
            everybody = step.kind == "power-cut" or len(step.details.get("nodes", ())) > 1
            if losses > 1 or minimum_b == "1" or everybody:
                continue
        kept.append(step)
    if losses:
        kept = [step for step in kept if not (step.kind == "min-isr" and step.details["value"] == 1)]
    return kept
