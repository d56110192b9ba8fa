"""Carries out what `security.session` decides, for the connections of SASL listeners.

A connection of such a listener has a `SaslGate` as its `context` from its first moment until it is authenticated for
good (or to its end, where sessions end): `api.dispatch` asks it about every frame, and the handlers of SaslHandshake and
SaslAuthenticate give it what they decoded. Connections without a gate need no authentication, or have it behind them.

- Key derivations (PLAIN) run in a thread; the connection is muted meanwhile. Waiting ones are bounded by the number of
  connections, and are given up when their connection ends.
- A failure is answered, and its connection closed, only after a delay, without holding up anybody else.
- Until it is authenticated, a connection may send only small requests, and only for a limited time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strandline_broker.net.handler import Pending, Response
from strandline_broker.net.metrics import CloseReason
from strandline_broker.security.exchange import Check, Failure, Success
from strandline_broker.security.mechanisms import new_exchange
from strandline_broker.security.session import SaslSession, SessionState, TokenAnswer
from strandline_broker.security.users import Users
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.primitives import INT32
from strandline_broker.wire.sasl import encode_sasl_authenticate_response, encode_sasl_handshake_response

if TYPE_CHECKING:
    from strandline_broker.net.connection import Connection
    from strandline_broker.seams.clock import Clock
    from strandline_broker.wire.header import RequestHeader

logger = logging.getLogger(__name__)

_HANDSHAKE = int(ApiKey.SASL_HANDSHAKE)
_SERVED_BEFORE = frozenset((_HANDSHAKE, int(ApiKey.API_VERSIONS), int(ApiKey.SASL_AUTHENTICATE)))
_ANONYMOUS = "User:ANONYMOUS"
# For so long a client may take to read that its login failed.
_FAREWELL_S = 5.0

_Encode = Callable[[TokenAnswer], bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SaslSettings:
    """Bounds of authentication; in parentheses Kafka's names."""

    max_receive_bytes: int = 512 * 1024
    """Largest request before authentication (sasl.server.max.receive.size)."""
    timeout_ms: int = 30_000
    """Time from the connection to the end of authentication."""
    failure_delay_ms: int = 100
    """Time from a failure to its answer (connection.failed.authentication.delay.ms)."""
    max_reauth_ms: int = 0
    """Length of a session, 0 for no end (connections.max.reauth.ms)."""


class SaslAuthenticator:
    """Authentication on the SASL listeners of one broker."""

    def __init__(
        self,
        settings: SaslSettings,
        users: Callable[[], Users],
        *,
        clock: Clock,
        rng: random.Random,
        executor: Executor,
    ) -> None:
        """`users` returns the users of the moment; `executor` derives keys."""
        self.settings = settings
        self.users = users
        self.clock = clock
        self.rng = rng
        self.executor = executor
        self.loop = asyncio.get_running_loop()

    def guard(self, connection: Connection, mechanisms: Sequence[str]) -> None:
        """Let nothing but authentication through on a new connection, for now."""
        connection.principal = _ANONYMOUS
        connection.context = SaslGate(self, connection, mechanisms)


