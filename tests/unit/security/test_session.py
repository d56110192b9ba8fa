from __future__ import annotations

import random

import pytest
from tests.unit.security.support import ScramClient, users

from strandline_broker.errors import ErrorCode
from strandline_broker.security.credentials import ScramMechanism
from strandline_broker.security.exchange import Check
from strandline_broker.security.mechanisms import MECHANISMS, new_exchange
from strandline_broker.security.session import SaslSession, SessionState, TokenAnswer

KNOWN = users(alice="secret", bob="secret")
NEUTRAL = "Authentication failed during {}authentication due to invalid credentials with SASL mechanism {}"


def session(max_reauth_ms: int = 0) -> SaslSession:
    return SaslSession(
        MECHANISMS, lambda mechanism: new_exchange(mechanism, KNOWN, random.Random(1)), max_reauth_ms
    )


def plain(
    machine: SaslSession, name: str = "alice", password: str = "secret", *, now: float = 0.0
) -> TokenAnswer:
    check = machine.token(f"\0{name}\0{password}".encode(), now=now)
    assert isinstance(check, Check)
    return machine.checked(check.run(), now=now)


def scram(machine: SaslSession, name: str, password: str, *, now: float = 0.0) -> TokenAnswer:
    client = ScramClient(ScramMechanism.SHA_512, name, password)
    challenge = machine.token(client.first(), now=now)
    assert isinstance(challenge, TokenAnswer)
    assert (challenge.error, challenge.closing, challenge.session_lifetime_ms) == (ErrorCode.NONE, None, 0)
    answer = machine.token(client.final(challenge.token), now=now)
    assert isinstance(answer, TokenAnswer)
    return answer


def test_the_table_of_mechanisms() -> None:
    assert ("PLAIN", *ScramMechanism) == MECHANISMS


def test_a_login() -> None:
    machine = session()
    answer = machine.handshake("SCRAM-SHA-512", version=1, now=0.0)
    assert (answer.error, tuple(answer.mechanisms), answer.closing) == (ErrorCode.NONE, MECHANISMS, None)
    assert machine.state is SessionState.TOKENS
    assert scram(machine, "alice", "secret").token.startswith(b"v=")
    assert (machine.state, machine.name, machine.endless) == (SessionState.AUTHENTICATED, "alice", True)
    assert not machine.expired(1e12)


def test_raw_tokens_after_the_first_version_of_the_handshake() -> None:
    machine = session()
    machine.handshake("PLAIN", version=0, now=0.0)
    assert machine.state is SessionState.RAW_TOKENS
    assert plain(machine).error is ErrorCode.NONE


@pytest.mark.parametrize("mechanism", ["GSSAPI", "plain", "", "X" * 5000])
def test_unknown_mechanisms(mechanism: str) -> None:
    machine = session()
    answer = machine.handshake(mechanism, version=1, now=0.0)
    assert (answer.error, tuple(answer.mechanisms)) == (ErrorCode.UNSUPPORTED_SASL_MECHANISM, MECHANISMS)
    assert answer.closing is not None
    assert len(answer.closing) < 300
    assert machine.state is SessionState.FAILED


def test_failures_have_kafkas_neutral_text() -> None:
    machine = session()
    machine.handshake("SCRAM-SHA-512", version=1, now=0.0)
    answer = scram(machine, "mallory", "secret")
    assert (answer.error, answer.message) == (
        ErrorCode.SASL_AUTHENTICATION_FAILED,
        NEUTRAL.format("", "SCRAM-SHA-512"),
    )
    assert answer.closing == "authentication failed with SASL mechanism SCRAM-SHA-512: no such user"
    assert machine.state is SessionState.FAILED
    assert machine.name is None


def test_tokens_without_handshake_and_two_handshakes() -> None:
    machine = session()
    answer = machine.token(b"\0alice\0secret", now=0.0)
    assert isinstance(answer, TokenAnswer)
    assert answer.error is ErrorCode.ILLEGAL_SASL_STATE
    assert answer.closing is not None
    machine = session()
    machine.handshake("PLAIN", version=1, now=0.0)
    second = machine.handshake("PLAIN", version=1, now=0.0)
    assert second.error is ErrorCode.ILLEGAL_SASL_STATE
    assert second.closing is not None


def test_without_an_end_of_sessions_nobody_authenticates_twice() -> None:
    machine = session()
    machine.handshake("PLAIN", version=1, now=0.0)
    plain(machine)
    again = machine.handshake("PLAIN", version=1, now=5.0)
    assert (again.error, again.closing) == (ErrorCode.ILLEGAL_SASL_STATE, None)
    token = machine.token(b"\0alice\0secret", now=5.0)
    assert isinstance(token, TokenAnswer)
    assert (token.error, token.closing) == (ErrorCode.ILLEGAL_SASL_STATE, None)
    assert machine.state is SessionState.AUTHENTICATED


def authenticated(mechanism: str = "PLAIN") -> SaslSession:
    machine = session(10_000)
    machine.handshake(mechanism, version=1, now=0.0)
    answer = plain(machine) if mechanism == "PLAIN" else scram(machine, "alice", "secret")
    assert answer.session_lifetime_ms == 10_000
    assert not machine.endless
    return machine


def test_authenticating_again_prolongs_the_session() -> None:
    machine = authenticated()
    assert not machine.expired(10.0)
    assert machine.expired(10.1)
    assert machine.handshake("PLAIN", version=1, now=9.0).error is ErrorCode.NONE
    assert machine.state is SessionState.TOKENS
    assert plain(machine, now=9.5).session_lifetime_ms == 10_000
    assert not machine.expired(19.5)
    assert machine.expired(19.6)
    too_soon = machine.handshake("PLAIN", version=1, now=9.9)
    assert (too_soon.error, too_soon.closing) == (ErrorCode.ILLEGAL_SASL_STATE, None)
    assert machine.handshake("PLAIN", version=1, now=10.0).error is ErrorCode.NONE


def test_authenticating_again_as_somebody_else_or_otherwise() -> None:
    machine = authenticated()
    machine.handshake("PLAIN", version=1, now=5.0)
    answer = plain(machine, "bob", now=5.0)
    assert answer.error is ErrorCode.SASL_AUTHENTICATION_FAILED
    assert answer.message == "Cannot change principals during re-authentication from User.alice: User.bob"
    assert machine.state is SessionState.FAILED
    machine = authenticated()
    assert machine.handshake("SCRAM-SHA-512", version=1, now=5.0).error is ErrorCode.NONE
    token = machine.token(b"n,,n=alice,r=abc", now=5.0)
    assert isinstance(token, TokenAnswer)
    assert token.error is ErrorCode.SASL_AUTHENTICATION_FAILED
    assert "re-authentication of mechanism 'PLAIN'" in str(token.message)
    machine = authenticated("SCRAM-SHA-512")
    machine.handshake("SCRAM-SHA-512", version=1, now=5.0)
    assert scram(machine, "alice", "wrong", now=5.0).message == NEUTRAL.format("re-", "SCRAM-SHA-512")
