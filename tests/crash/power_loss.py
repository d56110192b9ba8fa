"""One seed of life and death: a random workload on a broker's logs, interrupted by crashes, checked after each.

A `World` holds what survives a crash: the simulated disk and the model of what must be on it. A `Session` is one
process: a LogManager, the logs it opened, and the flusher's work in between its two halves (captured, then finished
while appends go on). `run_seed` lets several sessions follow each other on one disk; each ends by a clean stop, by
`kill -9` (the page cache stays) or by a power failure at a random step, often inside an operation.
"""

from __future__ import annotations

import errno
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from tests.crash.log_model import LogModel, ProducerModel, Violation, demand, make_batch

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.log.manager import LogManager
from strandline_broker.log.sync_work import SyncWork
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.sim_disk import DEFAULT_CAPACITY_BYTES, PowerLoss, SimDisk
from strandline_broker.wire.batch import read_header, set_base_offset, set_leader_epoch

SESSIONS = 5
OPERATIONS = 45
TOPICS = 3
PRODUCERS = 3


@dataclass(slots=True)
class Topic:
    """A topic of one partition that exists by the word of the cluster store."""

    name: str
    topic_id: UUID
    config: LogConfig
    model: LogModel


@dataclass(slots=True)
class World:
    """Everything that outlives a process."""

    rng: random.Random
    disk: SimDisk = field(default_factory=SimDisk)
    clock: ManualClock = field(default_factory=ManualClock)
    topics: dict[str, Topic] = field(default_factory=dict)
    purged: list[UUID] = field(default_factory=list)
    names_made: int = 0
    next_producer_id: int = 1000
    was_clean: bool = False
    pages_dropped: bool = False
    """A sync failed, so that the page cache shows what is not on the disk, and the log was not reopened since."""
    history: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, what: str) -> None:
        """Remember a step for the message of a violation."""
        self.history.append(what)
        word = what.split()[0]
        self.counts[word] = self.counts.get(word, 0) + 1

    def config(self) -> LogConfig:
        """Draw a configuration with small limits, so that everything happens within a few records."""
        rng = self.rng
        return LogConfig(
            segment_bytes=rng.choice((400, 700, 1500, 6000)),
            segment_ms=rng.choice((2_000, 60_000, 10_000_000)),
            segment_index_bytes=rng.choice((48, 600)),
            index_interval_bytes=rng.choice((0, 100, 500)),
            retention_bytes=rng.choice((-1, -1, 1500)),
            retention_ms=rng.choice((-1, 30_000)),
        )


