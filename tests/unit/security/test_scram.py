from __future__ import annotations

import asyncio
import base64
import random
import warnings

import pytest
from aiokafka.conn import ScramAuthenticator  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.security.support import SECRET, FixedNonce, ScramClient, entry, users

from strandline_broker.security.credentials import MAX_ITERATIONS, ScramCredential, ScramMechanism, derive
from strandline_broker.security.exchange import Challenge, Failure, Success
from strandline_broker.security.scram import MAX_TOKEN_BYTES, ScramExchange
from strandline_broker.security.users import users_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of importlib.resources, by kafka-python
    from kafka.net.sasl.scram import SaslMechanismScram  # type: ignore[import-untyped]

BOTH = pytest.mark.parametrize("mechanism", ScramMechanism)
ALICE = users(alice="pencil")


def exchange(mechanism: ScramMechanism = ScramMechanism.SHA_256) -> ScramExchange:
    return ScramExchange(mechanism, ALICE, random.Random(1))


def challenge_of(server: ScramExchange, token: bytes) -> bytes:
    outcome = server.step(token)
    assert isinstance(outcome, Challenge)
    return outcome.token


def failure_of(server: ScramExchange, token: bytes) -> Failure:
    outcome = server.step(token)
    assert isinstance(outcome, Failure)
    return outcome


