from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from strandline_broker.cluster.cache import ClusterCache
from strandline_broker.cluster.model import (
    PARTITION_SET,
    PartitionState,
    ReplicaRef,
    derive_topic_id,
    new_partition_set,
)
from strandline_broker.log.cleaner import CleanerMetrics
from strandline_broker.net.metrics import CloseReason, NetMetrics
from strandline_broker.replica.disk_pressure import DiskPressure
from strandline_broker.seams.clock import ManualClock
from strandline_broker.server.http import HttpServer
from strandline_broker.server.metrics import MetricsRegistry, take_snapshot
from strandline_broker.server.partition_report import RateSampler, report
from strandline_broker.server.replication import Throttles


def fake_partition(topic: str, index: int, **changes: Any) -> Any:
    log = SimpleNamespace(start_offset=5, end_offset=20, synced_end=18, size_bytes=1000, failed="")
    fields = {
        "log_start_offset": 5,
        "is_leader": True,
        "leader_id": 0,
        "leader_epoch": 3,
        "high_watermark": 17,
        "last_stable_offset": 16,
        "isr_size": 1,
        "min_isr": 1,
        "bytes_in": 0,
        "bytes_out": 0,
        "replicated_in": 0,
        "replicated_out": 0,
        "lag": 0,
        "leadership": None,
        "tier": None,
    }
    return SimpleNamespace(topic=topic, index=index, log=log, **{**fields, **changes})


def leading(
    *isr: int,
    replicas: tuple[int, ...] = (0, 1, 2),
    adding: tuple[int, ...] = (),
    ends: dict[int, int] | None = None,
) -> dict[str, Any]:
    """Return what a partition has that broker 0 leads; `ends` are the log ends of followers that fetched."""
    state = PartitionState(
        replicas=replicas,
        adding=adding,
        isr=tuple(ReplicaRef(b, 7) for b in isr),
        leader=0,
        partition_epoch=4,
    )
    followers = {broker: SimpleNamespace(log_end=end) for broker, end in (ends or {}).items()}
    return {"leadership": SimpleNamespace(state=state, followers=followers), "isr_size": len(isr)}


def replication() -> Any:
    throttles = Throttles.make(0, ClusterCache("dev"))
    throttles.leader.set_rate(5000.0, 0.0)
    return SimpleNamespace(
        fetchers=SimpleNamespace(
            followed_count=12,
            leader_count=2,
            counters=SimpleNamespace(connections=3, failures=1, refusals=5),
        ),
        keeper=SimpleNamespace(shrinks=6, expansions=7),
        throttles=throttles,
    )


class Replicas(list[Any]):
    """Partitions, and logs that could not be opened."""

    def __init__(self, partitions: Iterable[Any]) -> None:
        super().__init__(partitions)
        self.not_open: list[tuple[str, int, str]] = []

    def unopened(self) -> Iterator[tuple[str, int, str]]:
        return iter(self.not_open)


def fake_broker(*partitions: Any) -> Any:
    view: Any = ClusterCache("dev")
    view.fresh_since = 1.0
    return SimpleNamespace(
        config=SimpleNamespace(broker_id=0),
        own_ref=ReplicaRef(0, 7),
        cluster_id="abc",
        ready=True,
        clock=ManualClock(),
        view=view,
        replicas=Replicas(partitions),
        server=SimpleNamespace(metrics=NetMetrics()),
        handlers=SimpleNamespace(fetch=SimpleNamespace(parked_count=4), sessions=[1, 2]),
        syncs=SimpleNamespace(flusher=SimpleNamespace(groups=9)),
        replication=replication(),
        storage=SimpleNamespace(health=SimpleNamespace(writable=True, failures=0)),
        disk_watch=SimpleNamespace(pressure=DiskPressure(85, 95), retention=SimpleNamespace(freed_bytes=55)),
        tiering=None,
        keeper=None,
        cleaning=SimpleNamespace(
            cleaner=SimpleNamespace(
                metrics=CleanerMetrics(cleanings=3, bytes_freed=700, cpu_s=1.5), uncleanable=["t-0"]
            )
        ),
    )


