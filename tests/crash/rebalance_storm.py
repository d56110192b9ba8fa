"""Consumers that join, leave and die at random while the broker is killed: `python -m tests.crash.rebalance_storm
--minutes 10 --consumers 200`.

One broker under `strandline dev`. A steady idempotent producer writes to several topics. Consumers (librdkafka
with `range` and `cooperative-sticky`, aiokafka with `range`, some static members) live in worker processes:
they leave gracefully one by one and die together when their process gets SIGKILL; the broker gets it too.
In the end nobody leaves any more, all groups must become stable, own every partition once, read and commit
everything, and become empty when all members leave; `storm_check` judges what was seen on the way. Exit status
1 means findings.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.dev_cluster import DevCluster
from tests.crash.storm_check import Place, Register, StormHistory, StormVerdict, check
from tests.crash.storm_cluster import (
    PATIENCE_S,
    BrokerMeter,
    GroupWatch,
    StormProducer,
    committed_offsets,
    create_topics,
    log_ends,
)
from tests.crash.storm_journal import JournalReader, StormCounts
from tests.crash.storm_worker import AIOKAFKA, LIBRDKAFKA, SESSION_TIMEOUT_MS, Slot, WorkerSpec

LONGEST_WAIT_S = 60.0
"""Bound on the time from a record's acknowledgement to its first delivery in each group, kills included."""
SETTLE_S = 90.0
FENCING_S = 30.0
"""So long after a kill a static member may be fenced. One that rejoins while its group rebalances gets its new id
before that is written with the next assignment; a broker that dies in between comes back with the old id. The same
happens with Apache Kafka; applications start such a consumer anew, and so do members here."""
TOPICS = 4
SLOTS_PER_WORKER = 25
SECONDS_PER_LEAVE = 6.0
"""Per group, on average."""
SECONDS_PER_DEATH = 20.0
"""Of one worker process, on average."""


@dataclass(frozen=True, slots=True)
class StormPlan:
    """What a run does."""

    minutes: float = 10.0
    consumers: int = 200
    groups: int = 4
    kills: int = 3
    seed: int = 0
    records_per_s: float = 50.0

    @property
    def group_ids(self) -> list[str]:
        """Names of the groups."""
        return [f"storm-{index}" for index in range(self.groups)]

    @property
    def partitions(self) -> int:
        """Of each topic: a little more in all than a group has members."""
        return max(2, round(1.25 * self.consumers / self.groups / TOPICS))

    def slots(self) -> tuple[list[Slot], list[Slot]]:
        """Return places for librdkafka's consumers and for aiokafka's (every fifth of a group with `range`)."""
        native: list[Slot] = []
        pure: list[Slot] = []
        for index in range(self.consumers):
            group, number = index % self.groups, index // self.groups
            cooperative = group % 2 == 1
            pythonic = not cooperative and number % 5 == 4
            # aiokafka does not know the error that tells a static member that it is fenced.
            static = group % 4 >= 2 and number % 3 == 0 and not pythonic
            name = f"storm-{group}/{number}"
            slot = Slot(
                name,
                f"storm-{group}",
                "cooperative-sticky" if cooperative else "range",
                f"static-{group}-{number}" if static else None,
            )
            (pure if pythonic else native).append(slot)
        # A process that dies should take members of every group along, and no group as a whole.
        random.Random(self.seed).shuffle(native)
        return native, pure


