"""All copying of this broker: one `LeaderFetcher` for each broker that leads something followed here.

The replica manager says what is followed where; addresses come from the Leases in the view, under the listener between
brokers. A broker without such a listener cannot follow: that is said once, and its replicas stay out of sync.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from strandline_broker.peers.contract import PeerConnection, PeerError, Peers
from strandline_broker.replica.fetcher import FetchCounters, FetchSettings, LeaderFetcher

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from strandline_broker.cluster.model import ReplicaRef
    from strandline_broker.cluster.view import ClusterView
    from strandline_broker.replica.follower_session import PartitionKey
    from strandline_broker.replica.partition import Partition
    from strandline_broker.replica.remote import TierBootstrap
    from strandline_broker.replica.throttle import ReplicationThrottle
    from strandline_broker.seams.clock import Clock

logger = logging.getLogger(__name__)


class Fetchers:
    """See the module. `peers` is None, and `listener` too, where this broker has no listener between brokers."""

    def __init__(
        self,
        own: ReplicaRef,
        *,
        peers: Peers | None,
        listener: str | None,
        view: ClusterView,
        request_sync: Callable[[Partition], None],
        settings: FetchSettings,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        throttle: ReplicationThrottle | None = None,
        bootstrap: TierBootstrap | None = None,
    ) -> None:
        """Make fetchers that copy nothing yet; `bootstrap` is None where there is no bucket."""
        self._bootstrap = bootstrap
        self._own = own
        self._peers = peers
        self._listener = listener
        self._view = view
        self._request_sync = request_sync
        self._settings = settings
        self._throttle = throttle
        self._clock = clock
        self._loop = loop
        self._rng = rng
        self.counters = FetchCounters()
        self._fetchers: dict[int, LeaderFetcher] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._leader_of: dict[PartitionKey, int] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    def follow(self, partition: Partition, leader_id: int, epoch: int) -> None:
        """Copy `partition` from `leader_id` in `epoch`; does nothing when that is what happens already."""
        key = (partition.topic_id, partition.index)
        if self._closed:
            return
        present = self._leader_of.get(key)
        if present == leader_id and self._fetchers[leader_id].epoch_of(key) == epoch:
            return
        if present is not None and present != leader_id:
            self.unfollow(partition)
        if self._peers is None:
            if self._leader_of.get(key) is None:
                logger.error(
                    "%r cannot be copied: set inter_broker_listener_name and inter_broker_token_file",
                    partition,
                )
            return
        fetcher = self._fetchers.get(leader_id)
        if fetcher is None:
            fetcher = self._fetchers[leader_id] = LeaderFetcher(
                leader_id,
                self._own,
                connect=self._connect,
                request_sync=self._request_sync,
                settings=self._settings,
                throttle=self._throttle,
                clock=self._clock,
                loop=self._loop,
                rng=self._rng,
                counters=self.counters,
                bootstrap=self._bootstrap,
            )
            self._tasks[leader_id] = self._loop.create_task(fetcher.run(), name=f"fetch-from-{leader_id}")
            self._tasks[leader_id].add_done_callback(_report)
        self._leader_of[key] = leader_id
        fetcher.follow(partition, epoch)

    def unfollow(self, partition: Partition) -> None:
        """Copy `partition` no longer, from whomever."""
        key = (partition.topic_id, partition.index)
        leader_id = self._leader_of.pop(key, None)
        if leader_id is None:
            return
        fetcher = self._fetchers[leader_id]
        fetcher.unfollow(key)
        if not len(fetcher):
            del self._fetchers[leader_id]
            task = self._tasks.pop(leader_id)
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    @property
    def followed_count(self) -> int:
        """Return how many partitions are being copied."""
        return len(self._leader_of)

    @property
    def leader_count(self) -> int:
        """Return from how many brokers they are copied."""
        return len(self._fetchers)

    async def _connect(self, leader_id: int) -> PeerConnection:
        assert self._peers is not None
        assert self._listener is not None
        lease = self._view.leases.get(leader_id)
        endpoint = lease.listeners.get(self._listener) if lease is not None and lease.held else None
        if endpoint is None:
            raise PeerError(f"broker {leader_id} has no address for listener {self._listener} now")
        return await self._peers.connect(endpoint.host, endpoint.port)

    async def close(self) -> None:
        """End all copying."""
        self._closed = True
        tasks = [*self._tasks.values(), *self._ending]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        self._fetchers.clear()
        self._tasks.clear()
        self._leader_of.clear()


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("%s died", task.get_name(), exc_info=task.exception())
