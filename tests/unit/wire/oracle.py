"""kio as an oracle: an independent codec generated from Kafka's schemas, and strategies for its messages."""

from __future__ import annotations

import dataclasses
import datetime
import io
import struct
import sys
import uuid
from types import UnionType
from typing import Any, get_args, get_origin

from hypothesis import strategies as st
from kio.index import load_request_schema, load_response_schema
from kio.schema.errors import ErrorCode as ErrorCode
from kio.serial import entity_reader, entity_writer

UTC = datetime.UTC


def write(entity: Any) -> bytes:
    buffer = io.BytesIO()
    entity_writer(type(entity))(buffer, entity)
    return buffer.getvalue()


def request_frame(entity: Any, correlation_id: int = 7, client_id: str | None = "test") -> memoryview:
    """A request without its length prefix, in a writable buffer."""
    header = type(entity).__header_schema__(
        request_api_key=type(entity).__api_key__,
        request_api_version=type(entity).__version__,
        correlation_id=correlation_id,
        client_id=client_id,
    )
    return memoryview(bytearray(write(header) + write(entity)))


def body_frame(entity: Any) -> memoryview:
    return memoryview(bytearray(write(entity)))


def response_frame(entity: Any, correlation_id: int = 7) -> bytes:
    """A whole response with its length prefix."""
    data = write(type(entity).__header_schema__(correlation_id=correlation_id)) + write(entity)
    return struct.pack(">i", len(data)) + data


def read_response(api_key: int, version: int, frame: bytes) -> Any:
    schema = load_response_schema(api_key, version)
    (size,) = struct.unpack_from(">i", frame)
    assert size == len(frame) - 4
    _, used = entity_reader(schema.__header_schema__)(frame, 4)
    entity, body = entity_reader(schema)(frame, 4 + used)
    assert 4 + used + body == len(frame), "bytes are left behind the message"
    return entity


def request_schema(api_key: int, version: int) -> Any:
    return load_request_schema(api_key, version)


def response_schema(api_key: int, version: int) -> Any:
    return load_response_schema(api_key, version)


def types_beside(schema: Any) -> dict[str, Any]:
    """The nested types of a message by name."""
    return {
        name: kind for name, kind in vars(sys.modules[schema.__module__]).items() if isinstance(kind, type)
    }


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)
MILLIS = st.integers(-(2**31), 2**31 - 1).map(lambda ms: datetime.timedelta(milliseconds=ms))
PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "int8": st.integers(-(2**7), 2**7 - 1),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint16": st.integers(0, 2**16 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "float64": st.floats(allow_nan=False, allow_infinity=False),
    "string": TEXT,
    "bytes": st.binary(max_size=40),
    "records": st.binary(max_size=200),
    "uuid": st.none() | st.uuids().filter(lambda value: value.int != 0),
    "bool": st.booleans(),
    "error_code": st.sampled_from(list(ErrorCode)),
    "timedelta_i32": MILLIS,
    "timedelta_i64": MILLIS,
    "datetime_i64": st.integers(0, 4_000_000_000).map(lambda s: datetime.datetime.fromtimestamp(s, tz=UTC)),
}


def entities(schema: Any) -> st.SearchStrategy[Any]:
    """Messages of one kio type, small but with every field taken through its range."""
    values = {field.name: field_values(field) for field in dataclasses.fields(schema)}
    return st.builds(schema, **values)


def field_values(field: Any) -> st.SearchStrategy[Any]:
    kind, nullable = field.type, False
    if get_origin(kind) is UnionType or type(kind) is UnionType:
        inner = [arg for arg in get_args(kind) if arg is not type(None)]
        kind, nullable = inner[0], True
    values: st.SearchStrategy[Any]
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        elements = (
            entities(item) if dataclasses.is_dataclass(item) else PRIMITIVES[field.metadata["kafka_type"]]
        )
        values = st.lists(elements, max_size=3).map(tuple)
    elif dataclasses.is_dataclass(kind):
        values = entities(kind)
    else:
        values = PRIMITIVES[field.metadata["kafka_type"]]
    if nullable and field.metadata.get("kafka_type") != "uuid" and "tag" not in field.metadata:
        return st.none() | values
    return values


def plain(value: Any) -> Any:
    """A kio message as nested dicts of plain values, the shape that `cold.encode_response` takes."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime.timedelta):
        return round(value / datetime.timedelta(milliseconds=1))
    if isinstance(value, datetime.datetime):
        return round(value.timestamp() * 1000)
    if isinstance(value, ErrorCode):
        return int(value)
    return value


def topic_id(value: uuid.UUID | None) -> bytes:
    return bytes(16) if value is None else value.bytes
