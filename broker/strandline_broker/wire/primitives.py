"""Kafka's primitive types, for the hand-written codecs of this package.

Readers take `(buffer, position)` and return `(value, next position)`. They raise DecodeError or, where a
codec catches it for the whole message, IndexError, `struct.error` or UnicodeDecodeError (see `MALFORMED`).
A length is compared with what is left before anything is sliced or allocated. The hot codecs inline the
one-byte cases and call these only for the rest.

Source: https://kafka.apache.org/protocol#protocol_types, KIP-482 (compact types and tagged fields).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from strandline_broker.wire.errors import DecodeError, EncodeError

MALFORMED: Final = (struct.error, IndexError, UnicodeDecodeError)
"""What reading beyond the end or a bad string raises; every codec turns these into DecodeError."""

INT16: Final = struct.Struct(">h")
INT32: Final = struct.Struct(">i")
INT64: Final = struct.Struct(">q")

NO_UUID: Final = bytes(16)
"""The zero UUID stands for "none" on the wire."""

Buffer = bytes | bytearray | memoryview

_MAX_VARINT_SHIFT = 28
_MAX_STRING = 0x7FFF


def read_uvarint(buf: Buffer, pos: int) -> tuple[int, int]:
    """Read an unsigned varint of at most five bytes and 32 bits."""
    byte = buf[pos]
    pos += 1
    if byte < 0x80:
        return byte, pos
    value = byte & 0x7F
    shift = 7
    while True:
        byte = buf[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > _MAX_VARINT_SHIFT:
            raise DecodeError("varint is longer than five bytes")
    if value > 0xFFFFFFFF:
        raise DecodeError("varint has more than 32 bits")
    return value, pos


def read_varint(buf: Buffer, pos: int) -> tuple[int, int]:
    """Read a zigzag varint (int32)."""
    value, pos = read_uvarint(buf, pos)
    return (value >> 1) ^ -(value & 1), pos


def read_varlong(buf: Buffer, pos: int) -> tuple[int, int]:
    """Read a zigzag varint of at most ten bytes (int64)."""
    value = 0
    shift = 0
    while True:
        byte = buf[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise DecodeError("varlong is longer than ten bytes")
    if value > 0xFFFFFFFFFFFFFFFF:
        raise DecodeError("varlong has more than 64 bits")
    return (value >> 1) ^ -(value & 1), pos


def read_compact_length(buf: Buffer, pos: int) -> tuple[int, int]:
    """Read the length of a compact type: -1 for null, else checked against the bytes that are left.

    Every element of an array takes at least one byte, so the check bounds element counts as well.
    """
    length, pos = read_uvarint(buf, pos)
    length -= 1
    if length > len(buf) - pos:
        raise DecodeError(f"length {length} exceeds the {len(buf) - pos} bytes that are left")
    return length, pos


def read_array_length(buf: Buffer, pos: int, element_size: int) -> tuple[int, int]:
    """Read the int32 length of an array whose elements take at least `element_size` bytes; -1 for null."""
    (length,) = INT32.unpack_from(buf, pos)
    pos += 4
    if length < -1 or length * element_size > len(buf) - pos:
        raise DecodeError(f"array of {length} elements in {len(buf) - pos} bytes")
    return length, pos


def read_compact_nullable_string(buf: Buffer, pos: int) -> tuple[str | None, int]:
    """Read a compact string or null."""
    length, pos = read_compact_length(buf, pos)
    if length < 0:
        return None, pos
    end = pos + length
    return str(buf[pos:end], "utf-8"), end


def read_compact_string(buf: Buffer, pos: int) -> tuple[str, int]:
    """Read a compact string that may not be null."""
    value, pos = read_compact_nullable_string(buf, pos)
    if value is None:
        raise DecodeError("null where a string must be")
    return value, pos


def read_nullable_string(buf: Buffer, pos: int) -> tuple[str | None, int]:
    """Read a string with an int16 length, or null."""
    (length,) = INT16.unpack_from(buf, pos)
    pos += 2
    if length < 0:
        if length == -1:
            return None, pos
        raise DecodeError(f"string of {length} bytes")
    end = pos + length
    if end > len(buf):
        raise DecodeError(f"string of {length} bytes where {len(buf) - pos} are left")
    return str(buf[pos:end], "utf-8"), end


def read_string(buf: Buffer, pos: int) -> tuple[str, int]:
    """Read a string with an int16 length that may not be null."""
    value, pos = read_nullable_string(buf, pos)
    if value is None:
        raise DecodeError("null where a string must be")
    return value, pos


def skip_tagged_fields(buf: Buffer, pos: int) -> int:
    """Skip a block of tagged fields; return the position behind it."""
    count, pos = read_uvarint(buf, pos)
    if count > len(buf) - pos:
        raise DecodeError(f"{count} tagged fields in {len(buf) - pos} bytes")
    for _ in range(count):
        _, pos = read_uvarint(buf, pos)
        size, pos = read_uvarint(buf, pos)
        pos += size
        if pos > len(buf):
            raise DecodeError("tagged field exceeds the message")
    return pos


def read_tagged_fields(buf: Buffer, pos: int) -> tuple[dict[int, Buffer], int]:
    """Read a block of tagged fields into {tag: bytes}, without copying them."""
    count, pos = read_uvarint(buf, pos)
    if count > len(buf) - pos:
        raise DecodeError(f"{count} tagged fields in {len(buf) - pos} bytes")
    fields: dict[int, Buffer] = {}
    for _ in range(count):
        tag, pos = read_uvarint(buf, pos)
        size, pos = read_uvarint(buf, pos)
        end = pos + size
        if end > len(buf):
            raise DecodeError("tagged field exceeds the message")
        if tag in fields:
            raise DecodeError(f"tagged field {tag} appears twice")
        fields[tag] = buf[pos:end]
        pos = end
    return fields, pos


def encode_uvarint(value: int) -> bytes:
    """Encode an unsigned varint; `value` must not be negative."""
    if value < 0x80:
        return _ONE_BYTE[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value < 0x200000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_varint(value: int) -> bytes:
    """Encode a zigzag varint of an int32 or int64."""
    return encode_uvarint(value << 1 if value >= 0 else (-value << 1) - 1)


@lru_cache(maxsize=4096)
def encode_string(value: str) -> bytes:
    """Encode a string with an int16 length. Cached: the same topic names appear in every response."""
    data = value.encode()
    if len(data) > _MAX_STRING:
        raise EncodeError(f"string of {len(data)} bytes exceeds {_MAX_STRING}")
    return INT16.pack(len(data)) + data


@lru_cache(maxsize=4096)
def encode_compact_string(value: str) -> bytes:
    """Encode a compact string. Cached: the same topic names appear in every response."""
    data = value.encode()
    if len(data) > _MAX_STRING:
        raise EncodeError(f"string of {len(data)} bytes exceeds {_MAX_STRING}")
    return encode_uvarint(len(data) + 1) + data


def encode_nullable_string(value: str | None) -> bytes:
    """Encode a string with an int16 length, or null."""
    return b"\xff\xff" if value is None else encode_string(value)


def encode_compact_nullable_string(value: str | None) -> bytes:
    """Encode a compact string or null."""
    return b"\x00" if value is None else encode_compact_string(value)


def with_correlation_id(frame: bytes, correlation_id: int) -> bytes:
    """Return a cached response frame (with its length prefix) for another request."""
    return frame[:4] + INT32.pack(correlation_id) + frame[8:]


_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(0x80))
