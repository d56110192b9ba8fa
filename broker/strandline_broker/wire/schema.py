"""Kafka's message schemas, compiled into readers and writers for `cold.py`, which alone may import this.

kio brings the schemas: one frozen dataclass per message and version, generated from Kafka's definitions.
Its own reader is not used on bytes from the network, because it allocates what a length field claims before
it looks at what is left (twenty bytes end the process); its own writer wants finished entities of exact
types. So both directions are compiled here from the dataclasses, and kio's codec serves the tests as an
independent oracle.

Source: the protocol guide, KIP-482 (flexible versions), KIP-893 (nullable structs).
"""

from __future__ import annotations

import dataclasses
import struct
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from kio.index import load_request_schema, load_response_schema
from kio.schema.index import api_key_map, schema_name_map

from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.errors import DecodeError, EncodeError, UnsupportedVersion
from strandline_broker.wire.primitives import (
    MALFORMED,
    encode_uvarint,
    read_tagged_fields,
)
from strandline_broker.wire.schema_types import (
    READERS,
    Cursor,
    Reader,
    Writer,
    array_reader,
    array_writer,
    implicit_default,
    nullable_struct_reader,
    nullable_struct_writer,
    writer_of,
)

NEVER_NULL: Final = frozenset(
    {
        (ApiKey.CREATE_TOPICS, "topics.configs"),
        (ApiKey.DESCRIBE_TOPIC_PARTITIONS, "topics.partitions.eligible_leader_replicas"),
        (ApiKey.DESCRIBE_TOPIC_PARTITIONS, "topics.partitions.last_known_elr"),
    }
)
"""Arrays of responses that the schema lets be null but clients iterate over: sent as empty."""

_ENCODING_FAULTS: Final = (struct.error, TypeError, AttributeError, ValueError, OverflowError)


class Field(NamedTuple):
    """One field of a message, with its codec."""

    name: str
    read: Reader
    write: Writer
    default: object
    encoded_default: bytes
    struct: Struct | None


