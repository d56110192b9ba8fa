"""What a running broker takes over, and what it says of its directory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from strandline_broker.cluster.cache import ClusterCache
from strandline_broker.cluster.model import ALL_BROKERS, ClusterState
from strandline_broker.errors import ErrorCode
from strandline_broker.replica.throttle import FOLLOWER_RATE, LEADER_RATE
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.disk import DiskError
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.server import log_dirs
from strandline_broker.server.config import BrokerConfig
from strandline_broker.server.dynamic_config import DynamicConfig
from strandline_broker.server.replication import Throttles


def state(**configs: dict[str, str]) -> ClusterState:
    return ClusterState(
        "dev", broker_configs={key.removeprefix("b"): value for key, value in configs.items()}
    )


def test_dynamic_settings_come_and_go() -> None:
    config = BrokerConfig(broker_id=3, data_dir="/d", store="sqlite:/d/c", max_connections=50)
    server: Any = SimpleNamespace(limits=config.net_limits())
    expirations: list[int] = []
    logs: Any = SimpleNamespace(set_producer_expiration=expirations.append)
    throttles = Throttles.make(3, ClusterCache("dev"))
    dynamic = DynamicConfig(config, server, logs, throttles, ManualClock())

    def limits() -> tuple[int, int]:
        return server.limits.max_connections, server.limits.max_connections_per_address

    before = server.limits
    dynamic.apply(None)
    dynamic.apply(state(b4={"max.connections": "1"}))
    assert server.limits is before
    assert expirations == []
    every = {"max.connections": "20", "producer.id.expiration.ms": "1000"}
    dynamic.apply(state(**{ALL_BROKERS: every}))
    assert limits() == (20, config.max_connections_per_ip)
    dynamic.apply(state(**{ALL_BROKERS: every}, b3={"max.connections": "10", "max.connections.per.ip": "5"}))
    assert limits() == (10, 5)
    dynamic.apply(state(b3={"max.connections.per.ip": "5"}))
    assert limits() == (50, 5)
    assert expirations[:3] == [1000, 1000, config.producer_id_expiration_ms]
    assert (throttles.leader.rate, throttles.follower.rate) == (None, None)
    dynamic.apply(state(b3={LEADER_RATE: "7"}, **{ALL_BROKERS: {LEADER_RATE: "9", FOLLOWER_RATE: "8"}}))
    assert (throttles.leader.rate, throttles.follower.rate) == (7, 8)
    dynamic.apply(state())
    assert (throttles.leader.rate, throttles.follower.rate) == (None, None)
    assert server.limits == before


async def _at_once(work: Callable[[], object]) -> object:
    return work()


def replica(topic: str, index: int, size: int, *, lag: int, failed: str = "") -> Any:
    log = SimpleNamespace(size_bytes=size, failed=failed)
    return SimpleNamespace(topic=topic, index=index, log=log, lag=lag)


def test_a_directory_and_its_replicas(tmp_path: Path) -> None:
    replicas = [
        replica("b", 0, 5, lag=0),
        replica("a", 11, 6, lag=3),
        replica("a", 2, 7, lag=2, failed="disk"),
    ]
    found = asyncio.run(log_dirs.describe(str(tmp_path), LocalDisk(tmp_path), replicas, _at_once))
    assert (found.path, found.error) == (str(tmp_path), ErrorCode.NONE)
    assert 0 < found.usable_bytes <= found.total_bytes
    assert found.replicas == [("a", 2, 7, -1), ("a", 11, 6, 3), ("b", 0, 5, 0)]


def test_a_directory_that_cannot_be_looked_at() -> None:
    def fails() -> int:
        raise DiskError(5, "Input/output error")

    disk: Any = SimpleNamespace(total_bytes=fails, free_bytes=fails)
    found = asyncio.run(log_dirs.describe("/data", disk, [replica("a", 0, 1, lag=0)], _at_once))
    assert found == ("/data", ErrorCode.KAFKA_STORAGE_ERROR, -1, -1, ())
