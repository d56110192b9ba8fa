"""JSON bodies of bucket objects, read field by field: only what is expected, of the type expected.

Who uses it: the formats of topic manifests and offset snapshots. Keys are sorted and there is no white space: the same
content has the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson

from strandline_tiered.envelope import FormatError, seal, unseal

_MAX_INT = (1 << 63) - 1


def encode(magic: bytes, version: int, body: Mapping[str, Any]) -> bytes:
    """Return an object with this body."""
    return seal(magic, version, orjson.dumps(body, option=orjson.OPT_SORT_KEYS))


def decode(magic: bytes, version: int, data: bytes) -> Fields:
    """Return the fields of an object. Raises FormatError, of which UnsupportedVersion is one."""
    body = unseal(magic, version, data)
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise FormatError(f"{magic.decode()}: {error}") from error
    return Fields(fields, magic.decode())


class Fields:
    """A JSON object whose fields are taken one after the other. What is not as asked for raises FormatError."""

    def __init__(self, fields: object, where: str) -> None:
        if not isinstance(fields, dict):
            raise FormatError(f"{where}: no object")
        self._fields = dict(fields)
        self._where = where

    def _take(self, name: str) -> object:
        if name not in self._fields:
            raise FormatError(f"{self._where}: no field {name}")
        return self._fields.pop(name)

    def number(self, name: str, *, least: int = 0) -> int:
        """Take an integer that is not below `least`."""
        return number(self._take(name), f"{self._where}.{name}", least=least)

    def optional_number(self, name: str) -> int | None:
        """Take an integer that is not negative, or null."""
        value = self._take(name)
        return None if value is None else number(value, f"{self._where}.{name}")

    def text(self, name: str) -> str:
        """Take a string."""
        value = self._take(name)
        if not isinstance(value, str):
            raise FormatError(f"{self._where}.{name}: {value!r} is no string")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """Take an object with any keys."""
        value = self._take(name)
        if not isinstance(value, dict):
            raise FormatError(f"{self._where}.{name}: {value!r} is no object")
        return value

    def end(self) -> None:
        """Refuse fields that nobody took."""
        if self._fields:
            raise FormatError(f"{self._where}: unknown fields {', '.join(sorted(self._fields))}")


def number(value: object, where: str, *, least: int = 0) -> int:
    """Return an integer that is not below `least`. Raises FormatError."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MAX_INT:
        raise FormatError(f"{where}: {value!r} is no integer from {least} on")
    return value


def uuid(value: object, where: str) -> UUID:
    """Return a UUID that is written as it should be. Raises FormatError."""
    try:
        found = UUID(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or str(found) != value:
        raise FormatError(f"{where}: {value!r} is no UUID")
    return found
