"""Users, logins and a client of SCRAM that is written apart from the server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
from collections.abc import Mapping, Sequence
from typing import Any

from strandline_broker.security.credentials import ScramMechanism, derive
from strandline_broker.security.users import Users, users_of

SALT = bytes(range(16))
SECRET = b"s" * 32


def entry(password: str, mechanisms: Sequence[ScramMechanism] = tuple(ScramMechanism)) -> dict[str, Any]:
    return {str(mechanism): derive(mechanism, password, SALT, 4096).to_mapping() for mechanism in mechanisms}


def users(**passwords: str) -> Users:
    return users_of({"users": {name: entry(password) for name, password in passwords.items()}}, SECRET)


class ScramClient:
    """RFC 5802 from the client's side."""

    def __init__(
        self,
        mechanism: ScramMechanism,
        name: str,
        password: str,
        *,
        header: str = "n,,",
        extensions: str = "",
        nonce: str = "clientnonce",
    ) -> None:
        self._hash = "sha256" if mechanism is ScramMechanism.SHA_256 else "sha512"
        self._password = password.encode()
        self._bare = f"n={name.replace('=', '=3D').replace(',', '=2C')},r={nonce}{extensions}"
        self.header = header
        self.server_signature = b""

    def first(self) -> bytes:
        return (self.header + self._bare).encode()

    def final(self, challenge: bytes, *, nonce: str | None = None, binding: str | None = None) -> bytes:
        values: Mapping[str, str] = dict(part.split("=", 1) for part in challenge.decode().split(","))
        salted = hashlib.pbkdf2_hmac(
            self._hash, self._password, base64.b64decode(values["s"]), int(values["i"])
        )
        bound = base64.b64encode((binding or self.header).encode()).decode()
        unsigned = f"c={bound},r={values['r'] if nonce is None else nonce}"
        signed = f"{self._bare},{challenge.decode()},{unsigned}".encode()
        client_key = hmac.digest(salted, b"Client Key", self._hash)
        signature = hmac.digest(hashlib.new(self._hash, client_key).digest(), signed, self._hash)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self.server_signature = hmac.digest(
            hmac.digest(salted, b"Server Key", self._hash), signed, self._hash
        )
        return f"{unsigned},p={base64.b64encode(proof).decode()}".encode()


class FixedNonce(random.Random):
    """Gives the nonce of an RFC's example."""

    def __init__(self, nonce: str) -> None:
        super().__init__(0)
        self._nonce = nonce

    def choices(self, *arguments: Any, **options: Any) -> list[Any]:
        return list(self._nonce)
