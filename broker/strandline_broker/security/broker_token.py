"""The secret that the brokers of a cluster share: what a token file may hold.

Apart from `security.inter_broker`, which uses it, so that a broker that nobody connects to loads no cryptography.
Used by `server.inter_broker`. Pure.
"""

from __future__ import annotations

from typing import Final

MIN_TOKEN_CHARACTERS: Final = 32
"""128 bits where the token is hexadecimal, and more than anybody types."""
MAX_TOKEN_CHARACTERS: Final = 1024


class TokenError(ValueError):
    """This is no token; the text quotes nothing of it."""


def parse_token(data: bytes) -> str:
    """Return the token in a file: its only word, without the white space around it. Raises TokenError."""
    try:
        token = data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise TokenError("not ASCII") from None
    if not MIN_TOKEN_CHARACTERS <= len(token) <= MAX_TOKEN_CHARACTERS:
        raise TokenError(
            f"{len(token)} characters, where {MIN_TOKEN_CHARACTERS} to {MAX_TOKEN_CHARACTERS} random ones are needed; "
            "`openssl rand -hex 32` makes some"
        )
    if not token.isprintable() or " " in token:
        raise TokenError("more than one word")
    return token
