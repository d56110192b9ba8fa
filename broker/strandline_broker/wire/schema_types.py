"""Readers and writers of Kafka's field types, the pieces from which `schema.py` compiles messages.

A reader takes a Cursor and advances it; a writer appends to a bytearray and leaves it to `Struct.write` to
turn what it raises into an EncodeError that names the field. Values are those of kio: `timedelta` for
durations, aware `datetime` or None (-1 on the wire) for points in time, UUID or None (zero on the wire),
our own ErrorCode. Writers also take plain integers (milliseconds) and 16 bytes for a UUID.
"""

from __future__ import annotations

import datetime
import struct
import uuid
from collections.abc import Callable, Sized
from typing import Any, Final

from strandline_broker.errors import ErrorCode
from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.primitives import (
    INT16,
    INT32,
    NO_UUID,
    Buffer,
    encode_compact_string,
    encode_string,
    encode_uvarint,
    read_compact_length,
    read_compact_nullable_string,
    read_nullable_string,
    read_uvarint,
    skip_tagged_fields,
)

MAX_ELEMENTS: Final = 200_000
"""Array elements accepted in one message; many tiny ones would take far more memory than the frame."""

EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MILLISECOND: Final = datetime.timedelta(milliseconds=1)

_MIN_DURATION_MS: Final = datetime.timedelta.min // MILLISECOND
_MAX_DURATION_MS: Final = datetime.timedelta.max // MILLISECOND
_ERRORS: Final = {int(code): code for code in ErrorCode}


class Cursor:
    """A position in a message, and how many more array elements it may hold."""

    __slots__ = ("budget", "buf", "pos")

    def __init__(self, buf: Buffer, pos: int) -> None:
        self.buf = buf
        self.pos = pos
        self.budget = MAX_ELEMENTS

    def take(self, length: int) -> Buffer:
        """Return the next `length` bytes without copying them. Raises DecodeError if fewer are left."""
        start = self.pos
        end = start + length
        if length < 0 or end > len(self.buf):
            raise DecodeError(f"{length} bytes where {len(self.buf) - start} are left")
        self.pos = end
        return self.buf[start:end]

    def read_within(self, data: Buffer, read: Reader) -> Any:
        """Read the content of a tagged field; its array elements count like those outside."""
        inner = Cursor(data, 0)
        inner.budget = self.budget
        value = read(inner)
        self.budget = inner.budget
        return value

    def spend(self, count: int) -> None:
        """Account for the elements of an array before any is read.

        Raises DecodeError if they cannot be there.
        """
        self.budget -= count
        if count > len(self.buf) - self.pos or self.budget < 0:
            raise DecodeError(f"array of {count} elements in {len(self.buf) - self.pos} bytes")

    def skip_tagged_fields(self) -> None:
        """Skip a block of tagged fields."""
        self.pos = skip_tagged_fields(self.buf, self.pos)


Reader = Callable[[Cursor], Any]
Writer = Callable[[bytearray, Any], None]


# --- readers ---


def _number(layout: str) -> Reader:
    compiled = struct.Struct(layout)
    unpack, size = compiled.unpack_from, compiled.size

    def read(cursor: Cursor) -> Any:
        (value,) = unpack(cursor.buf, cursor.pos)
        cursor.pos += size
        return value

    return read


def _converted(read_number: Reader, convert: Callable[[int], object]) -> Reader:
    def read(cursor: Cursor) -> object:
        return convert(read_number(cursor))

    return read


def _to_duration(milliseconds: int) -> datetime.timedelta:
    # An int64 can exceed what a timedelta holds; a longer wait than three million years is the same wait.
    return datetime.timedelta(milliseconds=max(_MIN_DURATION_MS, min(milliseconds, _MAX_DURATION_MS)))


def _to_time(milliseconds: int) -> datetime.datetime | None:
    if milliseconds == -1:
        return None
    try:
        return EPOCH + datetime.timedelta(milliseconds=milliseconds)
    except OverflowError as error:
        raise DecodeError(f"timestamp {milliseconds} ms is out of range") from error


def _to_error(code: int) -> ErrorCode:
    return _ERRORS.get(code, ErrorCode.UNKNOWN_SERVER_ERROR)


