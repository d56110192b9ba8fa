"""Batches as they lie in a broker's segment files: the proof that a load had the batch size it claims.

Callers: the produce rows. Reads Kafka's on-disk format (DefaultRecordBatch, magic 2), common to all systems.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

_HEADER = struct.Struct(">qiibIhiqqqhii")  # to the record count
_OVERHEAD = 12  # offset and length, which the length does not count


class Batches(NamedTuple):
    """All batches of some segment files."""

    batches: int
    records: int
    size_bytes: int

    @property
    def mean_bytes(self) -> float:
        """Mean size of a batch in bytes."""
        return self.size_bytes / self.batches if self.batches else 0.0


def scan(directories: list[Path]) -> Batches:
    """Walk over the batch headers of every `*.log` in the folders of some partitions."""
    count = records = size_bytes = 0
    for directory in directories:
        for segment in sorted(directory.glob("*.log")):
            end = segment.stat().st_size
            with segment.open("rb") as file:
                at = 0
                while at + _HEADER.size <= end:
                    file.seek(at)
                    fields = _HEADER.unpack(file.read(_HEADER.size))
                    length, magic, record_count = fields[1], fields[3], fields[12]
                    if magic != 2 or length <= 0:
                        break  # the preallocated tail of an active segment
                    count += 1
                    records += record_count
                    size_bytes += length + _OVERHEAD
                    at += length + _OVERHEAD
    return Batches(count, records, size_bytes)
