"""A process full of group members: `python -m tests.crash.storm_worker SPEC`, started by `rebalance_storm`.

SPEC is a `WorkerSpec` as JSON. Members live for a random time, leave, pause and come back; to die, the
whole process gets SIGKILL. On standard input it takes `calm` (nobody leaves any more) and `finish` (everybody
leaves for good, the process ends); it ends at once when the input is closed. Everything that members see and
do goes to a journal (`storm_journal`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from tests.crash.storm_check import Place
from tests.crash.storm_journal import Journal

COMMIT_EVERY_S = 2.0
SESSION_TIMEOUT_MS = 6000
REBALANCE_TIMEOUT_MS = 20_000
HEARTBEAT_MS = 2000
FETCH_WAIT_MS = 2000
FETCH_MIN_BYTES = 2000
LIBRDKAFKA, AIOKAFKA = "librdkafka", "aiokafka"


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one consumer at a time; with `instance_id` it is a static member. Name: GROUP/NUMBER."""

    name: str
    group: str
    strategy: str
    instance_id: str | None


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What one process runs."""

    bootstrap: str
    client: str
    seed: str
    journal: str
    topics: list[str]
    slots: list[Slot]
    mean_life_s: float
    mean_pause_s: float
    start_within_s: float

    def to_json(self) -> str:
        """Return the command line argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerSpec:
        """Read the command line argument."""
        fields = json.loads(text)
        return cls(**{**fields, "slots": [Slot(**slot) for slot in fields["slots"]]})


class Control:
    """What the storm wants of this process."""

    def __init__(self) -> None:
        self.calm = threading.Event()
        self.finish = threading.Event()

    def follow(self) -> None:
        """Obey standard input until it ends; then nobody is left to report to."""
        for line in sys.stdin:
            self.calm.set()
            if line.strip() == "finish":
                self.finish.set()
        os._exit(0 if self.finish.is_set() else 1)


class Life:
    """When a member lives and when it pauses; told by the storm's seed."""

    def __init__(self, spec: WorkerSpec, slot: Slot, control: Control) -> None:
        self._rng = random.Random(f"{spec.seed}/{slot.name}")
        self._spec = spec
        self._control = control
        self._ends_at = 0.0
        self._resumes_at = time.monotonic() + self._rng.uniform(0, spec.start_within_s)

    @property
    def paused(self) -> bool:
        """Whether to wait before the next life."""
        waits = time.monotonic() < self._resumes_at and not self._control.calm.is_set()
        return waits and not self._control.finish.is_set()

    def begin(self) -> None:
        """Begin a life of random length."""
        self._ends_at = time.monotonic() + 2 + self._rng.expovariate(1 / self._spec.mean_life_s)

    @property
    def goes_on(self) -> bool:
        """Whether the member should stay."""
        if self._control.finish.is_set():
            return False
        return self._control.calm.is_set() or time.monotonic() < self._ends_at

    def end(self) -> None:
        """Begin a pause of random length."""
        self._resumes_at = time.monotonic() + self._rng.expovariate(1 / self._spec.mean_pause_s)


class Progress:
    """Where one member stands; writes down deliveries before they can be committed."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal = journal
        self._name = name
        self._positions: dict[Place, int] = {}
        self._committed: dict[Place, int] = {}
        self._commits = 0

    def assigned(self, generation: int, places: list[Place]) -> None:
        """Take note of new partitions."""
        self._journal.write("assigned", self._name, generation, places)

    def revoked(self, places: list[Place]) -> None:
        """Take note of partitions that are gone."""
        self._journal.write("revoked", self._name, places)
        for place in places:
            self._positions.pop(place, None)
            self._committed.pop(place, None)

    def delivered(self, records: list[tuple[Place, int, int]]) -> None:
        """Take records: (place, offset, number)."""
        runs: list[tuple[Place, int, list[int]]] = []
        for place, offset, number in records:
            if runs and runs[-1][0] == place and runs[-1][1] + len(runs[-1][2]) == offset:
                runs[-1][2].append(number)
            else:
                runs.append((place, offset, [number]))
            self._positions[place] = offset + 1
        self._journal.write("delivered", self._name, [[*place, *rest] for place, *rest in runs])

    def begin_commit(self, among: list[Place] | None = None) -> tuple[int, dict[Place, int]]:
        """Return what there is to commit, which is written down already, and the commit's id."""
        wanted = {
            place: position
            for place, position in self._positions.items()
            if position != self._committed.get(place) and (among is None or place in among)
        }
        self._commits += 1
        if wanted:
            offsets = [[*place, offset] for place, offset in wanted.items()]
            self._journal.write("commit", self._name, self._commits, offsets)
        return self._commits, wanted

    def end_commit(self, commit_id: int, wanted: dict[Place, int], errors: dict[Place, str]) -> None:
        """Take note of the outcome; a place without an entry was acknowledged."""
        results = [[*place, errors.get(place, "")] for place in wanted]
        self._journal.write("committed", self._name, commit_id, results)
        self._committed.update({place: at for place, at in wanted.items() if not errors.get(place)})


