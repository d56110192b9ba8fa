"""What compaction looks at in a batch: keys, and whether values are null. Pure, and the cleaner's inner loop.

Who uses it: `cleaner_work`. Records are sliced whole: nothing of a record is decoded but its length, its
offset, its key and the first byte of its value, and records that stay are copied as the bytes they are. Only
a batch that gets a delete horizon (KIP-534) has its timestamps written anew, relative to the horizon.

A batch that loses records keeps its offsets from base to last, its producer's epoch and sequences, leader
epoch, codec and timestamp type. Its base timestamp stays too, although the first record may be gone (Kafka
makes it the first record's again): timestamps of records are relative to it either way.

Source: Kafka `MemoryRecords.filterTo`, `DefaultRecord`, `DefaultRecordBatch.writeEmptyHeader`, KIP-534.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple

from strandline_broker.wire.batch import (
    COMPRESSION_MASK,
    DELETE_HORIZON_FLAG,
    HEADER,
    HEADER_SIZE,
    LOG_OVERHEAD,
    NO_TIMESTAMP,
    BatchHeader,
    Compression,
    set_crc,
)
from strandline_broker.wire.compression import compress
from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.primitives import (
    MALFORMED,
    encode_uvarint,
    encode_varint,
    read_varint,
    read_varlong,
)

LONGEST_PLAIN_KEY: Final = 31
"""Longer keys are known by a digest of 32 bytes, which therefore equals no shorter key."""
_DIGEST_BYTES: Final = 32

Run = tuple[int, int]
"""Bytes from .. to of consecutive records that stay."""


def key_identity(key: bytes) -> bytes:
    """Return what stands for a key in an offset map."""
    return key if len(key) <= LONGEST_PLAIN_KEY else blake2b(key, digest_size=_DIGEST_BYTES).digest()


def index_keys(
    latest: dict[bytes, int],
    max_keys: int,
    data: bytes,
    position: int,
    end: int,
    header: BatchHeader,
    start_offset: int,
) -> int:
    """Note the offset of every key in `data[position:end]`, the records of a batch, from `start_offset` on.

    Returns the offset behind the batch, or that of the first record whose key `latest` has no room for.
    Raises DecodeError for malformed records.
    """
    base_offset = header.base_offset
    roomy = len(latest) + header.record_count <= max_keys
    try:
        for _ in range(header.record_count):
            byte = data[position]
            if byte < 0x80:
                following = position + 1 + (byte >> 1)
                position += 2
            elif (high := data[position + 1]) < 0x80:
                following = position + 2 + ((byte & 0x7F | high << 7) >> 1)
                position += 3
            else:
                following, position = _long_head(data, position)
            while data[position] >= 0x80:  # the timestamp does not matter
                position += 1
            position += 1
            delta = data[position]
            if delta < 0x80:
                offset = base_offset + (delta >> 1)
                position += 1
            elif (high := data[position + 1]) < 0x80:
                offset = base_offset + ((delta & 0x7F | high << 7) >> 1)
                position += 2
            else:
                delta, position = read_varint(data, position)
                offset = base_offset + delta
            length = data[position]
            if length < 0x80:
                position += 1
                length = length >> 1 if not length & 1 else -1
            else:
                length, position = read_varint(data, position)
            if not position + length < following <= end:
                raise _malformed(header, offset)
            if length >= 0 and offset >= start_offset:
                key = data[position : position + length]
                if length > LONGEST_PLAIN_KEY:
                    key = blake2b(key, digest_size=_DIGEST_BYTES).digest()
                if not roomy and len(latest) >= max_keys and key not in latest:
                    return offset
                latest[key] = offset
            position = following
    except MALFORMED as error:
        raise DecodeError(f"malformed record in the batch at {base_offset}: {error}") from error
    return header.next_offset


class Selection(NamedTuple):
    """Which records of a batch stay. `tombstones` says whether one of these has no value."""

    runs: list[Run]
    kept: int
    tombstones: bool
    keyless: int
    """Records without a key, which a compacted log does not keep."""


def select_records(
    latest: dict[bytes, int],
    mapped_end: int,
    data: bytes,
    position: int,
    end: int,
    header: BatchHeader,
    *,
    drop_tombstones: bool,
) -> Selection:
    """Say which records in `data[position:end]` stay.

    Below `mapped_end` these are the ones whose key has no later offset in `latest`; from there on all do.
    Raises DecodeError for malformed records.
    """
    try:
        selection, position = _select(latest, mapped_end, data, position, end, header, drop_tombstones)
    except MALFORMED as error:
        raise DecodeError(f"malformed record in the batch at {header.base_offset}: {error}") from error
    if position != end:
        raise DecodeError(f"{end - position} bytes follow the records of the batch at {header.base_offset}")
    return selection


def _select(
    latest: dict[bytes, int],
    mapped_end: int,
    data: bytes,
    position: int,
    end: int,
    header: BatchHeader,
    drop_tombstones: bool,
) -> tuple[Selection, int]:
    """Return what stays, and the position behind the last record."""
    base_offset = header.base_offset
    runs, run_start = list[Run](), -1
    kept = keyless = tombstones = 0
    for _ in range(header.record_count):
        byte = data[start := position]
        if byte < 0x80:
            following = position + 1 + (byte >> 1)
            position += 2
        elif (high := data[position + 1]) < 0x80:
            following = position + 2 + ((byte & 0x7F | high << 7) >> 1)
            position += 3
        else:
            following, position = _long_head(data, position)
        while data[position] >= 0x80:
            position += 1
        position += 1
        delta = data[position]
        if delta < 0x80:
            offset = base_offset + (delta >> 1)
            position += 1
        elif (high := data[position + 1]) < 0x80:
            offset = base_offset + ((delta & 0x7F | high << 7) >> 1)
            position += 2
        else:
            delta, position = read_varint(data, position)
            offset = base_offset + delta
        length = data[position]
        if length < 0x80:
            position += 1
            length = length >> 1 if not length & 1 else -1
        else:
            length, position = read_varint(data, position)
        value = position + length if length > 0 else position
        if not value < following <= end:
            raise _malformed(header, offset)
        position = following
        if offset < mapped_end:
            if length < 0:
                keyless += 1
                stays = False
            else:
                key = data[value - length : value]
                if length > LONGEST_PLAIN_KEY:
                    key = blake2b(key, digest_size=_DIGEST_BYTES).digest()
                stays = latest.get(key, -1) <= offset
                if stays and data[value] == 1:  # a null value
                    stays = not drop_tombstones
                    tombstones += stays
            if not stays:
                if run_start >= 0:
                    runs.append((run_start, start))
                    run_start = -1
                continue
        kept += 1
        if run_start < 0:
            run_start = start
    if run_start >= 0:
        runs.append((run_start, position))
    return Selection(runs, kept, tombstones > 0, keyless), position


def _long_head(data: bytes, position: int) -> tuple[int, int]:
    """Return where a record ends whose length takes more than two bytes, and where its timestamp begins."""
    size, position = read_varint(data, position)
    return position + size, position + 1


def _malformed(header: BatchHeader, offset: int) -> DecodeError:
    return DecodeError(f"malformed record at {offset} in the batch at {header.base_offset}")


def rewrite_batch(
    data: bytes, selection: Selection, header: BatchHeader, new_horizon_ms: int | None
) -> tuple[bytearray, int]:
    """Return a batch of the selected records of `data`, at least one, and its largest timestamp.

    With `new_horizon_ms` the base timestamp becomes that delete horizon. Raises DecodeError.
    """
    try:
        if new_horizon_ms is None:
            base_timestamp = header.base_timestamp
            body = b"".join([data[start:end] for start, end in selection.runs])
            largest = NO_TIMESTAMP if header.is_log_append_time else _largest_delta(data, selection.runs)
        else:
            base_timestamp = new_horizon_ms
            body, largest = _rebase(data, selection.runs, header.base_timestamp - new_horizon_ms)
    except MALFORMED as error:
        raise DecodeError(f"malformed record in the batch at {header.base_offset}: {error}") from error
    max_timestamp = header.max_timestamp if header.is_log_append_time else base_timestamp + largest
    attributes = header.attributes | (0 if new_horizon_ms is None else DELETE_HORIZON_FLAG)
    payload = compress(Compression(header.compression), body)
    batch = bytearray(HEADER_SIZE + len(payload))
    batch[HEADER_SIZE:] = payload
    _write_header(batch, header, attributes, base_timestamp, max_timestamp, selection.kept)
    return batch, max_timestamp


def _largest_delta(data: bytes, runs: list[Run]) -> int:
    """Return the largest timestamp of the records in `runs`, relative to their batch's base."""
    largest = None
    for position, end in runs:
        while position < end:
            byte = data[position]
            if byte < 0x80:
                following = position + 1 + (byte >> 1)
                position += 2
            else:
                size, position = read_varint(data, position)
                following = position + size
                position += 1
            byte = data[position]
            if byte < 0x80:
                delta = byte >> 1 if not byte & 1 else -(byte + 1 >> 1)
            elif (high := data[position + 1]) < 0x80 and not byte & 1:
                delta = (byte & 0x7F | high << 7) >> 1
            else:
                delta, _ = read_varlong(data, position)
            if largest is None or delta > largest:
                largest = delta
            position = following
    assert largest is not None, "a batch without records has no largest timestamp"
    return largest


