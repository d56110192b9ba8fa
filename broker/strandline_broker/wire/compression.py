"""Compression of record batches, with a bound on what a batch may expand to.

The broker stores batches compressed as they came; it looks inside only for compaction, recompression,
timestamp lookups and internal topics. A few bytes can claim to expand to gigabytes, so every path knows its
limit before it allocates.

Framing that differs from the codecs' own: snappy is framed as the Java library does it (magic, then blocks
with an int32 length); lz4 frames must have independent blocks, which Java insists on and most libraries do
not write by default.

Source: Apache Kafka, `CompressionType`, `Lz4BlockOutputStream`; snappy-java `SnappyCodec`; the LZ4 frame
format.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from enum import IntEnum
from typing import Final

import cramjam

from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.primitives import Buffer

MAX_DECOMPRESSED_BYTES: Final = 256 << 20
"""Default limit for one batch: well above any sensible `max.message.bytes`, well below what hurts."""

_GZIP_WBITS: Final = 31
_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER: Final = _XERIAL_MAGIC + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK: Final = 32 << 10
_SNAPPY_MAX_RATIO: Final = 64
# Magic, version 1 with independent blocks, 64 KiB blocks, and the checksum byte of exactly these two.
_LZ4_HEADER: Final = b"\x04\x22\x4d\x18\x60\x40\x82"
_LZ4_BLOCK: Final = 64 << 10
_LZ4_STORED: Final = 0x80000000
_LZ4_MAX_RATIO: Final = 256
_FIRST_GUESS: Final = 64 << 10
_INT32 = struct.Struct(">i")
_UINT32_LE = struct.Struct("<I")


class Compression(IntEnum):
    """Compression types, the three lowest bits of a batch's attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


def compress(kind: Compression, data: bytes) -> bytes:
    """Compress the records of a batch so that every Kafka client can read them."""
    if kind is Compression.NONE:
        return data
    if kind is Compression.GZIP:
        return zlib.compress(data, wbits=_GZIP_WBITS)
    if kind is Compression.SNAPPY:
        return _compress_snappy(data)
    if kind is Compression.LZ4:
        return _compress_lz4(data)
    return bytes(cramjam.zstd.compress(data))


def decompress(kind: int, data: Buffer, limit: int = MAX_DECOMPRESSED_BYTES) -> Buffer:
    """Decompress the records of a batch.

    Raises DecodeError if they are broken, expand beyond `limit` bytes, or use an unknown compression type.
    """
    if kind == Compression.NONE:
        if len(data) > limit:
            raise DecodeError(f"records of {len(data)} bytes exceed {limit}")
        return data
    try:
        if kind == Compression.GZIP:
            return _decompress_gzip(data, limit)
        if kind == Compression.SNAPPY:
            return _decompress_snappy(data, limit)
        if kind == Compression.LZ4:
            return _decompress_growing(
                cramjam.lz4.decompress_into, data, min(limit, len(data) * _LZ4_MAX_RATIO)
            )
        if kind == Compression.ZSTD:
            return _decompress_growing(cramjam.zstd.decompress_into, data, limit)
    except (cramjam.DecompressionError, zlib.error, struct.error) as error:
        raise DecodeError(f"cannot decompress {Compression(kind).name.lower()} records: {error}") from error
    raise DecodeError(f"unknown compression type {kind}")


def _decompress_gzip(data: Buffer, limit: int) -> bytes:
    """Decompress one or more gzip members."""
    parts: list[bytes] = []
    while data:
        decompressor = zlib.decompressobj(_GZIP_WBITS)
        part = decompressor.decompress(data, limit + 1)
        limit -= len(part)
        if limit < 0:
            raise DecodeError("gzip records expand beyond the limit")
        if not decompressor.eof:
            raise DecodeError("gzip records are cut short")
        parts.append(part)
        data = decompressor.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _compress_snappy(data: bytes) -> bytes:
    parts = [_XERIAL_HEADER]
    view = memoryview(data)
    for start in range(0, len(data), _XERIAL_BLOCK):
        block = bytes(cramjam.snappy.compress_raw(view[start : start + _XERIAL_BLOCK]))
        parts += (_INT32.pack(len(block)), block)
    return b"".join(parts)


def _decompress_snappy(data: Buffer, limit: int) -> bytes:
    """Decompress snappy-java's framing or one raw block; clients write either."""
    if bytes(data[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        return _decompress_snappy_block(data, limit)
    parts: list[bytes] = []
    pos = len(_XERIAL_HEADER)
    while pos < len(data):
        (size,) = _INT32.unpack_from(data, pos)
        pos += 4
        if size < 0 or size > len(data) - pos:
            raise DecodeError(f"snappy block of {size} bytes where {len(data) - pos} are left")
        part = _decompress_snappy_block(data[pos : pos + size], limit)
        limit -= len(part)
        parts.append(part)
        pos += size
    return b"".join(parts)


def _decompress_snappy_block(block: Buffer, limit: int) -> bytes:
    size = cramjam.snappy.decompress_raw_len(block)
    if size > limit or size > len(block) * _SNAPPY_MAX_RATIO:
        raise DecodeError(f"snappy block of {len(block)} bytes claims to expand to {size}")
    return bytes(cramjam.snappy.decompress_raw(block))


def _compress_lz4(data: bytes) -> bytes:
    parts = [_LZ4_HEADER]
    view = memoryview(data)
    for start in range(0, len(data), _LZ4_BLOCK):
        raw = view[start : start + _LZ4_BLOCK]
        block = bytes(cramjam.lz4.compress_block(raw, store_size=False))
        if len(block) < len(raw):
            parts += (_UINT32_LE.pack(len(block)), block)
        else:
            parts += (_UINT32_LE.pack(len(raw) | _LZ4_STORED), bytes(raw))
    parts.append(bytes(4))
    return b"".join(parts)


def _decompress_growing(decompress_into: Callable[..., int], data: Buffer, limit: int) -> Buffer:
    """Decompress into buffers of growing size: neither format has to say how long its content is."""
    size = min(limit, max(_FIRST_GUESS, len(data) * 4))
    while True:
        target = bytearray(size)
        try:
            written = decompress_into(data, target)
        except cramjam.DecompressionError as error:
            # The one error that more room can cure; there is no other way to tell it apart.
            if "whole buffer" not in str(error):
                raise
            if size >= limit:
                raise DecodeError("records expand beyond the limit") from error
            size = min(limit, size * 4)
            continue
        return memoryview(target)[:written]
