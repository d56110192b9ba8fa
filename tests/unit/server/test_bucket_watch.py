"""What a broker says of its bucket in its Lease, and when."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any, cast

import pytest
from tests.unit.replica.tiered_support import KEYS, NOW_MS, InlineThreads, LoopClock, led
from tests.unit.server.test_tier_reports import Replicas
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.cluster.model import BrokerLease, StorageReport
from strandline_broker.replica.disk_pressure import DiskPressure
from strandline_broker.server.bucket_watch import QUIET_S, BucketFindings, BucketWatch
from strandline_broker.server.config import load
from strandline_broker.server.tiering import Tiering
from strandline_tiered.counting_store import CountingStore
from strandline_tiered.faulty_store import Fault, FaultyStore, Kind
from strandline_tiered.memory_store import MemoryStore
from strandline_tiered.probe import Capabilities

AGE_MS = 600_000
WORKS = Capabilities(conditional_writes=True)
READY = StorageReport(bucket="Ready", conditional_writes=True)


def findings() -> BucketFindings:
    return BucketFindings(AGE_MS, 100.0, NOW_MS)


def test_nothing_is_said_before_the_bucket_was_tried() -> None:
    assert findings().report(None, "free") == StorageReport()


def test_what_it_can_do_is_said() -> None:
    found = findings()
    assert found.report(WORKS, "throttled") == StorageReport(
        bucket="Ready", conditional_writes=True, producers="throttled"
    )
    broken = Capabilities(reason="AccessDenied", trouble="no")
    assert found.report(broken, "free") == StorageReport(bucket="AccessDenied", message="no")


def test_a_bucket_is_away_once_it_was_asked_and_back_with_its_next_answer() -> None:
    found = findings()
    found.answers(7, 105.0, NOW_MS + 5_000)
    found.answers(7, 130.0, NOW_MS + 30_000)
    assert not found.must_ask(105.0 + QUIET_S - 0.1)
    assert found.must_ask(105.0 + QUIET_S)
    assert found.report(WORKS, "free").bucket == "Ready", "silence alone says nothing"
    found.no_answer("Unavailable", "refused")
    report = found.report(WORKS, "free")
    assert (report.bucket, report.message, report.away_since) == (
        "Unavailable",
        "refused",
        "2023-11-14T22:13:25Z",
    )
    found.no_answer("Unavailable", "timed out")
    assert found.report(WORKS, "free") == report, "another text is no news"
    assert found.must_ask(106.0)
    found.answers(8, 200.0, NOW_MS + 95_000)
    assert not found.must_ask(201.0)
    assert found.report(WORKS, "free") == StorageReport(bucket="Ready", conditional_writes=True)


def test_records_are_late_at_twice_the_age_and_that_moves_only_when_it_ends() -> None:
    found = findings()
    late = 2 * AGE_MS
    found.oldest_unprotected(late, NOW_MS)
    assert not found.report(WORKS, "free").unprotected_since
    found.oldest_unprotected(late + 1000, NOW_MS)
    since = found.report(WORKS, "free").unprotected_since
    assert since == "2023-11-14T21:53:19Z"
    for age_ms in (late + 60_000, late, int(0.8 * late)):
        found.oldest_unprotected(age_ms, NOW_MS + 60_000)
        assert found.report(WORKS, "free").unprotected_since == since
    found.oldest_unprotected(int(0.75 * late), NOW_MS)
    assert not found.report(WORKS, "free").unprotected_since


def test_uploads_get_a_minute_where_segments_are_sealed_often() -> None:
    found = BucketFindings(1000, 0.0, NOW_MS)
    found.oldest_unprotected(61_000, NOW_MS)
    assert not found.report(WORKS, "free").unprotected_since
    found.oldest_unprotected(61_001, NOW_MS)
    assert found.report(WORKS, "free").unprotected_since


class Away:
    """Nothing gets through."""

    def draw(self, operation: str, key: str) -> Fault:
        return Fault(Kind.UNAVAILABLE)


class Keeper:
    """Keeps what the Lease was made to say."""

    def __init__(self) -> None:
        self.lease = BrokerLease(0, "i", 1, {}, cluster="dev")
        self.said: list[StorageReport] = []

    async def update(self, *, storage: StorageReport) -> None:
        self.lease = replace(self.lease, storage=storage)
        self.said.append(storage)


@pytest.mark.parametrize("idle", [True, False])
def test_the_lease_changes_when_the_bucket_goes_and_when_it_comes_back(idle: bool) -> None:
    async def scenario() -> None:
        clock, bucket = LoopClock(), FaultyStore(MemoryStore())
        counting = CountingStore(bucket)
        tiering = Tiering(
            load(None, ["broker_id=0", "data_dir=/d", "store=sqlite:/s"], {}),
            counting,
            counts=counting.counts,
            cluster_id=str(KEYS.cluster_id),
            incarnation="i",
            clock=clock,
            rng=random.Random(1),
            threads=InlineThreads(),
            request_sync=lambda partition: None,
        )
        partition = led()
        partition.start_tiering()
        if not idle:
            tiering.roles_changed(cast("Any", Replicas(partition)))
        keeper = Keeper()
        watch = BucketWatch(
            tiering, 1000 * AGE_MS, pressure=DiskPressure(), lease_keeper=cast("Any", keeper), clock=clock
        )
        running = asyncio.get_running_loop().create_task(watch.run())
        await asyncio.sleep(600)
        assert keeper.said == [READY]
        # Asked only when nothing else asked it.
        assert counting.counts.gets < 600 / QUIET_S + 10
        bucket.plan = Away()
        await asyncio.sleep(QUIET_S + 15)
        report = keeper.said[-1]
        assert report.bucket == "Unavailable"
        assert report.message
        assert report.away_since
        await asyncio.sleep(600)
        assert keeper.said == [READY, report], "it is said once"
        bucket.plan = None
        await asyncio.sleep(15)
        assert keeper.said == [READY, report, READY]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await tiering.close()

    virtually(scenario)
