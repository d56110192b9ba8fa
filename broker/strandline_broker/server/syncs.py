"""Syncs of partitions' logs: asked for by whoever wrote, and told to the partitions once done, or failed.

Used by `server.broker`, which hands `request` to all that write. The flusher knows logs only; here they are partitions.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from strandline_broker.log.flusher import Flusher

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from strandline_broker.log.log import Log
    from strandline_broker.replica.partition import Partition


class Syncs:
    """See the module. All methods and callbacks on the event loop's thread.

    `write_failed` hears of every log whose sync failed, and `on_failed` gets its partition afterwards, if that is open.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        *,
        partition_of: Callable[[Log], Partition | None],
        write_failed: Callable[[OSError], None],
        on_failed: Callable[[Partition], None],
    ) -> None:
        self.flusher = Flusher(loop, executor, on_synced=self._synced, on_failed=self._failed)
        self._partition_of = partition_of
        self._write_failed = write_failed
        self._on_failed = on_failed

    def request(self, partition: Partition) -> None:
        """Have everything synced that was written to a partition's log so far."""
        self.flusher.request(partition.log)

    def _synced(self, logs: Sequence[Log]) -> None:
        for log in logs:
            partition = self._partition_of(log)
            if partition is not None:
                partition.synced()

    def _failed(self, log: Log) -> None:
        self._write_failed(OSError(errno.EIO, log.failed))
        partition = self._partition_of(log)
        if partition is not None:
            partition.sync_failed()
            self._on_failed(partition)
