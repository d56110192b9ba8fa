"""What a broker keeps in the bucket besides segments: what topics are, where consumer groups are; and what it removes.

With segments and manifests it is all that `strandline tier restore` has (invariant 6). Made by `server.broker` where there
is a bucket. Nothing that clients wait for waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from strandline_broker.coordinator.offset_snapshots import OffsetSnapshots
from strandline_broker.server.topic_records import TopicRecorder
from strandline_broker.server.topic_sweeper import TopicSweeper
from strandline_tiered.object_store import ObjectStoreError

if TYPE_CHECKING:
    import random

    from strandline_broker.cluster.view import ClusterView
    from strandline_broker.coordinator.groups import GroupCoordinator
    from strandline_broker.seams.clock import Clock
    from strandline_broker.server.config import BrokerConfig
    from strandline_broker.server.tasks import Tasks
    from strandline_broker.server.tiering import Tiering

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
LAST_SNAPSHOTS_S = 3.0
"""How long a stop waits for the last snapshots of offsets."""


class BucketKeeper:
    """See the module."""

    def __init__(
        self,
        config: BrokerConfig,
        tiering: Tiering,
        *,
        view: ClusterView,
        groups: GroupCoordinator,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.snapshots = OffsetSnapshots(
            tiering.store,
            tiering.cluster_id,
            incarnation=tiering.incarnation,
            slots=groups.active_slots,
            interval_s=config.tiering_offsets_snapshot_interval_ms / 1000,
            clock=clock,
            rng=rng,
        )
        self.topics = TopicRecorder(
            tiering.store,
            tiering.cluster_id,
            view=view,
            broker_id=config.broker_id,
            incarnation=tiering.incarnation,
            clock=clock,
            rng=rng,
        )
        self.sweeper = TopicSweeper(
            tiering.store,
            tiering.cluster_id,
            view=view,
            broker_id=config.broker_id,
            interval_s=config.tiering_scrub_interval_ms / 1000,
            clock=clock,
            rng=rng,
        )

    def start(self, tasks: Tasks) -> None:
        """Begin, until `tasks` are cancelled."""
        tasks.spawn(self.topics.run())
        tasks.every(LOOK_INTERVAL_S, self.snapshots.look)
        tasks.every(LOOK_INTERVAL_S, self.sweeper.look)

    async def before_stop(self) -> None:
        """Save the offsets of partitions that nobody else leads; call it after the hand-over, while groups are served."""
        try:
            async with asyncio.timeout(LAST_SNAPSHOTS_S):
                await self.snapshots.write_all()
        except (ObjectStoreError, TimeoutError) as error:
            logger.warning("the last committed offsets are on this broker's volume only: %r", error)
