"""Groups on real brokers, with a client that speaks every version."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.integration.support import Client, Cluster, batch, cluster, leads, produce, run, running, until
from tests.integration.test_lifecycle import crash
from tests.unit.replica.support import lead_alone

from strandline_broker.api.support.tickets import Ticket
from strandline_broker.cluster.internal_topics import CONSUMER_OFFSETS
from strandline_broker.coordinator.partitioning import partition_for
from strandline_broker.errors import ErrorCode
from strandline_broker.server.broker import Broker
from strandline_broker.wire.api_keys import ApiKey

NEWEST = {
    ApiKey.OFFSET_COMMIT: 9,
    ApiKey.OFFSET_FETCH: 9,
    ApiKey.FIND_COORDINATOR: 6,
    ApiKey.JOIN_GROUP: 9,
    ApiKey.HEARTBEAT: 4,
    ApiKey.LEAVE_GROUP: 5,
    ApiKey.SYNC_GROUP: 5,
    ApiKey.DESCRIBE_GROUPS: 6,
    ApiKey.LIST_GROUPS: 5,
    ApiKey.DELETE_GROUPS: 2,
    ApiKey.OFFSET_DELETE: 0,
}
PARTITIONS = 8
FAST: dict[str, Any] = {"group_initial_rebalance_delay_ms": "0", "group_min_session_timeout_ms": "50"}


async def ask(client: Client, key: ApiKey, body: Mapping[str, Any], version: int | None = None) -> Any:
    return await client.ask(key, NEWEST[key] if version is None else version, body)


def join_body(
    member_id: str = "", *, group: str = "g", instance: str | None = None, session_ms: int = 30_000
) -> dict[str, Any]:
    return {
        "group_id": group,
        "session_timeout": session_ms,
        "rebalance_timeout": 60_000,
        "member_id": member_id,
        "group_instance_id": instance,
        "protocol_type": "consumer",
        "protocols": [{"name": "range", "metadata": b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}],
        "reason": None,
    }


async def join(client: Client, member_id: str = "", version: int = 9, **more: Any) -> Any:
    """Join, with the second attempt that newer versions ask for."""
    answer = await ask(client, ApiKey.JOIN_GROUP, join_body(member_id, **more), version)
    if answer.error_code is ErrorCode.MEMBER_ID_REQUIRED:
        assert version >= 4
        answer = await ask(client, ApiKey.JOIN_GROUP, join_body(answer.member_id, **more), version)
    return answer


def sync_body(joined: Any, assignments: Mapping[str, bytes], *, group: str = "g") -> dict[str, Any]:
    return {
        "group_id": group,
        "generation_id": joined.generation_id,
        "member_id": joined.member_id,
        "group_instance_id": None,
        "protocol_type": "consumer",
        "protocol_name": "range",
        "assignments": [{"member_id": member, "assignment": data} for member, data in assignments.items()],
    }


def commit_body(
    offsets: Mapping[int, int],
    *,
    member_id: str = "",
    generation: int = -1,
    group: str = "g",
    topic: str = "t",
) -> dict[str, Any]:
    return {
        "group_id": group,
        "generation_id_or_member_epoch": generation,
        "member_id": member_id,
        "group_instance_id": None,
        "retention_time": -1,
        "topics": [
            {
                "name": topic,
                "partitions": [
                    {
                        "partition_index": index,
                        "committed_offset": offset,
                        "committed_leader_epoch": 3,
                        "committed_metadata": "m",
                    }
                    for index, offset in offsets.items()
                ],
            }
        ],
    }


def fetch_body(version: int, topic_id: UUID) -> dict[str, Any]:
    """Ask for an offset that is there and one that is not."""
    if version < 8:
        return {
            "group_id": "g",
            "topics": [{"name": "t", "partition_indexes": [0, 7]}],
            "require_stable": True,
        }
    named = {"name": "t", "topic_id": topic_id, "partition_indexes": [0, 7]}
    group = {"group_id": "g", "member_id": None, "member_epoch": -1, "topics": [named]}
    return {"groups": [group], "require_stable": True}


async def committed(client: Client, *, group: str = "g") -> dict[tuple[str, int], int]:
    body = {
        "groups": [{"group_id": group, "member_id": None, "member_epoch": -1, "topics": None}],
        "require_stable": False,
    }
    answer = await ask(client, ApiKey.OFFSET_FETCH, body)
    (found,) = answer.groups
    assert found.error_code is ErrorCode.NONE
    return {(t.name, p.partition_index): p.committed_offset for t in found.topics for p in t.partitions}


def reset(client: Client) -> None:
    """End a connection as a process does that dies with unread data."""
    connected = client._writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client._writer.transport.abort()


def rows(answer: Any) -> list[tuple[int, ErrorCode]]:
    return [(part.partition_index, part.error_code) for topic in answer.topics for part in topic.partitions]


@asynccontextmanager
async def served(directory: Path, **settings: str) -> AsyncIterator[tuple[Cluster, Broker, Client]]:
    """One broker that coordinates groups, and a topic `t` of two partitions."""
    async with cluster(directory) as made:
        await configure(made)
        async with running(made, **FAST, **settings) as broker:
            await made.create_topic("t", 2)
            await leads(broker, "t", 2)
            await coordinates(broker)
            client = await made.connect(broker)
            yield made, broker, client
            await client.close()


async def configure(made: Cluster, replicas: int = 1) -> None:
    obj = await made.store.get("Cluster", "test")
    spec = {"replicas": replicas, "config": {"offsets.topic.num.partitions": str(PARTITIONS)}}
    await made.store.patch_if(
        "Cluster",
        "test",
        uid=obj["metadata"]["uid"],
        tests=[],
        operations=[{"op": "replace", "path": "/spec", "value": spec}],
    )


async def coordinates(broker: Broker, count: int = PARTITIONS) -> None:
    await leads(broker, CONSUMER_OFFSETS, count)
    await until(lambda: len(broker.groups._runtime.active_slots()) >= count)


# -- every version --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(7))
def test_find_coordinator(tmp_path: Path, version: int) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (_, broker, client):
            body = {"key": "g", "key_type": 0, "coordinator_keys": ["g", "h"]}
            answer = await ask(client, ApiKey.FIND_COORDINATOR, body, version)
            entries = answer.coordinators if version >= 4 else [answer]
            for entry in entries:
                assert entry.error_code is ErrorCode.NONE
                assert (entry.node_id, entry.port) == (0, broker.server.address("PLAINTEXT")[1])
            if version >= 1:
                body["key_type"] = 1
                answer = await ask(client, ApiKey.FIND_COORDINATOR, body, version)
                entry = answer.coordinators[0] if version >= 4 else answer
                assert entry.error_code is ErrorCode.UNSUPPORTED_VERSION
                assert "transactions" in entry.error_message
                body["key_type"] = 2
                answer = await ask(client, ApiKey.FIND_COORDINATOR, body, version)
                entry = answer.coordinators[0] if version >= 4 else answer
                assert entry.error_code is ErrorCode.INVALID_REQUEST

    run(scenario())


def test_a_member_joins_works_and_leaves_in_every_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (_, _broker, client):
            for version in range(10):
                group = f"g{version}"
                joined = await join(client, version=version, group=group)
                assert joined.error_code is ErrorCode.NONE
                assert joined.leader == joined.member_id
                assert [member.member_id for member in joined.members] == [joined.member_id]
                body = sync_body(joined, {joined.member_id: b"mine"}, group=group)
                synced = await ask(client, ApiKey.SYNC_GROUP, body, min(version, 5))
                assert (synced.error_code, synced.assignment) == (ErrorCode.NONE, b"mine")
                beat = {
                    "group_id": group,
                    "generation_id": joined.generation_id,
                    "member_id": joined.member_id,
                    "group_instance_id": None,
                }
                answer = await ask(client, ApiKey.HEARTBEAT, beat, min(version, 4))
                assert answer.error_code is ErrorCode.NONE
                described = await ask(
                    client,
                    ApiKey.DESCRIBE_GROUPS,
                    {"groups": [group, "nobody"], "include_authorized_operations": True},
                    min(version, 6),
                )
                first, second = described.groups
                assert (first.error_code, first.group_state) == (ErrorCode.NONE, "Stable")
                assert first.members[0].client_host == "/127.0.0.1"
                assert first.members[0].member_assignment == b"mine"
                if version >= 3:
                    assert first.authorized_operations == 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
                missing = ErrorCode.GROUP_ID_NOT_FOUND if version >= 6 else ErrorCode.NONE
                assert (second.error_code, second.group_state) == (missing, "Dead")
                listed = await ask(
                    client,
                    ApiKey.LIST_GROUPS,
                    {"states_filter": ["Stable"], "types_filter": []},
                    min(version, 5),
                )
                assert (group, "consumer") in [(g.group_id, g.protocol_type) for g in listed.groups]
                body = {
                    "group_id": group,
                    "member_id": joined.member_id,
                    "members": [{"member_id": joined.member_id, "group_instance_id": None, "reason": None}],
                }
                left = await ask(client, ApiKey.LEAVE_GROUP, body, min(version, 5))
                assert left.error_code is ErrorCode.NONE
                deleted = await ask(
                    client, ApiKey.DELETE_GROUPS, {"groups_names": [group, "nobody", group]}, min(version, 2)
                )
                assert [(r.group_id, r.error_code) for r in deleted.results] == [
                    (group, ErrorCode.NONE),
                    ("nobody", ErrorCode.GROUP_ID_NOT_FOUND),
                ]

    run(scenario())


def test_every_version_can_be_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (_, _broker, client):
            stale = type("Joined", (), {"generation_id": 7, "member_id": "nobody"})
            for version in range(10):
                answer = await ask(client, ApiKey.JOIN_GROUP, join_body("nobody"), version)
                assert answer.error_code is ErrorCode.UNKNOWN_MEMBER_ID
                answer = await ask(client, ApiKey.JOIN_GROUP, join_body(group=""), version)
                assert answer.error_code is ErrorCode.INVALID_GROUP_ID
            for version in range(6):
                answer = await ask(client, ApiKey.SYNC_GROUP, sync_body(stale, {}), version)
                assert answer.error_code is ErrorCode.UNKNOWN_MEMBER_ID
                answer = await ask(client, ApiKey.SYNC_GROUP, sync_body(stale, {}, group=""), version)
                assert answer.error_code is ErrorCode.INVALID_GROUP_ID
                body: dict[str, Any] = {
                    "group_id": "g",
                    "member_id": "x",
                    "members": [{"member_id": "x", "group_instance_id": None, "reason": None}],
                }
                answer = await ask(client, ApiKey.LEAVE_GROUP, body, version)
                code = answer.error_code if version < 3 else answer.members[0].error_code
                assert code is ErrorCode.UNKNOWN_MEMBER_ID
            answer = await ask(client, ApiKey.SYNC_GROUP, {**sync_body(stale, {}), "protocol_name": None}, 5)
            assert answer.error_code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
            for version in range(5):
                body = {"group_id": "g", "generation_id": 1, "member_id": "x", "group_instance_id": None}
                answer = await ask(client, ApiKey.HEARTBEAT, body, version)
                assert answer.error_code is ErrorCode.UNKNOWN_MEMBER_ID
            for version in range(2, 10):
                body = commit_body({0: 1}, member_id="x", generation=3)
                answer = await ask(client, ApiKey.OFFSET_COMMIT, body, version)
                code = ErrorCode.GROUP_ID_NOT_FOUND if version >= 9 else ErrorCode.ILLEGAL_GENERATION
                assert rows(answer) == [(0, code)]

    run(scenario())


def test_offsets_in_every_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (_, broker, client):
            topic = broker.view.topic_by_name("t")
            assert topic is not None
            topic_id = topic.topic_id
            for version in range(2, 11):
                body = commit_body({0: 100 + version, 1: 5, 9: 5})
                body["topics"][0]["topic_id"] = topic_id
                answer = await ask(client, ApiKey.OFFSET_COMMIT, body, version)
                assert rows(answer) == [
                    (0, ErrorCode.NONE),
                    (1, ErrorCode.NONE),
                    (9, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
                ]
                assert (
                    (answer.topics[0].topic_id == topic_id) if version >= 10 else answer.topics[0].name == "t"
                )
                for fetch_version in range(1, 11):
                    body = fetch_body(fetch_version, topic_id)
                    answer = await ask(client, ApiKey.OFFSET_FETCH, body, fetch_version)
                    found = answer.groups[0] if fetch_version >= 8 else answer
                    (entry,) = found.topics
                    got = [
                        (p.partition_index, p.committed_offset, p.metadata, p.error_code)
                        for p in entry.partitions
                    ]
                    assert got == [(0, 100 + version, "m", ErrorCode.NONE), (7, -1, "", ErrorCode.NONE)]
                    if fetch_version >= 5:
                        assert entry.partitions[0].committed_leader_epoch == (3 if version >= 6 else -1)
            answer = await ask(client, ApiKey.OFFSET_FETCH, {"group_id": "g", "topics": None}, 2)
            assert {p.partition_index for p in answer.topics[0].partitions} == {0, 1}

    run(scenario())


def test_topic_ids_that_nobody_has(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (_, _broker, client):
            body = commit_body({0: 1})
            body["topics"][0]["topic_id"] = UUID(int=99)
            answer = await ask(client, ApiKey.OFFSET_COMMIT, body, 10)
            assert rows(answer) == [(0, ErrorCode.UNKNOWN_TOPIC_ID)]
            assert answer.topics[0].topic_id == UUID(int=99)
            named = {"topic_id": UUID(int=99), "partition_indexes": [0]}
            group = {"group_id": "g", "member_id": None, "member_epoch": -1, "topics": [named]}
            answer = await ask(client, ApiKey.OFFSET_FETCH, {"groups": [group]}, 10)
            (entry,) = answer.groups[0].topics
            assert entry.partitions[0].error_code is ErrorCode.UNKNOWN_TOPIC_ID

    run(scenario())


def test_offsets_of_several_groups_and_their_deletion(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (_, _broker, client):
            for group in ("a", "b"):
                answer = await ask(client, ApiKey.OFFSET_COMMIT, commit_body({0: 1, 1: 2}, group=group))
                assert {code for _, code in rows(answer)} == {ErrorCode.NONE}
            groups = [
                {"group_id": name, "member_id": None, "member_epoch": -1, "topics": None}
                for name in ("a", "b", "c")
            ]
            answer = await ask(client, ApiKey.OFFSET_FETCH, {"groups": groups})
            assert [(g.group_id, len(g.topics)) for g in answer.groups] == [("a", 1), ("b", 1), ("c", 0)]
            named = [
                {"name": "t", "partitions": [{"partition_index": 0}, {"partition_index": 8}]},
                {"name": "nowhere", "partitions": [{"partition_index": 0}]},
            ]
            deleted = await ask(client, ApiKey.OFFSET_DELETE, {"group_id": "a", "topics": named})
            assert deleted.error_code is ErrorCode.NONE
            assert rows(deleted) == [
                (0, ErrorCode.NONE),
                (8, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
                (0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
            ]
            assert await committed(client, group="a") == {("t", 1): 2}
            missing = await ask(client, ApiKey.OFFSET_DELETE, {"group_id": "none", "topics": named})
            assert (missing.error_code, missing.topics) == (ErrorCode.GROUP_ID_NOT_FOUND, ())

    run(scenario())


# -- waiting --------------------------------------------------------------------------------------------------------


def test_a_connection_is_silent_while_its_member_waits_and_the_group_gathers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (made, broker, client):
            first = await join(client)
            other = await made.connect(broker)
            required = await ask(other, ApiKey.JOIN_GROUP, join_body())
            other.send(ApiKey.JOIN_GROUP, 9, join_body(required.member_id))
            other.send(ApiKey.LIST_GROUPS, 5, {"states_filter": [], "types_filter": []})
            beat: dict[str, Any] = {
                "group_id": "g",
                "generation_id": first.generation_id,
                "member_id": first.member_id,
                "group_instance_id": None,
            }

            async def told() -> ErrorCode:
                answer = await ask(client, ApiKey.HEARTBEAT, beat)
                code: ErrorCode = answer.error_code
                return code

            while await told() is not ErrorCode.REBALANCE_IN_PROGRESS:
                await asyncio.sleep(0)
            again = await join(client, first.member_id)
            assert len(again.members) == 2
            joined = await other.receive(ApiKey.JOIN_GROUP, 9)
            assert joined.generation_id == again.generation_id
            listed = await other.receive(ApiKey.LIST_GROUPS, 5)
            assert listed.error_code is ErrorCode.NONE
            other.send(ApiKey.SYNC_GROUP, 5, sync_body(joined, {}))
            shares = {again.member_id: b"one", joined.member_id: b"two"}
            assert (await ask(client, ApiKey.SYNC_GROUP, sync_body(again, shares))).assignment == b"one"
            assert (await other.receive(ApiKey.SYNC_GROUP, 5)).assignment == b"two"
            await other.close()

    run(scenario())


def test_clients_that_hang_up_while_they_wait_leave_nothing_behind(tmp_path: Path) -> None:
    """As in Kafka a muted connection is not read, so that its end shows when the member's answer is due."""

    async def scenario() -> None:
        async with served(tmp_path) as (made, broker, client):
            first = await join(client)
            for count in range(1, 4):
                other = await made.connect(broker)
                required = await ask(other, ApiKey.JOIN_GROUP, join_body(session_ms=100))
                other.send(ApiKey.JOIN_GROUP, 9, join_body(required.member_id, session_ms=100))
                await until(lambda count=count: len(held()) == count)  # type: ignore[misc]
                reset(other)
            assert len((await join(client, first.member_id)).members) == 4
            await until(lambda: not held())
            await until(lambda: len(broker.server.connections) == 1)
            async with asyncio.timeout(10):
                while len((await join(client, first.member_id)).members) > 1:
                    await asyncio.sleep(0.02)
            assert not held()

    def held() -> list[Ticket]:
        return [obj for obj in gc.get_objects() if type(obj) is Ticket and obj._request is not None]

    run(scenario())


