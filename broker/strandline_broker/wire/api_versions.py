"""ApiVersions, versions 0 to 4: the first request of a connection, so it must not wait for the generic codec.

It is always answered. A version that the broker does not know gets the body of version 0 with
UNSUPPORTED_VERSION and the full list, from which the client picks a version and asks again; and the header
of every answer is version 0, since the client cannot know better yet (KIP-511).

Source: Apache Kafka, `ApiVersionsRequest`, `ApiVersionsResponse`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from strandline_broker.errors import ErrorCode
from strandline_broker.wire.errors import DecodeError, EncodeError
from strandline_broker.wire.primitives import (
    INT32,
    INT64,
    MALFORMED,
    encode_compact_string,
    encode_uvarint,
    read_compact_string,
    skip_tagged_fields,
)
from strandline_broker.wire.registry import ApiRange

MAX_VERSION: Final = 4
FIRST_FLEXIBLE: Final = 3
UNKNOWN_EPOCH: Final = -1

_SOFTWARE: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
_PREFIX = struct.Struct(">iih").pack
_RANGE = struct.Struct(">hhh").pack
_LEVELS = struct.Struct(">hhB").pack


class Features(NamedTuple):
    """Cluster features as versions 3 and 4 show them (KIP-584).

    Clients switch behaviour on these: with `transaction.version` finalized at 2, Java uses transactions v2.
    Claim nothing here that the broker does not do.
    """

    supported: Sequence[tuple[str, int, int]] = ()
    """(name, lowest level, highest level) that this broker could run."""
    finalized: Sequence[tuple[str, int]] = ()
    """(name, level) that the cluster runs; level 0 means off and is not sent."""
    finalized_epoch: int = UNKNOWN_EPOCH
    """Rises with every change of `finalized`; below 0 clients ignore `finalized`."""


class ClientSoftware(NamedTuple):
    """What a client calls itself; empty for clients that ask with version 0 to 2."""

    name: str
    version: str


NO_FEATURES: Final = Features()
UNKNOWN_SOFTWARE: Final = ClientSoftware("", "")


def decode_api_versions(frame: memoryview, body_offset: int, version: int) -> ClientSoftware:
    """Decode the body of a request of version 0 to 4; of any other version the body means nothing.

    Raises DecodeError.
    """
    if not FIRST_FLEXIBLE <= version <= MAX_VERSION:
        return UNKNOWN_SOFTWARE
    try:
        name, pos = read_compact_string(frame, body_offset)
        software_version, pos = read_compact_string(frame, pos)
        skip_tagged_fields(frame, pos)
    except MALFORMED as error:
        raise DecodeError(f"malformed ApiVersions request: {error}") from error
    return ClientSoftware(name, software_version)


def is_valid_software(software: ClientSoftware) -> bool:
    """Say whether name and version consist of letters, digits, dots and dashes, as from version 3 on.

    If not, the answer is INVALID_REQUEST.
    """
    return all(_SOFTWARE.fullmatch(text) is not None for text in software)


def answer_api_versions(
    version: int,
    correlation_id: int,
    software: ClientSoftware,
    ranges: Iterable[ApiRange],
    features: Features = NO_FEATURES,
) -> bytes:
    """Answer a request of any version as Kafka does: the one function that a request handler needs."""
    if not 0 <= version <= MAX_VERSION:
        return encode_api_versions_response(version, correlation_id, ErrorCode.UNSUPPORTED_VERSION, ranges)
    if version >= FIRST_FLEXIBLE and not is_valid_software(software):
        return encode_api_versions_response(version, correlation_id, ErrorCode.INVALID_REQUEST, ())
    return encode_api_versions_response(version, correlation_id, ErrorCode.NONE, ranges, features)


def encode_api_versions_response(
    version: int,
    correlation_id: int,
    error_code: int,
    ranges: Iterable[ApiRange],
    features: Features = NO_FEATURES,
    throttle_time_ms: int = 0,
) -> bytes:
    """Encode a whole response frame, length prefix and header included.

    Versions that do not exist are encoded as version 0. In version 3 supported features with a lowest level
    of 0 are left out: older clients cannot read them (KAFKA-17492).
    """
    entries = [(entry.key, entry.advertised_min, entry.max_version) for entry in ranges]
    try:
        if FIRST_FLEXIBLE <= version <= MAX_VERSION:
            body = encode_uvarint(len(entries) + 1)
            body += b"".join(_RANGE(*entry) + b"\x00" for entry in entries)
            body += INT32.pack(throttle_time_ms) + _encode_features(version, features)
        else:
            body = INT32.pack(len(entries)) + b"".join(_RANGE(*entry) for entry in entries)
            if version in (1, 2):
                body += INT32.pack(throttle_time_ms)
        return _PREFIX(len(body) + 6, correlation_id, error_code) + body
    except struct.error as error:
        raise EncodeError(f"ApiVersions response: {error}") from error


def _encode_features(version: int, features: Features) -> bytes:
    """Encode the tagged fields: supported features, epoch, finalized features."""
    supported = [entry for entry in features.supported if version >= 4 or entry[1] != 0]
    finalized = [entry for entry in features.finalized if entry[1] != 0]
    fields: list[tuple[int, bytes]] = []
    if supported:
        data = encode_uvarint(len(supported) + 1)
        data += b"".join(encode_compact_string(name) + _LEVELS(low, high, 0) for name, low, high in supported)
        fields.append((0, data))
    if features.finalized_epoch != UNKNOWN_EPOCH:
        fields.append((1, INT64.pack(features.finalized_epoch)))
    if finalized:
        data = encode_uvarint(len(finalized) + 1)
        data += b"".join(encode_compact_string(name) + _LEVELS(level, level, 0) for name, level in finalized)
        fields.append((2, data))
    parts = [encode_uvarint(len(fields))]
    for tag, data in fields:
        parts += (encode_uvarint(tag), encode_uvarint(len(data)), data)
    return b"".join(parts)
