"""The SASL state of one connection: handshake, tokens, authenticated, and again before the session ends.

    NEW ----------handshake v1----------> TOKENS ------success------> AUTHENTICATED
     |                                      ^                          |
     |                                      +---handshake (KIP-368)----+   only where sessions end
     +------------handshake v0----------> RAW_TOKENS (tokens without Kafka's headers; then the same)

    any of them, on a failure -> FAILED: whoever runs this answers, waits for
    `connection.failed.authentication.delay.ms`, and closes

A session that is over is not closed by time but by the next request that is not a handshake; `expired` says so. While a
client authenticates again nothing but tokens is taken.

Pure: the caller brings the time (seconds of a monotonic clock) and carries out what is answered. Used by
`api.support.sasl`.

Source: KIP-43, KIP-152, KIP-368; Kafka's `SaslServerAuthenticator`, `KafkaChannel.maybeBeginServerReauthentication`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from strandline_broker.errors import ErrorCode
from strandline_broker.security.exchange import Challenge, Check, Exchange, Failure, Success

_REAUTHENTICATION_INTERVAL_S = 1.0


class SessionState(Enum):
    """See the module's docstring."""

    NEW = auto()
    TOKENS = auto()
    RAW_TOKENS = auto()
    AUTHENTICATED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class HandshakeAnswer:
    """What to answer to a SaslHandshake."""

    error: ErrorCode
    mechanisms: Sequence[str] = ()
    closing: str | None = None
    """Why the connection has to be closed, if it has."""


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What to answer to a token."""

    error: ErrorCode = ErrorCode.NONE
    message: str | None = None
    token: bytes = field(default=b"", repr=False)
    session_lifetime_ms: int = 0
    closing: str | None = None
    """Why the connection has to be closed, if it has."""


class SaslSession:
    """See the module's docstring.

    `new_exchange` returns the exchange of an enabled mechanism; `max_reauth_ms` 0 means that sessions do not end.
    """

    __slots__ = (
        "_ends",
        "_exchange",
        "_max_reauth_ms",
        "_mechanism",
        "_mechanisms",
        "_new_exchange",
        "_reauthentication_began",
        "name",
        "state",
    )

    def __init__(
        self, mechanisms: Sequence[str], new_exchange: Callable[[str], Exchange], max_reauth_ms: int = 0
    ) -> None:
        self._mechanisms = mechanisms
        self._new_exchange = new_exchange
        self._max_reauth_ms = max_reauth_ms
        self._mechanism = ""
        self._exchange: Exchange | None = None
        self._ends = float("inf")
        self._reauthentication_began = float("-inf")
        self.state = SessionState.NEW
        self.name: str | None = None
        """Who the client is, once that is known; authenticating again cannot change it."""

    @property
    def endless(self) -> bool:
        """Whether the client is authenticated for as long as the connection lasts."""
        return self.state is SessionState.AUTHENTICATED and self._max_reauth_ms == 0

    @property
    def mechanism(self) -> str:
        """The mechanism of the last handshake."""
        return self._mechanism

    def expired(self, now: float) -> bool:
        """Whether the session is over, so that only a handshake may follow."""
        return now > self._ends

    def handshake(self, mechanism: str, *, version: int, now: float) -> HandshakeAnswer:
        """Take a SaslHandshake; version 0 means that raw tokens follow."""
        if self.state is SessionState.AUTHENTICATED:
            if not self._may_authenticate_again(now):
                return HandshakeAnswer(ErrorCode.ILLEGAL_SASL_STATE)
            self._reauthentication_began = now
        elif self.state is not SessionState.NEW:
            self.state = SessionState.FAILED
            return HandshakeAnswer(
                ErrorCode.ILLEGAL_SASL_STATE, closing="a SASL handshake where a token was expected"
            )
        if mechanism not in self._mechanisms:
            self.state = SessionState.FAILED
            closing = f"the SASL mechanism {mechanism[:100]!r} is not one of {', '.join(self._mechanisms)}"
            return HandshakeAnswer(ErrorCode.UNSUPPORTED_SASL_MECHANISM, self._mechanisms, closing)
        if self.name is not None and mechanism != self._mechanism:
            text = (
                f"SASL mechanism '{mechanism}' requested by client is not supported for re-authentication of "
                f"mechanism '{self._mechanism}'"
            )
            # As Kafka: the handshake succeeds, and the first token fails.
            self._exchange = _Refusal(text)
        else:
            self._mechanism = mechanism
            self._exchange = self._new_exchange(mechanism)
        self.state = SessionState.TOKENS if version > 0 else SessionState.RAW_TOKENS
        return HandshakeAnswer(ErrorCode.NONE, self._mechanisms)

    def _may_authenticate_again(self, now: float) -> bool:
        return self._max_reauth_ms > 0 and now - self._reauthentication_began >= _REAUTHENTICATION_INTERVAL_S

    def token(self, token: bytes, *, now: float) -> TokenAnswer | Check:
        """Take a token. After a `Check`, go on with `checked`."""
        if self.state is SessionState.AUTHENTICATED:
            message = "SaslAuthenticate request received after successful authentication"
            return TokenAnswer(ErrorCode.ILLEGAL_SASL_STATE, message)
        if self._exchange is None:
            self.state = SessionState.FAILED
            message = "SaslAuthenticate request received without a SASL handshake"
            return TokenAnswer(
                ErrorCode.ILLEGAL_SASL_STATE, message, closing="a token without a SASL handshake"
            )
        outcome = self._exchange.step(token)
        match outcome:
            case Challenge():
                return TokenAnswer(token=outcome.token)
            case Check():
                return outcome
            case _:
                return self.checked(outcome, now=now)

    def checked(self, outcome: Success | Failure, *, now: float) -> TokenAnswer:
        """Take the end of an exchange."""
        self._exchange = None
        if isinstance(outcome, Success) and self.name not in (None, outcome.name):
            message = f"Cannot change principals during re-authentication from User.{self.name}: User.{outcome.name}"
            outcome = Failure(f"{outcome.name!r} authenticates on a connection of {self.name!r}", message)
        again = "re-" if self.name is not None else ""
        if isinstance(outcome, Failure):
            self.state = SessionState.FAILED
            message = outcome.message or (
                f"Authentication failed during {again}authentication due to invalid credentials "
                f"with SASL mechanism {self._mechanism}"
            )
            closing = f"{again}authentication failed with SASL mechanism {self._mechanism}: {outcome.reason}"
            return TokenAnswer(ErrorCode.SASL_AUTHENTICATION_FAILED, message, closing=closing)
        self.state = SessionState.AUTHENTICATED
        self.name = outcome.name
        if self._max_reauth_ms > 0:
            self._ends = now + self._max_reauth_ms / 1000
        return TokenAnswer(token=outcome.token, session_lifetime_ms=self._max_reauth_ms)


class _Refusal:
    """An exchange that fails at its first token."""

    __slots__ = ("_message",)

    def __init__(self, message: str) -> None:
        self._message = message

    def step(self, token: bytes, /) -> Failure:
        del token
        return Failure(self._message, self._message)
