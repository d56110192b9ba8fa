"""How one broker follows others and is followed: replicas, fetchers, the keeper of its ISRs, handing over before a stop.

Made by `server.broker` once the volume is open and it is known how others are reached.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from strandline_broker.api.fetch_replica import WHOLE_INTERVAL_S, ReplicaFetchHandler
from strandline_broker.api.fetch_sessions import FetchSessionCache
from strandline_broker.cluster.model import ReplicaRef
from strandline_broker.cluster.transitions import does_without, spared
from strandline_broker.replica.attempts import ATTEMPTS_FILE, decode_attempts
from strandline_broker.replica.fetcher import FetchSettings
from strandline_broker.replica.fetchers import Fetchers
from strandline_broker.replica.isr_keeper import IsrKeeper, live_brokers
from strandline_broker.replica.manager import ReplicaManager
from strandline_broker.replica.partition import FlushMode
from strandline_broker.replica.throttle import FOLLOWER_REPLICAS, LEADER_REPLICAS, ReplicationThrottle

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Mapping

    from strandline_broker.cluster.cache import ClusterCache
    from strandline_broker.cluster.model import PartitionState
    from strandline_broker.cluster.store import ClusterStore
    from strandline_broker.cluster.view import ClusterView
    from strandline_broker.log.manager import LogManager
    from strandline_broker.peers.contract import Peers
    from strandline_broker.replica.attempts import PartitionKey
    from strandline_broker.replica.partition import Partition
    from strandline_broker.replica.remote import TierBootstrap
    from strandline_broker.seams.clock import Clock
    from strandline_broker.seams.disk import Disk
    from strandline_broker.server.config import BrokerConfig
    from strandline_broker.server.volume import Volume

logger = logging.getLogger(__name__)

# Followers are few: one session each, and some that a restart left behind.
_REPLICA_SESSIONS = 200


class Throttles(NamedTuple):
    """What limits replication here, in either direction; `server.dynamic_config` sets the rates."""

    leader: ReplicationThrottle
    follower: ReplicationThrottle

    @classmethod
    def make(cls, broker_id: int, view: ClusterCache) -> Throttles:
        """Return throttles without a limit that look the throttled replicas up in the view."""

        def replicas_of(name: str) -> Callable[[str], str]:
            def look_up(topic: str) -> str:
                found = view.topic_by_name(topic)
                return found.config.get(name, "") if found is not None else ""

            return look_up

        return cls(
            ReplicationThrottle(broker_id, replicas_of(LEADER_REPLICAS)),
            ReplicationThrottle(broker_id, replicas_of(FOLLOWER_REPLICAS)),
        )


def _make_fetchers(
    config: BrokerConfig,
    own: ReplicaRef,
    *,
    throttle: ReplicationThrottle,
    peers: Peers | None,
    view: ClusterView,
    clock: Clock,
    rng: random.Random,
    request_sync: Callable[[Partition], None],
    bootstrap: TierBootstrap | None,
) -> Fetchers:
    """Return this broker's fetchers; without `peers` they copy nothing, without `bootstrap` only whole logs."""
    listener = next((one.name for one in config.resolve_listeners() if one.internal), None)
    settings = FetchSettings(
        partition_max_bytes=config.replica_fetch_max_bytes,
        response_max_bytes=config.replica_fetch_response_max_bytes,
        wait_max_ms=config.replica_fetch_wait_max_ms,
        min_bytes=config.replica_fetch_min_bytes,
        backoff_s=config.replica_fetch_backoff_ms / 1000,
    )
    return Fetchers(
        own,
        peers=peers,
        listener=listener,
        view=view,
        request_sync=request_sync,
        settings=settings,
        clock=clock,
        loop=asyncio.get_running_loop(),
        rng=rng,
        throttle=throttle,
        bootstrap=bootstrap,
    )


def _load_attempts(disk: Disk) -> Mapping[PartitionKey, list[PartitionState]] | None:
    """Return the ISR changes whose outcome was open at the last stop, None if that cannot be told. Raises DiskError."""
    try:
        return decode_attempts(disk.read_bytes(ATTEMPTS_FILE))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        logger.warning("no epoch is resumed: %s", error)
        return None


def _make_replicas(
    config: BrokerConfig,
    volume: Volume,
    attempts: Mapping[PartitionKey, list[PartitionState]] | None,
    *,
    fetchers: Fetchers,
    logs: LogManager,
    view: ClusterView,
    clock: Clock,
    run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
    has_bucket: bool,
) -> ReplicaManager:
    """Return this broker's replicas, none open; without `attempts` no epoch is resumed."""
    return ReplicaManager(
        broker_id=config.broker_id,
        incarnation=volume.incarnation,
        resumable_incarnation=volume.resumable_incarnation if attempts is not None else None,
        generation=volume.identity.generation,
        view=view,
        logs=logs,
        fetchers=fetchers,
        clock=clock,
        flush=FlushMode(config.flush),
        attempts=attempts or {},
        run_blocking=run_blocking,
        persist_view=volume.save_view,
        has_bucket=has_bucket,
    )


