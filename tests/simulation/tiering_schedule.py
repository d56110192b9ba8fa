"""Schedules that tier, drawn from the seeds from TIERING_SEEDS on: small segments, short local retention, a failing bucket.

The other seeds draw what they always drew (`schedule.draw`): what was recorded of them stays true.
"""

from __future__ import annotations

import random
from typing import Any

from tests.simulation.bucket import BUCKET_HOST, REQUESTS
from tests.simulation.schedule import (
    BROKERS,
    FAULTS,
    FAULTS_LEAST,
    FIRST_FAULT_S,
    INTERVAL_S,
    LAST_FAULT_S,
    OPERATIONS,
    OPERATIONS_LEAST,
    Draw,
    Schedule,
    Step,
    TopicPlan,
    allowed,
    draw,
    draw_step,
)

TIERING_SEEDS = 1_000_000
MAY_LOSE = TopicPlan(
    "u",
    1,
    {
        "min.insync.replicas": "1",
        "unclean.leader.election.enable": "true",
        "internal.segment.bytes": "400",
        "remote.storage.enable": "true",
        "local.retention.bytes": "400",
    },
)
"""Of this topic only what is in the bucket survives unclean elections, and that does."""
_MAX_UNUPLOADED_AGE_MS = (2_000, 4_000, 8_000)


def tiered_topics(
    minimum_b: str = "2",
    segment_bytes: int = 800,
    local: dict[str, str] | None = None,
    total: dict[str, str] | None = None,
) -> tuple[TopicPlan, ...]:
    """Return two topics: `a` keeps everything, in the bucket mostly; `b` has `total` as its retention in both tiers."""
    segments = {"internal.segment.bytes": str(segment_bytes), "remote.storage.enable": "true"}
    short = local if local is not None else {"local.retention.bytes": "600"}
    return (
        TopicPlan("a", 2, {"min.insync.replicas": "2", **segments, **short}),
        TopicPlan("b", 1, {"min.insync.replicas": minimum_b, **segments, **short, **(total or {})}),
    )


def tiering_settings(max_unuploaded_age_ms: int = 3_000, scrub_interval_ms: int = 10_000) -> dict[str, str]:
    """Return the broker settings of a schedule that tiers: everything that is done now and then is done soon."""
    return {
        "tiering_max_unuploaded_age_ms": str(max_unuploaded_age_ms),
        "tiering_scrub_interval_ms": str(scrub_interval_ms),
        "tiering_cache_memory_bytes": str(24 << 20),
        "log_retention_check_interval_ms": "1500",
    }


def _hosts(rng: random.Random) -> list[str]:
    """Return all brokers, or one."""
    hosts = [f"broker-{number}" for number in range(BROKERS)]
    return hosts if rng.random() < 0.4 else [rng.choice(hosts)]


def _lasting(rng: random.Random) -> float:
    return round(rng.choice((rng.uniform(0.5, 3), rng.uniform(3, 10))), 3)


def _bucket(rng: random.Random) -> dict[str, Any]:
    """Requests fail, each way with its chance; or all of them do."""
    kind = rng.choice(("UNAVAILABLE", "STALLED", "SLOW_DOWN", "LOST_ANSWER", "LATE", "TWICE", "mixed"))
    if kind == "mixed":
        names = ("UNAVAILABLE", "SLOW", "STALLED", "LOST_ANSWER", "LATE", "TWICE", "DAMAGED")
        rates = dict.fromkeys(names, round(rng.uniform(0.03, 0.1), 3))
    else:
        rates = {kind: rng.choice((1.0, round(rng.uniform(0.2, 0.7), 2)))}
    requests = rng.choice(("", "", "", "put", "put segment", "put manifest", "list", "get", "delete"))
    return {"hosts": _hosts(rng), "rates": rates, "requests": requests, "lasts": _lasting(rng)}


def _cut_bucket(rng: random.Random) -> dict[str, Any]:
    return {
        "hosts": [f"broker-{rng.randrange(BROKERS)}", BUCKET_HOST],
        "both": rng.random() < 0.5,
        "reset": False,
        "lasts": _lasting(rng),
    }


def _trap(rng: random.Random) -> dict[str, Any]:
    """At some request to the bucket, something happens to the broker that sends it."""
    return {
        "request": rng.choice((*REQUESTS, "put segment", "put manifest", "delete")),
        "skip": rng.choice((0, 0, 1, 2, 5)),
        "when": rng.choice(("before", "after", "late")),
        "how": rng.choice(("kill", "kill", "power", "pause", "isolate")),
        "lasts": round(rng.choice((rng.uniform(0.3, 2), rng.uniform(4, 9))), 3),
    }


