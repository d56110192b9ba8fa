"""What a broker shows of tiered storage, in /v1/partitions and in its metrics."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast
from uuid import UUID

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector
from tests.unit.replica.tiered_support import KEYS, led, sealed

from strandline_broker.replica.partition import Partition
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.threads import SystemThreads
from strandline_broker.server.config import load
from strandline_broker.server.partition_report import RateSampler, report
from strandline_broker.server.tier_metrics import TierTotals, tier_metrics, tier_report
from strandline_broker.server.tiering import Tiering, local_only_bytes, unprotected_bytes
from strandline_tiered.cost import RequestCounts
from strandline_tiered.memory_store import MemoryStore


class Replicas:
    """Leads one partition, or nothing."""

    def __init__(self, *partitions: Partition) -> None:
        self._partitions = partitions

    def led(self) -> list[tuple[tuple[UUID, int], Partition]]:
        return [((KEYS.topic_id, 0), partition) for partition in self._partitions]


def tiering_of(incarnation: str = "i") -> Tiering:
    return Tiering(
        load(None, ["broker_id=0", "data_dir=/d", "store=sqlite:/s"], {}),
        MemoryStore(),
        counts=RequestCounts(puts=3),
        cluster_id=str(KEYS.cluster_id),
        incarnation=incarnation,
        clock=ManualClock(),
        rng=random.Random(1),
        threads=SystemThreads(),
        request_sync=lambda partition: None,
    )


async def settle(tiering: Tiering) -> None:
    for archiver in tiering:
        while archiver._tasks:
            await asyncio.wait(archiver._tasks)
            await asyncio.sleep(0)


def test_reports_say_what_is_where() -> None:
    async def test() -> None:
        partition = led()
        partition.start_tiering()
        tiering = tiering_of()
        (row,) = report([partition], RateSampler(), 0.0, tiering)
        assert (row["localLogStartOffset"], row["tieredThrough"]) == (0, 0)
        assert "tier" not in row, "no archiver yet"
        assert tier_report(0, tiering) == tier_report(0, None) == {"broker": 0, "topics": []}
        tiering.roles_changed(cast("Any", Replicas(partition)))
        (row,) = report([partition], RateSampler(), 0.0, tiering)
        assert row["tier"]["state"] == "claiming"
        assert row["tier"]["remoteBytes"] == -1
        (shown,) = tier_report(0, tiering)["topics"]
        assert (shown["partitions"], shown["partitionsNotLoaded"], shown["storedBytes"]) == (0, 1, 0)
        await settle(tiering)
        (row,) = report([partition], RateSampler(), 0.0, tiering)
        log = partition.log
        assert row["tieredThrough"] == log.active.base_offset
        assert row["tier"]["state"] == "ready"
        assert row["tier"]["remoteBytes"] == log.size_bytes - log.active.size
        assert row["tier"]["remoteEndOffset"] == log.active.base_offset
        assert row["tier"]["unprotectedBytes"] == log.active.size
        assert "problem" not in row["tier"]
        (shown,) = tier_report(0, tiering)["topics"]
        assert shown["topicId"] == str(KEYS.topic_id)
        assert (shown["topic"], shown["partitions"], shown["partitionsNotLoaded"]) == ("t", 1, 0)
        assert shown["unprotectedBytes"] == log.active.size
        assert shown["storedBytes"] > row["tier"]["remoteBytes"], "objects have indexes, too"
        totals = TierTotals.of(tiering)
        assert (totals.uploads, totals.failures) == (len(sealed(partition)), 0)
        assert totals.topics["t"].remote_bytes == log.size_bytes - log.active.size

        class Shown(Collector):
            def collect(self) -> Any:
                return tier_metrics(totals)

        registry = CollectorRegistry()
        registry.register(Shown())
        text = generate_latest(registry).decode()
        assert f"strandline_tier_uploads_total {float(totals.uploads)}" in text
        assert 'strandline_tier_requests_total{kind="put"} 3.0' in text
        assert "strandline_tier_bucket_usable" not in text, "not asked yet"
        assert 'strandline_tier_monthly_cost{part="storage"}' in text
        await tiering.probe()
        assert TierTotals.of(tiering).usable is True
        assert f'strandline_tier_unprotected_bytes{{topic="t"}} {float(log.active.size)}' in text
        tiering.roles_changed(cast("Any", Replicas()))
        assert list(tiering) == []
        assert TierTotals.of(tiering).topics == {}
        await tiering.close()

    asyncio.run(test())


def test_an_epoch_is_begun_once() -> None:
    async def test() -> None:
        partition = led()
        partition.start_tiering()
        tiering = tiering_of()
        for is_new in (True, False):
            tiering.roles_changed(cast("Any", Replicas(partition)))
            (archiver,) = tiering
            assert archiver.state.phase.value == "claiming"
            assert archiver.copies is is_new
            await settle(tiering)
            tiering.roles_changed(cast("Any", Replicas()))
        await tiering.close()
        other = tiering_of("another life")
        other.roles_changed(cast("Any", Replicas(partition)))
        (archiver,) = other
        assert not archiver.copies, "the epoch was given to somebody else"
        await other.close()

    asyncio.run(test())


def test_unprotected_is_what_lies_behind_the_end() -> None:
    log = led().log
    assert unprotected_bytes(log, 0) == log.size_bytes
    third = log.segments[2].base_offset
    assert unprotected_bytes(log, third) == log.size_bytes - sum(one.size for one in log.segments[:2])
    assert unprotected_bytes(log, log.active.base_offset) == log.active.size


def test_what_is_in_the_bucket_does_not_count_again_where_segments_begin_elsewhere() -> None:
    """Another leader sealed them at other offsets: retention took a segment too many."""
    log = led().log
    assert local_only_bytes(log, 0) == log.size_bytes
    third = log.segments[2]
    before = sum(one.size for one in log.segments[:2])
    assert local_only_bytes(log, third.base_offset) == log.size_bytes - before
    within = next(header.next_offset for _, header in third.headers())
    assert third.base_offset < within < log.segments[3].base_offset
    assert local_only_bytes(log, within) == log.size_bytes - before - third.position_of(within)
    assert local_only_bytes(log, log.end_offset) == 0
