"""DeleteRecords is answered when every replica in sync has the new log start; followers are told of it at once."""

from __future__ import annotations

import asyncio

from tests.unit.replica.support import state_of

from strandline_broker.cluster.model import ReplicaRef
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.replica.partition import FlushMode, Partition
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.wire.batch import Record, build_batch

NOW_MS = 1_700_000_000_000


class Producer:
    """A produce request that nobody waits for."""

    acks = 1
    patient = False

    def partition_done(self, row: list[object]) -> None:
        """Take the answer."""


class Follower:
    """A follower's fetch that waits for data."""

    def __init__(self) -> None:
        self.news = 0

    def data_arrived(self, key: tuple[str | bytes, int]) -> None:
        """Take note of data."""

    def high_watermark_moved(self, key: tuple[str | bytes, int]) -> None:
        """Count what there is to learn."""
        self.news += 1


def _partition() -> Partition:
    log = Log.open(SimDisk(), "t-0", LogConfig(), now_ms=NOW_MS, clean=False)
    partition = Partition("t", bytes(16), 0, log, FlushMode.REPLICATED, 0)
    partition.lead(ReplicaRef(0, 1), state_of((0, 1), (1, 1), (2, 1)), 1, 0.0)
    batch = build_batch([Record(value=b"v") for _ in range(10)])
    partition.stage(Producer(), [0] * 8, memoryview(bytearray(batch)), NOW_MS)
    partition.commit()
    return partition


def test_followers_are_told_of_a_new_log_start_and_waited_for() -> None:
    async def scenario() -> None:
        partition = _partition()
        for broker_id in (1, 2):
            partition.follower_fetched(broker_id, 1, 10, 0, 1.0)
        assert partition.high_watermark == 10
        follower = Follower()
        partition.replica_waiters[follower] = ("t", 0)
        deletion = asyncio.ensure_future(partition.delete_records(4))
        await asyncio.sleep(0)
        assert follower.news == 1
        for broker_id in (1, 2):
            assert not deletion.done()
            partition.follower_fetched(broker_id, 1, 10, 4, 2.0)
            await asyncio.sleep(0)
        assert await deletion == 4

    asyncio.run(scenario())