def _rebase(data: bytes, runs: list[Run], shift: int) -> tuple[bytes, int]:
    """Return the records with `shift` added to their relative timestamps, and the largest of these."""
    parts: list[bytes] = []
    largest = None
    for position, end in runs:
        while position < end:
            size, position = read_varint(data, position)
            following = position + size
            delta, rest = read_varlong(data, position + 1)
            delta += shift
            timestamp = encode_varint(delta)
            parts.append(encode_uvarint(1 + len(timestamp) + following - rest << 1))
            parts.append(data[position : position + 1])
            parts.append(timestamp)
            parts.append(data[rest:following])
            if largest is None or delta > largest:
                largest = delta
            position = following
    assert largest is not None, "a batch without records has no largest timestamp"
    return b"".join(parts), largest


def empty_batch(header: BatchHeader) -> bytearray:
    """Return a batch without records that keeps offsets, producer, sequences and the largest timestamp."""
    batch = bytearray(HEADER_SIZE)
    attributes = header.attributes & ~(COMPRESSION_MASK | DELETE_HORIZON_FLAG)
    _write_header(batch, header, attributes, NO_TIMESTAMP, header.max_timestamp, 0)
    return batch


def _write_header(
    batch: bytearray,
    header: BatchHeader,
    attributes: int,
    base_timestamp: int,
    max_timestamp: int,
    record_count: int,
) -> None:
    HEADER.pack_into(
        batch,
        0,
        header.base_offset,
        len(batch) - LOG_OVERHEAD,
        header.leader_epoch,
        header.magic,
        0,
        attributes,
        header.last_offset_delta,
        base_timestamp,
        max_timestamp,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        record_count,
    )
    set_crc(batch)