class Struct:
    """A message, or a structure within one, in one version."""

    __slots__ = (
        "api_key",
        "cls",
        "dropped",
        "fields",
        "flexible",
        "is_request",
        "names",
        "path",
        "tagged",
        "version",
    )

    def __init__(self, cls: type[Any], api_key: int, version: int, path: str, *, is_request: bool) -> None:
        self.cls = cls
        self.api_key = api_key
        self.version = version
        self.path = path
        self.is_request = is_request
        self.flexible: bool = cls.__flexible__
        self.fields: list[Field] = []
        self.tagged: dict[int, Field] = {}
        self.dropped: set[str] = set()
        """Names that other versions have: ignored in this one."""
        for declared in dataclasses.fields(cls):
            field = self._compile(declared)
            tag = declared.metadata.get("tag")
            if tag is None:
                self.fields.append(field)
            else:
                self.tagged[tag] = field
        self.tagged = dict(sorted(self.tagged.items()))
        self.names = frozenset(field.name for field in dataclasses.fields(cls))

    def _compile(self, declared: dataclasses.Field[Any]) -> Field:
        kind, nullable = _without_none(declared.type)
        is_array = typing.get_origin(kind) is tuple
        if is_array:
            kind, _ = _without_none(typing.get_args(kind)[0])
        name = declared.name
        path = f"{self.path}.{name}" if self.path else name
        if (self.api_key, path) in NEVER_NULL and not self.is_request:
            nullable = False
        nested: Struct | None = None
        read: Reader
        write: Writer
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            nested = Struct(kind, self.api_key, self.version, path, is_request=self.is_request)
            read, write = nested.read, nested.write
            if nullable and not is_array:
                read, write = nullable_struct_reader(read), nullable_struct_writer(write)
        else:
            kafka_type = declared.metadata["kafka_type"]
            element_nullable = nullable and not is_array
            read = READERS[kafka_type, self.flexible, element_nullable or kafka_type == "uuid"]
            write = writer_of(kafka_type, flexible=self.flexible, nullable=element_nullable)
        if is_array:
            read = array_reader(read, flexible=self.flexible, nullable=nullable)
            write = array_writer(write, flexible=self.flexible, nullable=nullable, name=name)
        default = declared.default
        if default is dataclasses.MISSING or (default is None and is_array and not nullable):
            if nested is not None and not is_array:
                default = None if nullable else nested.defaults()
            else:
                default = implicit_default(
                    declared.metadata.get("kafka_type"), nullable=nullable, is_array=is_array
                )
        encoded = bytearray()
        write(encoded, _as_mapping(default))
        return Field(name, read, write, default, bytes(encoded), nested)

    def defaults(self) -> Any:
        """Return an entity with every field at its default."""
        return self.cls(**{field.name: field.default for field in (*self.fields, *self.tagged.values())})

    def read(self, cursor: Cursor) -> Any:
        """Read one entity; leaves the cursor behind it."""
        values = {field.name: field.read(cursor) for field in self.fields}
        if self.flexible:
            if self.tagged:
                tags, cursor.pos = read_tagged_fields(cursor.buf, cursor.pos)
                for tag, field in self.tagged.items():
                    data = tags.get(tag)
                    values[field.name] = (
                        field.default if data is None else cursor.read_within(data, field.read)
                    )
            else:
                cursor.skip_tagged_fields()
        return self.cls(**values)

    def write(self, out: bytearray, body: Any) -> None:
        """Append one structure given as a mapping. Raises EncodeError, which names the field."""
        if not isinstance(body, Mapping):
            raise EncodeError(f"{self}: a mapping is needed, not {type(body).__name__}")
        for name in body:
            if name not in self.names and name not in self.dropped:
                self._drop(name)
        name = ""
        try:
            for field in self.fields:
                name = field.name
                if name in body:
                    field.write(out, body[name])
                else:
                    out += field.encoded_default
            if self.flexible:
                self._write_tagged(out, body)
        except _ENCODING_FAULTS as error:
            raise EncodeError(f"{self}, field {name}: {error}") from error

    def _write_tagged(self, out: bytearray, body: Mapping[str, object]) -> None:
        count = 0
        block = bytearray()
        for tag, field in self.tagged.items():
            if field.name not in body:
                continue
            data = bytearray()
            field.write(data, body[field.name])
            if data == field.encoded_default:
                continue
            count += 1
            block += encode_uvarint(tag) + encode_uvarint(len(data)) + data
        out += encode_uvarint(count) + block

    def _drop(self, name: str) -> None:
        """Note a field that another version of the message has.

        Raises EncodeError if none has: it is misspelt.
        """
        for version in sorted(_versions(self.api_key), reverse=True):
            if version == self.version:
                continue
            found: Struct | None = struct_of(self.api_key, version, is_request=self.is_request)
            for step in filter(None, self.path.split(".")):
                found = found.struct_at(step) if found is not None else None
            if found is not None and name in found.names:
                self.dropped.add(name)
                return
        raise EncodeError(f"{self}: no version has a field {name!r}")

    def struct_at(self, name: str) -> Struct | None:
        """Return the structure that a field holds, or None."""
        for field in (*self.fields, *self.tagged.values()):
            if field.name == name:
                return field.struct
        return None

    def __str__(self) -> str:
        kind = "request" if self.is_request else "response"
        return f"{api_key_map[self.api_key]} {kind} version {self.version}, {self.path or 'top level'}"


@cache
def struct_of(api_key: int, version: int, *, is_request: bool) -> Struct:
    """Return the compiled schema of a message. Raises UnsupportedVersion if there is none."""
    if version not in _versions(api_key):
        raise UnsupportedVersion(api_key, version)
    cls = load_request_schema(api_key, version) if is_request else load_response_schema(api_key, version)
    return Struct(cls, api_key, version, "", is_request=is_request)


def read_message(message: Struct, cursor: Cursor) -> Any:
    """Read a whole message. Raises DecodeError."""
    try:
        return message.read(cursor)
    except MALFORMED as error:
        raise DecodeError(f"malformed {message}: {error}") from error


def _versions(api_key: int) -> typing.Collection[int]:
    name = api_key_map.get(api_key)
    return () if name is None else schema_name_map[name].keys()


def _without_none(kind: Any) -> tuple[Any, bool]:
    """Split `X | None` into (X, True)."""
    if isinstance(kind, types.UnionType):
        (inner,) = (arg for arg in typing.get_args(kind) if arg is not types.NoneType)
        return inner, True
    return kind, False


def _as_mapping(value: Any) -> Any:
    """Turn an entity, a default of the schema, into what a writer takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_mapping(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_as_mapping(item) for item in value]
    return value