class Session:
    """One process. Every method may end in PowerLoss."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.works: list[tuple[Topic, SyncWork]] = []
        was_clean, world.was_clean = world.was_clean, False
        configs = {topic.name: topic.config for topic in world.topics.values()}
        self.manager = LogManager(world.disk, world.clock)
        self.manager.open(lambda name: configs.get(name, LogConfig()))
        demand(not self.manager.offline, f"offline: {self.manager.offline}")
        demand(not self.manager.lost_synced, f"lost below a recovery point: {self.manager.lost_synced}")
        demand(self.manager.clean_start or not was_clean, "a clean stop was not recognised")
        for topic_id in world.purged:
            self.manager.purge(topic_id)
        for topic in world.topics.values():
            log = self.open(topic)
            if self.manager.clean_start:
                demand(log.recovery.clean, f"{log} was recovered after a clean stop: {log.recovery.reason}")
            topic.model.check(log)
            topic.model.check_producers(log, world.clock.now_ms())

    def open(self, topic: Topic) -> Log:
        """Open a topic's log as the replica manager does."""
        return self.manager.open_or_create(topic.name, 0, topic.topic_id, topic.config)

    def log(self, topic: Topic) -> Log:
        """Return the open log."""
        log = self.manager.get(topic.name, 0)
        assert log is not None
        return log

    def step(self) -> None:
        """Do one random thing."""
        if not self.world.topics:
            self.create_topic()
            return
        topic = self.rng.choice(list(self.world.topics.values()))
        actions: list[tuple[int, Callable[[Topic], None]]] = [
            (40, self.append),
            (6, self.replicate),
            (18, self.begin_flush),
            (18, lambda _: self.finish_flush()),
            (4, self.append_on_sick_disk),
            (3, self.roll),
            (3, lambda _: self.sweep()),
            (4, self.delete_records),
            (4, lambda _: self.checkpoint()),
            (2, self.truncate),
            (2, self.new_epoch),
            (2, self.fail_sync),
            (1, lambda _: self.create_topic()),
            (1, self.delete_topic),
        ]
        self.rng.choices([action for _, action in actions], [weight for weight, _ in actions])[0](topic)
        self.world.clock.advance(self.rng.choice((0.0, 0.1, 5.0)))

    # ---- appends

    def _make(self, topic: Topic) -> list[bytearray]:
        """Make one to four batches of several producers, as they come from clients."""
        model, rng = topic.model, self.rng
        sequences = {producer.producer_id: producer.next_sequence for producer in model.producers.values()}
        batches: list[bytearray] = []
        for _ in range(rng.choice((1, 1, 2, 4))):
            producer = self._producer(topic)
            records = rng.choice((1, 1, 3))
            sequence = -1
            if producer is not None:
                sequence = sequences.get(producer.producer_id, 0)
                sequences[producer.producer_id] = sequence + records
            batches.append(
                make_batch(
                    sequence,
                    producer=producer,
                    records=records,
                    size=rng.choice((1, 20, 60)),
                    timestamp=self.world.clock.now_ms() - rng.choice((0, 0, 5000)),
                )
            )
        return batches

    def _stage(self, topic: Topic, log: Log) -> list[bytes]:
        """Stage some batches, and tell the model."""
        model = topic.model
        model.newest_epoch = max(model.newest_epoch, log.last_epoch, 0)
        staged: list[tuple[bytearray, int]] = []
        for batch in self._make(topic):
            placed = log.stage(memoryview(batch), model.newest_epoch, self.world.clock.now_ms())
            demand(
                not placed.duplicate, f"{log}: a new batch at {placed.base_offset} is taken for an old one"
            )
            staged.append((batch, placed.base_offset))
        for batch, base_offset in staged:
            model.attempt(bytes(batch), base_offset)
        return [bytes(batch) for batch, _ in staged]

    def _producer(self, topic: Topic) -> ProducerModel | None:
        producers = topic.model.producers
        if self.rng.random() < 0.2:
            return None
        if len(producers) < PRODUCERS:
            producer = ProducerModel(self.world.next_producer_id)
            self.world.next_producer_id += 1
            producers[producer.producer_id] = producer
        return self.rng.choice(list(producers.values()))

    def append(self, topic: Topic) -> None:
        """Stage and commit."""
        log = self.log(topic)
        batches = self._stage(topic, log)
        self.world.note(f"append {topic.name} {len(batches)} at {log.end_offset}")
        log.commit()
        topic.model.committed(batches)

    def replicate(self, topic: Topic) -> None:
        """Append as a follower does: offsets and epochs are given, now and then of a new leader."""
        log, model = self.log(topic), topic.model
        model.newest_epoch = max(model.newest_epoch, log.last_epoch, 0) + self.rng.choice((0, 0, 1))
        batches = self._make(topic)
        offset = log.end_offset
        for batch in batches:
            set_base_offset(batch, offset)
            set_leader_epoch(batch, model.newest_epoch)
            model.attempt(bytes(batch), offset)
            offset = read_header(batch).next_offset
        self.world.note(f"replicate {topic.name} {len(batches)} at {log.end_offset}")
        # The last one is cut short, as fetched records may be: it does not count.
        data = bytearray(b"".join([*batches, batches[0][: self.rng.randrange(len(batches[0]))]]))
        demand(log.append_follower(memoryview(data)) == offset - 1, f"{log}: did not take what it was given")
        model.committed([bytes(batch) for batch in batches])

    def append_on_sick_disk(self, topic: Topic) -> None:
        """Commit while some operation fails; the log must be as before, and work again afterwards."""
        log, disk, rng = self.log(topic), self.world.disk, self.rng
        batches = self._stage(topic, log)
        kind = rng.choice(("append", "append", "create", "truncate", "full"))
        self.world.note(f"sick {topic.name} {kind} at {log.end_offset}")
        capacity = disk.capacity
        if kind == "full":
            disk.capacity = disk.capacity - disk.free_bytes() + rng.randrange(200)
        else:
            disk.fail_next(
                kind, rng.choice((errno.ENOSPC, errno.EIO)), path_part=rng.choice((".log", "index", ""))
            )
        try:
            log.commit()
        except KafkaError as error:
            demand(error.code is ErrorCode.KAFKA_STORAGE_ERROR, f"{log}: a failed write gave {error}")
        else:
            topic.model.committed(batches)
        disk.capacity = capacity
        disk.clear_faults()
        self._revive(topic)
        topic.model.rewind_producers()  # what was not written is sent again
        topic.model.check_live(log)

    def _revive(self, topic: Topic) -> None:
        """Reopen a log that went out of service; it must come back with all that was acknowledged."""
        log = self.log(topic)
        if log.failed:
            self.world.note(f"reopen {topic.name}")
            log.reopen(self.world.clock.now_ms())
            demand(not log.failed, f"{log}: still out of service")
            topic.model.check(log)

    # ---- durability

    def begin_flush(self, topic: Topic) -> None:
        """Capture what a group of logs wants synced; the thread takes its time."""
        if self.works:
            return
        others = [other for other in self.world.topics.values() if self.rng.random() < 0.5]
        for member in {id(member): member for member in (topic, *others)}.values():
            work = self.log(member).begin_sync()
            if work is not None:
                self.works.append((member, work))

    def finish_flush(self) -> None:
        """Sync what was captured, then acknowledge."""
        works, self.works = self.works, []
        self.world.note(f"flush {[work.end_offset for _, work in works]}")
        for _, work in works:
            work.run()
        for topic, work in works:
            if not work.log.failed and work.log is self.manager.get(topic.name, 0):
                demand(work.log.finish_sync(work), f"{work.log}: the sync failed: {work.error}")
                topic.model.acknowledged(work.log.synced_end)
                topic.model.check_bounds(work.log)

    def fail_sync(self, topic: Topic) -> None:
        """Let fdatasync fail: nothing of it may ever be acknowledged, and the log must come back without it."""
        self.finish_flush()
        log, disk = self.log(topic), self.world.disk
        work = log.begin_sync()
        if work is None:
            return
        self.world.note(f"failsync {topic.name}")
        self.world.pages_dropped = True
        disk.fail_next("datasync", errno.EIO, path_part=f"{topic.name}-0/", skip=self.rng.choice((0, 0, 1)))
        work.run()
        disk.clear_faults()
        if log.finish_sync(work):
            topic.model.acknowledged(log.synced_end)
        self._revive(topic)
        self.world.pages_dropped = False

    def checkpoint(self) -> None:
        """Write recovery points, log starts and high watermarks."""
        self.world.note("checkpoint")
        marks = {(topic.name, 0): topic.model.acked_end for topic in self.world.topics.values()}
        self.manager.checkpoint(marks).write()

    # ---- the rest of a log's life

    def roll(self, topic: Topic) -> None:
        """Roll now, with a producer snapshot."""
        self.world.note(f"roll {topic.name}")
        self.log(topic).roll(self.world.clock.now_ms())

    def sweep(self) -> None:
        """Retention by time and size, rolls by age."""
        for topic in self.world.topics.values():
            topic.model.starting_at(topic.model.acked_end, done=False)
        high_watermarks = {self.log(topic): topic.model.acked_end for topic in self.world.topics.values()}
        self.world.note("sweep")
        self.manager.sweep(self.world.clock.now_ms(), lambda log: high_watermarks.get(log, 0))
        for topic in self.world.topics.values():
            start = self.log(topic).start_offset
            demand(start <= topic.model.acked_end, f"{self.log(topic)}: retention passed the high watermark")
            topic.model.started_at(start)

    def delete_records(self, topic: Topic) -> None:
        """DeleteRecords up to some acknowledged offset."""
        log = self.log(topic)
        offset = self.rng.randint(log.start_offset, max(log.start_offset, topic.model.acked_end))
        self.world.note(f"deleterecords {topic.name} {offset}")
        topic.model.starting_at(offset, done=False)
        log.advance_start(offset)
        topic.model.starting_at(offset, done=True)

    def truncate(self, topic: Topic) -> None:
        """Truncate as a follower does, never below what was acknowledged."""
        log = self.log(topic)
        offset = self.rng.randint(topic.model.acked_end, max(topic.model.acked_end, log.end_offset))
        self.world.note(f"truncate {topic.name} {offset} of {log.end_offset}")
        log.truncate_to(offset)
        topic.model.truncated(offset)
        topic.model.check_live(log)
        self.new_epoch(topic)

    def new_epoch(self, topic: Topic) -> None:
        """Become leader again."""
        topic.model.newest_epoch = max(topic.model.newest_epoch, self.log(topic).last_epoch) + 1
        self.world.note(f"epoch {topic.name} {topic.model.newest_epoch}")
        self.log(topic).assign_epoch_start(topic.model.newest_epoch)

    # ---- topics

    def create_topic(self) -> None:
        """Create a topic, now and then under the name of one that was deleted."""
        world = self.world
        if len(world.topics) >= TOPICS:
            return
        world.names_made += 1
        name = f"t{self.rng.randrange(TOPICS + 1)}"
        if name in world.topics:
            return
        topic = Topic(name, UUID(int=world.names_made), world.config(), LogModel(name))
        world.topics[name] = topic
        world.note(f"create {name}")
        self.open(topic)

    def delete_topic(self, topic: Topic) -> None:
        """Delete a topic; once the store says so it is gone, whatever the disk says after a crash."""
        self.world.note(f"delete {topic.name}")
        del self.world.topics[topic.name]
        self.world.purged.append(topic.topic_id)
        self.manager.purge(topic.topic_id)

    def stop(self) -> None:
        """Stop cleanly."""
        self.finish_flush()
        self.world.note("stop")
        demand(self.manager.close(), "a stop without any fault was not clean")
        self.world.was_clean = True
        for topic in self.world.topics.values():
            topic.model.acknowledged(topic.model.end_offset)


