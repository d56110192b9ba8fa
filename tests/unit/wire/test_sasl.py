from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.header import decode_request_header
from strandline_broker.wire.sasl import (
    decode_sasl_authenticate,
    decode_sasl_handshake,
    encode_sasl_authenticate_response,
    encode_sasl_handshake_response,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize("version", [0, 1])
@settings(deadline=None)  # the first call loads the generic codec
@given(mechanism=TEXT, mechanisms=st.lists(TEXT, max_size=4), error=st.sampled_from([0, 33, 34]))
def test_handshakes_are_as_the_generic_codec_makes_them(
    version: int, mechanism: str, mechanisms: list[str], error: int
) -> None:
    request = memoryview(
        bytearray(cold.encode_request(ApiKey.SASL_HANDSHAKE, version, 7, "c", {"mechanism": mechanism}))
    )[4:]
    assert decode_sasl_handshake(request, decode_request_header(request).body_offset) == mechanism
    assert encode_sasl_handshake_response(7, error, mechanisms) == cold.encode_response(
        ApiKey.SASL_HANDSHAKE, version, 7, {"error_code": error, "mechanisms": mechanisms}
    )


@pytest.mark.parametrize("version", [0, 1, 2])
@settings(deadline=None)
@given(
    token=st.binary(max_size=300),
    message=st.none() | TEXT,
    lifetime=st.integers(0, 1 << 40),
    error=st.sampled_from([0, 34, 58]),
)
def test_tokens_are_as_the_generic_codec_makes_them(
    version: int, token: bytes, message: str | None, lifetime: int, error: int
) -> None:
    request = memoryview(
        bytearray(cold.encode_request(ApiKey.SASL_AUTHENTICATE, version, 7, "c", {"auth_bytes": token}))
    )[4:]
    assert decode_sasl_authenticate(request, decode_request_header(request).body_offset, version) == token
    body = {
        "error_code": error,
        "error_message": message,
        "auth_bytes": token,
        "session_lifetime": lifetime,
    }
    assert encode_sasl_authenticate_response(
        version, 7, error, message, token, lifetime
    ) == cold.encode_response(ApiKey.SASL_AUTHENTICATE, version, 7, body)


@given(st.binary(max_size=40), st.integers(0, 2))
def test_bad_bytes_raise_nothing_but_decode_errors(data: bytes, version: int) -> None:
    for decode in (
        lambda: decode_sasl_authenticate(memoryview(data), 0, version),
        lambda: decode_sasl_handshake(memoryview(data), 0),
    ):
        with contextlib.suppress(DecodeError):
            assert len(decode()) <= len(data)


def test_errors_do_not_quote_what_was_sent() -> None:
    with pytest.raises(DecodeError, match="malformed SaslHandshake request") as refused:
        decode_sasl_handshake(memoryview(b"\0\x07geheim\xff"), 0)
    assert refused.value.__suppress_context__
