"""What every small object in a bucket begins with: magic, version, length and checksum.

Who uses it: the formats of manifests, pages, topic manifests and snapshots of group offsets. All integers are big-endian.

| offset | bytes | field |
|---|---|---|
| 0 | 4 | magic, four ASCII letters that name the format |
| 4 | 2 | version, from 1 |
| 6 | 2 | reserved, 0 |
| 8 | 4 | length of the body in bytes |
| 12 | 4 | CRC-32C of bytes 0 to 11, then of the body |
| 16 | | body |
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from crc32c import crc32c

_HEAD = struct.Struct(">4sHHI")
_CHECKSUM = struct.Struct(">I")
HEADER_SIZE = _HEAD.size + _CHECKSUM.size


class FormatError(ValueError):
    """Bytes that are not what they should be. All that the decoders of bucket objects raise."""


class UnsupportedVersion(FormatError):  # noqa: N818 - names what was found
    """A later release wrote this. Nothing else is said about the bytes."""


def seal(magic: bytes, version: int, body: bytes) -> bytes:
    """Return an object with this body."""
    return header_of(magic, version, (body,)) + body


def header_of(magic: bytes, version: int, parts: Sequence[bytes]) -> bytes:
    """Return what an object begins with whose body comes in parts."""
    head = _HEAD.pack(magic, version, 0, sum(map(len, parts)))
    checksum = crc32c(head)
    for part in parts:
        checksum = crc32c(part, checksum)
    return head + _CHECKSUM.pack(checksum)


def unseal(magic: bytes, version: int, data: bytes) -> memoryview:
    """Return the body of an object of this version.

    Raises UnsupportedVersion for a later version, FormatError for anything else that is not whole and sound.
    """
    if len(data) < HEADER_SIZE:
        raise FormatError(f"{len(data)} bytes are too few for {_text(magic)}")
    found_magic, found_version, reserved, length = _HEAD.unpack_from(data)
    if found_magic != magic:
        raise FormatError(f"begins with {bytes(found_magic)!r} where {_text(magic)} should be")
    if found_version > version:
        raise UnsupportedVersion(
            f"{_text(magic)} of version {found_version}: this release reads up to {version}; upgrade first"
        )
    view = memoryview(data)
    (checksum,) = _CHECKSUM.unpack_from(data, _HEAD.size)
    body = view[HEADER_SIZE:]
    if length != len(body) or reserved != 0 or found_version == 0:
        raise FormatError(f"{_text(magic)} of version {found_version}: {len(body)} bytes, {length} announced")
    if checksum != crc32c(body, crc32c(view[: _HEAD.size])):
        raise FormatError(f"{_text(magic)}: wrong checksum")
    return body


def _text(magic: bytes) -> str:
    return magic.decode("ascii")