def test_the_example_of_rfc_7677() -> None:
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    credential = derive(ScramMechanism.SHA_256, "pencil", salt, 4096)
    known = users_of({"users": {"user": {"SCRAM-SHA-256": credential.to_mapping()}}}, SECRET)
    server = ScramExchange(ScramMechanism.SHA_256, known, FixedNonce("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"))
    assert server.step(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == Challenge(
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    final = (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert server.step(final) == Success("user", b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


@BOTH
def test_the_right_password_and_the_servers_proof(mechanism: ScramMechanism) -> None:
    server, client = exchange(mechanism), ScramClient(mechanism, "alice", "pencil")
    outcome = server.step(client.final(challenge_of(server, client.first())))
    assert isinstance(outcome, Success)
    assert outcome.name == "alice"
    assert outcome.token == b"v=" + base64.b64encode(client.server_signature)


@BOTH
@pytest.mark.parametrize(
    ("name", "password", "reason"),
    [("alice", "pencil2", "wrong password for user 'alice'"), ("mallory", "pencil", "no such user")],
)
def test_wrong_passwords_and_unknown_names_look_the_same(
    mechanism: ScramMechanism, name: str, password: str, reason: str
) -> None:
    server, client = exchange(mechanism), ScramClient(mechanism, name, password)
    challenge = challenge_of(server, client.first())
    assert failure_of(server, client.final(challenge)) == Failure(reason)
    again = challenge_of(exchange(mechanism), client.first())
    assert challenge == again, "the salt is the same every time (and so is the nonce, of the same seed)"
    assert len(challenge) == len(
        challenge_of(exchange(mechanism), ScramClient(mechanism, "a" * 5, "x").first())
    )


def test_a_mechanism_that_the_user_does_not_have() -> None:
    known = users_of({"users": {"bob": entry("pencil", [ScramMechanism.SHA_512])}}, SECRET)
    server = ScramExchange(ScramMechanism.SHA_256, known, random.Random(1))
    client = ScramClient(ScramMechanism.SHA_256, "bob", "pencil")
    assert failure_of(server, client.final(challenge_of(server, client.first()))).reason == "no such user"


@BOTH
def test_names_with_commas_and_equal_signs(mechanism: ScramMechanism) -> None:
    known = users_of({"users": {"CN=a,O=b=2C": entry("pencil")}}, SECRET)
    server, client = (
        ScramExchange(mechanism, known, random.Random(1)),
        ScramClient(mechanism, "CN=a,O=b=2C", "pencil"),
    )
    outcome = server.step(client.final(challenge_of(server, client.first())))
    assert isinstance(outcome, Success)
    assert outcome.name == "CN=a,O=b=2C"


@pytest.mark.parametrize("header", ["n,,", "y,,", "n,a=alice,"])
def test_headers_without_channel_binding(header: str) -> None:
    server, client = exchange(), ScramClient(ScramMechanism.SHA_256, "alice", "pencil", header=header)
    assert isinstance(server.step(client.final(challenge_of(server, client.first()))), Success)


def test_extensions_are_ignored_but_delegation_tokens_are_not_there() -> None:
    for extensions, accepted in ((",x=y,foo=bar", True), (",tokenauth=true", False)):
        server = exchange()
        client = ScramClient(ScramMechanism.SHA_256, "alice", "pencil", extensions=extensions)
        outcome = server.step(client.final(challenge_of(server, client.first())))
        assert isinstance(outcome, Success) is accepted


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (b"p=tls-unique,,n=alice,r=abc", "channel binding"),
        (b"n,,m=must,n=alice,r=abc", "extension"),
        (b"n,a=bob,n=alice,r=abc", "somebody else"),
        (b"n,,n=alice,r=", "not SCRAM"),
        (b"n,,n=,r=abc", "not SCRAM"),
        (b"n,,n=al=2ice,r=abc", "not SCRAM"),
        (b"n,,n=alice,r=a b", "not SCRAM"),
        (b"n,,n=alice,r=abc,", "not SCRAM"),
        (b"n=alice,r=abc", "not SCRAM"),
        (b"n,,n=al\x00ice,r=abc", "not SCRAM"),
        (b"", "not SCRAM"),
        (b"n,,n=\xff\xfe,r=abc", "not UTF-8"),
        (b"n,,n=alice,r=" + b"a" * MAX_TOKEN_BYTES, "bytes"),
    ],
)
def test_first_messages_that_are_refused(token: bytes, reason: str) -> None:
    failure = failure_of(exchange(), token)
    assert reason in failure.reason
    assert (failure.message is not None) == (reason == "somebody else")


def test_wanting_to_be_somebody_else_says_the_same_of_known_and_unknown_names() -> None:
    assert exchange().step(b"n,a=x,n=alice,r=abc") == exchange().step(b"n,a=x,n=mallory,r=abc")


@pytest.mark.parametrize(
    ("nonce", "binding", "reason"),
    [
        ("clientnonce", None, "another nonce"),
        ("x", None, "another nonce"),
        (None, "y,,", "another channel binding"),
        (None, "p=tls-unique,,", "another channel binding"),
    ],
)
def test_final_messages_that_do_not_fit_the_first(
    nonce: str | None, binding: str | None, reason: str
) -> None:
    server, client = exchange(), ScramClient(ScramMechanism.SHA_256, "alice", "pencil")
    token = client.final(challenge_of(server, client.first()), nonce=nonce, binding=binding)
    assert reason in failure_of(server, token).reason


def test_older_librdkafka_repeats_its_nonce() -> None:
    server, client = exchange(), ScramClient(ScramMechanism.SHA_256, "alice", "pencil")
    challenge = challenge_of(server, client.first())
    nonce = "clientnonce" + challenge.decode().split(",")[0].removeprefix("r=")
    assert isinstance(server.step(client.final(challenge, nonce=nonce)), Success)


@pytest.mark.parametrize("proof", ["", "AAAA", "A" * 43 + "=", "!!!!"])
def test_bad_proofs(proof: str) -> None:
    server, client = exchange(), ScramClient(ScramMechanism.SHA_256, "alice", "pencil")
    token = client.final(challenge_of(server, client.first()))
    failure_of(server, token[: token.index(b",p=") + 3] + proof.encode())


def test_a_proof_is_good_for_one_exchange_only() -> None:
    server, client = exchange(), ScramClient(ScramMechanism.SHA_256, "alice", "pencil")
    token = client.final(challenge_of(server, client.first()))
    other = ScramExchange(ScramMechanism.SHA_256, ALICE, random.Random(2))
    challenge_of(other, client.first())
    failure_of(other, token)


@given(st.lists(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), min_size=1, max_size=2))
def test_whatever_is_sent_nothing_is_raised_and_nobody_gets_in(tokens: list[bytes]) -> None:
    server = exchange()
    for token in tokens:
        outcome = server.step(token)
        assert isinstance(outcome, Challenge | Failure)
        if isinstance(outcome, Failure):
            break


@BOTH
def test_the_client_of_kafka_python(mechanism: ScramMechanism) -> None:
    client = SaslMechanismScram(
        sasl_plain_username="alice", sasl_plain_password="pencil", sasl_mechanism=str(mechanism)
    )
    server = exchange(mechanism)
    client.receive(challenge_of(server, client.auth_bytes()))
    outcome = server.step(client.auth_bytes())
    assert isinstance(outcome, Success)
    assert client.receive(outcome.token), "it checks the server's signature"


@BOTH
def test_the_client_of_aiokafka(mechanism: ScramMechanism) -> None:
    async def talk() -> None:
        client = ScramAuthenticator(
            loop=asyncio.get_running_loop(),
            sasl_plain_password="pencil",
            sasl_plain_username="alice",
            sasl_mechanism=str(mechanism),
        )
        server = exchange(mechanism)
        token, _ = await client.step(None)
        token, _ = await client.step(challenge_of(server, token))
        outcome = server.step(token)
        assert isinstance(outcome, Success)
        assert await client.step(outcome.token) is None, "it checks the server's signature"

    asyncio.run(talk())


def test_credentials_hide_their_secrets_and_are_checked() -> None:
    credential = derive(ScramMechanism.SHA_512, "pencil", bytes(16), 4096)
    assert repr(credential) == (
        "ScramCredential(mechanism=<ScramMechanism.SHA_512: 'SCRAM-SHA-512'>, iterations=4096)"
    )
    mapping = credential.to_mapping()
    assert ScramCredential.from_mapping(ScramMechanism.SHA_512, mapping) == credential
    for change in (
        {"salt": "AAAA"},
        {"salt": 5},
        {"iterations": 4095},
        {"iterations": True},
        {"iterations": MAX_ITERATIONS + 1},
        {"stored_key": base64.b64encode(bytes(32)).decode()},
        {"server_key": "not base64!"},
        {"more": 1},
    ):
        with pytest.raises(ValueError, match="SCRAM-SHA-512: ") as refused:
            ScramCredential.from_mapping(ScramMechanism.SHA_512, mapping | change)
        assert "base64!" not in str(refused.value)
