"""The client's half of SCRAM: proves to know a password without sending it, and makes the server prove the same.

    first() -> challenged(server first) -> final(keys) -> verify(server final)

The keys are derived by the caller between `challenged` and `final`, because that takes milliseconds of CPU, and because
they are the same for every login with the same salt. `security.scram` is the server's half and shows the messages.

Used by brokers that connect to each other (`peers.socket_peers`). Pure. No secret is part of a `repr` or an error.

Source: RFC 5802, RFC 7677.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import random
import re
import string
from dataclasses import dataclass, field
from typing import Final

from strandline_broker.security.credentials import (
    MAX_ITERATIONS,
    MAX_SALT_BYTES,
    MIN_ITERATIONS,
    MIN_SALT_BYTES,
    ScramMechanism,
)

MAX_TOKEN_BYTES: Final = 4096
NONCE_CHARACTERS: Final = 32

_NONCE_ALPHABET: Final = string.ascii_letters + string.digits
_HEADER: Final = "n,,"
_EXTENSIONS: Final = r"(?:,[A-Za-z]+=[^\x00,]+)*"
_SERVER_FIRST: Final = re.compile(
    rf"r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+),s=(?P<salt>[A-Za-z0-9+/=]+),i=(?P<iterations>[1-9][0-9]{{0,8}}){_EXTENSIONS}"
)
_SERVER_FINAL: Final = re.compile(rf"v=(?P<signature>[A-Za-z0-9+/=]+){_EXTENSIONS}")


class ScramRefused(Exception):  # noqa: N818 - what happened, not what is wrong with us
    """The server's messages make no sense, or it does not know the password. The text quotes nothing of them."""


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a client needs of a password."""

    client_key: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


def derive_client_keys(mechanism: ScramMechanism, password: str, salt: bytes, iterations: int) -> ClientKeys:
    """Return the keys of a password, which has been through SASLprep (RFC 5802, section 3).

    Takes 0.4 (SHA-256) to 0.8 (SHA-512) microseconds of CPU per iteration, without the interpreter's lock.
    """
    salted = hashlib.pbkdf2_hmac(mechanism.hash_name, password.encode(), salt, iterations)
    client_key = mechanism.hmac(salted, b"Client Key")
    return ClientKeys(client_key, mechanism.hash(client_key), mechanism.hmac(salted, b"Server Key"))


class ScramClient:
    """One login; the methods are called once each, in the order of the module's docstring."""

    __slots__ = ("_bare", "_max_iterations", "_mechanism", "_nonce", "_server_first", "_signature")

    def __init__(
        self,
        mechanism: ScramMechanism,
        name: str,
        rng: random.Random,
        *,
        max_iterations: int = MAX_ITERATIONS,
    ) -> None:
        """`rng` makes the nonce; a server that asks for more than `max_iterations` is refused."""
        self._mechanism = mechanism
        self._max_iterations = max_iterations
        # 190 random bits, of characters that all servers parse.
        self._nonce = "".join(rng.choices(_NONCE_ALPHABET, k=NONCE_CHARACTERS))
        self._bare = f"n={name.replace('=', '=3D').replace(',', '=2C')},r={self._nonce}"
        self._server_first = ""
        self._signature = b""

    def first(self) -> bytes:
        """Return the first message."""
        return (_HEADER + self._bare).encode()

    def challenged(self, token: bytes) -> tuple[bytes, int]:
        """Take the server's first message; return (salt, iterations) for the keys. Raises ScramRefused."""
        match = _SERVER_FIRST.fullmatch(_text(token))
        if match is None:
            raise ScramRefused("the challenge is not SCRAM")
        nonce = match["nonce"]
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ScramRefused("the challenge is not for this login: it has another nonce")
        salt = _bytes(match["salt"])
        if not MIN_SALT_BYTES <= len(salt) <= MAX_SALT_BYTES:
            raise ScramRefused(f"a salt of {len(salt)} bytes")
        iterations = int(match["iterations"])
        if not MIN_ITERATIONS <= iterations <= self._max_iterations:
            raise ScramRefused(
                f"{iterations} iterations, not between {MIN_ITERATIONS} and {self._max_iterations}"
            )
        self._nonce = nonce
        self._server_first = match[0]
        return salt, iterations

    def final(self, keys: ClientKeys) -> bytes:
        """Return the final message."""
        unsigned = f"c={base64.b64encode(_HEADER.encode()).decode()},r={self._nonce}"
        signed = f"{self._bare},{self._server_first},{unsigned}".encode()
        mask = self._mechanism.hmac(keys.stored_key, signed)
        proof = bytes(a ^ b for a, b in zip(keys.client_key, mask, strict=True))
        self._signature = self._mechanism.hmac(keys.server_key, signed)
        return f"{unsigned},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, token: bytes) -> None:
        """Take the server's final message. Raises ScramRefused if the server does not know the password."""
        match = _SERVER_FINAL.fullmatch(_text(token))
        if match is None:
            raise ScramRefused("the final message is not SCRAM")
        if not self._signature or not hmac.compare_digest(_bytes(match["signature"]), self._signature):
            raise ScramRefused("the server does not know the secret")


def _text(token: bytes) -> str:
    if len(token) > MAX_TOKEN_BYTES:
        raise ScramRefused(f"a message of {len(token)} bytes")
    try:
        return str(token, "ascii")
    except UnicodeDecodeError:
        raise ScramRefused("a message that is not ASCII") from None


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ScramRefused("a value that is not base64") from None