@dataclass(slots=True)
class StormOutcome:
    """What a run found."""

    plan: StormPlan
    verdict: StormVerdict = field(default_factory=StormVerdict)
    counts: StormCounts = field(default_factory=StormCounts)
    meter: BrokerMeter = field(default_factory=BrokerMeter)
    watch: GroupWatch | None = None
    produced: int = 0
    kills: int = 0
    worker_deaths: int = 0
    fenced: int = 0
    """Static members that a kill of the broker left with an id that it does not know."""
    drain_s: float = 0.0
    duration_s: float = 0.0
    findings: list[str] = field(default_factory=list)
    logs: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return self.verdict.ok and not self.findings

    def __str__(self) -> str:
        plan, counts, verdict = self.plan, self.counts, self.verdict
        cpu_s = sum(self.meter.cpu_s.values())
        lines = [
            (
                f"consumers {plan.consumers}  groups {plan.groups}  partitions {TOPICS * plan.partitions}"
                f"  seed {plan.seed}  duration {self.duration_s:.0f} s"
            ),
            (
                f"joins {counts.joins}  leaves {counts.leaves}  deaths {counts.deaths}"
                f" (in {self.worker_deaths} processes)  broker kills {self.kills}"
            ),
            (
                f"records produced {self.produced}  delivered {verdict.delivered}"
                f"  of these duplicates {verdict.duplicates}"
            ),
            (
                f"commits acknowledged {verdict.commits} (per partition)  committed offsets read back {verdict.reads}"
                f"  gone back by a rebalance {verdict.reread_commits}  fenced after a kill {self.fenced}"
            ),
        ]
        lines += [self._group_line(group) for group in plan.group_ids]
        lines += [
            f"drained {self.drain_s:.1f} s after the last record",
            (
                f"broker CPU {cpu_s:.1f} s, {100 * cpu_s / max(self.duration_s, 1):.1f} % of a core"
                f"  peak RSS {self.meter.peak_rss_bytes / 2**20:.0f} MiB"
            ),
        ]
        for name, counter in (("client errors", counts.errors), ("failed commits", counts.failed_commits)):
            if counter:
                lines.append(f"{name}: " + ", ".join(f"{key} x{n}" for key, n in counter.most_common()))
        lines += [f"FINDING {finding}" for finding in (*self.findings, *verdict.examples)]
        if not verdict.ok:
            lines.append(
                "FINDING in all: " + ", ".join(f"{k} {n}" for k, n in sorted(verdict.counts.items()))
            )
        return "\n".join([*lines, self.logs] if self.logs else lines)

    def _group_line(self, group: str) -> str:
        waits = self.verdict.waits_s.get(group) or [0.0]
        unsettled_s = self.watch.longest_unsettled_s[group] if self.watch else 0
        return (
            f"{group}: generations {self.counts.generations[group]}"
            f"  longest time without delivery {self.verdict.gaps_s.get(group, 0):.1f} s"
            f"  wait of a record median {waits[len(waits) // 2]:.1f} s max {waits[-1]:.1f} s"
            f"  longest seen unsettled {unsettled_s:.0f} s"
        )