def _read_uuid(cursor: Cursor) -> uuid.UUID | None:
    data = bytes(cursor.take(16))
    return None if data == NO_UUID else uuid.UUID(bytes=data)


def _read_string(cursor: Cursor) -> str | None:
    value, cursor.pos = read_nullable_string(cursor.buf, cursor.pos)
    return value


def _read_compact_string(cursor: Cursor) -> str | None:
    value, cursor.pos = read_compact_nullable_string(cursor.buf, cursor.pos)
    return value


def _read_bytes(cursor: Cursor) -> bytes | None:
    (length,) = INT32.unpack_from(cursor.buf, cursor.pos)
    cursor.pos += 4
    return None if length == -1 else bytes(cursor.take(length))


def _read_compact_bytes(cursor: Cursor) -> bytes | None:
    length, cursor.pos = read_compact_length(cursor.buf, cursor.pos)
    return None if length < 0 else bytes(cursor.take(length))


def _not_null(read_nullable: Reader) -> Reader:
    def read(cursor: Cursor) -> Any:
        value = read_nullable(cursor)
        if value is None:
            raise DecodeError("null where a value must be")
        return value

    return read


def _make_readers() -> dict[tuple[str, bool, bool], Reader]:
    """Return readers by (type, flexible, nullable)."""
    int16, int32, int64 = _number(">h"), _number(">i"), _number(">q")
    plain: dict[str, Reader] = {
        "int8": _number(">b"),
        "int16": int16,
        "int32": int32,
        "int64": int64,
        "uint16": _number(">H"),
        "float64": _number(">d"),
        "bool": _number(">?"),
        "uuid": _read_uuid,
        "error_code": _converted(int16, _to_error),
        "timedelta_i32": _converted(int32, _to_duration),
        "timedelta_i64": _converted(int64, _to_duration),
        "datetime_i64": _converted(int64, _to_time),
    }
    readers = {
        (name, flexible, nullable): read
        for name, read in plain.items()
        for flexible in (False, True)
        for nullable in (False, True)
    }
    for names, flexible, read in (
        (("string",), False, _read_string),
        (("string",), True, _read_compact_string),
        (("bytes", "records"), False, _read_bytes),
        (("bytes", "records"), True, _read_compact_bytes),
    ):
        for name in names:
            readers[name, flexible, True] = read
            readers[name, flexible, False] = _not_null(read)
    return readers


READERS: Final = _make_readers()


def array_reader(read_element: Reader, *, flexible: bool, nullable: bool) -> Reader:
    """Return a reader of arrays; it yields tuples."""

    def read(cursor: Cursor) -> tuple[Any, ...] | None:
        if flexible:
            count, cursor.pos = read_uvarint(cursor.buf, cursor.pos)
            count -= 1
        else:
            (count,) = INT32.unpack_from(cursor.buf, cursor.pos)
            cursor.pos += 4
        if count < 0:
            if count == -1 and nullable:
                return None
            raise DecodeError(f"array of {count} elements")
        cursor.spend(count)
        return tuple([read_element(cursor) for _ in range(count)])

    return read


def nullable_struct_reader(read_struct: Reader) -> Reader:
    """Return a reader of a structure behind a byte that says whether it is there (KIP-893)."""

    def read(cursor: Cursor) -> Any:
        marker = cursor.buf[cursor.pos]
        cursor.pos += 1
        return None if marker > 0x7F else read_struct(cursor)

    return read


# --- writers ---


def _pack(layout: str, convert: Callable[[Any], object] | None = None) -> Writer:
    pack = struct.Struct(layout).pack
    if convert is None:

        def write(out: bytearray, value: Any) -> None:
            out += pack(value)
    else:

        def write(out: bytearray, value: Any) -> None:
            out += pack(convert(value))

    return write


def _from_duration(value: Any) -> Any:
    return value // MILLISECOND if isinstance(value, datetime.timedelta) else value


def _from_time(value: Any) -> Any:
    if value is None:
        return -1
    return (value - EPOCH) // MILLISECOND if isinstance(value, datetime.datetime) else value


