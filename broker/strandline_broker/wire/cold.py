"""Codec of every API that is not hot: schemas from kio, loaded when first needed.

Loading kio takes a tenth of a second and each version of a message a few milliseconds, so a broker starts
without it and calls `warm_up` from a thread once it is up. Requests decode into kio's frozen dataclasses;
responses are plain nested dicts and lists with kio's field names (snake_case, durations and times without
`_ms`), so handlers import nothing of kio.

The hot and the first APIs have hand-written codecs: produce, fetch, api_versions, metadata.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from strandline_broker.wire.errors import DecodeError, EncodeError
from strandline_broker.wire.primitives import INT32, Buffer, encode_nullable_string, skip_tagged_fields
from strandline_broker.wire.registry import ApiRange, request_header_version, response_header_version

if TYPE_CHECKING:
    from strandline_broker.wire.schema import Struct

_REQUEST_PREFIX = struct.Struct(">hhi").pack


@functools.cache
def _request(api_key: int, version: int) -> Struct:
    from strandline_broker.wire.schema import struct_of

    return struct_of(api_key, version, is_request=True)


@functools.cache
def _response(api_key: int, version: int) -> Struct:
    from strandline_broker.wire.schema import struct_of

    return struct_of(api_key, version, is_request=False)


def warm_up(ranges: Iterable[ApiRange]) -> None:
    """Load and compile the newest schemas of these APIs.

    Blocks for about a second in all: call it from a thread.
    """
    for entry in ranges:
        _request(entry.key, entry.max_version)
        _response(entry.key, entry.max_version)


def decode_request(api_key: int, version: int, frame: memoryview, body_offset: int) -> Any:
    """Decode the body of a request into a kio entity such as `kio.schema.list_offsets.v7.ListOffsetsRequest`.

    Durations are `timedelta`, missing or zero UUIDs None, arrays tuples, records and bytes copies. Raises
    DecodeError, and UnsupportedVersion where no such message exists.
    """
    from strandline_broker.wire.schema import read_message
    from strandline_broker.wire.schema_types import Cursor

    return read_message(_request(api_key, version), Cursor(frame, body_offset))


def encode_response(api_key: int, version: int, correlation_id: int, body: Mapping[str, Any]) -> bytes:
    """Encode a whole response frame, length prefix and header included.

    `body` has the field names of any version: what this version lacks is dropped, what is missing takes the
    schema's default. A field that no version has, null where none may be, or a value out of range raises
    EncodeError with the path of the field.
    """
    out = bytearray(4)
    out += INT32.pack(correlation_id)
    if response_header_version(api_key, version) >= 1:
        out.append(0)
    _response(api_key, version).write(out, body)
    INT32.pack_into(out, 0, len(out) - 4)
    return bytes(out)


def encode_request(
    api_key: int, version: int, correlation_id: int, client_id: str | None, body: Mapping[str, Any]
) -> bytes:
    """Encode a whole request frame, length prefix and header included; `body` as in `encode_response`."""
    out = bytearray(4)
    try:
        out += _REQUEST_PREFIX(api_key, version, correlation_id)
    except struct.error as error:
        raise EncodeError(f"request header: {error}") from error
    out += encode_nullable_string(client_id)
    if request_header_version(api_key, version) >= 2:
        out.append(0)
    _request(api_key, version).write(out, body)
    INT32.pack_into(out, 0, len(out) - 4)
    return bytes(out)


def decode_response(api_key: int, version: int, frame: Buffer) -> tuple[int, Any]:
    """Decode a response without its length prefix into (correlation id, kio entity). Raises DecodeError.

    Error codes are this package's ErrorCode; numbers it does not know become UNKNOWN_SERVER_ERROR, as in
    Kafka's clients.
    """
    from strandline_broker.wire.schema import read_message
    from strandline_broker.wire.schema_types import Cursor

    message = _response(api_key, version)
    try:
        (correlation_id,) = INT32.unpack_from(frame, 0)
        pos = 4
        if response_header_version(api_key, version) >= 1:
            pos = skip_tagged_fields(frame, pos)
    except (struct.error, IndexError) as error:
        raise DecodeError(f"malformed response header: {error}") from error
    return correlation_id, read_message(message, Cursor(frame, pos))
