"""SASL PLAIN: name and password in the clear, so only behind TLS.

    message = [authzid] NUL authcid NUL passwd

Passwords are checked against SCRAM keys, which takes a key derivation: the outcome is a `Check`. A name that no user
has takes the same derivation.

Source: RFC 4616; Kafka's `PlainSaslServer`, whose texts clients know.
"""

from __future__ import annotations

from strandline_broker.security.exchange import Check, Failure, Outcome, Success
from strandline_broker.security.saslprep import NotPreparableError, saslprep
from strandline_broker.security.users import MAX_NAME_BYTES, MAX_PASSWORD_BYTES, Found, Users

_OTHER_IDENTITY = (
    "Authentication failed: Client requested an authorization id that is different from username"
)
_WRONG = "Authentication failed: Invalid username or password"


class PlainExchange:
    """See `exchange.Exchange`."""

    __slots__ = ("_users",)

    def __init__(self, users: Users) -> None:
        self._users = users

    def step(self, token: bytes, /) -> Outcome:
        """Take the only message that there is."""
        if len(token) > 2 * MAX_NAME_BYTES + MAX_PASSWORD_BYTES + 2:
            return Failure(
                f"a token of {len(token)} bytes", "Authentication failed: the SASL/PLAIN response is too long"
            )
        parts = token.split(b"\0")
        if len(parts) != 3:
            text = f"Invalid SASL/PLAIN response: expected 3 tokens, got {min(len(parts), 4)}"
            return Failure(text, text)
        try:
            identity, name, password = (str(part, "utf-8") for part in parts)
        except UnicodeDecodeError:
            return Failure("a token that is not UTF-8", "Invalid SASL/PLAIN response: not UTF-8")
        if not name or not password:
            text = f"Authentication failed: {'password' if name else 'username'} not specified"
            return Failure(text, text)
        if identity not in ("", name):
            return Failure("the client wants to be somebody else than who logs in", _OTHER_IDENTITY)
        return _check(self._users.find_for_plain(name), password)


def _check(found: Found, password: str) -> Check:
    def run() -> Success | Failure:
        try:
            prepared = saslprep(password)
        except NotPreparableError:
            prepared = password  # no user has it; the time is the same
        correct = found.credential.verifies(prepared)
        if correct and found.known:
            return Success(found.name)
        return Failure(found.why_not(), _WRONG)

    return Check(run)
