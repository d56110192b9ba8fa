"""Everything that reads and writes while a nemesis is at work: two topics, two groups, librdkafka and aiokafka at once.

- `nemesis`: `acks=all`, idempotent, by librdkafka and aiokafka; followed by both, and read again and again;
- `nemesis-acks-1`: acknowledged by leaders alone; what is lost there is counted;
- `nemesis-groups`: read by groups that commit (`group_load`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from tests.crash.ack_watch import AckWatch
from tests.crash.aiokafka_load import AiokafkaLoad
from tests.crash.group_load import GroupLoad
from tests.crash.history import UNREPLICATED, check
from tests.crash.kill_load import Load, Plan, create_topic_of
from tests.crash.nemesis_report import NemesisOutcome
from tests.crash.rereader import Rereader

TOPIC = "nemesis"


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How much of everything."""

    seed: int = 0
    partitions: int = 6
    replicas: int = 3
    min_isr: int = 2
    records_per_s: int = 250
    """By all producers together."""
    groups: bool = True


class NemesisLoad:
    """All clients; `start`, then `finish` when nothing is broken any more."""

    def __init__(self, bootstrap: str, plan: LoadPlan, folder: Path) -> None:
        share = max(10, plan.records_per_s // 5)
        durable = Plan(
            seed=plan.seed,
            partitions=plan.partitions,
            producers=2,
            records_per_s=share,
            topic=TOPIC,
            replicas=plan.replicas,
            min_isr=plan.min_isr,
            segment_bytes=1 << 20,
        )
        relaxed = replace(durable, topic=f"{TOPIC}-acks-1", producers=1, acks="1")
        for topic in (durable, relaxed):
            create_topic_of(bootstrap, topic)
        folder.mkdir(parents=True, exist_ok=True)
        self._durable = Load(bootstrap, durable, folder)
        self._relaxed = Load(bootstrap, relaxed)
        self._aiokafka = AiokafkaLoad(bootstrap, durable, self._durable.history, share)
        self._rereader = Rereader(bootstrap, TOPIC, plan.partitions, f"{plan.seed}/rereader")
        self._groups = (
            GroupLoad(bootstrap, folder, plan.seed, share / 2, plan.replicas) if plan.groups else None
        )
        self.watch = AckWatch(self._durable.history)

    def start(self) -> None:
        """Begin."""
        if self._groups is not None:
            self._groups.start()
        for part in (self._durable, self._relaxed, self._aiokafka, self._rereader):
            part.start()

    def finish(self) -> None:
        """Let everything be delivered and read; read the logs back."""
        self._aiokafka.finish_producing()
        for load in (self._durable, self._relaxed):
            load.finish()
        if self._groups is not None:
            self._groups.finish()
        self._rereader.finish()
        for load in (self._durable, self._relaxed):
            load.read_everything()
        ends: dict[int, int] = {}
        for read in self._durable.history.final:
            ends[read.partition] = max(ends.get(read.partition, 0), read.offset + 1)
        self._aiokafka.finish_reading(ends)
        self._rereader.seen.check(self._durable.history.final)

    def abandon(self) -> None:
        """Let everything end after a failure of the harness, without waiting for it."""
        for part in (self._durable, self._relaxed, self._aiokafka, self._rereader):
            part.abandon()
        if self._groups is not None:
            self._groups.abandon()

    def judge(self, outcome: NemesisOutcome) -> None:
        """Write down what was seen, and all that contradicts."""
        outcome.verdicts["acks=all"] = check(self._durable.history)
        outcome.verdicts["acks=1"] = check(self._relaxed.history, tolerated=UNREPLICATED)
        for part in (self._durable, self._relaxed, self._aiokafka):
            outcome.findings += part.findings
        seen = self._rereader.seen
        outcome.findings += seen.findings
        outcome.counts |= {"passes": self._rereader.passes, "records re-read": seen.reads}
        errors: Counter[str] = outcome.client_errors
        for counts in (self._durable, self._relaxed, self._aiokafka, self._rereader):
            errors.update(counts.client_errors)
        if self._groups is not None:
            verdict = self._groups.verdict
            outcome.findings += self._groups.findings
            outcome.findings += verdict.examples
            outcome.counts |= {
                "delivered to groups": verdict.delivered,
                "commits": verdict.commits,
                "committed offsets read": verdict.reads,
            }
            errors.update({f"group: {text}": count for text, count in self._groups.counts.errors.items()})
        outcome.counts["aiokafka producers"] = self._aiokafka.producers
