"""What brokers say of replicas: to clients, to who watches, and to who waits until one is ready."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from tests.integration.replicated import TOPIC, Trio, eventually, trio
from tests.integration.support import run, until
from tests.integration.test_replication_throttle import limit

from strandline_broker.errors import ErrorCode
from strandline_broker.server.broker import Broker
from strandline_broker.server.http import HttpServer
from strandline_broker.server.metrics import TopicTotals, take_snapshot
from strandline_broker.wire.api_keys import ApiKey

MIN_ISR_2 = {"min.insync.replicas": "2"}


async def described(three: Trio, broker: Broker) -> tuple[Any, Any]:
    """Return the partition as DescribeTopicPartitions and Metadata show it at a broker."""
    client = await three.made.connect(broker)
    ask = {"topics": [{"name": TOPIC}], "response_partition_limit": 10, "cursor": None}
    answer = await client.ask(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, ask)
    asked = {
        "topics": [{"topic_id": None, "name": TOPIC}],
        "allow_auto_topic_creation": False,
        "include_topic_authorized_operations": False,
    }
    metadata = await client.ask(ApiKey.METADATA, 12, asked)
    await client.close()
    return answer.topics[0].partitions[0], metadata.topics[0].partitions[0]


@contextlib.asynccontextmanager
async def http(broker: Broker) -> AsyncIterator[aiohttp.ClientSession]:
    server = HttpServer(broker)
    host, port = await server.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
            yield session
    finally:
        await server.stop()


async def readiness(session: aiohttp.ClientSession) -> str:
    """Return the answer when it is the one for its status."""
    async with session.get("/readyz") as answer:
        text = await answer.text()
        assert (answer.status == 200) == (text == "ready\n")
        return text


def totals(broker: Broker) -> TopicTotals:
    return take_snapshot(broker).topics[TOPIC]


def test_replicas_that_are_dead_are_told_from_those_that_are_in_sync(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
            leader = await three.in_sync(3)
            first = leader.config.broker_id
            second, third = (broker_id for broker_id in three.brokers if broker_id != first)
            assert await three.write(b"a") == [0]
            for broker in three.brokers.values():
                seen, told = await described(three, broker)
                assert sorted(seen.isr_nodes) == sorted(told.isr_nodes) == [0, 1, 2]
                assert (seen.leader_id, told.leader_id) == (first, first)
                assert not (*seen.offline_replicas, *told.offline_replicas, *seen.eligible_leader_replicas)

            await three.crash(third)
            await three.in_sync(2)
            survivor = three.brokers[second]
            seen, told = await eventually(
                lambda: described(three, survivor),
                lambda both: len(both[0].isr_nodes) == 2 and len(both[0].offline_replicas) == 1,
            )
            assert set(seen.isr_nodes) == set(told.isr_nodes) == {first, second}
            assert tuple(seen.offline_replicas) == tuple(told.offline_replicas) == (third,)
            assert tuple(seen.eligible_leader_replicas) == ()
            found = totals(leader)
            assert (found.under_replicated, found.at_min_isr, found.under_min_isr) == (1, 1, 0)

            await three.crash(second)
            await three.in_sync(1)
            found = totals(leader)
            assert (found.under_replicated, found.at_min_isr, found.under_min_isr) == (1, 0, 1)
            await three.crash(first)
            late = await three.start(third)
            # The last of the ISR and who left it below the minimum are dead: nobody may lead.
            seen, told = await eventually(
                lambda: described(three, late),
                lambda both: both[0].leader_id == -1 and len(both[0].offline_replicas) == 2,
            )
            assert (tuple(seen.isr_nodes), tuple(seen.eligible_leader_replicas)) == ((first,), (second,))
            assert set(seen.offline_replicas) == {first, second}
            assert (told.leader_id, told.error_code) == (-1, ErrorCode.LEADER_NOT_AVAILABLE)
            assert (tuple(told.isr_nodes), set(told.offline_replicas)) == ((first,), {first, second})
            await until(lambda: totals(late).offline == 1)
            async with http(late) as session:
                assert f"{TOPIC}-0: not in the in-sync replicas\n" in await readiness(session)
                async with session.get("/healthz") as answer:
                    assert answer.status == 200
                await three.start(second)
                await eventually(lambda: readiness(session), lambda text: text == "ready\n")
            await until(lambda: set(three.isr()) == {second, third})
            assert await three.write(b"b") == [0]

    run(scenario())


def test_a_follower_that_lags_is_shown_by_itself_and_by_its_leader(tmp_path: Path) -> None:
    async def lag(three: Trio, broker: Broker) -> int:
        client = await three.made.connect(broker)
        answer = await client.ask(ApiKey.DESCRIBE_LOG_DIRS, 4, {"topics": None})
        await client.close()
        lags = [topic.partitions[0].offset_lag for topic in answer.results[0].topics if topic.name == TOPIC]
        return int(lags[0]) if lags else -1

    async def scenario() -> None:
        async with trio(tmp_path) as three:
            names = {**MIN_ISR_2, "leader.replication.throttled.replicas": "*"}
            await three.made.create_topic(TOPIC, config=names, replicas=3)
            leader = await three.in_sync(3)
            for broker in three.brokers.values():
                await eventually(partial(lag, three, broker), lambda records: records == 0)
            slow = next(broker for broker in three.brokers.values() if broker is not leader)
            await three.crash(slow.config.broker_id)
            await three.in_sync(2)
            assert await three.write(b"a", b"b", b"c") == [0, 0, 0]
            await limit(three, "leader", 0)
            slow = await three.start(slow.config.broker_id)

            assert await eventually(lambda: lag(three, slow), lambda records: records > 0) == 3
            assert totals(slow).max_lag == 3
            await until(lambda: totals(leader).max_follower_lag == 3)
            assert await lag(three, leader) == 0
            async with http(leader) as session, session.get("/v1/partitions") as answer:
                (shown,) = [row for row in (await answer.json())["partitions"] if row["topic"] == TOPIC]
            behind = [one for one in shown["followers"] if one["lag"] > 0]
            assert behind == [{"broker": slow.config.broker_id, "logEndOffset": 0, "lag": 3, "inSync": False}]
            async with http(slow) as session, session.get("/v1/partitions") as answer:
                (shown,) = [row for row in (await answer.json())["partitions"] if row["topic"] == TOPIC]
            assert (shown["role"], shown["lag"]) == ("follower", 3)

            await limit(three, "leader", 1 << 30)
            await three.in_sync(3)
            await eventually(lambda: lag(three, slow), lambda records: records == 0)
            assert totals(slow).max_lag == 0
            snapshot = take_snapshot(leader)
            assert snapshot.topics[TOPIC].replicated_out > 0
            assert snapshot.replication.isr_expansions > 0
            found = take_snapshot(slow).replication
            assert found.connections == found.leaders_followed > 0
            assert totals(slow).replicated_in == totals(leader).bytes_in

    run(scenario())
