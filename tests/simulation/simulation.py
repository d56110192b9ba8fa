"""One schedule from its start to its verdict.

cluster up -> clients work while the steps of the schedule happen -> everything is healed -> everything has to become
healthy and finish within bounded virtual time -> what was seen is checked against what is there
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.crash.history import Key, Read
from tests.simulation.admin import Admin
from tests.simulation.checkers import check_history, check_lookups, check_offsets
from tests.simulation.client import SimClient
from tests.simulation.cluster import Cluster
from tests.simulation.cold_reader import ColdReader
from tests.simulation.consumer import Consumer
from tests.simulation.faults import Faults
from tests.simulation.group import GroupMember
from tests.simulation.journal import Journal, TopicPartition, Violation, parse_value, value_of
from tests.simulation.loop import (
    Deadlock,
    Halted,
    Livelock,
    OutOfTime,
    Process,
    VirtualLoop,
    no_collections,
    simulate,
)
from tests.simulation.probes import Probes, read_batches
from tests.simulation.producer import CarelessProducer, IdempotentProducer, Lane, UncleanWriter
from tests.simulation.schedule import Schedule
from tests.simulation.tiers import Tiers

from strandline_broker.cluster.internal_topics import CONSUMER_OFFSETS
from strandline_broker.replica.partition import Partition
from strandline_broker.seams.sim_disk import PowerLoss
from strandline_broker.wire.batch import iter_records

HEALTHY_WITHIN_S = 60.0
_LOOK_S = 0.5
_START_TIMEOUT_S = 30.0


@dataclass
class Verdict:
    """What came of one schedule."""

    seed: int
    violations: list[Violation]
    counts: Counter[str]
    digest: str
    virtual_s: float
    events: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the rules."""
        return not self.violations


def run_schedule(
    schedule: Schedule, *, show: Callable[[str], None] | None = None, halt: bool = False
) -> Verdict:
    """Run one schedule. With `show` every event is shown as it happens; `halt` ends it at the first contradiction."""
    with no_collections():
        return _run(schedule, show, halt=halt)


