"""Request headers: the first thing decoded of every request, and the same for all APIs.

Layout (int16 api key, int16 version, int32 correlation id, nullable string client id; from header version 2
on tagged fields). The client id keeps its int16 length in every header version, so that a broker can read
the header of an ApiVersions request whose version it does not know (KIP-511).

Source: Apache Kafka, `RequestHeader.json`.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.primitives import MALFORMED, skip_tagged_fields
from strandline_broker.wire.registry import FIRST_FLEXIBLE, NEVER_FLEXIBLE

_FIXED_SIZE: Final = 10
_unpack = struct.Struct(">hhih").unpack_from
_first_flexible = FIRST_FLEXIBLE.get


class RequestHeader(NamedTuple):
    """What every request starts with; `body_offset` is where its body begins in the frame."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None
    body_offset: int


_new = tuple.__new__


def decode_request_header(frame: memoryview) -> RequestHeader:
    """Decode the header of a request; `frame` is the request without its length prefix.

    Any key and version is accepted here; the registry decides what is served. A client id that is not UTF-8
    is kept with replacement characters, as Kafka does: it is a label. Raises DecodeError.
    """
    try:
        api_key, api_version, correlation_id, length = _unpack(frame, 0)
        client_id: str | None = None
        end = _FIXED_SIZE
        if length > 0:
            end += length
            if end > len(frame):
                raise DecodeError(f"client id of {length} bytes exceeds the request")
            client_id = str(frame[_FIXED_SIZE:end], "utf-8", "replace")
        elif length == 0:
            client_id = ""
        elif length != -1:
            raise DecodeError(f"client id of {length} bytes")
        if api_version >= _first_flexible(api_key, NEVER_FLEXIBLE):
            if frame[end] == 0:
                end += 1
            else:
                end = skip_tagged_fields(frame, end)
    except MALFORMED as error:
        raise DecodeError(f"malformed request header: {error}") from error
    return _new(RequestHeader, (api_key, api_version, correlation_id, client_id, end))
