from __future__ import annotations

import hashlib

import pytest
from tests.unit.security.support import SECRET, entry, users

from strandline_broker.security.credentials import ScramMechanism
from strandline_broker.security.exchange import Check, Failure, Success
from strandline_broker.security.plain import PlainExchange
from strandline_broker.security.users import Users, users_of

ALICE = users(alice="secret")
WRONG = "Authentication failed: Invalid username or password"


def login(token: bytes, known: Users = ALICE) -> Success | Failure:
    outcome = PlainExchange(known).step(token)
    assert isinstance(outcome, Check), "passwords are checked off the event loop"
    return outcome.run()


def test_right_and_wrong_passwords() -> None:
    assert login(b"\0alice\0secret") == Success("alice")
    assert login(b"alice\0alice\0secret") == Success("alice")
    assert login(b"\0alice\0secret2") == Failure("wrong password for user 'alice'", WRONG)
    assert login(b"\0mallory\0secret") == Failure("no such user", WRONG)


@pytest.mark.parametrize("mechanism", ScramMechanism)
def test_either_key_will_do(mechanism: ScramMechanism) -> None:
    known = users_of({"users": {"bob": entry("secret", [mechanism])}}, SECRET)
    assert login(b"\0bob\0secret", known) == Success("bob")
    assert isinstance(login(b"\0bob\0secret2", known), Failure)
    mixed = users_of({"users": {"bob": entry("secret", [mechanism]), "carol": entry("secret")}}, SECRET)
    assert login(b"\0bob\0secret", mixed) == Success("bob")


def test_passwords_are_prepared() -> None:
    known = users(alice="I\u00e9X")
    assert login("\0al\u00adice\0I\u00ade\u0301X".encode(), known) == Success("alice")
    assert isinstance(login("\0alice\0\u0007".encode(), known), Failure)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (b"", "expected 3 tokens, got 1"),
        (b"alice\0secret", "expected 3 tokens, got 2"),
        (b"\0alice\0secret\0", "expected 3 tokens, got 4"),
        (b"\0\0secret", "username not specified"),
        (b"\0alice\0", "password not specified"),
        (b"bob\0alice\0secret", "authorization id that is different"),
        (b"\0\xff\0secret", "not UTF-8"),
        (b"\0alice\0" + b"s" * 2000, "too long"),
    ],
)
def test_bad_tokens(token: bytes, message: str) -> None:
    outcome = PlainExchange(ALICE).step(token)
    assert isinstance(outcome, Failure)
    assert outcome.message is not None
    assert message in outcome.message
    assert "secret" not in outcome.reason + outcome.message


def test_every_login_costs_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    costs: list[tuple[str, int]] = []

    def counting(hash_name: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        costs.append((hash_name, iterations))
        return hashlib.sha256(password + salt).digest()

    with monkeypatch.context() as patched:
        patched.setattr("strandline_broker.security.credentials.hashlib.pbkdf2_hmac", counting)
        for token in (b"\0alice\0secret", b"\0alice\0wrong", b"\0mallory\0secret", b"\0\x07\0\x07"):
            login(token)
    assert costs == [("sha256", 4096)] * 4


def test_no_repr_shows_a_password() -> None:
    exchange = PlainExchange(ALICE)
    outcome = exchange.step(b"\0alice\0geheim")
    assert "geheim" not in repr(outcome) + repr(exchange) + repr(ALICE)
