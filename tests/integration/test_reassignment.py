"""Reassignment, another number of replicas, and preferred leaders, with brokers that really copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.integration.replicated import TOPIC, Trio, trio
from tests.integration.support import run, until

from strandline_broker.cluster.model import CLUSTER, PartitionState
from strandline_broker.cluster.model import TOPIC as TOPIC_KIND
from strandline_broker.cluster.store import ClusterStore
from strandline_broker.errors import ErrorCode
from strandline_broker.wire.api_keys import ApiKey


async def ask(three: Trio, key: ApiKey, version: int, body: Mapping[str, Any]) -> Any:
    """Send one request to some broker that runs."""
    client = await three.made.connect(next(iter(three.brokers.values())))
    try:
        return await client.ask(key, version, body)
    finally:
        await client.close()


async def reassign(three: Trio, targets: Mapping[int, Sequence[int] | None]) -> set[int]:
    partitions = tuple({"partition_index": n, "replicas": target} for n, target in targets.items())
    body = {"topics": ({"name": TOPIC, "partitions": partitions},), "timeout": 5000}
    answer = await ask(three, ApiKey.ALTER_PARTITION_REASSIGNMENTS, 1, body)
    return {row.error_code for topic in answer.responses for row in topic.partitions}


async def listed(three: Trio) -> list[Any]:
    answer = await ask(three, ApiKey.LIST_PARTITION_REASSIGNMENTS, 0, {"topics": None, "timeout": 5000})
    return [row for topic in answer.topics if topic.name == TOPIC for row in topic.partitions]


def states(three: Trio) -> list[PartitionState]:
    """Return the partitions as the controller sees them."""
    topic = three.made.controller.view.topic_by_name(TOPIC)
    return [state for _, state in topic.partitions()] if topic is not None else []


async def patch_spec(store: ClusterStore, kind: str, name: str, key: str, value: object) -> None:
    obj = await store.get(kind, name)
    operations = [{"op": "add", "path": f"/spec/{key}", "value": value}]
    await store.patch_if(kind, name, uid=obj["metadata"]["uid"], tests=[], operations=operations)


def test_a_partition_moves_with_its_records(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, partitions=2, replicas=1)
            await until(lambda: len(states(three)) == 2)
            assert await three.write(b"a", b"b") == [0, 0]
            (old,) = states(three)[0].replicas
            new = (old + 1) % 3
            assert await reassign(three, {0: [new]}) == {ErrorCode.NONE}
            await until(lambda: states(three)[0].replicas == (new,) and states(three)[0].leader == new)
            await until(lambda: three.leader() is three.brokers[new])
            assert await listed(three) == []
            assert await three.write(b"c") == [0]
            assert await three.read(three.brokers[new]) == [b"a", b"b", b"c"]

    run(scenario())


def test_a_topic_gets_more_replicas_and_fewer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, partitions=3, replicas=1)
            await until(lambda: len(states(three)) == 3)
            assert await three.write(b"a", b"b") == [0, 0]
            await patch_spec(three.made.store, TOPIC_KIND, TOPIC, "replicas", 3)
            await until(lambda: all(len(s.isr) == 3 and not s.adding for s in states(three)))
            await until(lambda: set(three.log_ends().values()) == {2} and len(three.log_ends()) == 3)
            await patch_spec(three.made.store, TOPIC_KIND, TOPIC, "replicas", 2)
            await until(lambda: all(len(s.replicas) == 2 and not s.removing for s in states(three)))
            assert await three.write(b"c") == [0]

    run(scenario())


def test_a_reassignment_waits_for_a_broker_that_is_down_and_can_be_taken_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, replicas=1)
            await until(lambda: len(states(three)) == 1)
            (old,) = states(three)[0].replicas
            new = (old + 1) % 3
            await three.crash(new)
            await until(lambda: len(three.made.controller.liveness.live()) == 2)
            assert await reassign(three, {0: [new]}) == {ErrorCode.NONE}
            (row,) = await listed(three)
            assert (row.replicas, row.adding_replicas, row.removing_replicas) == ((new, old), (new,), (old,))

            async def message() -> str:
                obj = await three.made.store.get(TOPIC_KIND, TOPIC)
                conditions = {c["type"]: c["message"] for c in obj.get("status", {}).get("conditions", ())}
                return str(conditions.get("Reassigning", ""))

            while "which is down" not in await message():
                pass
            assert f"broker {new}, which is down, on {TOPIC}-0" in await message()
            assert await reassign(three, {0: None}) == {ErrorCode.NONE}
            assert await listed(three) == []
            assert states(three)[0].replicas == (old,)
            assert await three.write(b"a") == [0]

    run(scenario())


def test_a_restarted_broker_gets_its_leaderships_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path, rebalance=True) as three:
            await three.made.create_topic(TOPIC, partitions=3, replicas=3)
            await until(lambda: len(states(three)) == 3)
            await until(lambda: all(len(s.isr) == 3 for s in states(three)))
            await three.stop(1)
            await until(lambda: all(s.leader != 1 and len(s.isr) == 2 for s in states(three)))
            await three.start(1)
            await until(lambda: all(len(s.isr) == 3 for s in states(three)))
            # A client need not wait until all was calm for a while.
            body = {"election_type": 0, "topic_partitions": None, "timeout": 5000}
            answer = await ask(three, ApiKey.ELECT_LEADERS, 2, body)
            assert answer.error_code is ErrorCode.NONE
            await until(lambda: all(s.leader == s.replicas[0] for s in states(three)))
            # By itself it takes as long as the Cluster says.
            config = {"leader.imbalance.check.interval.seconds": "1"}
            await patch_spec(three.made.store, CLUSTER, "test", "config", config)
            await three.stop(2)
            await until(lambda: all(s.leader != 2 and len(s.isr) == 2 for s in states(three)))
            await three.start(2)
            await until(lambda: all(s.leader == s.replicas[0] for s in states(three)))
            for index in range(3):
                assert await three.write(b"a", index=index) == [0]

    run(scenario())
