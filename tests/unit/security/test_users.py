from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import yaml
from tests.unit.security.support import SECRET, entry, users

from strandline_broker.security.credentials import ScramMechanism, derive
from strandline_broker.security.users import UsersError, check_password, parse_document, users_of

SHA_256, SHA_512 = ScramMechanism


def test_a_file_in_yaml_and_in_json() -> None:
    document = {"salt_secret": base64.b64encode(SECRET).decode(), "users": {"alice": entry("x")}}
    assert parse_document(yaml.safe_dump(document)) == document
    assert parse_document(json.dumps(document), is_json=True) == document
    assert parse_document("") == {"users": {}}
    assert parse_document("users:") == {"users": {}}


@pytest.mark.parametrize("is_json", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "users: {alice: {password: *geheim}}",
        "users: {alice: {password: 'geheim}}",
        "geheim: 1",
        "[geheim]",
        "users: [geheim]",
        '{"users": {"alice": "geheim"',
        "!!geheim x",
        "!!int geheim",
        "!!timestamp geheim",
        "!!float geheim",
        "!!bool geheim",
        "!!binary geheim\u00e9",
        "!!omap geheim",
        "&a [*a]",
        "users: {geheim: 1, geheim: 2}\n---\nx",
        "'geheim\\x",
        "a: geheim\x00",
        "[" * 100_000,
        "users:\n\tgeheim",
    ],
)
def test_errors_of_files_quote_nothing(text: str, *, is_json: bool) -> None:
    with pytest.raises(UsersError) as refused:
        users_of(parse_document(text, is_json=is_json), SECRET)
    assert "geheim" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"users": {"alice": None}}, "user 'alice': needs SCRAM-SHA-256, SCRAM-SHA-512 or password"),
        ({"users": {"alice": {}}}, "needs"),
        ({"users": {"alice": {"SCRAM-SHA-1": {}}}}, "'SCRAM-SHA-1' is none of"),
        ({"users": {"alice": {"SCRAM-SHA-256": {"salt": "geheim"}}}}, "SCRAM-SHA-256: needs"),
        ({"users": {"alice": {"password": "geheim"} | entry("x")}}, "only one can count"),
        ({"users": {"alice": {"password": 12345678}}}, "put it in quotes"),
        ({"users": {"alice": {"password": ""}}}, "empty"),
        ({"users": {"alice": {"password": "geheim\u00ad"}}}, "not in the form of SASLprep"),
        ({"users": {"alice": {"password": "geheim" * 200}}}, "longer than"),
        ({"users": {True: {"password": "geheim"}}}, "user 'True': a name must be text"),
        ({"users": {"a\u00ad": {"password": "geheim"}}}, "the name is not in the form"),
        ({"users": {"a\u0007": {"password": "geheim"}}}, "the name has"),
        ({"users": {"a" * 256: {"password": "geheim"}}}, "the name is longer"),
        ({"users": {}, "salt_secret": "c2hvcnQ="}, "salt_secret"),
        ({"users": {}, "salt_secret": 5}, "salt_secret"),
    ],
)
def test_entries_that_are_refused(document: dict[str, Any], why: str) -> None:
    with pytest.raises(UsersError) as refused:
        users_of(document, SECRET)
    assert why in str(refused.value)
    assert "geheim" not in str(refused.value)
    assert "12345678" not in str(refused.value)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(UsersError) as refused:
        users_of({"users": {"a": {}, "b": {}}, "salt_secret": ""}, SECRET)
    assert len(str(refused.value).splitlines()) == 3


def test_a_clear_password_stands_for_all_mechanisms() -> None:
    known = users_of({"users": {"bob": {"password": "secret"}, "alice": entry("x")}}, SECRET)
    assert known.clear_passwords == 1
    for mechanism in ScramMechanism:
        found = known.find("bob", mechanism)
        assert found.known
        assert found.credential.verifies("secret")
        assert not found.credential.verifies("Secret")
    assert len(known) == 2


def test_made_up_credentials_do_not_stand_out() -> None:
    many = {
        f"user-{number}": {"SCRAM-SHA-256": derive(SHA_256, "x", bytes(24), 5000).to_mapping()}
        for number in range(3)
    }
    known = users_of({"users": many | {"alice": entry("x")}}, SECRET)
    made_up = known.find("mallory", SHA_256)
    assert not made_up.known
    assert (made_up.credential.iterations, len(made_up.credential.salt)) == (5000, 24)
    assert made_up == known.find("mallory", SHA_256)
    assert made_up.credential.salt != known.find("mallory2", SHA_256).credential.salt
    assert len(made_up.credential.stored_key) == 32
    assert (known.find("user-1", SHA_512).known, known.find("user-1", SHA_512).credential.iterations) == (
        False,
        4096,
    )
    reordered = users_of({"users": {"alice": entry("x")} | many}, SECRET)
    assert reordered.find("mallory", SHA_256) == made_up
    assert users_of({"users": many}, b"t" * 32).find("mallory", SHA_256) != made_up


def test_salts_of_clear_passwords_and_of_unknown_names_are_made_alike() -> None:
    before = users(alice="x").find("bob", SHA_256).credential.salt
    with_bob = users_of({"users": {"alice": entry("x"), "bob": {"password": "y"}}}, SECRET)
    assert with_bob.find("bob", SHA_256).credential.salt == before


def test_names_are_prepared() -> None:
    found = users(alice="x").find("al\u00adice", SHA_256)
    assert (found.name, found.known) == ("alice", True)
    assert not users(alice="x").find("\u0007", SHA_256).known
    assert not users(alice="x").find("\ud800", SHA_256).known


def test_passwords_that_all_clients_send_alike() -> None:
    assert check_password("p\u00e4ss w\u00f6rd =,") == "p\u00e4ss w\u00f6rd =,"
    with pytest.raises(ValueError, match="SASLprep"):
        check_password("pa\u0308ss")
