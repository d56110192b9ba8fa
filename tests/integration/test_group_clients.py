"""Consumer groups of real clients against `strandline dev`: subscribe, rebalance, static members, a killed broker."""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from tests.crash.dev_cluster import DevCluster

with warnings.catch_warnings():  # kafka-python's own, on import
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka  # type: ignore[import-untyped]

import aiokafka  # type: ignore[import-untyped]

DEADLINE_S = 40.0
PARTITIONS = 4
OPTIONS = ("--config", "group.initial.rebalance.delay.ms=200", "--config", "offsets.topic.num.partitions=5")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    with DevCluster(tmp_path_factory.mktemp("groups"), options=OPTIONS) as running:
        yield running


@pytest.fixture
def topic(cluster: DevCluster) -> str:
    return new_topic(cluster.bootstrap)


def new_topic(bootstrap: str, partitions: int = PARTITIONS) -> str:
    """Create a topic with 25 records in each partition."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": bootstrap, "logger": SILENT})
    for future in admin.create_topics([NewTopic(name, partitions, 1)]).values():
        future.result(DEADLINE_S)
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "logger": SILENT})
    for number, partition in itertools.product(range(25), range(partitions)):
        producer.produce(name, b"%d" % number, partition=partition)
    assert producer.flush(DEADLINE_S) == 0
    return name


class _Silent:
    """Takes librdkafka's complaints about brokers that go away."""

    def log(self, *_: object, **__: object) -> None:
        pass


SILENT: Any = _Silent()


