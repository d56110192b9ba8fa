from __future__ import annotations

import pytest

from strandline_broker.security.broker_token import MAX_TOKEN_CHARACTERS, TokenError, parse_token

TOKEN = "0123456789abcdef" * 2


def test_a_token_is_the_word_in_the_file() -> None:
    for data in (TOKEN, f"{TOKEN}\n", f"  {TOKEN}\r\n\n"):
        assert parse_token(data.encode()) == TOKEN
    assert len(parse_token(b"x" * MAX_TOKEN_CHARACTERS)) == MAX_TOKEN_CHARACTERS


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 characters, where 32 to 1024"),
        (TOKEN[1:].encode(), "31 characters"),
        (b"x" * (MAX_TOKEN_CHARACTERS + 1), "1025 characters"),
        (TOKEN.encode() + b"\xc3\xa9", "not ASCII"),
        (f"{TOKEN} {TOKEN}".encode(), "more than one word"),
        (f"{TOKEN}\n{TOKEN}".encode(), "more than one word"),
        (f"{TOKEN}\0".encode(), "more than one word"),
    ],
)
def test_what_is_no_token_is_refused_without_being_quoted(data: bytes, why: str) -> None:
    with pytest.raises(TokenError, match=why) as refused:
        parse_token(data)
    assert TOKEN[:8] not in str(refused.value)
