from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.security.support import FixedNonce, users

from strandline_broker.security.credentials import ScramMechanism
from strandline_broker.security.exchange import Challenge, Failure, Success
from strandline_broker.security.scram import ScramExchange
from strandline_broker.security.scram_client import (
    MAX_TOKEN_BYTES,
    ClientKeys,
    ScramClient,
    ScramRefused,
    derive_client_keys,
)

BOTH = pytest.mark.parametrize("mechanism", ScramMechanism)
SHA_256 = ScramMechanism.SHA_256
NONCE = "rOprNGfwEbeRWgbNEkqO"
CHALLENGE = f"r={NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"


def challenged(nonce: str = NONCE, name: str = "user") -> tuple[ScramClient, ClientKeys]:
    client = ScramClient(SHA_256, name, FixedNonce(nonce))
    client.first()
    return client, derive_client_keys(SHA_256, "pencil", *client.challenged(CHALLENGE.encode()))


def test_the_example_of_rfc_7677() -> None:
    client = ScramClient(SHA_256, "user", FixedNonce(NONCE))
    assert client.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    salt, iterations = client.challenged(CHALLENGE.encode())
    assert (salt, iterations) == (base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    assert client.final(derive_client_keys(SHA_256, "pencil", salt, iterations)) == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    client.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


@BOTH
@pytest.mark.parametrize("name", ["alice", "a=b,c", "__broker"])
def test_our_server_and_our_client_believe_each_other(mechanism: ScramMechanism, name: str) -> None:
    server = ScramExchange(mechanism, users(**{name: "geheim"}), random.Random(1))
    client = ScramClient(mechanism, name, random.Random(2))
    challenge = server.step(client.first())
    assert isinstance(challenge, Challenge)
    final = client.final(derive_client_keys(mechanism, "geheim", *client.challenged(challenge.token)))
    success = server.step(final)
    assert isinstance(success, Success)
    assert success.name == name
    client.verify(success.token)


@BOTH
def test_another_password_is_refused_by_both(mechanism: ScramMechanism) -> None:
    server = ScramExchange(mechanism, users(alice="geheim"), random.Random(1))
    client = ScramClient(mechanism, "alice", random.Random(2))
    challenge = server.step(client.first())
    assert isinstance(challenge, Challenge)
    salt, iterations = client.challenged(challenge.token)
    assert isinstance(
        server.step(client.final(derive_client_keys(mechanism, "x", salt, iterations))), Failure
    )
    # A server with the right password, which this client does not share.
    server = ScramExchange(mechanism, users(alice="geheim"), random.Random(1))
    server.step(client.first())
    right = ScramClient(mechanism, "alice", random.Random(2))
    right.first()
    right.challenged(challenge.token)
    success = server.step(right.final(derive_client_keys(mechanism, "geheim", salt, iterations)))
    assert isinstance(success, Success)
    with pytest.raises(ScramRefused, match="does not know the secret"):
        client.verify(success.token)


def test_two_logins_have_different_nonces() -> None:
    rng = random.Random(3)
    assert len({ScramClient(SHA_256, "user", rng).first() for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("challenge", "why"),
    [
        (b"", "not SCRAM"),
        (b"e=other-error", "not SCRAM"),
        (CHALLENGE.encode().replace(b"r=", b"m=x,r="), "not SCRAM"),
        (CHALLENGE.encode() + b"\0", "not SCRAM"),
        (CHALLENGE.encode().replace(b"i=4096", b"i=04096"), "not SCRAM"),
        (CHALLENGE.encode().replace(b"i=4096", b"i=4095"), "4095 iterations"),
        (CHALLENGE.encode().replace(b"i=4096", b"i=20001"), "20001 iterations"),
        (CHALLENGE.encode().replace(NONCE.encode(), b"x" + NONCE[1:].encode()), "another nonce"),
        (f"r={NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode(), "another nonce"),
        (CHALLENGE.encode().replace(b"gQ==", b"gQ="), "not base64"),
        (CHALLENGE.encode().replace(b"W22ZaJ0SNY7soEsUEjb6gQ==", b"AAAA"), "a salt of 3 bytes"),
        (CHALLENGE.encode() + b",x=\xff", "not ASCII"),
        (CHALLENGE.encode() + b",x=" + b"y" * MAX_TOKEN_BYTES, "a message of"),
    ],
)
def test_challenges_that_are_refused(challenge: bytes, why: str) -> None:
    client = ScramClient(SHA_256, "user", FixedNonce(NONCE), max_iterations=20_000)
    client.first()
    with pytest.raises(ScramRefused, match=why):
        client.challenged(challenge)


def test_extensions_of_the_server_are_ignored_but_signed() -> None:
    client = ScramClient(SHA_256, "user", FixedNonce(NONCE))
    client.first()
    salt, iterations = client.challenged(CHALLENGE.encode() + b",x=y")
    plain, keys = challenged()
    assert client.final(derive_client_keys(SHA_256, "pencil", salt, iterations)) != plain.final(keys)


@pytest.mark.parametrize(
    ("final", "why"),
    [
        (b"", "not SCRAM"),
        (b"e=invalid-proof", "not SCRAM"),
        (b"v=", "not SCRAM"),
        (b"v=A", "not base64"),
        (b"v=AAAA", "does not know the secret"),
        (b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "does not know the secret"),
    ],
)
def test_a_server_without_proof_is_refused(final: bytes, why: str) -> None:
    client, keys = challenged()
    client.final(keys)
    with pytest.raises(ScramRefused, match=why):
        client.verify(final)


def test_a_proof_before_the_question_is_refused() -> None:
    client, _ = challenged()
    with pytest.raises(ScramRefused):
        client.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


@given(token=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_whatever_a_server_sends_is_refused(token: bytes) -> None:
    client, keys = challenged()
    client.final(keys)
    with pytest.raises(ScramRefused):
        client.verify(token)
    client = ScramClient(SHA_256, "user", FixedNonce(NONCE))
    client.first()
    with pytest.raises(ScramRefused):
        client.challenged(token)


def test_keys_do_not_show_in_reprs() -> None:
    keys = derive_client_keys(SHA_256, "pencil", b"s" * 16, 4096)
    assert repr(keys) == "ClientKeys()"