def number_of(value: bytes | None, place: Place) -> int:
    """Return the number in a record's value; -1 if the value was not made for `place`."""
    number, _, rest = (value or b"").partition(b" ")
    return int(number) if rest.rstrip(b".") == f"{place.topic} {place.partition}".encode() else -1


class LibrdkafkaMember:
    """One life of a confluent-kafka consumer, in its thread."""

    def __init__(self, spec: WorkerSpec, slot: Slot, journal: Journal) -> None:
        self._name = slot.name
        self._journal = journal
        self._progress = Progress(journal, slot.name)
        self._over = False
        self._static = {} if slot.instance_id is None else {"group.instance.id": slot.instance_id}
        journal.write("join", slot.name)
        self._consumer = Consumer(
            {
                "bootstrap.servers": spec.bootstrap,
                "client.id": slot.name,
                "group.id": slot.group,
                "partition.assignment.strategy": slot.strategy,
                "session.timeout.ms": SESSION_TIMEOUT_MS,
                "heartbeat.interval.ms": HEARTBEAT_MS,
                "max.poll.interval.ms": REBALANCE_TIMEOUT_MS,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": FETCH_WAIT_MS,
                "fetch.min.bytes": FETCH_MIN_BYTES,
                "queued.max.messages.kbytes": 1024,
                "topic.metadata.refresh.interval.ms": 60_000,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 0,
                "error_cb": self._on_error,
                **self._static,
            }
        )
        self._consumer.subscribe(
            spec.topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def live(self, life: Life) -> None:
        """Read and commit until life is over, or nothing can be done any more; then leave."""
        commit_at = time.monotonic() + COMMIT_EVERY_S
        while life.goes_on and not self._over:
            self._take(self._consumer.consume(200, timeout=1.0))
            if time.monotonic() >= commit_at:
                self._commit()
                commit_at = time.monotonic() + COMMIT_EVERY_S
        self._consumer.close()
        self._journal.write("leave", self._name)

    def _take(self, messages: list[Message]) -> None:
        records = []
        for message in messages:
            error, topic, partition, offset = (
                message.error(),
                message.topic(),
                message.partition(),
                message.offset(),
            )
            if error is not None:
                self._on_error(error)
                continue
            assert topic is not None
            assert partition is not None
            assert offset is not None
            place = Place(topic, partition)
            records.append((place, offset, number_of(message.value(), place)))
        if records:
            self._progress.delivered(records)

    def _commit(self, among: list[Place] | None = None) -> None:
        commit_id, wanted = self._progress.begin_commit(among)
        if not wanted:
            return
        offsets = [TopicPartition(*place, offset) for place, offset in wanted.items()]
        try:
            results = self._consumer.commit(offsets=offsets, asynchronous=False) or []
            errors = {Place(r.topic, r.partition): r.error.name() for r in results if r.error is not None}
        except KafkaException as error:
            errors = dict.fromkeys(wanted, error.args[0].name())
        self._progress.end_commit(commit_id, wanted, errors)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        metadata = bytes(consumer.consumer_group_metadata())  # "CGMDv2:", generation, group, member
        self._progress.assigned(
            int.from_bytes(metadata[7:11], sys.byteorder, signed=True), _places(partitions)
        )

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._commit(_places(partitions))
        self._progress.revoked(_places(partitions))

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._progress.revoked(_places(partitions))

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._over = True
            self._journal.write("fatal", self._name, error.str())
        else:
            self._journal.write("error", self._name, error.name())


def _places(partitions: list[TopicPartition]) -> list[Place]:
    return [Place(partition.topic, partition.partition) for partition in partitions]


def _run_threads(spec: WorkerSpec, journal: Journal, control: Control) -> None:
    def run(slot: Slot) -> None:
        life = Life(spec, slot, control)
        while not control.finish.is_set():
            if life.paused:
                time.sleep(0.2)
                continue
            life.begin()
            LibrdkafkaMember(spec, slot, journal).live(life)
            life.end()

    _run_all([threading.Thread(target=_guarded(run, slot, journal)) for slot in spec.slots])


def _guarded(run: Callable[[Slot], None], slot: Slot, journal: Journal) -> Callable[[], None]:
    def target() -> None:
        try:
            run(slot)
        except Exception as error:  # noqa: BLE001 - a thread's end must not go unnoticed
            journal.write("error", slot.name, f"the member ended: {error!r}")

    return target


def _run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    """Run the process."""
    spec = WorkerSpec.from_json(sys.argv[1])
    journal = Journal(Path(spec.journal))
    control = Control()
    threading.Thread(target=control.follow, daemon=True).start()
    if spec.client == AIOKAFKA:
        from tests.crash.storm_aiokafka import run_tasks

        asyncio.run(run_tasks(spec, journal, control))
    else:
        _run_threads(spec, journal, control)
    # Consumers' background threads have nothing left to do.
    os._exit(0)


if __name__ == "__main__":
    main()