def _write_uuid(out: bytearray, value: Any) -> None:
    data = NO_UUID if value is None else value.bytes if isinstance(value, uuid.UUID) else value
    if not isinstance(data, bytes) or len(data) != 16:
        raise TypeError(f"not a UUID: {value!r}")
    out += data


def _write_string(out: bytearray, value: Any) -> None:
    out += encode_string(value)


def _write_compact_string(out: bytearray, value: Any) -> None:
    out += encode_compact_string(value)


def _write_bytes(out: bytearray, value: Any) -> None:
    out += INT32.pack(len(value))
    out += value


def _write_compact_bytes(out: bytearray, value: Any) -> None:
    out += encode_uvarint(len(value) + 1)
    out += value


def _or_null(write_value: Writer, null: bytes) -> Writer:
    def write(out: bytearray, value: Any) -> None:
        if value is None:
            out += null
        else:
            write_value(out, value)

    return write


_NULL_STRING: Final = INT16.pack(-1)
_NULL_BYTES: Final = INT32.pack(-1)
_COMPACT_NULL: Final = b"\x00"
_FIXED_WRITERS: Final[dict[str, Writer]] = {
    "int8": _pack(">b"),
    "int16": _pack(">h"),
    "int32": _pack(">i"),
    "int64": _pack(">q"),
    "uint16": _pack(">H"),
    "float64": _pack(">d"),
    "bool": _pack(">?"),
    "uuid": _write_uuid,
    "error_code": _pack(">h", int),
    "timedelta_i32": _pack(">i", _from_duration),
    "timedelta_i64": _pack(">q", _from_duration),
    "datetime_i64": _pack(">q", _from_time),
}
_SIZED_WRITERS: Final[dict[tuple[str, bool], tuple[Writer, bytes]]] = {
    ("string", False): (_write_string, _NULL_STRING),
    ("string", True): (_write_compact_string, _COMPACT_NULL),
    ("bytes", False): (_write_bytes, _NULL_BYTES),
    ("bytes", True): (_write_compact_bytes, _COMPACT_NULL),
    ("records", False): (_write_bytes, _NULL_BYTES),
    ("records", True): (_write_compact_bytes, _COMPACT_NULL),
}


def writer_of(kafka_type: str, *, flexible: bool, nullable: bool) -> Writer:
    """Return the writer of a field type that is no structure."""
    fixed = _FIXED_WRITERS.get(kafka_type)
    if fixed is not None:
        return fixed
    write, null = _SIZED_WRITERS[kafka_type, flexible]
    return _or_null(write, null) if nullable else write


def array_writer(write_element: Writer, *, flexible: bool, nullable: bool, name: str) -> Writer:
    """Return a writer of arrays; it takes any sized collection."""

    def write(out: bytearray, value: Any) -> None:
        if value is None:
            if not nullable:
                raise TypeError(f"null where array {name} must be")
            out += _COMPACT_NULL if flexible else _NULL_BYTES
            return
        if isinstance(value, (str, bytes)) or not isinstance(value, Sized):
            raise TypeError(f"{type(value).__name__} where array {name} must be")
        out += encode_uvarint(len(value) + 1) if flexible else INT32.pack(len(value))
        for element in value:  # type: ignore[attr-defined]
            write_element(out, element)

    return write


def nullable_struct_writer(write_struct: Writer) -> Writer:
    """Return a writer of a structure behind a byte that says whether it is there (KIP-893)."""

    def write(out: bytearray, value: Any) -> None:
        if value is None:
            out.append(0xFF)
        else:
            out.append(1)
            write_struct(out, value)

    return write


_IMPLICIT_DEFAULTS: Final[dict[str | None, object]] = {
    "string": "",
    "bytes": b"",
    "records": b"",
    "uuid": None,
    "bool": False,
    "datetime_i64": 0,
    "float64": 0.0,
}


def implicit_default(kafka_type: str | None, *, nullable: bool, is_array: bool) -> object:
    """Return the value of a field for which the schema names no default."""
    if is_array:
        return ()
    if nullable and kafka_type in ("records", "datetime_i64"):
        return None
    if kafka_type == "error_code":
        return ErrorCode.NONE
    if kafka_type in ("timedelta_i32", "timedelta_i64"):
        return datetime.timedelta()
    return _IMPLICIT_DEFAULTS.get(kafka_type, 0)
