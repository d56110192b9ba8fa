"""An unclean election of a replica that lacks what is in the bucket, on real brokers: nothing that is there is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.integration.replicated import TOPIC, Trio, trio
from tests.integration.support import Client, cluster, leads, run, running, until
from tests.integration.test_groups import ask, committed
from tests.integration.test_reassignment import states
from tests.integration.test_tiering import CONFIG, Away, read_all, texts, tier, write
from tests.unit.log.support import FailingDisk

from strandline_broker.cluster.internal_topics import CONSUMER_OFFSETS
from strandline_broker.cluster.model import PARTITION_SET, PartitionState, new_partition_set
from strandline_broker.errors import ErrorCode
from strandline_broker.replica.recovery import Recovery
from strandline_broker.server.broker import Broker
from strandline_broker.server.partition_report import RateSampler, report
from strandline_broker.wire.api_keys import ApiKey
from strandline_tiered.directory_store import DirectoryStore
from strandline_tiered.faulty_store import FaultyStore
from strandline_tiered.keys import ClaimName, OffsetsName, PartitionKeys
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.offsets_snapshot import CommittedOffset, OffsetsSnapshot, TopicPartition
from strandline_tiered.offsets_store import write_offsets

FAST: dict[str, Any] = {
    "log_retention_check_interval_ms": "100",
    "replica_lag_time_max_ms": "1000",
    "replica_fetch_wait_max_ms": "200",
}
OFFSETS_ID = UUID(int=11)
FETCH_OFFSETS = {
    "groups": [{"group_id": "g", "member_id": None, "member_epoch": -1, "topics": None}],
    "require_stable": False,
}


async def left_behind(three: Trio) -> tuple[int, int]:
    """Have two replicas of which one lacks acknowledged records; return it, and the one that has all."""
    unclean = {"unclean.leader.election.enable": "true"}
    await three.made.create_topic(TOPIC, replicas=2, config={**CONFIG, **unclean})
    leader = (await three.in_sync(2)).config.broker_id
    (follower,) = set(states(three)[0].replicas) - {leader}
    await write(three, 0, 10)
    await three.crash(follower)
    await three.in_sync(1)
    await write(three, 10, 100)
    return follower, leader


def shown(three: Trio, broker_id: int) -> bool:
    """Return whether `/v1/partitions` shows the partition as recovering."""
    rows = report(three.brokers[broker_id].replicas, RateSampler(), 0.0, three.brokers[broker_id].tiering)
    (row,) = [row for row in rows if row["topic"] == TOPIC]
    return bool(row["recovering"])


def test_who_lacks_what_is_in_the_bucket_begins_behind_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = FaultyStore(DirectoryStore(tmp_path / "bucket"))
        async with trio(tmp_path, bucket=bucket, log_retention_check_interval_ms="100") as three:
            behind, former = await left_behind(three)
            all_of_it = three.partition(former)
            assert all_of_it is not None
            await until(lambda: tier(three, former).tiered_through == all_of_it.log.active.base_offset)
            end = tier(three, former).tiered_through
            assert 10 < end < 100
            await three.crash(former)
            bucket.plan = Away()
            await three.start(behind)
            await until(lambda: three.leader() is not None)
            partition = three.partition(behind)
            assert partition is not None
            # While it cannot look into the bucket it takes nothing, and shows why.
            await until(lambda: states(three)[0].recovering)
            assert await three.write(b"too early") == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
            assert partition.recovery is Recovery.LOG
            assert shown(three, behind)
            bucket.plan = None
            await until(lambda: partition.recovery is Recovery.NONE)
            assert (partition.log.start_offset, partition.log.end_offset) == (end, end)
            assert await read_all(three, three.brokers[behind]) == texts(0, end)
            await write(three, end, end + 30)
            assert await read_all(three, three.brokers[behind]) == texts(0, end + 30)
            await until(lambda: not states(three)[0].recovering)
            await until(lambda: not shown(three, behind))
            # Who led before has more of the old records. It drops them, and has all of the new ones when it leads.
            await three.start(former)
            await three.in_sync(2)
            await three.crash(behind)
            await until(lambda: three.leader() is three.brokers[former])
            await until(lambda: tier(three, former).remote is not None)
            assert await read_all(three, three.brokers[former]) == texts(0, end + 30)
            assert not states(three)[0].recovering

    run(scenario())


def test_a_store_that_was_put_back_learns_from_the_bucket_which_epochs_were_used(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = MemoryStore()
        async with trio(tmp_path, bucket=bucket, **FAST) as three:
            await three.made.create_topic(TOPIC, replicas=3, config=CONFIG)
            leader = await three.in_sync(3)
            await write(three, 0, 50)
            broker_id = leader.config.broker_id
            await until(lambda: tier(three, broker_id).tiered_through > 30)
            assert leader.tiering is not None
            (archiver,) = leader.tiering
            await bucket.put(archiver.keys.key(ClaimName(40)), ())
            await write(three, 50, 100)
            await until(lambda: states(three)[0].leader_epoch == 41)
            await until(lambda: not states(three)[0].recovering)
            assert states(three)[0].leader == broker_id
            await until(lambda: tier(three, broker_id).tiered_through > 80)
            assert await read_all(three, leader) == texts(0, 100), "nothing that it has is lost"

    run(scenario())


def test_a_log_that_failed_and_is_led_on_goes_to_the_bucket_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = MemoryStore()
        async with trio(tmp_path, bucket=bucket, **FAST) as three:
            victim = 0
            await three.stop(victim)
            disk = FailingDisk(tmp_path / "broker-0")
            broker = await three.start(victim, disk=disk)
            for other in (1, 2):
                await three.stop(other)
            await three.made.create_topic(TOPIC, replicas=1, config=CONFIG)
            await until(lambda: three.leader() is not None)
            await write(three, 0, 50)
            await until(lambda: tier(three, victim).tiered_through > 30)
            partition = three.partition(victim)
            assert partition is not None
            epoch = partition.leader_epoch
            disk.fail_sync = True
            broker.syncs.request(partition)
            await three.write(b"not taken")
            await until(lambda: bool(partition.log.failed))
            disk.fail_sync = False
            await broker.log_failures.retry()
            await until(lambda: partition.leader_epoch == epoch + 1)
            start = partition.log.end_offset
            await write(three, start, start + 50)
            await until(lambda: tier(three, victim).tiered_through > start + 30)
            assert not states(three)[0].recovering

    run(scenario())


def test_without_a_bucket_nothing_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            behind, former = await left_behind(three)
            await three.crash(former)
            await three.start(behind)
            await until(lambda: three.leader() is not None)
            assert await three.write(b"at once") == [ErrorCode.NONE]
            await until(lambda: not states(three)[0].recovering)
            assert await read_all(three, three.brokers[behind]) == [*texts(0, 10), b"at once"]

    run(scenario())


def test_restored_groups_go_on_where_the_bucket_says_they_were(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = FaultyStore(MemoryStore())
        async with cluster(tmp_path) as made:
            made.bucket = bucket
            # As restore leaves it: nobody is in sync, everything is in the bucket.
            restored = PartitionState(replicas=(0,), isr=(), leader_epoch=7, recovering=True)
            part = new_partition_set(
                cluster="test", topic_id=OFFSETS_ID, topic_name=CONSUMER_OFFSETS, slice_index=0,
                config={"cleanup.policy": "compact"}, partitions=(restored,),
            )  # fmt: skip
            await made.store.create(PARTITION_SET, part.to_object())
            bucket.plan = Away()
            async with running(made) as broker:
                keys = PartitionKeys(UUID(broker.cluster_id), CONSUMER_OFFSETS, OFFSETS_ID, 0)
                groups = {"g": {TopicPartition("t", 0): CommittedOffset(42, 3, "m", 1_700_000_000_000)}}
                snapshot = OffsetsSnapshot(0, OffsetsName(7, 1), 5, groups)
                bucket.plan = None
                await write_offsets(bucket, keys, snapshot)
                bucket.plan = Away()
                await leads(broker, CONSUMER_OFFSETS)
                client = await made.connect(broker)
                loading = await ask(client, ApiKey.OFFSET_FETCH, FETCH_OFFSETS)
                assert loading.groups[0].error_code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
                bucket.plan = None
                await until(lambda: not recovering(broker))
                assert await committed(client) == {("t", 0): 42}
                await client.close()
            # It is in the log from then on, whatever the bucket has.
            bucket.plan = Away()
            async with running(made) as broker:
                await leads(broker, CONSUMER_OFFSETS)
                client = await made.connect(broker)
                await until_loaded(client)
                assert await committed(client) == {("t", 0): 42}
                await client.close()

    run(scenario())


async def until_loaded(client: Client) -> None:
    async with asyncio.timeout(10):
        while (await ask(client, ApiKey.OFFSET_FETCH, FETCH_OFFSETS)).groups[0].error_code:
            await asyncio.sleep(0)


def recovering(broker: Broker) -> bool:
    state = broker.view.partition(CONSUMER_OFFSETS, 0)
    return state is None or state.recovering