class Worker:
    """One worker process after the other for the same slots."""

    def __init__(self, folder: Path, name: str, spec: WorkerSpec) -> None:
        self._folder = folder
        self._name = name
        self._spec = spec
        self._lives = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.restart_at = 0.0
        self.journals: list[tuple[Path, float]] = []
        """Journals of processes that ended, and when they did."""

    def start(self, *, start_within_s: float) -> None:
        """Start the next process."""
        self._lives += 1
        journal = self._folder / f"{self._name}.{self._lives}.jsonl"
        journal.touch()
        fields = {name: getattr(self._spec, name) for name in WorkerSpec.__slots__}
        fields |= {
            "journal": str(journal),
            "seed": f"{self._spec.seed}/{self._lives}",
            "start_within_s": start_within_s,
        }
        with (self._folder / f"{self._name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.storm_worker", WorkerSpec(**fields).to_json()],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
        self.journals.append((journal, float("inf")))

    def tell(self, command: str) -> None:
        """Give a running process a command."""
        if self.process is not None and self.process.stdin is not None:
            try:
                self.process.stdin.write(command.encode() + b"\n")
            except BrokenPipeError:
                return  # it ended; `ended` tells how

    def kill(self) -> None:
        """Let all members of the process die: their sockets close, nobody leaves its group."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.ended(PATIENCE_S)

    def ended(self, timeout_s: float) -> int | None:
        """Wait for the process; return its status, None if it still runs."""
        process = self.process
        if process is None:
            return 0
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        if process.stdin is not None:
            process.stdin.close()
        self.process = None
        self.journals[-1] = (self.journals[-1][0], time.monotonic())
        return status

    def said(self) -> str:
        """Return the end of what it wrote to its standard error."""
        return (self._folder / f"{self._name}.log").read_text(errors="replace")[-2000:]


class Storm:
    """One run."""

    def __init__(self, plan: StormPlan, cluster: DevCluster, folder: Path) -> None:
        self.outcome = StormOutcome(plan)
        self._plan = plan
        self._cluster = cluster
        self._rng = random.Random(plan.seed)
        self._killed_at: list[float] = []
        self._history = StormHistory(groups=plan.group_ids)
        topics = [f"storm-{index}" for index in range(TOPICS)]
        create_topics(cluster.bootstrap, topics, plan.partitions)
        self._places = [Place(topic, p) for topic in topics for p in range(plan.partitions)]
        self._producer = StormProducer(cluster.bootstrap, self._places, plan.records_per_s, f"{plan.seed}")
        self._watch = self.outcome.watch = GroupWatch(cluster.bootstrap, plan.group_ids)
        self._workers = self._make_workers(folder, topics)

    def _make_workers(self, folder: Path, topics: list[str]) -> list[Worker]:
        plan = self._plan
        workers = []
        for client, slots in zip((LIBRDKAFKA, AIOKAFKA), plan.slots(), strict=True):
            count = max(1, round(len(slots) / SLOTS_PER_WORKER), 2 if client == LIBRDKAFKA else 0)
            for index in range(count if slots else 0):
                spec = WorkerSpec(
                    bootstrap=self._cluster.bootstrap,
                    client=client,
                    seed=f"{plan.seed}",
                    journal="",
                    topics=topics,
                    slots=slots[index::count],
                    mean_life_s=plan.consumers / plan.groups * SECONDS_PER_LEAVE,
                    mean_pause_s=10.0,
                    start_within_s=0.0,
                )
                workers.append(Worker(folder, f"{client}-{index}", spec))
        return workers

    def run(self) -> None:
        """Do everything; the outcome holds the result."""
        started = time.monotonic()
        self._producer.start()
        for worker in self._workers:
            worker.start(start_within_s=min(20.0, self._plan.minutes * 10))
        try:
            self._rage(started + self._plan.minutes * 60)
            self._settle()
            self._part()
        finally:
            self._producer.stop()
            for worker in self._workers:
                if worker.process is not None:
                    worker.kill()
        self._kill_broker("the kill when all was over")
        outcome = self.outcome
        outcome.duration_s = time.monotonic() - started
        outcome.produced = self._producer.sent
        outcome.findings += self._producer.findings
        self._judge()

    def _rage(self, until: float) -> None:
        rng, plan = self._rng, self._plan
        now = time.monotonic()
        third = (until - now) / max(plan.kills, 1)
        kills = [now + third * (index + rng.uniform(0.3, 0.9)) for index in range(plan.kills)]
        death_at = now + 20 + rng.expovariate(1 / SECONDS_PER_DEATH)
        look_at = now
        while (now := time.monotonic()) < until:
            self.outcome.meter.sample(self._cluster.broker_pid())
            if kills and now >= kills[0]:
                kills.pop(0)
                self._kill_broker(f"kill {self.outcome.kills + 1}")
            if now >= death_at:
                self._kill_worker(now)
                death_at = now + rng.expovariate(1 / SECONDS_PER_DEATH)
            for worker in self._workers:
                if worker.process is None and now >= worker.restart_at:
                    worker.start(start_within_s=5)
            if now >= look_at:
                self._watch.look()
                look_at = now + 2
            time.sleep(0.5)

    def _kill_worker(self, now: float) -> None:
        running = [worker for worker in self._workers if worker.process is not None]
        if len(running) > len(self._workers) / 2:
            worker = self._rng.choice(running)
            worker.kill()
            worker.restart_at = now + self._rng.uniform(0, 20)
            self.outcome.worker_deaths += 1

    def _kill_broker(self, what: str) -> None:
        """Kill the broker, and read back all commits as soon as it serves again."""
        self.outcome.meter.sample(self._cluster.broker_pid())
        pid = self._cluster.signal_broker(signal.SIGKILL)
        self.outcome.kills += 1
        self._killed_at.append(time.monotonic())
        self._cluster.wait_for_broker(other_than=pid)
        self._probe(f"probe after {what}")

    def _probe(self, who: str) -> dict[str, dict[Place, int]]:
        """Read all committed offsets, then all log ends, with fresh clients."""
        found = {
            group: committed_offsets(self._cluster.bootstrap, group, self._places, who)
            for group in self._plan.group_ids
        }
        ends = log_ends(self._cluster.bootstrap, self._places)
        for group, reads in found.items():
            for place, read in reads.items():
                self._history.probes[Register(group, place)].append(read)
                self._history.ends_seen.append((Register(group, place), read.offset, ends[place], who))
        return {
            group: {place: read.offset for place, read in reads.items()} for group, reads in found.items()
        }

    def _settle(self) -> None:
        """Nobody leaves or dies any more: everything is read and committed, every group becomes stable."""
        for worker in self._workers:
            if worker.process is None:
                worker.start(start_within_s=0)
            worker.tell("calm")
        self._producer.stop()
        self._history.ends = ends = log_ends(self._cluster.bootstrap, self._places)
        started = time.monotonic()
        wanted = {place: end for place, end in ends.items() if end}
        behind = dict.fromkeys(self._plan.group_ids, 1)
        unsettled = list(behind)
        while (any(behind.values()) or unsettled) and time.monotonic() < started + SETTLE_S:
            time.sleep(2)
            self.outcome.meter.sample(self._cluster.broker_pid())
            offsets = self._probe("probe while draining")
            behind = {
                group: sum(end - max(of[place], 0) for place, end in wanted.items())
                for group, of in offsets.items()
            }
            if not any(behind.values()) and not self.outcome.drain_s:
                self.outcome.drain_s = time.monotonic() - started
            unsettled = self._not_whole()
        for group, count in behind.items():
            if count:
                self.outcome.findings.append(f"{group}: {count} records not committed after {SETTLE_S:.0f} s")
        self.outcome.findings += unsettled

    def _not_whole(self) -> list[str]:
        """Return which groups are not stable with all consumers, or do not own every partition once."""
        members = dict.fromkeys(self._plan.group_ids, 0)
        for slot in (slot for slots in self._plan.slots() for slot in slots):
            members[slot.group] += 1
        found = self._watch.look()
        faults = {
            group: found[group].fault(count, self._places) if group in found else "not described"
            for group, count in members.items()
        }
        return [f"{group}: {fault}" for group, fault in faults.items() if fault]

    def _part(self) -> None:
        """Everybody leaves; static members are missed when their sessions end."""
        for worker in self._workers:
            worker.tell("finish")
        deadline = time.monotonic() + PATIENCE_S
        for worker in self._workers:
            status = worker.ended(max(0.1, deadline - time.monotonic()))
            if status != 0:
                self.outcome.findings.append(f"a worker ended with {status}: {worker.said()}")
        deadline = time.monotonic() + SESSION_TIMEOUT_MS / 1000 + PATIENCE_S
        occupied = set(self._plan.group_ids)
        while occupied and time.monotonic() < deadline:
            time.sleep(1)
            found = self._watch.look()
            occupied -= {group for group, of in found.items() if of.state == "Empty"}
        self.outcome.findings += [f"{group} does not become empty" for group in sorted(occupied)]

    def _judge(self) -> None:
        self._history.acks = self._producer.acks
        reader = JournalReader(self._history, self.outcome.counts)
        for worker in self._workers:
            for path, ended_at in worker.journals:
                reader.read(path, ended_at=ended_at)
        for text, count in self.outcome.counts.errors.items():
            if "member ended" in text:
                self.outcome.findings.append(f"{text} x{count}")
        for at, consumer, text in self.outcome.counts.fatal:
            excused = any(0 < at - killed_at < FENCING_S for killed_at in self._killed_at)
            if excused and "fenced" in text:
                self.outcome.fenced += 1
            else:
                self.outcome.findings.append(f"{consumer}: {text}")
        self.outcome.verdict = check(self._history, longest_wait_s=LONGEST_WAIT_S)
        if not self.outcome.ok:
            self.outcome.logs = self._cluster.tail()


def run(plan: StormPlan, folder: Path) -> StormOutcome:
    """Run one plan in an empty folder."""
    with DevCluster(folder / "cluster") as cluster:
        storm = Storm(plan, cluster, folder)
        storm.run()
        return storm.outcome


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0, help="of joining, leaving and dying")
    parser.add_argument("--consumers", type=int, default=200, help="in all groups")
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument(
        "--kills", type=int, default=3, help="of the broker during the storm; one more follows"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--records-per-s", type=float, default=50.0)
    parser.add_argument("--data-dir", type=Path, help="kept when given")
    arguments = parser.parse_args()
    plan = StormPlan(
        minutes=arguments.minutes,
        consumers=arguments.consumers,
        groups=arguments.groups,
        kills=arguments.kills,
        seed=arguments.seed,
        records_per_s=arguments.records_per_s,
    )
    with tempfile.TemporaryDirectory(prefix="strandline-storm-") as scratch:
        folder = arguments.data_dir or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = run(plan, folder)
    print(outcome)  # noqa: T201 - the summary is what this program is for
    return 0 if outcome.ok else 1


if __name__ == "__main__":
    sys.exit(main())