class Replication:
    """See the module."""

    def __init__(
        self,
        config: BrokerConfig,
        volume: Volume,
        *,
        peers: Peers | None,
        bootstrap: TierBootstrap | None,
        logs: LogManager,
        view: ClusterView,
        store: ClusterStore,
        disk: Disk,
        clock: Clock,
        rng: random.Random,
        request_sync: Callable[[Partition], None],
        run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
    ) -> None:
        """Without `peers` nothing is copied; without `bootstrap`, that is a bucket, whole logs only. Raises DiskError."""
        self._config = config
        self._view = view
        self._roles_changed = asyncio.Event()
        self.throttles = throttles = Throttles.make(config.broker_id, view)
        self.fetchers = _make_fetchers(
            config,
            ReplicaRef(config.broker_id, volume.identity.generation),
            throttle=throttles.follower,
            peers=peers,
            view=view,
            clock=clock,
            rng=rng,
            request_sync=request_sync,
            bootstrap=bootstrap,
        )
        self.replicas = replicas = _make_replicas(
            config,
            volume,
            _load_attempts(disk),
            fetchers=self.fetchers,
            logs=logs,
            view=view,
            clock=clock,
            run_blocking=run_blocking,
            has_bucket=bootstrap is not None,
        )
        self.keeper = IsrKeeper(
            store=store,
            view=view,
            clock=clock,
            rng=rng,
            lag_max_s=lambda: config.replica_lag_time_max_ms / 1000,
            led=replicas.led,
            unusable=replicas.unusable,
            persist=lambda image: disk.write_atomic(ATTEMPTS_FILE, image),
            run_blocking=run_blocking,
        )
        self.handler = ReplicaFetchHandler(
            replicas,
            view,
            FetchSessionCache(rng, slots=_REPLICA_SESSIONS),
            clock,
            asyncio.get_running_loop(),
            max_bytes=config.replica_fetch_response_max_bytes,
            may_join=self.keeper.wake,
            throttle=throttles.leader,
            # A follower that a fetch did not look at must not seem to lag.
            whole_interval_s=min(WHOLE_INTERVAL_S, config.replica_lag_time_max_ms / 4000),
        )

    def roles_changed(self) -> None:
        """Take note that partitions may have changed their roles."""
        self._roles_changed.set()
        self.keeper.wake()

    def is_awaited(self) -> bool:
        """Whether anything waits for this broker while it starts, as far as its view shows.

        A partition does that cannot be led, or not be written to with `acks=all`, without it. If it has no replicas yet,
        whoever wants to place some does.
        """
        own, live = self._config.broker_id, live_brokers(self._view)
        replicas = [
            does_without(state, own, live=live, min_isr=slice_.min_insync_replicas)
            for topic in self._view.topics.values()
            for index, state in topic.partitions()
            if own in state.replicas and (slice_ := topic.partition_set(index)) is not None
        ]
        return not replicas or not all(replicas)

    async def hand_over(self) -> None:
        """Wait, while this broker drains, until nothing needs it that could do without; no longer than configured.

        Others lead what they could lead, and leaders have taken this broker out of the ISRs that are large enough: until
        then it goes on copying, so that no `acks=all` request waits for a broker that has stopped. While the store is away
        neither could happen, and nothing is waited for.
        """
        try:
            async with asyncio.timeout(self._config.shutdown_timeout_ms / 1000):
                while any(left := self._still_needed()) and self._view.fresh_since is not None:
                    logger.info("waiting until others lead %d partitions and %d ISRs do without", *left)
                    self._roles_changed.clear()
                    await self._roles_changed.wait()
        except TimeoutError:
            logger.warning(
                "stopping although %d partitions were not taken over and %d ISRs wait", *self._still_needed()
            )

    def _still_needed(self) -> tuple[int, int]:
        """Return how many partitions somebody else could lead, and how many ISRs could do without this broker."""
        own = self._config.broker_id
        live = live_brokers(self._view)
        ready = {broker_id for broker_id, broker in live.items() if broker_id != own and not broker.draining}
        led = sum(
            partition.leadership is not None and not ready.isdisjoint(partition.leadership.state.isr_ids)
            for _, partition in self.replicas.led()
        )
        followed = sum(
            own in spared(state, live=live, min_isr=slice_.min_insync_replicas)
            for topic in self._view.topics.values()
            for index, state in topic.partitions()
            if (slice_ := topic.partition_set(index)) is not None
        )
        return led, followed
