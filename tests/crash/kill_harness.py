"""Kill a broker again and again under load, then check the history: `python -m tests.crash.kill_harness
--kills 100`.

One broker under `strandline dev`, which restarts it. Idempotent librdkafka producers with `acks=all` write
numbered records to all partitions of one topic, a concurrent reader follows, and the broker gets `kill -9`
at random moments, also while it recovers from the last one. In the end everything is read back and
`history.check` judges. A fatal error of a producer and a client that stays stuck are findings too. Exit
status 1 means findings.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.crash.dev_cluster import DevCluster
from tests.crash.history import Verdict, check
from tests.crash.kill_load import STUCK_S, Load, Plan, create_topic


@dataclass(slots=True)
class Outcome:
    """What a run found."""

    plan: Plan
    verdict: Verdict = field(default_factory=Verdict)
    kills: int = 0
    findings: list[str] = field(default_factory=list)
    client_errors: Counter[str] = field(default_factory=Counter)
    outages_s: list[float] = field(default_factory=list)
    """From a kill to the next acknowledgement, the supervisor's back-off included."""
    recoveries_s: list[float] = field(default_factory=list)
    """From the start of the next process to the next acknowledgement."""
    duration_s: float = 0.0
    logs: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return self.verdict.ok and not self.findings

    def __str__(self) -> str:
        counts = self.verdict.counts
        lines = [
            f"kills {self.kills}  seed {self.plan.seed}  duration {self.duration_s:.0f} s",
            f"acked {self.verdict.acked}  sent {self.verdict.sent}  read {self.verdict.read}",
            "  ".join(f"{rule} {counts.get(rule, 0)}" for rule in ("lost", "duplicated", "reordered")),
        ]
        for name, times_s in (("outage", self.outages_s), ("recovery", self.recoveries_s)):
            if times_s:
                middle = sorted(times_s)[len(times_s) // 2]
                lines.append(f"longest {name} {max(times_s):.2f} s  median {middle:.2f} s")
        if self.client_errors:
            lines.append(
                "client errors: " + ", ".join(f"{k} x{n}" for k, n in self.client_errors.most_common())
            )
        lines += [f"FINDING {finding}" for finding in self.findings]
        if not self.verdict.ok:
            lines.append(f"FINDING {self.verdict}")
        if self.logs:
            lines.append(self.logs)
        return "\n".join(lines)


def run(plan: Plan, data_dir: Path, *, options: tuple[str, ...] = ()) -> Outcome:
    """Run one plan in an empty folder."""
    outcome = Outcome(plan)
    rng = random.Random(plan.seed)
    started = time.monotonic()
    with DevCluster(data_dir, options=options) as cluster:
        create_topic(cluster.bootstrap, plan.partitions)
        load = Load(cluster.bootstrap, plan)
        load.start()
        try:
            for _ in range(plan.kills):
                # One in four hits the broker while it is starting or recovering.
                time.sleep(rng.uniform(0, 0.3) if rng.random() < 0.25 else rng.uniform(0.2, plan.max_gap_s))
                pid = cluster.signal_broker(signal.SIGKILL)
                killed_at = time.monotonic()
                outcome.kills += 1
                cluster.wait_for_broker(other_than=pid)
                restarted_at = time.monotonic()
                if rng.random() < 0.75:
                    if not _wait_for_ack(load, restarted_at):
                        outcome.findings.append(
                            f"no acknowledgement {STUCK_S:.0f} s after kill {outcome.kills}"
                        )
                        break
                    outcome.outages_s.append(load.last_ack_at - killed_at)
                    outcome.recoveries_s.append(load.last_ack_at - restarted_at)
            if not _wait_for_ack(load, time.monotonic()):
                outcome.findings.append(f"no acknowledgement {STUCK_S:.0f} s after the last kill")
        finally:
            load.finish()
        load.read_everything()
        outcome.verdict = check(load.history)
        outcome.findings += load.findings
        outcome.client_errors = load.client_errors
        if not outcome.ok:
            outcome.logs = cluster.tail()
    outcome.duration_s = time.monotonic() - started
    return outcome


def _wait_for_ack(load: Load, since: float) -> bool:
    """Wait for the first acknowledgement after `since`; return False if none came in a minute."""
    while load.last_ack_at <= since:
        if time.monotonic() - since > STUCK_S:
            return False
        time.sleep(0.002)
    return True


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100, help="in all")
    parser.add_argument(
        "--clusters", type=int, default=4, help="run side by side: most of the time is back-off"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--producers", type=int, default=3)
    parser.add_argument("--records-per-s", type=int, default=100, help="per producer")
    parser.add_argument("--max-gap-s", type=float, default=2.0, help="longest time from a restart to a kill")
    parser.add_argument("--data-dir", type=Path, help="kept when given")
    parser.add_argument("--option", action="append", default=[], help="passed on to strandline dev")
    arguments = parser.parse_args()
    clusters = min(arguments.clusters, arguments.kills)
    plan = Plan(
        kills=arguments.kills // clusters,
        partitions=arguments.partitions,
        producers=arguments.producers,
        records_per_s=arguments.records_per_s,
        max_gap_s=arguments.max_gap_s,
    )
    left = arguments.kills - plan.kills * clusters
    plans = [
        replace(plan, seed=arguments.seed + i, kills=plan.kills + (left if i == 0 else 0))
        for i in range(clusters)
    ]
    with (
        tempfile.TemporaryDirectory(prefix="strandline-kills-") as scratch,
        ThreadPoolExecutor(clusters) as pool,
    ):
        root = arguments.data_dir or Path(scratch)
        jobs = [
            pool.submit(run, plan, root / str(plan.seed), options=tuple(arguments.option)) for plan in plans
        ]
        outcomes = [job.result() for job in jobs]
    for outcome in outcomes:
        print(outcome, end="\n\n")  # noqa: T201 - the summary is what this program is for
    counts = sum((Counter(outcome.verdict.counts) for outcome in outcomes), Counter[str]())
    totals = {
        "kills": sum(outcome.kills for outcome in outcomes),
        "acked": sum(outcome.verdict.acked for outcome in outcomes),
        "read": sum(outcome.verdict.read for outcome in outcomes),
        **{rule: counts[rule] for rule in ("lost", "duplicated", "reordered")},
        "findings": sum(len(outcome.findings) for outcome in outcomes) + counts.total(),
    }
    print("total:", "  ".join(f"{name} {number}" for name, number in totals.items()))  # noqa: T201
    return 0 if all(outcome.ok for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
