"""Producer snapshots: the producers of a log at an offset, so that recovery need not read the log from its start.

Format (Kafka `ProducerSnapshot.json`, version 1, not flexible), big-endian:

| bytes | field |
|-------|-------|
| 2 | version = 1 |
| 4 | CRC-32C of everything behind this field |
| 4 | number of entries |
| 46 each | an entry |

An entry: producer id i64, epoch i16, last sequence i32, last offset i64, offset delta i32, timestamp i64, coordinator
epoch i32, first offset of the open transaction i64 (-1: none).

File name: `<offset, 20 digits>.snapshot`; the snapshot holds everything below that offset.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from crc32c import crc32c

from strandline_broker.log.producer_state import ProducerBatch, ProducerEntry

VERSION = 1
_HEADER = struct.Struct(">hIi")
_ENTRY = struct.Struct(">qhiqiqiq")
_CRC_OFFSET = 2
_ENTRIES_OFFSET = 6
_COUNT = struct.Struct(">i")


class CorruptSnapshot(ValueError):  # noqa: N818 # it names what was found, as Kafka's exception does
    """The bytes are no snapshot, or their checksum is wrong."""


def encode(entries: Iterable[ProducerEntry]) -> bytes:
    """Return the bytes of a snapshot."""
    body = bytearray()
    count = 0
    for entry in entries:
        last = entry.batches[-1] if entry.batches else None
        body += _ENTRY.pack(
            entry.producer_id,
            entry.epoch,
            entry.last_sequence,
            entry.last_offset,
            last.offset_delta if last is not None else 0,
            entry.last_timestamp,
            entry.coordinator_epoch,
            entry.txn_first_offset,
        )
        count += 1
    content = _COUNT.pack(count) + body
    return struct.pack(">hI", VERSION, crc32c(content)) + content


def decode(data: bytes) -> list[ProducerEntry]:
    """Return the entries of a snapshot. Raises CorruptSnapshot."""
    if len(data) < _HEADER.size:
        raise CorruptSnapshot(f"{len(data)} bytes are no producer snapshot")
    version, checksum, count = _HEADER.unpack_from(data)
    if version != VERSION:
        raise CorruptSnapshot(f"unknown version {version}")
    if checksum != crc32c(memoryview(data)[_ENTRIES_OFFSET:]):
        raise CorruptSnapshot("wrong checksum")
    if count < 0 or len(data) != _HEADER.size + count * _ENTRY.size:
        raise CorruptSnapshot(f"{count} entries in {len(data)} bytes")
    entries = []
    for producer_id, epoch, sequence, offset, delta, timestamp, coordinator, txn in _ENTRY.iter_unpack(
        memoryview(data)[_HEADER.size :]
    ):
        batches = (ProducerBatch(sequence, offset, delta, timestamp),) if offset >= 0 else ()
        entries.append(ProducerEntry(producer_id, epoch, batches, timestamp, coordinator, txn))
    return entries
