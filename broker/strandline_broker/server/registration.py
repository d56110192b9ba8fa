"""What this broker tells the others about itself: its Lease, from `starting` to the release at the end.

Made by `server.broker` once it is known where this broker listens. Parts of it announce their news here: that waits while
the store is away, and the next renewal carries what was cancelled meanwhile. Once a successor holds the Lease there is
nothing left to say: `on_lost` was told, and ends this process.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from strandline_broker.cluster.lease_keeper import LeaseKeeper, LeaseLost, micro_time
from strandline_broker.cluster.model import BrokerLease, BrokerPhase, Endpoint
from strandline_broker.cluster.store import Unavailable

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from strandline_broker.cluster.store import ClusterStore
    from strandline_broker.seams.clock import Clock
    from strandline_broker.server.config import BrokerConfig
    from strandline_broker.server.endpoints import Advertised
    from strandline_broker.server.volume import Volume

LAST_WORDS_S: Final = 2.0
"""How long a stop waits for the store to take that it has begun, and that it has ended."""


class Registration:
    """See the module. `on_lost` is called with the reason, once."""

    def __init__(
        self,
        config: BrokerConfig,
        volume: Volume,
        advertised: Advertised,
        *,
        store: ClusterStore,
        clock: Clock,
        rng: random.Random,
        on_lost: Callable[[str], None],
    ) -> None:
        self._on_lost = on_lost
        self.keeper = LeaseKeeper(
            store,
            BrokerLease(
                broker_id=config.broker_id,
                incarnation=volume.incarnation,
                generation=volume.identity.generation,
                listeners=advertised.listeners,
                rack=advertised.rack,
                state=BrokerPhase.STARTING,
                cluster=config.cluster_name,
                lease_duration_ms=config.lease_duration_ms,
            ),
            renew_interval_ms=config.lease_renew_ms,
            on_lost=self._lost,
            rng=rng,
            now=lambda: micro_time(clock.now_ms()),
        )

    async def announce_endpoints(self, advertised: Advertised) -> None:
        """Say where this broker can be reached from now on."""
        with contextlib.suppress(LeaseLost):
            await self.keeper.update(listeners=advertised.listeners, rack=advertised.rack)

    async def announce_storage(self, writable: bool) -> None:
        """Say whether this broker can write to its disk."""
        with contextlib.suppress(LeaseLost):
            await self.keeper.update(writable=writable)

    async def announce_http(self, host: str, port: int) -> None:
        """Say where the HTTP port is. Raises LeaseLost."""
        await self.keeper.update(http=Endpoint(host, port))

    async def drain(self) -> None:
        """Say that a stop has begun, if the store takes it in time."""
        with contextlib.suppress(LeaseLost, Unavailable, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self.keeper.set_state(BrokerPhase.DRAINING)

    async def release(self) -> None:
        """Let the Lease go, if the store takes it in time."""
        with contextlib.suppress(LeaseLost, Unavailable, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self.keeper.release()

    def _lost(self, successor: BrokerLease | None) -> None:
        held_by = successor.incarnation if successor is not None else "something unknown"
        own = self.keeper.lease.broker_id
        self._on_lost(f"another process runs as broker {own} (incarnation {held_by})")