class SaslGate:
    """The authentication of one connection."""

    __slots__ = ("_authenticator", "_check", "_connection", "_max_frame_bytes", "_session", "_timer")

    def __init__(
        self, authenticator: SaslAuthenticator, connection: Connection, mechanisms: Sequence[str]
    ) -> None:
        settings = authenticator.settings
        self._authenticator = authenticator
        self._connection = connection
        self._check: asyncio.Future[Success | Failure] | None = None
        self._max_frame_bytes = connection.max_frame_bytes
        connection.max_frame_bytes = min(self._max_frame_bytes, settings.max_receive_bytes)
        self._session = SaslSession(
            mechanisms,
            lambda mechanism: new_exchange(mechanism, authenticator.users(), authenticator.rng),
            settings.max_reauth_ms,
        )
        self._timer = authenticator.loop.call_later(settings.timeout_ms / 1000, self._too_late)

    # --- what api.dispatch asks --------------------------------------------------------------------------------------

    def intercepts(self, frame: memoryview) -> bool:
        """Say whether a frame must go to `answer` instead of to a handler."""
        state = self._session.state
        if state is SessionState.AUTHENTICATED:
            return self._session.expired(self._now()) and _api_key(frame) != _HANDSHAKE
        return state is SessionState.RAW_TOKENS or _api_key(frame) not in _SERVED_BEFORE

    def answer(self, frame: memoryview) -> Response | Pending | None:
        """Take a frame that no handler may see."""
        session = self._session
        if session.state is SessionState.AUTHENTICATED:
            text = f"the session of {self._connection.principal} is over, and it did not authenticate again"
            self._connection.close(text, CloseReason.SESSION_EXPIRED)
            return None
        if session.state is SessionState.RAW_TOKENS:
            return self._token(bytes(frame), _encode_raw)
        pending = Pending(mute=True)
        text = f"{_name_of(_api_key(frame))} before authentication: check security.protocol of the client"
        self._fail(pending, None, CloseReason.UNAUTHENTICATED, text)
        return pending

    def closed(self) -> None:
        """Forget the connection, which is gone."""
        self._timer.cancel()
        if self._check is not None:
            self._check.cancel()

    # --- what the handlers bring -------------------------------------------------------------------------------------

    def handshake(self, header: RequestHeader, mechanism: str) -> Response | Pending:
        """Answer a SaslHandshake."""
        answer = self._session.handshake(mechanism, version=header.api_version, now=self._now())
        response = encode_sasl_handshake_response(header.correlation_id, answer.error, answer.mechanisms)
        if answer.closing is None:
            return response
        pending = Pending(mute=True)
        self._fail(pending, response, CloseReason.AUTHENTICATION_FAILED, answer.closing)
        return pending

    def authenticate(self, header: RequestHeader, token: bytes) -> Response | Pending | None:
        """Answer a SaslAuthenticate."""

        def encode(answer: TokenAnswer) -> bytes:
            return encode_sasl_authenticate_response(
                header.api_version,
                header.correlation_id,
                answer.error,
                answer.message,
                answer.token,
                answer.session_lifetime_ms,
            )

        return self._token(token, encode)

    # --- carrying it out ---------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._authenticator.clock.monotonic()

    def _token(self, token: bytes, encode: _Encode) -> Response | Pending | None:
        answer = self._session.token(token, now=self._now())
        if isinstance(answer, Check):
            return self._start_check(answer, encode)
        if answer.closing is None:
            return self._accept(answer, encode)
        pending = Pending(mute=True)
        self._fail(pending, encode(answer), CloseReason.AUTHENTICATION_FAILED, answer.closing)
        return pending

    def _start_check(self, check: Check, encode: _Encode) -> Pending:
        pending = Pending(mute=True)
        authenticator = self._authenticator

        def checked(future: asyncio.Future[Success | Failure]) -> None:
            self._check = None
            if not future.cancelled():
                self._checked(future, pending, encode)

        self._check = authenticator.loop.run_in_executor(authenticator.executor, check.run)
        self._check.add_done_callback(checked)
        return pending

    def _checked(self, future: asyncio.Future[Success | Failure], pending: Pending, encode: _Encode) -> None:
        error = future.exception()
        if error is not None:
            logger.error("checking a login failed", exc_info=error)
            self._connection.close("checking the login failed", CloseReason.HANDLER_ERROR)
            return
        answer = self._session.checked(future.result(), now=self._now())
        if answer.closing is None:
            pending.complete(self._accept(answer, encode))
        else:
            self._fail(pending, encode(answer), CloseReason.AUTHENTICATION_FAILED, answer.closing)

    def _accept(self, answer: TokenAnswer, encode: _Encode) -> bytes | None:
        """Go on after a token, or let the connection in if it was the last one."""
        session = self._session
        connection = self._connection
        if session.state is SessionState.AUTHENTICATED:
            self._timer.cancel()
            connection.max_frame_bytes = self._max_frame_bytes
            connection.principal = f"User:{session.name}"
            if session.endless:
                connection.context = None
            logger.debug("%r is %s by %s", connection, connection.principal, session.mechanism)
        return encode(answer)

    def _fail(self, pending: Pending, response: bytes | None, kind: CloseReason, reason: str) -> None:
        """Answer and close, but not at once: who guesses shall have to wait (and only who guesses)."""

        def end() -> None:
            pending.complete(response)
            if response is None:
                self._connection.close(reason, kind)
            else:
                self._connection.drain(_FAREWELL_S, kind, reason)

        self._timer.cancel()
        delay_s = self._authenticator.settings.failure_delay_ms / 1000
        self._timer = self._authenticator.loop.call_later(delay_s, end)

    def _too_late(self) -> None:
        text = f"not authenticated after {self._authenticator.settings.timeout_ms} ms"
        self._connection.close(text, CloseReason.AUTHENTICATION_TIMEOUT)


def _encode_raw(answer: TokenAnswer) -> bytes | None:
    """After a handshake of version 0 a failure has no answer but the end of the connection."""
    if answer.closing is not None:
        return None
    return INT32.pack(len(answer.token)) + answer.token


def _api_key(frame: memoryview) -> int:
    return int.from_bytes(frame[:2], signed=True)


def _name_of(api_key: int) -> str:
    try:
        return f"a {ApiKey(api_key).name} request"
    except ValueError:
        return "something that is no Kafka request"
