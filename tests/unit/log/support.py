"""What the log's tests share: batches, a disk that can be told to fail, and reading as a consumer does."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from strandline_broker.log.log import Log
from strandline_broker.seams.disk import Buffer, DiskError
from strandline_broker.seams.local_disk import LocalDisk, LocalFile
from strandline_broker.wire.batch import Compression, Record, build_batch, iter_batches

NOW_MS = 1_700_000_000_000


def make_batch(
    count: int = 1,
    *,
    timestamp: int = NOW_MS,
    size: int = 10,
    producer: tuple[int, int, int] | None = None,
    compression: Compression = Compression.NONE,
    base_offset: int = 0,
    epoch: int = -1,
    key: bytes | None = b"k",
) -> bytearray:
    """Return a produced batch.

    `producer` is (id, epoch, first sequence). Timestamps rise by one unless -1.
    """
    producer_id, producer_epoch, sequence = producer or (-1, -1, -1)
    step = 0 if timestamp < 0 else 1
    return bytearray(
        build_batch(
            [
                Record(timestamp=timestamp + step * index, key=key, value=b"v" * size)
                for index in range(count)
            ],
            base_offset=base_offset,
            leader_epoch=epoch,
            compression=compression,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=sequence,
        )
    )


class FailingFile(LocalFile):
    """A file that fails as its disk was told to."""

    __slots__ = ("disk",)

    disk: FailingDisk

    def append(self, buffers: Sequence[Buffer]) -> int:
        total = sum(map(len, buffers))
        if self.disk.room is not None:
            if total > self.disk.room:
                super().append([b"".join(buffers)[: self.disk.room]])
                self.disk.room = 0
                raise DiskError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
            self.disk.room -= total
        return super().append(buffers)

    def truncate(self, length: int) -> None:
        if self.disk.fail_truncate:
            raise DiskError(errno.EIO, os.strerror(errno.EIO), self.path)
        super().truncate(length)

    def datasync(self) -> None:
        self.disk.synced.append(self.path)
        if self.disk.fail_sync:
            raise DiskError(errno.EIO, os.strerror(errno.EIO), self.path)
        super().datasync()


class FailingDisk(LocalDisk):
    """A disk with `room` bytes left (None: plenty), and failures of truncation and sync on demand."""

    __slots__ = ("fail_sync", "fail_truncate", "room", "synced")

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self.room: int | None = None
        self.fail_truncate = False
        self.fail_sync = False
        self.synced: list[str] = []

    def open(self, path: str, *, create: bool = False) -> FailingFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        file = FailingFile(os.open(self._path(path), flags, 0o640), path)
        file.disk = self
        return file


def append(log: Log, *batches: bytearray, epoch: int = 0, now_ms: int = NOW_MS) -> None:
    """Stage and commit."""
    for batch in batches:
        log.stage(memoryview(batch), epoch, now_ms)
    log.commit()


def read_all(log: Log, max_bytes: int = 1 << 20, start: int | None = None) -> bytes:
    """Read the whole log as a consumer would."""
    offset = log.start_offset if start is None else start
    parts: list[bytes] = []
    while (found := log.read(offset, max_bytes, log.end_offset, min_one_batch=True)) is not None:
        data = found.read()
        assert len(data) == len(found) > 0
        count = 0
        for position, header in iter_batches(data):
            assert header.next_offset > offset
            offset = header.next_offset
            count = position + header.size
        assert count == len(data), "a read ended within a batch"
        parts.append(data)
    assert offset == log.end_offset
    return b"".join(parts)


def offsets(log: Log) -> list[tuple[int, int]]:
    """Return (base offset, last offset) of every batch that a consumer sees."""
    return [(header.base_offset, header.last_offset) for _, header in iter_batches(read_all(log))]
