from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.wire import oracle

from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.sasl import (
    decode_sasl_authenticate,
    decode_sasl_handshake,
    encode_sasl_authenticate_response,
    encode_sasl_handshake_response,
)
from strandline_broker.wire.sasl_client import (
    decode_sasl_authenticate_response,
    decode_sasl_handshake_response,
    encode_sasl_authenticate_request,
    encode_sasl_handshake_request,
)

TEXT = oracle.TEXT
ERRORS = st.sampled_from([0, 33, 34, 58])


@settings(deadline=None)
@given(mechanism=TEXT, mechanisms=st.lists(TEXT, max_size=4), error=ERRORS)
def test_handshakes(mechanism: str, mechanisms: list[str], error: int) -> None:
    body = encode_sasl_handshake_request(mechanism)
    assert body == bytes(oracle.body_frame(oracle.request_schema(17, 1)(mechanism=mechanism)))
    assert decode_sasl_handshake(memoryview(body), 0) == mechanism
    answer = encode_sasl_handshake_response(7, error, mechanisms)
    assert decode_sasl_handshake_response(memoryview(answer)[8:]) == (error, mechanisms)
    schema = oracle.response_schema(17, 1)
    entity = schema(error_code=oracle.ErrorCode(error), mechanisms=tuple(mechanisms))
    assert decode_sasl_handshake_response(oracle.body_frame(entity)) == (error, mechanisms)


@settings(deadline=None)
@given(token=st.binary(max_size=300), message=st.none() | TEXT, error=ERRORS)
def test_tokens(token: bytes, message: str | None, error: int) -> None:
    body = encode_sasl_authenticate_request(token)
    assert body == bytes(oracle.body_frame(oracle.request_schema(36, 2)(auth_bytes=token)))
    assert decode_sasl_authenticate(memoryview(body), 0, 2) == token
    answer = encode_sasl_authenticate_response(2, 7, error, message, token, 1 << 40)
    assert decode_sasl_authenticate_response(memoryview(answer)[9:]) == (error, message, token)
    entity = oracle.response_schema(36, 2)(
        error_code=oracle.ErrorCode(error),
        error_message=message,
        auth_bytes=token,
        session_lifetime=timedelta(milliseconds=5),
    )
    assert decode_sasl_authenticate_response(oracle.body_frame(entity)) == (error, message, token)


@given(data=st.binary(max_size=60))
def test_whatever_comes_is_taken_or_refused(data: bytes) -> None:
    for decode in (decode_sasl_handshake_response, decode_sasl_authenticate_response):
        with contextlib.suppress(DecodeError):
            decode(memoryview(data))


def test_truncations_are_refused_and_quote_no_token() -> None:
    shake = memoryview(encode_sasl_handshake_response(7, 0, ["A", "BC"]))[8:]
    tokens = memoryview(encode_sasl_authenticate_response(2, 7, 0, "text", b"geheim", 0))[9:]
    for end in range(len(shake)):
        with pytest.raises(DecodeError):
            decode_sasl_handshake_response(shake[:end])
    for end in range(len(tokens)):
        with pytest.raises(DecodeError) as refused:
            decode_sasl_authenticate_response(tokens[:end])
        assert "geheim" not in str(refused.value)
