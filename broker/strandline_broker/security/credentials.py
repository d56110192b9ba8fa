"""SCRAM credentials: what is kept of a password so that nobody who reads it can log in with it.

Used by the mechanisms, by `security.users` and by `strandline users`. No secret is part of a `repr` or of an error's text.

Source: RFC 5802 section 3, RFC 7677; Kafka's `ScramFormatter`, `ScramMechanism`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

MIN_ITERATIONS: Final = 4096
"""As RFC 7677 and Kafka demand; fewer are refused."""
MAX_ITERATIONS: Final = 1_000_000
"""A bound on the time that a login with PLAIN can take, about half a second; Kafka's is 16,384."""
DEFAULT_ITERATIONS: Final = 4096
"""As kafka-configs.sh takes without `iterations`."""
MIN_SALT_BYTES: Final = 8
MAX_SALT_BYTES: Final = 64
SALT_BYTES: Final = 16
"""Length of the salts made here."""


class ScramMechanism(StrEnum):
    """The SCRAM mechanisms that Kafka has."""

    SHA_256 = "SCRAM-SHA-256"
    SHA_512 = "SCRAM-SHA-512"

    @property
    def hash_name(self) -> str:
        """Return the hash function's name for `hashlib`."""
        return "sha256" if self is ScramMechanism.SHA_256 else "sha512"

    @property
    def key_bytes(self) -> int:
        """Return the length of its keys."""
        return 32 if self is ScramMechanism.SHA_256 else 64

    def hmac(self, key: bytes, message: bytes) -> bytes:
        """Return the HMAC of `message`."""
        return hmac.digest(key, message, self.hash_name)

    def hash(self, data: bytes) -> bytes:
        """Return the hash of `data`."""
        return hashlib.new(self.hash_name, data).digest()


@dataclass(frozen=True, slots=True)
class ScramCredential:
    """What a server keeps for one user and mechanism."""

    mechanism: ScramMechanism
    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def verifies(self, password: str) -> bool:
        """Say whether this is the (prepared) password. Takes milliseconds of CPU: keep it off the event loop."""
        derived = derive(self.mechanism, password, self.salt, self.iterations)
        return hmac.compare_digest(derived.stored_key, self.stored_key)

    def to_mapping(self) -> dict[str, object]:
        """Return the form of users files: binary values in base64."""
        return {
            "salt": base64.b64encode(self.salt).decode(),
            "iterations": self.iterations,
            "stored_key": base64.b64encode(self.stored_key).decode(),
            "server_key": base64.b64encode(self.server_key).decode(),
        }

    @classmethod
    def from_mapping(cls, mechanism: ScramMechanism, raw: object) -> ScramCredential:
        """Check and convert what `to_mapping` returns. Raises ValueError with a text that quotes no value."""
        if not isinstance(raw, Mapping) or set(raw) != {"salt", "iterations", "stored_key", "server_key"}:
            raise ValueError(f"{mechanism}: needs salt, iterations, stored_key and server_key, nothing else")
        iterations = raw["iterations"]
        if type(iterations) is not int or not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise ValueError(
                f"{mechanism}: iterations must be a number from {MIN_ITERATIONS} to {MAX_ITERATIONS}"
            )
        salt = _from_base64(mechanism, "salt", raw["salt"])
        if not MIN_SALT_BYTES <= len(salt) <= MAX_SALT_BYTES:
            raise ValueError(f"{mechanism}: salt must have {MIN_SALT_BYTES} to {MAX_SALT_BYTES} bytes")
        keys = []
        for name in ("stored_key", "server_key"):
            key = _from_base64(mechanism, name, raw[name])
            if len(key) != mechanism.key_bytes:
                raise ValueError(f"{mechanism}: {name} must have {mechanism.key_bytes} bytes")
            keys.append(key)
        return cls(mechanism, salt, iterations, *keys)


def derive(mechanism: ScramMechanism, password: str, salt: bytes, iterations: int) -> ScramCredential:
    """Return the credential of a password, which has been through SASLprep (RFC 5802, section 3).

    Takes 0.4 (SHA-256) to 0.8 (SHA-512) microseconds of CPU per iteration, without the interpreter's lock.
    """
    salted = hashlib.pbkdf2_hmac(mechanism.hash_name, password.encode(), salt, iterations)
    client_key = mechanism.hmac(salted, b"Client Key")
    return ScramCredential(
        mechanism, salt, iterations, mechanism.hash(client_key), mechanism.hmac(salted, b"Server Key")
    )


def _from_base64(mechanism: ScramMechanism, name: str, text: object) -> bytes:
    if isinstance(text, str):
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass  # told below, without the value
    raise ValueError(f"{mechanism}: {name} is not base64")