@asynccontextmanager
async def serving(broker: Any) -> AsyncIterator[Any]:
    server = HttpServer(broker)
    host, port = await server.start("127.0.0.1", 0)
    assert port > 0
    try:
        async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
            yield session
    finally:
        await server.stop()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_health_and_readiness() -> None:
    async def main() -> None:
        broker = fake_broker()
        async with serving(broker) as http:
            async with http.get("/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
            async with http.get("/readyz") as answer:
                assert (answer.status, await answer.text()) == (200, "ready\n")
            broker.ready = False
            async with http.get("/readyz") as answer:
                assert answer.status == 503
                assert "starting or stopping" in await answer.text()
            broker.ready, broker.storage.health.writable = True, False
            async with http.get("/readyz") as answer:
                assert (answer.status, await answer.text()) == (503, "its disk cannot be written to\n")
            broker.storage.health.writable = True
            broker.replicas.not_open.append(("t", 3, "no such disk"))
            async with http.get("/readyz") as answer:
                assert answer.status == 503
                assert (
                    await answer.text()
                    == "t-3: its log could not be opened, it is tried again: no such disk\n"
                )

    run(main())


def test_a_broker_outside_the_isr_is_not_ready() -> None:
    def state(*, isr: tuple[int, ...], adding: tuple[int, ...] = (), generation: int = 7) -> PartitionState:
        members = tuple(ReplicaRef(broker, generation) for broker in isr)
        return PartitionState(replicas=(0, 1), isr=members, leader=1, adding=adding)

    async def main() -> None:
        broker = fake_broker()
        states = (
            state(isr=(0, 1)),
            state(isr=(1,), adding=(0,)),
            state(isr=(1,)),
            state(isr=(0, 1), generation=6),
        )
        made = new_partition_set(
            cluster="dev",
            topic_id=derive_topic_id("u", "t"),
            topic_name="t",
            slice_index=0,
            config={},
            partitions=states,
        )
        broker.view.replace(PARTITION_SET, [made.to_object()])
        async with serving(broker) as http, http.get("/readyz") as answer:
            assert answer.status == 503
            assert await answer.text() == (
                "t-2: not in the in-sync replicas\nt-3: not in the in-sync replicas\n"
            )

    run(main())


def test_metrics_show_the_counters() -> None:
    async def main() -> None:
        failed = fake_partition("b", 0, is_leader=False, leader_id=1, lag=-1)
        failed.log.failed = "no such disk"
        broker = fake_broker(
            fake_partition("a", 0, bytes_in=100, bytes_out=7, **leading(0, 1, 2, ends={1: 20, 2: 18})),
            fake_partition("a", 1, bytes_in=11, min_isr=2, **leading(0, ends={1: 5})),
            fake_partition("a", 2, replicated_out=70, **leading(0, 1, adding=(2,))),
            failed,
            fake_partition("b", 1, is_leader=False, leader_id=-1),
            # Broker 2 was a replica once.
            fake_partition("c", 0, **leading(0, 1, replicas=(0, 1), ends={1: 19, 2: 0})),
            fake_partition("b", 2, is_leader=False, leader_id=1, lag=9, replicated_in=80),
        )
        net = broker.server.metrics
        net.open_by_listener["PLAINTEXT"] = 3
        net.closed[CloseReason.IDLE] = 2
        net.requests = 42
        net.memory_waits = 6
        async with serving(broker) as http, http.get("/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            found = samples(await answer.text())
        assert found["strandline_broker_info", (("broker_id", "0"), ("cluster_id", "abc"))] == 1
        assert found["strandline_broker_ready", ()] == 1
        assert found["strandline_broker_control_plane_away", ()] == 0
        assert found["strandline_broker_storage_writable", ()] == 1
        assert found["strandline_broker_storage_failures_total", ()] == 0
        assert found["strandline_net_connections", (("listener", "PLAINTEXT"),)] == 3
        assert found["strandline_net_connections_closed_total", (("reason", "idle"),)] == 2
        assert found["strandline_net_requests_total", ()] == 42
        assert found["strandline_net_pauses_total", (("limit", "request_memory"),)] == 6
        assert found["strandline_fetch_parked", ()] == 4
        assert found["strandline_fetch_sessions", ()] == 2
        assert found["strandline_log_sync_groups_total", ()] == 9
        assert found["strandline_log_cleaner_cleanings_total", ()] == 3
        assert found["strandline_log_cleaner_freed_bytes_total", ()] == 700
        assert found["strandline_log_cleaner_cpu_seconds_total", ()] == 1.5
        assert found["strandline_log_cleaner_uncleanable_logs", ()] == 1
        a, b = (("topic", "a"),), (("topic", "b"),)
        assert found["strandline_topic_partitions", a] == 3
        assert found["strandline_topic_leaders", a] == 3
        assert found["strandline_topic_leaders", b] == 0
        assert found["strandline_topic_under_replicated_partitions", a] == 1
        assert found["strandline_topic_under_min_isr_partitions", a] == 1
        assert found["strandline_topic_at_min_isr_partitions", a] == 0
        assert found["strandline_topic_offline_partitions", a] == 0
        assert found["strandline_topic_offline_partitions", b] == 1
        assert found["strandline_topic_max_lag_records", b] == 9
        assert found["strandline_topic_max_follower_lag_records", a] == 15
        assert found["strandline_topic_max_follower_lag_records", (("topic", "c"),)] == 1
        assert found["strandline_topic_replication_received_bytes_total", b] == 80
        assert found["strandline_topic_replication_sent_bytes_total", a] == 70
        assert found["strandline_topic_failed_partitions", b] == 1
        assert found["strandline_topic_size_bytes", a] == 3000
        assert found["strandline_topic_unsynced_records", a] == 6
        assert found["strandline_topic_received_bytes_total", a] == 111
        assert found["strandline_topic_sent_bytes_total", a] == 7
        assert found["strandline_replication_followed_partitions", ()] == 12
        assert found["strandline_replication_leaders_followed", ()] == 2
        assert found["strandline_replication_connections_total", ()] == 3
        assert found["strandline_replication_connection_failures_total", ()] == 1
        assert found["strandline_replication_fetch_errors_total", ()] == 5
        assert found["strandline_replication_isr_shrinks_total", ()] == 6
        assert found["strandline_replication_isr_expansions_total", ()] == 7
        limits = [key for key in found if key[0] == "strandline_replication_throttle_bytes_per_second"]
        assert limits == [("strandline_replication_throttle_bytes_per_second", (("direction", "leader"),))]
        assert found[limits[0]] == 5000
        assert ("process_resident_memory_bytes", ()) in found

    run(main())


def test_two_brokers_in_one_process_do_not_share_metrics() -> None:
    texts = []
    for topic in ("x", "y"):
        broker = fake_broker(fake_partition(topic, 0))
        texts.append(MetricsRegistry().render(take_snapshot(broker)).decode())
    assert 'topic="x"' in texts[0]
    assert 'topic="x"' not in texts[1]


def test_partitions_as_json() -> None:
    async def main() -> None:
        broker = fake_broker(
            fake_partition("b", 0, is_leader=False, leader_id=-1),
            fake_partition("a", 1, is_leader=False, leader_id=2, lag=4),
            fake_partition("a", 0, min_isr=2, **leading(0, 2, ends={2: 18})),
        )
        async with serving(broker) as http:
            async with http.get("/v1/partitions") as answer:
                body = await answer.json()
            async with http.get("/v1/partitions", params={"topic": "b"}) as answer:
                only_b = await answer.json()
        assert body["broker"] == 0
        assert [(row["topic"], row["partition"], row["role"]) for row in body["partitions"]] == [
            ("a", 0, "leader"),
            ("a", 1, "follower"),
            ("b", 0, "offline"),
        ]
        assert body["partitions"][0] == {
            "topic": "a",
            "partition": 0,
            "role": "leader",
            "leader": 0,
            "leaderEpoch": 3,
            "logStartOffset": 5,
            "highWatermark": 17,
            "lastStableOffset": 16,
            "syncedEndOffset": 18,
            "logEndOffset": 20,
            "sizeBytes": 1000,
            "bytesInPerSecond": 0.0,
            "bytesOutPerSecond": 0.0,
            "replicationBytesInPerSecond": 0.0,
            "replicationBytesOutPerSecond": 0.0,
            "replicas": [0, 1, 2],
            "isr": [0, 2],
            "eligibleLeaderReplicas": [],
            "minInsyncReplicas": 2,
            "partitionEpoch": 4,
            "recovering": False,
            "followers": [
                {"broker": 1, "logEndOffset": -1, "lag": -1, "inSync": False},
                {"broker": 2, "logEndOffset": 18, "lag": 2, "inSync": True},
            ],
        }
        follower, offline = body["partitions"][1:]
        assert follower["lag"] == 4
        assert not {"isr", "followers"} & follower.keys()
        assert "lag" not in offline
        assert [row["topic"] for row in only_b["partitions"]] == ["b"]

    run(main())


def test_rates_look_back_one_to_two_samples() -> None:
    partition = fake_partition("a", 0)
    sampler = RateSampler()
    assert sampler.rates(partition, 0.0) == (0.0, 0.0, 0.0, 0.0)
    sampler.sample([partition], 10.0)
    partition.bytes_in, partition.bytes_out = 500, 50
    partition.replicated_in, partition.replicated_out = 5, 1000
    assert sampler.rates(partition, 15.0) == (100.0, 10.0, 1.0, 200.0)
    sampler.sample([partition], 15.0)
    partition.bytes_in += 500
    assert sampler.rates(partition, 20.0) == (100.0, 5.0, 0.5, 100.0)
    sampler.sample([partition], 20.0)
    assert sampler.rates(partition, 25.0) == (50.0, 0.0, 0.0, 0.0)


def test_rates_survive_a_partition_that_was_opened_again() -> None:
    sampler = RateSampler()
    sampler.sample([fake_partition("a", 0, bytes_in=1_000_000)], 0.0)
    again = fake_partition("a", 0, bytes_in=100)
    assert sampler.rates(again, 10.0) == (10.0, 0.0, 0.0, 0.0)


def test_a_failed_log_says_why() -> None:
    partition = fake_partition("a", 0)
    partition.log.failed = "disk gone"
    (row,) = report([partition], RateSampler(), 0.0)
    assert (row["role"], row["problem"]) == ("failed", "disk gone")


def test_how_full_the_disk_is_as_metrics_and_json() -> None:
    async def main() -> None:
        broker = fake_broker()
        async with serving(broker) as http:
            async with http.get("/metrics") as answer:
                assert "strandline_disk_" not in await answer.text(), "nobody looked"
            broker.disk_watch.pressure.measured(100, 1000)
            broker.disk_watch.pressure.refusal()
            async with http.get("/metrics") as answer:
                found = samples(await answer.text())
            async with http.get("/v1/storage") as answer:
                shown = await answer.json()
            async with http.get("/v1/tiers") as answer:
                assert await answer.json() == {"broker": 0, "topics": []}
        assert found["strandline_disk_size_bytes", ()] == 1000
        assert found["strandline_disk_free_bytes", ()] == 100
        assert found["strandline_disk_pressure", ()] == 1
        assert found["strandline_disk_produce_limit_bytes_per_second", ()] > 0
        assert found["strandline_disk_refused_batches_total", ()] == 1
        assert found["strandline_disk_released_bytes_total", ()] == 55
        assert (shown["broker"], shown["writable"], shown["producers"]) == (0, True, "throttled")

    run(main())