def _run(schedule: Schedule, show: Callable[[str], None] | None, *, halt: bool) -> Verdict:
    loop = VirtualLoop(rng=random.Random(f"loop {schedule.seed}"), limit_s=1_000.0)
    journal = Journal(loop.time, show, loop.halt if halt else None)
    simulation = Simulation(loop, journal, schedule)
    disabled = logging.root.manager.disable
    if show is None:
        logging.disable(logging.WARNING)
    errors = LoggedErrors(journal)
    logging.root.addHandler(errors)
    try:
        simulate(simulation.run, loop)
    except Halted:
        pass
    except (Deadlock, Livelock, OutOfTime) as error:
        journal.violation("stuck", f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001  # a schedule that cannot be run to its end is one that failed
        journal.violation("broken off", f"{error!r} at {_place(error)}")
    finally:
        logging.root.removeHandler(errors)
        logging.disable(disabled)
    for context in loop.failures:
        unhandled = context.get("exception")
        if not isinstance(unhandled, PowerLoss):
            task = context.get("task")
            what = unhandled if task is None else task.get_coro().__qualname__
            journal.violation("unhandled error", f"{context.get('message')}: {what!r}")
    return Verdict(
        schedule.seed, journal.violations, journal.counts, journal.digest(), loop.time(), journal.events
    )


class LoggedErrors(logging.Handler):
    """Takes an exception that the product logs, but did not foresee, for a contradiction."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.ERROR)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        error = record.exc_info[1] if record.exc_info else None
        # Disks fail in schedules, and the product says so.
        if error is not None and not isinstance(error, OSError | PowerLoss):
            self._journal.violation("logged error", f"{record.getMessage()}: {error!r} at {_place(error)}")


def _place(error: BaseException) -> str:
    """Return where an exception comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"


class Simulation:
    """The parts of one run."""

    def __init__(self, loop: VirtualLoop, journal: Journal, schedule: Schedule) -> None:
        self.loop = loop
        self.journal = journal
        self.schedule = schedule
        self.rng = random.Random(f"world {schedule.seed}")
        self.clients: list[SimClient] = []
        self.producers: list[IdempotentProducer] = []
        self.consumers: list[Consumer] = []
        self.members: list[GroupMember] = []
        self.tiers: Tiers | None = None
        self.cold: ColdReader | None = None

    async def run(self, loop: VirtualLoop) -> None:
        """Run everything; findings go to the journal."""
        schedule = self.schedule
        self.cluster = Cluster(loop, self.journal, self.rng, brokers=3)
        self.cluster.broker_settings |= {"flush": schedule.flush, **schedule.settings}
        self.probes = Probes(self.cluster)
        with contextlib.ExitStack() as installed:
            installed.enter_context(self.probes.installed())
            if schedule.tiering:
                self.tiers = Tiers(self.cluster, random.Random(f"bucket {schedule.seed}"))
                installed.enter_context(self.tiers.probes.installed())
            await self._start()
            faults = Faults(
                self.cluster, Admin(self._client("admin")), self.probes, [c.name for c in self.clients]
            )
            steps = loop.create_task(faults.run(schedule.steps))
            await asyncio.sleep(schedule.duration_s - loop.time())
            await steps
            await faults.heal()
            for error in faults.failures():
                self.journal.violation("broken simulator", repr(error))
            await self._work_on()
            for client in self.clients:
                client.stopping = True
            await self._become_healthy()
            self._finish()
            self.cluster.end_all()
            for client in self.clients:
                self._check_client(client)
                client.process.kill()
        check_history(self.journal)
        check_offsets(self.journal)
        check_lookups(self.journal)

    # -- the beginning -------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        cluster, schedule = self.cluster, self.schedule
        await cluster.create(3, {"offsets.topic.num.partitions": "1"}, flush=schedule.flush)
        for topic in schedule.topics:
            await cluster.create_topic(topic.name, topic.partitions, 3, topic.config)
        for node in cluster.nodes:
            node.start()
        cluster.controllers[0].start()
        partitions = self._partitions(may_lose=False)
        self.journal.unclean |= {topic.name for topic in schedule.topics if topic.may_lose}
        for number in range(schedule.producers):
            client = self._client(f"producer-{number}")
            lanes = [
                Lane(partition, schedule.interval_s, self.rng.choice((1, 2, 5)))
                for partition in partitions
                if self.rng.random() < 0.8
            ]
            producer = IdempotentProducer(client, lanes, self._holds)
            self.producers.append(producer)
            client.process.spawn(producer.run())
        client = self._client("careless")
        client.process.spawn(CarelessProducer(client, partitions, 1.0).run())
        for number in range(schedule.consumers):
            client = self._client(f"consumer-{number}")
            consumer = Consumer(client, partitions, seek_chance=0.03)
            self.consumers.append(consumer)
            client.process.spawn(consumer.run())
        if self.tiers is not None:
            for name in sorted(self.journal.unclean):
                client = self._client("unclean")
                client.process.spawn(UncleanWriter(client, (name, 0)).run())
            client = self._client("cold")
            self.cold = self.tiers.cold_reader(client, partitions)
            client.process.spawn(self.cold.run())
        first = schedule.topics[0]
        grouped = [(first.name, index) for index in range(first.partitions)]
        for number in range(schedule.members):
            client = self._client(f"member-{number}")
            member = GroupMember(client, "group", grouped, self._unaware)
            self.members.append(member)
            client.process.spawn(member.run())

    def _client(self, name: str) -> SimClient:
        process = Process(self.loop, name)
        process.on_end(self.cluster.network)
        client = SimClient(
            name,
            process=process,
            network=self.cluster.network.of(name),
            journal=self.journal,
            rng=random.Random(self.rng.random()),
            bootstrap=self.cluster.bootstrap,
        )
        self.clients.append(client)
        return client

    def _check_client(self, client: SimClient) -> None:
        for task in client.process.kept:
            if isinstance(task, asyncio.Task) and task.done() and not task.cancelled():
                error = task.exception()
                if error is not None:
                    self.journal.violation("broken client", f"{client.name}: {error!r} at {_place(error)}")

    # -- the end -------------------------------------------------------------------------------------------------------

    async def _work_on(self) -> None:
        """Let clients whom faults kept from work do what is missing."""
        deadline = self.loop.time() + HEALTHY_WITHIN_S
        while self.journal.operations < self.schedule.operations:
            if self.loop.time() >= deadline:
                self.journal.violation("stuck", f"clients did only {self.journal.operations} operations")
                return
            await asyncio.sleep(_LOOK_S)

    async def _become_healthy(self) -> None:
        deadline = self.loop.time() + HEALTHY_WITHIN_S
        while True:
            missing = self._missing()
            if not missing:
                self.journal.event("-- healthy")
                return
            if self.loop.time() >= deadline:
                for what in missing[:5]:
                    self.journal.violation("stuck", what)
                return
            await asyncio.sleep(_LOOK_S)

    def _missing(self) -> list[str]:
        """Return what keeps the cluster from being healthy and its clients from being done."""
        missing = [f"{node.host} is not up" for node in self.cluster.nodes if not node.ready]
        if missing:
            return missing
        for slice_ in self.cluster.partition_sets():
            for index, state in enumerate(slice_.partitions):
                name = f"{slice_.topic_name}-{index}"
                if state.leader < 0:
                    missing.append(f"{name} has no leader")
                elif sorted(state.isr_ids) != sorted(state.replicas):
                    missing.append(f"{name}: ISR {state.isr_ids} of {state.replicas}")
                elif state.recovering:
                    missing.append(f"{name} is recovering")
                elif state.adding or state.removing:
                    missing.append(f"{name} is being reassigned")
        missing += [text for producer in self.producers for text in producer.stuck]
        if missing:
            return missing
        for partition in self._partitions():
            leader = self._leader(partition)
            if leader is None:
                missing.append(f"nobody leads {partition}")
                continue
            if leader.high_watermark != leader.log.end_offset:
                missing.append(
                    f"{partition}: {leader.high_watermark} of {leader.log.end_offset} are committed"
                )
            for consumer in self.consumers:
                position = consumer.follower.positions.get(partition)
                if position is not None and position.offset < leader.high_watermark:
                    missing.append(
                        f"{consumer.client.name} is at {position.offset} of {leader.high_watermark} in {partition}"
                    )
            if self.tiers is not None and self.cold is not None:
                missing += self.tiers.missing(leader, self.cold)
            if partition[0] == self.schedule.topics[0].name and self.members:
                committed = self.journal.committed_end(partition)
                if committed < leader.high_watermark:
                    missing.append(
                        f"the group committed {committed} of {leader.high_watermark} in {partition}"
                    )
        return missing

    def _partitions(self, *, may_lose: bool = True) -> list[TopicPartition]:
        return [
            (topic.name, index)
            for topic in self.schedule.topics
            for index in range(topic.partitions)
            if may_lose or not topic.may_lose
        ]

    def _leader(self, partition: TopicPartition) -> Partition | None:
        for node in self.cluster.nodes:
            if node.broker is not None:
                found = node.broker.replicas.find(*partition)
                if found is not None and found.is_leader:
                    return found
        return None

    def _holds(self, partition: TopicPartition, key: Key) -> bool:
        leader = self._leader(partition)
        if leader is None:
            return False
        value = value_of(key)
        if self.tiers is not None and self.tiers.holds(partition, value):
            return True
        batches = read_batches(leader, leader.log.end_offset).values()
        return any(record.value == value for batch in batches for record in iter_records(batch))

    def _unaware(self, broker_id: int) -> bool:
        """Whether a broker leads the group's partition by what it has heard, but no longer by what the store says."""
        broker = self.cluster.node(broker_id).broker
        known = broker.view.partition(CONSUMER_OFFSETS, 0) if broker is not None else None
        if known is None or known.leader != broker_id:
            return False
        return any(
            slice_.topic_name == CONSUMER_OFFSETS and slice_.partitions[0].leader_epoch > known.leader_epoch
            for slice_ in self.cluster.partition_sets()
        )

    def _finish(self) -> None:
        """Read everything that is there, and compare the replicas."""
        self.probes.compare_all()
        final = self.journal.history.final
        for topic in sorted(self.journal.unclean):
            if self.tiers is not None and (leader := self._leader((topic, 0))) is not None:
                self.tiers.everything(leader)
        for partition, number in self.journal.partitions.items():
            leader = self._leader(partition)
            if leader is None or partition[0] in self.journal.unclean:
                continue
            if self.tiers is not None and leader.tier is not None:
                final += self.tiers.everything(leader)
                continue
            for batch in read_batches(leader, leader.high_watermark).values():
                for record in iter_records(batch):
                    final.append(Read(number, record.offset, parse_value(record.value or b"")))