def _stop_at(step: int) -> Callable[[int, str, str], None]:
    def hook(count: int, name: str, path: str) -> None:
        if count >= step:
            raise PowerLoss(f"at step {count}, {name} {path}")

    return hook


def run_seed(seed: int, *, sessions: int = SESSIONS, operations: int = OPERATIONS) -> World:
    """Run one seed; raises Violation with the seed and what happened."""
    world = World(random.Random(seed))
    try:
        for _ in range(sessions):
            _run_session(world, operations)
        world.disk.on_operation = None
        world.disk.capacity = DEFAULT_CAPACITY_BYTES
        Session(world)
    except PowerLoss:
        raise AssertionError("the power cannot fail here") from None
    except Exception as error:
        steps = "\n  ".join(world.history[-60:])
        raise Violation(f"seed {seed}: {type(error).__name__}: {error}\n  {steps}") from error
    return world


def _run_session(world: World, operations: int) -> None:
    """Let one process live and end it."""
    rng, disk = world.rng, world.disk
    disk.capacity = DEFAULT_CAPACITY_BYTES
    dies_early = rng.random() < 0.8
    if dies_early:
        disk.on_operation = _stop_at(disk.operations + 1 + int(rng.expovariate(1 / 120)))
    try:
        session = Session(world)
        for _ in range(rng.randint(1, operations)):
            session.step()
        if rng.random() < 0.5:
            session.stop()
    except PowerLoss as loss:
        world.note(f"power fails {loss}")
    # Not after a failed sync: nobody can tell from the page cache what it lost.
    if rng.random() < 0.3 and not world.pages_dropped:
        world.note("killed")
        world.disk = disk.kill()
    else:
        world.disk = disk.crash(rng, torn=rng.random() < 0.4)
        world.pages_dropped = False
        world.note("crash")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        run_seed(int(argument))
