"""The log cleaner as a part of a broker: its settings, its thread, and what it asks of partitions.

Used by `Broker` only. The work itself is done by a child process where the disk is a real one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from strandline_broker.log.cleaner import CleanerConfig, LogCleaner
from strandline_broker.log.cleaner_child import ChildWorker
from strandline_broker.log.cleaner_work import InlineWorker, Worker
from strandline_broker.seams.local_disk import LocalDisk

if TYPE_CHECKING:
    from strandline_broker.log.flusher import Flusher
    from strandline_broker.log.log import Log
    from strandline_broker.log.manager import LogManager
    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.seams.clock import Clock
    from strandline_broker.seams.disk import Disk
    from strandline_broker.seams.threads import Threads
    from strandline_broker.server.config import BrokerConfig


class CleaningService:
    """A log cleaner that runs from its creation until `stop`."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        clock: Clock,
        disk: Disk,
        threads: Threads,
        logs: LogManager,
        replicas: ReplicaManager,
        flusher: Flusher,
    ) -> None:
        self._disk = disk
        self._replicas = replicas
        self._executor = threads.pool("log-cleaner")
        self.cleaner = LogCleaner(
            logs,
            clock,
            self._executor,
            config=CleanerConfig(
                dedupe_buffer_bytes=config.log_cleaner_dedupe_buffer_size,
                io_buffer_bytes=config.log_cleaner_io_buffer_size,
                max_bytes_per_second=config.log_cleaner_io_max_bytes_per_second,
                backoff_ms=config.log_cleaner_backoff_ms,
            ),
            make_worker=self._make_worker,
            stable_offset_of=self._stable_offset_of,
            high_watermark_of=replicas.high_watermark_of,
            request_sync=flusher.request,
        )
        self._task = asyncio.get_running_loop().create_task(self.cleaner.run())

    async def stop(self) -> None:
        """End the running cleaning and wait for it; nothing touches a log afterwards."""
        self.cleaner.stop()
        await self._task
        self._executor.shutdown()

    def _make_worker(self) -> Worker:
        return ChildWorker(self._disk) if isinstance(self._disk, LocalDisk) else InlineWorker(self._disk)

    def _stable_offset_of(self, log: Log) -> int:
        partition = self._replicas.partition_of(log)
        return partition.last_stable_offset if partition is not None else log.start_offset
