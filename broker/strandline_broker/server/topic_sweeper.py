"""Topics that the cluster purged are swept out of the bucket, by one broker, again and again (design 7.3, ADR 0012).

`ClusterState` names their ids, and nothing takes that back; so who sweeps is a question of economy, not of safety: the
running broker with the lowest id does, and two at once do no harm. After each purge it looks at once, then ever more rarely
up to the interval of scrubs: requests of brokers that are gone may land late. It begins anew when it starts, and needs to
remember nothing: the bucket tells what is left.

Who uses it: `server.bucket_keeper`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.cluster.model import BrokerPhase
from strandline_tiered.object_store import ObjectStoreError
from strandline_tiered.topic_sweep import sweep_purged

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Mapping
    from uuid import UUID

    from strandline_broker.cluster.model import BrokerLease
    from strandline_broker.cluster.view import ClusterView
    from strandline_broker.seams.clock import Clock
    from strandline_tiered.object_store import ObjectStore

logger = logging.getLogger(__name__)

SECOND_LOOK_S = 60.0
"""Seconds from the sweep after a purge to the next one; the time doubles from there."""
FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 600.0


def whose_turn(leases: Mapping[int, BrokerLease], silent: Collection[int]) -> int | None:
    """Return the broker that sweeps: the lowest one that runs. Pure."""
    running = (
        broker_id
        for broker_id, lease in leases.items()
        if lease.held and lease.state is BrokerPhase.RUNNING and broker_id not in silent
    )
    return min(running, default=None)


class TopicSweeper:
    """See the module. `look` is to be called about once a second; counters are for metrics."""

    def __init__(
        self,
        store: ObjectStore,
        cluster_id: UUID,
        *,
        view: ClusterView,
        broker_id: int,
        interval_s: float,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._cluster_id = cluster_id
        self._view = view
        self._broker_id = broker_id
        self._interval_s = interval_s
        self._clock = clock
        self._backoff = Backoff(rng, first_s=FIRST_RETRY_S, cap_s=LONGEST_RETRY_S)
        self._purged: tuple[UUID, ...] = ()
        self._due_at = 0.0
        self._delay_s = SECOND_LOOK_S
        self.sweeps = 0
        self.deleted = 0
        self.failures = 0

    async def look(self) -> None:
        """Sweep if it is this broker's turn, and time."""
        state = self._view.state
        purged = state.purged_topic_ids if state is not None else ()
        if not purged or whose_turn(self._view.leases, self._view.silent_brokers()) != self._broker_id:
            # Whoever's turn it is next begins at once: it does not know what was swept.
            self._purged = ()
            return
        if purged is not self._purged and not self._purged_before(purged):
            self._due_at, self._delay_s = self._clock.monotonic(), SECOND_LOOK_S
            self._backoff.reset()
        self._purged = purged
        if self._clock.monotonic() >= self._due_at:
            await self._sweep(frozenset(purged))

    def _purged_before(self, purged: tuple[UUID, ...]) -> bool:
        return frozenset(purged) <= frozenset(self._purged)

    async def _sweep(self, purged: frozenset[UUID]) -> None:
        try:
            count = await sweep_purged(self._store, self._cluster_id, purged)
        except ObjectStoreError as error:
            self.failures += 1
            delay_s = self._backoff.next_s()
            logger.warning("deleted topics are not swept yet, tried again in %.0f s: %s", delay_s, error)
        else:
            self.sweeps += 1
            self.deleted += count
            self._backoff.reset()
            delay_s = min(self._delay_s, self._interval_s)
            self._delay_s = 2 * delay_s
            if count:
                logger.info("%d objects of deleted topics are swept out of the bucket", count)
        self._due_at = self._clock.monotonic() + delay_s
