"""SCRAM-SHA-256 and SCRAM-SHA-512: proof that both sides know the password, without sending it.

    client first    n,[a=authzid],n=name,r=<client nonce>[,extensions]
    server first    r=<client nonce><server nonce>,s=<salt>,i=<iterations>
    client final    c=<base64 of the first message's header>,r=<both nonces>[,extensions],p=<proof>
    server final    v=<server signature>

Channel binding is refused (no mechanism of Kafka's is a -PLUS one), mandatory extensions are refused, others are ignored;
`tokenauth` asks for delegation tokens, which nobody has here. A name that no user has is answered with a made-up salt and
fails at the end, as a wrong password does.

Source: RFC 5802, RFC 7677; Kafka's `ScramSaslServer`, `ScramMessages`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import random
import re
import string
from typing import Final

from strandline_broker.security.credentials import ScramMechanism
from strandline_broker.security.exchange import Challenge, Failure, Outcome, Success
from strandline_broker.security.users import Found, Users

MAX_TOKEN_BYTES: Final = 4096
SERVER_NONCE_CHARACTERS: Final = 32

# As Kafka's; RFC 5802 allows more characters than all clients parse. 190 random bits in all.
_NONCE_ALPHABET: Final = string.ascii_letters + string.digits
_OTHER_IDENTITY: Final = (
    "Authentication failed: Client requested an authorization id that is different from username"
)

# RFC 5802, section 7. Values may hold any UTF-8 but NUL, "=" and ","; nonces are printable ASCII without ",".
_SASLNAME: Final = r"(?:[^\x00=,]|=2C|=3D)+"
_EXTENSIONS: Final = r"(?P<extensions>(?:,[A-Za-z]+=[^\x00,]+)*)"
_BASE64: Final = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?"
_CLIENT_FIRST: Final = re.compile(
    rf"(?P<header>(?P<binding>[ny]|p=[A-Za-z0-9.-]+),(?:a=(?P<identity>{_SASLNAME}))?,)"
    rf"(?P<bare>(?P<mandatory>m=[^\x00,]+,)?n=(?P<name>{_SASLNAME}),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+){_EXTENSIONS})"
)
_CLIENT_FINAL: Final = re.compile(
    rf"(?P<unsigned>c=(?P<header>{_BASE64}),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+){_EXTENSIONS}),p=(?P<proof>{_BASE64})"
)


class ScramExchange:
    """See `exchange.Exchange`. `rng` makes the server's nonce."""

    __slots__ = ("_first_messages", "_found", "_header", "_mechanism", "_nonce", "_rng", "_users")

    def __init__(self, mechanism: ScramMechanism, users: Users, rng: random.Random) -> None:
        self._mechanism = mechanism
        self._users = users
        self._rng = rng
        self._found: Found | None = None
        self._header = ""
        self._nonce = ""
        self._first_messages = ""

    def step(self, token: bytes, /) -> Outcome:
        """Take the first message, then the final one."""
        if len(token) > MAX_TOKEN_BYTES:
            return Failure(f"a token of {len(token)} bytes")
        try:
            message = str(token, "utf-8")
        except UnicodeDecodeError:
            return Failure("a token that is not UTF-8")
        if self._found is None:
            return self._first(message)
        return self._final(message, self._found)

    def _first(self, message: str) -> Outcome:
        match = _CLIENT_FIRST.fullmatch(message)
        if match is None:
            return Failure("a first message that is not SCRAM")
        if match["binding"].startswith("p"):
            return Failure("the client demands channel binding, which is not supported")
        if match["mandatory"] is not None:
            return Failure("the client demands an extension that is not supported")
        name = _unescape(match["name"])
        identity = match["identity"]
        if identity is not None and _unescape(identity) != name:
            return Failure("the client wants to be somebody else than who logs in", _OTHER_IDENTITY)
        found = self._users.find(name, self._mechanism)
        if ",tokenauth=true" in match["extensions"]:
            found = found._replace(known=False)  # a delegation token's id, not a user's name
        self._found = found
        self._header = match["header"]
        self._nonce = match["nonce"] + "".join(self._rng.choices(_NONCE_ALPHABET, k=SERVER_NONCE_CHARACTERS))
        salt = base64.b64encode(found.credential.salt).decode()
        challenge = f"r={self._nonce},s={salt},i={found.credential.iterations}"
        self._first_messages = f"{match['bare']},{challenge}"
        return Challenge(challenge.encode())

    def _final(self, message: str, found: Found) -> Outcome:
        match = _CLIENT_FINAL.fullmatch(message)
        if match is None:
            return Failure("a final message that is not SCRAM")
        # Not equality: librdkafka before 2.6.1 puts its own nonce in front once more, and Kafka takes that, too. It is
        # safe: what was sent is signed, and it ends with a nonce that was never used before.
        if not match["nonce"].endswith(self._nonce):
            return Failure("the final message has another nonce")
        if match["header"] != base64.b64encode(self._header.encode()).decode():
            return Failure("the final message has another channel binding than the first")
        signed = f"{self._first_messages},{match['unsigned']}".encode()
        correct = _proves(self._mechanism, found, signed, match["proof"])
        signature = self._mechanism.hmac(found.credential.server_key, signed)
        if not (correct and found.known):
            return Failure(found.why_not())
        return Success(found.name, b"v=" + base64.b64encode(signature))


def _proves(mechanism: ScramMechanism, found: Found, signed: bytes, proof: str) -> bool:
    """Say whether the proof comes from somebody who knows the password (RFC 5802, section 3)."""
    stored_key = found.credential.stored_key
    signature = mechanism.hmac(stored_key, signed)
    try:
        proved = base64.b64decode(proof, validate=True)
    except binascii.Error:
        return False
    if len(proved) != len(signature):
        return False
    client_key = bytes(a ^ b for a, b in zip(proved, signature, strict=True))
    return hmac.compare_digest(mechanism.hash(client_key), stored_key)


def _unescape(name: str) -> str:
    return name.replace("=2C", ",").replace("=3D", "=")
