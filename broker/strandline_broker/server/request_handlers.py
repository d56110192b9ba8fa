"""What answers clients that write, read, and form groups: the handlers of Produce and Fetch, and the group coordinator.

Made by `server.broker` once there are replicas. Requests come by `api.dispatch`, which knows the handlers of all others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from strandline_broker.api.fetch import FetchHandler
from strandline_broker.api.fetch_sessions import FetchSessionCache
from strandline_broker.api.produce import ProduceHandler
from strandline_broker.coordinator.groups import GroupCoordinator
from strandline_broker.server.config import RACK_AWARE_REPLICA_SELECTOR

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from strandline_broker.api.fetch_replica import ReplicaFetchHandler
    from strandline_broker.cluster.view import ClusterView
    from strandline_broker.coordinator.groups import OffsetSnapshots
    from strandline_broker.replica.disk_pressure import DiskPressure
    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.replica.partition import Partition
    from strandline_broker.seams.clock import Clock
    from strandline_broker.server.config import BrokerConfig


class RequestHandlers:
    """See the module."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        replicas: ReplicaManager,
        view: ClusterView,
        of_followers: ReplicaFetchHandler,
        pressure: DiskPressure,
        snapshots: OffsetSnapshots | None,
        clock: Clock,
        rng: random.Random,
        request_sync: Callable[[Partition], None],
        run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
    ) -> None:
        """`of_followers` answers fetches of other brokers; `snapshots` has committed offsets from the bucket, if any."""
        loop = asyncio.get_running_loop()
        self.groups = GroupCoordinator(
            config.group_config(),
            view=view,
            replicas=replicas,
            clock=clock,
            rng=rng,
            loop=loop,
            request_sync=request_sync,
            run_blocking=run_blocking,
            commit_timeout_ms=config.offsets_commit_timeout_ms,
            snapshots=snapshots,
        )
        self.produce = ProduceHandler(
            replicas, view, clock, request_sync, config.request_timeout_max_ms, pressure
        )
        self.sessions = FetchSessionCache(rng, slots=config.max_incremental_fetch_session_cache_slots)
        self.fetch = FetchHandler(
            replicas,
            view,
            self.sessions,
            clock,
            loop,
            of_followers,
            max_bytes=config.fetch_max_bytes,
            max_parked=config.fetch_parked_max,
            rack_aware=config.replica_selector_class == RACK_AWARE_REPLICA_SELECTOR,
        )

    def expire(self) -> None:
        """Answer those whose time is up; call it a few times per second. Fetches end by timers of their own."""
        self.produce.expire()
        self.groups.expire()
