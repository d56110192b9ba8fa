"""The rounds of a broker that nothing asks for: requests whose time is up, retention, and checkpoints of offsets.

Started by `server.broker` when partitions have their roles. Whatever looks after one part only (failed logs, the bucket,
how full the disk is) has rounds of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from strandline_broker.log.flusher import Flusher
    from strandline_broker.log.manager import LogManager
    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.seams.clock import Clock
    from strandline_broker.server.config import BrokerConfig
    from strandline_broker.server.tasks import Tasks

EXPIRY_INTERVAL_S: Final = 0.25
"""Time between two looks for requests whose time is up."""


class Upkeep:
    """See the module. `expire` answers requests whose time is up; `run_blocking` has a thread that may wait for a disk."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        logs: LogManager,
        replicas: ReplicaManager,
        flusher: Flusher,
        expire: Callable[[], None],
        clock: Clock,
        run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
    ) -> None:
        self._retention_interval_s = config.log_retention_check_interval_ms / 1000
        self._checkpoint_interval_s = config.replica_high_watermark_checkpoint_interval_ms / 1000
        self._logs = logs
        self._replicas = replicas
        self._flusher = flusher
        self._expire_requests = expire
        self._clock = clock
        self._run_blocking = run_blocking

    def start(self, tasks: Tasks) -> None:
        """Begin, until `tasks` are cancelled."""
        tasks.every(EXPIRY_INTERVAL_S, self._expire)
        tasks.every(self._retention_interval_s, self._sweep)
        tasks.every(self._checkpoint_interval_s, self._checkpoint)

    async def _expire(self) -> None:
        self._expire_requests()

    async def _sweep(self) -> None:
        for log in self._logs.sweep(self._clock.now_ms(), self._replicas.high_watermark_of):
            self._flusher.request(log)

    async def _checkpoint(self) -> None:
        await self._run_blocking(self._logs.checkpoint(self._replicas.high_watermarks()).write)
