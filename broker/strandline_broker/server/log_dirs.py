"""What DescribeLogDirs shows of this broker's directory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from strandline_broker.api.context import LogDir, LogDirReplica
from strandline_broker.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from strandline_broker.replica.partition import Partition
    from strandline_broker.seams.disk import Disk

logger = logging.getLogger(__name__)

_UNKNOWN = -1


async def describe(
    path: str,
    disk: Disk,
    partitions: Iterable[Partition],
    blocking: Callable[[Callable[[], object]], Awaitable[object]],
) -> LogDir:
    """Return the directory's size and free space in bytes, and the size of every replica in it."""
    directory = _absolute(path)
    replicas = sorted(map(_replica, partitions))
    space: list[int] = []

    def measure() -> None:
        space[:] = disk.total_bytes(), disk.free_bytes()

    try:
        await blocking(measure)  # a disk that hangs must not take the event loop with it
    except OSError as error:
        logger.error("%s cannot be described: %s", directory, error)
        return LogDir(directory, ErrorCode.KAFKA_STORAGE_ERROR, _UNKNOWN, _UNKNOWN, ())
    total_bytes, usable_bytes = space
    return LogDir(directory, ErrorCode.NONE, total_bytes, usable_bytes, replicas)


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _replica(partition: Partition) -> LogDirReplica:
    log = partition.log
    lag = _UNKNOWN if log.failed else partition.lag
    return LogDirReplica(partition.topic, partition.index, log.size_bytes, lag)