def _local_trap(rng: random.Random) -> dict[str, Any]:
    """A broker ends while it gives up a segment: before or after one of its files goes, or the log start is written."""
    return {
        "node": rng.randrange(BROKERS),
        "skip": rng.randint(0, 8),
        "how": rng.choice(("kill", "power")),
        "lasts": round(rng.choice((rng.uniform(0.3, 2), rng.uniform(4, 9))), 3),
    }


def _wipe(rng: random.Random) -> dict[str, Any]:
    return {"node": rng.randrange(BROKERS), "down": round(rng.uniform(0.3, 6), 3)}


def _unclean(rng: random.Random) -> dict[str, Any]:
    """A leader is alone for so long, and then away."""
    return {
        "topic": MAY_LOSE.name,
        "alone": round(rng.uniform(3.0, 7.0), 3),
        "how": rng.choice(("kill", "isolate", "pause")),
        "lasts": round(rng.uniform(5.0, 9.0), 3),
    }


def _delete_records(rng: random.Random) -> dict[str, Any]:
    """Records go up to some share of what is acknowledged."""
    topic, partition = rng.choice((("a", 0), ("a", 1), ("b", 0)))
    return {"topic": topic, "partition": partition, "share": round(rng.uniform(0.2, 1.0), 2)}


TIER_FAULTS: dict[str, tuple[int, Draw]] = {
    "bucket": (5, _bucket),
    "cut-bucket": (2, _cut_bucket),
    "trap": (8, _trap),
    "local-trap": (3, _local_trap),
    "wipe": (2, _wipe),
}
UNCLEAN: dict[str, tuple[int, Draw]] = {"unclean": (1, _unclean)}
"""For schedules with a topic that may lose records."""
TIER_OPERATIONS: dict[str, tuple[int, Draw]] = {
    "delete-records": (3, _delete_records),
    "reassign": OPERATIONS["reassign"],
    "elect-preferred": OPERATIONS["elect-preferred"],
}
ALL_FAULTS = frozenset(FAULTS) | frozenset(TIER_FAULTS) | frozenset(UNCLEAN)


def draw_tiering(seed: int) -> Schedule:
    """Return the schedule of a seed, TIERING_SEEDS or higher."""
    rng = random.Random(f"tiering schedule {seed}")
    replicated = rng.random() < 0.15
    steps: list[Step] = []
    for table, count in (
        (FAULTS, rng.randint(3, 6)),
        (TIER_FAULTS, rng.randint(3, 6)),
        (OPERATIONS, rng.randint(0, 2)),
        (TIER_OPERATIONS, rng.randint(1, 4)),
    ):
        steps += [draw_step(rng, table) for _ in range(count)]
    if rng.random() < 0.4:
        steps += _moved_away_and_back(rng)
    steps.sort(key=lambda step: step.at)
    minimum_b = rng.choice(("1", "2", "2"))
    steps = allowed(steps, minimum_b, replicated=replicated)
    while sum(step.kind in ALL_FAULTS for step in steps) < FAULTS_LEAST:
        more = [*steps, draw_step(rng, TIER_FAULTS)]
        steps = allowed(sorted(more, key=lambda step: step.at), minimum_b, replicated=replicated)
    local = rng.choice(
        ({"local.retention.bytes": str(rng.choice((1, 600, 1_500)))}, {"local.retention.ms": "3000"})
    )
    total = rng.choice(({}, {"retention.bytes": "3000"}, {"retention.ms": "15000"}))
    plans = tiered_topics(minimum_b, rng.choice((500, 800, 1_500)), local, total)
    settings = tiering_settings(rng.choice(_MAX_UNUPLOADED_AGE_MS), rng.choice((4_000, 12_000)))
    if rng.random() < 0.3:
        plans += (MAY_LOSE,)
        steps += [draw_step(rng, UNCLEAN) for _ in range(rng.randint(1, 3))]
        steps.sort(key=lambda step: step.at)
    return Schedule(
        seed,
        plans,
        tuple(steps),
        flush="Replicated" if replicated else "Fsync",
        interval_s=INTERVAL_S,
        settings=settings,
        operations=OPERATIONS_LEAST,
        tiering=True,
    )


def _moved_away_and_back(rng: random.Random) -> list[Step]:
    """Take a replica from a partition and, a while later, give it one again: a new one begins behind the bucket."""
    at = round(rng.uniform(FIRST_FAULT_S, LAST_FAULT_S - 12), 3)
    place = {"topic": rng.choice("ab"), "partition": 0}
    everybody = rng.sample(range(BROKERS), BROKERS)
    return [
        Step(at, "reassign", {**place, "replicas": everybody[:2]}),
        Step(at + 9, "reassign", {**place, "replicas": everybody[::-1]}),
    ]


def schedule_of(seed: int) -> Schedule:
    """Return the schedule of any seed."""
    return draw_tiering(seed) if seed >= TIERING_SEEDS else draw(seed)