def test_a_session_ends_without_heartbeats(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (_, _broker, client):
            joined = await join(client, session_ms=100)
            await ask(client, ApiKey.SYNC_GROUP, sync_body(joined, {joined.member_id: b""}))

            async def state() -> str:
                answer = await ask(client, ApiKey.DESCRIBE_GROUPS, {"groups": ["g"]})
                found: str = answer.groups[0].group_state
                return found

            assert await state() == "Stable"
            async with asyncio.timeout(5):
                while await state() != "Empty":
                    await asyncio.sleep(0.01)

    run(scenario())


# -- lives and deaths -----------------------------------------------------------------------------------------------


def test_commits_and_members_survive_a_crash(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made:
            await configure(made)
            broker = made.broker(**FAST)
            await broker.start()
            await made.create_topic("t", 2)
            await leads(broker, "t", 2)
            await coordinates(broker)
            client = await made.connect(broker)
            joined = await join(client)
            await ask(client, ApiKey.SYNC_GROUP, sync_body(joined, {joined.member_id: b"mine"}))
            for offset in range(1, 30):
                body = commit_body(
                    {0: offset, 1: 7}, member_id=joined.member_id, generation=joined.generation_id
                )
                assert {code for _, code in rows(await ask(client, ApiKey.OFFSET_COMMIT, body))} == {
                    ErrorCode.NONE
                }
            await client.close()
            await crash(broker)
            await broker.groups.close()

            async with running(made, **FAST) as again:
                await coordinates(again)
                client = await made.connect(again)
                assert await committed(client) == {("t", 0): 29, ("t", 1): 7}
                beat = {
                    "group_id": "g",
                    "generation_id": joined.generation_id,
                    "member_id": joined.member_id,
                    "group_instance_id": None,
                }
                assert (await ask(client, ApiKey.HEARTBEAT, beat)).error_code is ErrorCode.NONE
                synced = await ask(client, ApiKey.SYNC_GROUP, sync_body(joined, {}))
                assert synced.assignment == b"mine"
                await client.close()

    run(scenario())


def test_another_broker_is_named_and_this_one_refuses(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made:
            await configure(made, 2)
            async with running(made, broker_id=0, **FAST) as zero, running(made, broker_id=1, **FAST) as one:
                brokers = {0: zero, 1: one}
                await until(
                    lambda: sum(len(b.groups._runtime.active_slots()) for b in brokers.values()) == PARTITIONS
                )
                client = await made.connect(zero)
                found = await ask(client, ApiKey.FIND_COORDINATOR, {"key_type": 0, "coordinator_keys": ["g"]})
                owner = found.coordinators[0].node_id
                topic = zero.view.topic_by_name(CONSUMER_OFFSETS)
                assert topic is not None
                state = topic.partition(partition_for("g", PARTITIONS))
                assert state is not None
                assert owner == state.leader
                wrong = await made.connect(brokers[1 - owner])
                right = await made.connect(brokers[owner])
                assert (await join(wrong)).error_code is ErrorCode.NOT_COORDINATOR
                assert (await join(right)).error_code is ErrorCode.NONE
                described = await ask(wrong, ApiKey.DESCRIBE_GROUPS, {"groups": ["g"]})
                assert described.groups[0].error_code is ErrorCode.NOT_COORDINATOR
                deleted = await ask(wrong, ApiKey.DELETE_GROUPS, {"groups_names": ["g"]})
                assert deleted.results[0].error_code is ErrorCode.NOT_COORDINATOR
                fetched = await ask(wrong, ApiKey.OFFSET_FETCH, {"group_id": "g", "topics": None}, 7)
                assert fetched.error_code is ErrorCode.NOT_COORDINATOR
                named = [{"name": "t", "partition_indexes": [0]}]
                fetched = await ask(wrong, ApiKey.OFFSET_FETCH, {"group_id": "g", "topics": named}, 1)
                assert fetched.topics[0].partitions[0].error_code is ErrorCode.NOT_COORDINATOR
                listed = await ask(wrong, ApiKey.LIST_GROUPS, {"states_filter": [], "types_filter": []})
                assert listed.groups == ()
                for each in (client, wrong, right):
                    await each.close()

    run(scenario())


def test_waiting_members_are_sent_away_when_the_broker_stops(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as made:
            await configure(made)
            async with running(made, **FAST) as broker:
                await coordinates(broker)
                client, other = await made.connect(broker), await made.connect(broker)
                await join(client)
                required = await ask(other, ApiKey.JOIN_GROUP, join_body())
                other.send(ApiKey.JOIN_GROUP, 9, join_body(required.member_id))
                await ask(client, ApiKey.LIST_GROUPS, {"states_filter": [], "types_filter": []})
            answer = await other.receive(ApiKey.JOIN_GROUP, 9)
            assert answer.error_code is ErrorCode.NOT_COORDINATOR
            await client.close()
            await other.close()

    run(scenario())


def test_a_deleted_topic_takes_its_offsets_along(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (_, _broker, client):
            await ask(client, ApiKey.OFFSET_COMMIT, commit_body({0: 4}))
            answer = await client.ask(
                ApiKey.DELETE_TOPICS, 6, {"topics": [{"name": "t", "topic_id": None}], "timeout": 5000}
            )
            assert answer.responses[0].error_code is ErrorCode.NONE
            async with asyncio.timeout(5):
                while await committed(client):
                    await asyncio.sleep(0)

    run(scenario())


# -- the internal topic ---------------------------------------------------------------------------------------------


def test_clients_neither_write_nor_delete_the_internal_topic(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (_, broker, client):
            answer = await client.ask(ApiKey.PRODUCE, 9, produce(CONSUMER_OFFSETS, {0: batch(b"x")}))
            assert answer.responses[0].partition_responses[0].error_code is ErrorCode.INVALID_TOPIC_EXCEPTION
            answer = await client.ask(
                ApiKey.DELETE_TOPICS,
                6,
                {"topics": [{"name": CONSUMER_OFFSETS, "topic_id": None}], "timeout": 1000},
            )
            assert answer.responses[0].error_code is ErrorCode.POLICY_VIOLATION
            found = await client.ask(
                ApiKey.METADATA,
                8,
                {"topics": [{"name": CONSUMER_OFFSETS}], "allow_auto_topic_creation": False},
            )
            assert found.topics[0].is_internal
            assert len(found.topics[0].partitions) == PARTITIONS
            assert broker.replicas.partition(CONSUMER_OFFSETS, 0).log.config.compact

    run(scenario())


def test_it_loads_what_was_committed_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (_, broker, client):
            await ask(client, ApiKey.OFFSET_COMMIT, commit_body({0: 4}))
            partition = broker.replicas.partition(CONSUMER_OFFSETS, partition_for("g", PARTITIONS))
            lead_alone(partition, partition.leader_epoch + 1)
            beat = {"group_id": "g", "generation_id": 1, "member_id": "x", "group_instance_id": None}
            answer = await ask(client, ApiKey.HEARTBEAT, beat)
            assert answer.error_code is ErrorCode.NOT_COORDINATOR, "the shard belongs to the epoch before"
            broker.groups.reconcile()
            fetch = {"group_id": "g", "topics": None}
            code = None
            async with asyncio.timeout(5):
                while code is not ErrorCode.NONE:
                    answer = await ask(client, ApiKey.OFFSET_FETCH, fetch, 7)
                    code = answer.error_code
                    assert code in (ErrorCode.NONE, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
            assert answer.topics[0].partitions[0].committed_offset == 4

    run(scenario())
