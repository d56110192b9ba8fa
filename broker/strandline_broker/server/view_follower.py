"""Brings a broker in line with the cluster state, again and again: its dynamic settings, the roles of its partitions.

Made by `server.broker` before the view is fed, so that no change is missed, and run once the first roles are taken.

A cluster state that cannot be kept on this disk is not used, or a restart would know less than this broker has acted on. It
then only leads no more what others lead, until the disk is writable or so much time has gone that it is worth another try.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strandline_broker.cluster.view import Change, ClusterView
    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.server.dynamic_config import DynamicConfig
    from strandline_broker.server.storage_health import StorageWatch

logger = logging.getLogger(__name__)

RETRY_INTERVAL_S = 5.0


class ViewFollower:
    """See the module."""

    def __init__(
        self,
        view: ClusterView,
        *,
        dynamic_config: DynamicConfig,
        replicas: ReplicaManager,
        storage: StorageWatch,
    ) -> None:
        self._view = view
        self._dynamic_config = dynamic_config
        self._replicas = replicas
        self._storage = storage
        self._changed = asyncio.Event()
        view.on_change(self._on_change)

    def look_again(self) -> None:
        """Have the view looked at although nothing may have changed in it; call it when the disk is writable again."""
        self._changed.set()

    async def run(self) -> None:
        """Follow the view until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._dynamic_config.apply(self._view.state)
            try:
                await self._replicas.reconcile()
            except OSError as error:
                # The state is not used then; a disk that works again takes it with the next round.
                logger.error("the cluster state cannot be kept on disk: %s", error)
                self._storage.write_failed(error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_INTERVAL_S):
                        await self._until_writable()
                self._changed.set()

    async def _until_writable(self) -> None:
        while not self._storage.health.writable:
            self._replicas.resign_deposed()
            self._changed.clear()
            await self._changed.wait()

    def _on_change(self, change: Change) -> None:
        # Not for renewals of Leases, of which every broker sees those of all others: they change no role.
        if change.substantial:
            self._changed.set()