def until(condition: Callable[[], bool], work: Callable[[], object]) -> None:
    """Do `work` again and again until `condition()` holds."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "too late"
        work()


class Member:
    """A confluent-kafka consumer that counts what it reads and knows what it was assigned."""

    def __init__(self, bootstrap: str, group: str, topic: str, **settings: Any) -> None:
        self.assignments: list[set[int]] = []
        self.read = 0
        self.consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 200,
                "logger": SILENT,
                **settings,
            }
        )
        self.consumer.subscribe(
            [topic], on_assign=lambda _, parts: self.assignments.append({p.partition for p in parts})
        )

    def poll(self) -> None:
        message = self.consumer.poll(0.05)
        if message is not None and message.error() is None:
            self.read += 1

    @property
    def assigned(self) -> set[int]:
        return {part.partition for part in self.consumer.assignment()}


def shared(*members: Member) -> bool:
    """Whether every partition belongs to one member, and every member has some."""
    parts = [member.assigned for member in members]
    return all(parts) and sorted(itertools.chain(*parts)) == list(range(PARTITIONS))


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_confluent_members_share_and_hand_over(cluster: DevCluster, topic: str, strategy: str) -> None:
    group = f"g-{topic}"
    settings = {"partition.assignment.strategy": strategy}
    first = Member(cluster.bootstrap, group, topic, **settings)
    until(lambda: first.read == 25 * PARTITIONS, first.poll)
    first.consumer.commit(asynchronous=False)
    second = Member(cluster.bootstrap, group, topic, **settings)

    def both() -> None:
        first.poll()
        second.poll()

    until(lambda: shared(first, second), both)
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "logger": SILENT})
    described = admin.describe_consumer_groups([group])[group]
    found = described.result(DEADLINE_S)
    assert found.state.name == "STABLE"
    assert len(found.members) == 2
    first.consumer.close()
    until(lambda: shared(second), second.poll)
    assert second.read == 0, "everything was committed"
    second.consumer.close()


def test_a_static_member_comes_back_to_its_partitions_without_a_rebalance(
    cluster: DevCluster, topic: str
) -> None:
    group = f"g-{topic}"
    stays = Member(cluster.bootstrap, group, topic, **{"group.instance.id": "stays"})
    returns = Member(cluster.bootstrap, group, topic, **{"group.instance.id": "returns"})

    def both() -> None:
        stays.poll()
        returns.poll()

    until(lambda: shared(stays, returns), both)
    before, assigned = len(stays.assignments), returns.assigned
    returns.consumer.close()  # a static member does not leave
    returns = Member(cluster.bootstrap, group, topic, **{"group.instance.id": "returns"})
    until(lambda: returns.assigned == assigned, both)
    assert len(stays.assignments) == before
    fenced = Member(cluster.bootstrap, group, topic, **{"group.instance.id": "returns"})
    until(lambda: fenced.assigned == assigned, fenced.poll)
    with pytest.raises(confluent_kafka.KafkaException) as refusal:
        returns.consumer.commit(offsets=[TopicPartition(topic, min(assigned), 1)], asynchronous=False)
    assert refusal.value.args[0].name() in ("FENCED_INSTANCE_ID", "_FENCED", "_FATAL")
    for member in (stays, fenced):
        member.consumer.close()


def test_kafka_python_members_share(cluster: DevCluster, topic: str) -> None:
    group = f"g-{topic}"
    stop = threading.Event()
    assigned: dict[int, set[int]] = {}
    read = itertools.count()
    total: list[int] = [0]

    def member(number: int) -> None:
        consumer = kafka.KafkaConsumer(
            topic,
            bootstrap_servers=cluster.bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            heartbeat_interval_ms=200,
            session_timeout_ms=10_000,
        )
        while not stop.is_set():
            for records in consumer.poll(timeout_ms=100).values():
                total[0] = max(total[0], *(next(read) + 1 for _ in records))
            assigned[number] = {part.partition for part in consumer.assignment()}
        consumer.close()

    threads = [threading.Thread(target=member, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        until(
            lambda: (
                total[0] >= 25 * PARTITIONS
                and len(assigned) == 2
                and all(assigned.values())
                and sorted(itertools.chain(*assigned.values())) == list(range(PARTITIONS))
            ),
            lambda: time.sleep(0.05),
        )
    finally:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE_S)
    admin = kafka.KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    try:
        offsets = admin.list_group_offsets(group)
    finally:
        admin.close()
    flat = offsets.get(group, offsets) if isinstance(offsets, dict) else offsets
    assert {part.partition: entry.offset for part, entry in flat.items()} == dict.fromkeys(
        range(PARTITIONS), 25
    )


def test_aiokafka_members_share_and_commit(cluster: DevCluster, topic: str) -> None:
    async def scenario() -> None:
        members = [
            aiokafka.AIOKafkaConsumer(
                topic,
                bootstrap_servers=cluster.bootstrap,
                group_id=f"g-{topic}",
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                heartbeat_interval_ms=200,
            )
            for _ in range(2)
        ]
        for member in members:
            await member.start()
        try:
            read = 0
            async with asyncio.timeout(DEADLINE_S):
                while read < 25 * PARTITIONS or not all(member.assignment() for member in members):
                    for member in members:
                        found = await member.getmany(timeout_ms=50)
                        read += sum(map(len, found.values()))
            for member in members:
                await member.commit()
            for member in members:
                for part in member.assignment():
                    assert await member.committed(part) == 25
        finally:
            for member in members:
                await member.stop()

    asyncio.run(scenario())


def test_acknowledged_commits_survive_kill_9(tmp_path: Path) -> None:
    with DevCluster(tmp_path, options=OPTIONS) as cluster:
        topic = new_topic(cluster.bootstrap, 1)
        member = Member(cluster.bootstrap, "g", topic, **{"session.timeout.ms": 30_000})
        until(lambda: member.read == 25, member.poll)
        acknowledged = 0

        def commit() -> None:
            nonlocal acknowledged
            wanted = TopicPartition(topic, 0, acknowledged + 1)
            (done,) = member.consumer.commit(offsets=[wanted], asynchronous=False) or [wanted]
            assert done.error is None
            acknowledged += 1

        for _kill in range(3):
            for _ in range(20):
                commit()
            pid = cluster.signal_broker(signal.SIGKILL)
            assert committed(member, TopicPartition(topic, 0)) == acknowledged
            assert cluster.wait_for_broker() != pid
        commit()
        assert len(member.assignments) == 1, "the member stayed in its group"
        member.consumer.close()


def committed(member: Member, part: TopicPartition) -> int:
    """Return the committed offset, as soon as the broker is back."""
    end = time.monotonic() + DEADLINE_S
    while True:
        member.poll()
        try:
            (found,) = member.consumer.committed([part], timeout=5)
        except confluent_kafka.KafkaException:
            assert time.monotonic() < end, "the broker does not come back"
            continue
        assert found.error is None
        offset: int = found.offset
        return offset
