from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from strandline_broker.security.credentials import ScramMechanism
from strandline_broker.security.users import Users, parse_document, secret_of, users_of
from strandline_operator.cli import main


def users(file: Path, *arguments: str, password: str | None = None) -> Result:
    standard_input = None if password is None else f"{password}\n{password}\n"
    return CliRunner().invoke(main, ["users", *arguments, "--file", str(file)], input=standard_input)


def read(file: Path) -> Users:
    return users_of(parse_document(file.read_text(), is_json=file.suffix == ".json"), b"unused" * 4)


@pytest.mark.parametrize("name", ["users.yaml", "users.json"])
def test_adding_changing_and_removing(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    added = users(file, "add", "alice", "--password-stdin", password="geheim-1")
    assert (added.exit_code, added.output) == (
        0,
        f"added alice (SCRAM-SHA-256, SCRAM-SHA-512) in {file}\n",
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for mechanism in ScramMechanism:
        assert read(file).find("alice", mechanism).credential.verifies("geheim-1")
    secret = secret_of(parse_document(file.read_text(), is_json=file.suffix == ".json"))
    assert secret is not None
    file.chmod(0o640)
    users(
        file,
        "add",
        "bob",
        "--password-stdin",
        "--mechanism",
        "SCRAM-SHA-512",
        "--iterations",
        "5000",
        password="b",
    )
    found = read(file).find("bob", ScramMechanism.SHA_512)
    assert (found.known, found.credential.iterations) == (True, 5000)
    assert not read(file).find("bob", ScramMechanism.SHA_256).known
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert users(file, "add", "alice", "--password-stdin", password="geheim-2").output.startswith(
        "changed alice"
    )
    assert read(file).find("alice", ScramMechanism.SHA_256).credential.verifies("geheim-2")
    assert users(file, "list").output == "alice\tSCRAM-SHA-256, SCRAM-SHA-512\nbob\tSCRAM-SHA-512\n"
    assert users(file, "remove", "alice").exit_code == 0
    assert users(file, "list").output == "bob\tSCRAM-SHA-512\n"
    assert secret_of(parse_document(file.read_text(), is_json=file.suffix == ".json")) == secret
    assert "geheim" not in file.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == [name], "no temporary file is left"


def test_the_password_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "users.yaml"
    added = users(file, "add", "alice", password="geheim")
    assert added.exit_code == 0
    assert "geheim" not in added.output
    assert read(file).find("alice", ScramMechanism.SHA_256).credential.verifies("geheim")


def test_two_users_with_one_password_do_not_look_alike(tmp_path: Path) -> None:
    file = tmp_path / "users.yaml"
    for name in ("alice", "bob"):
        users(file, "add", name, "--password-stdin", password="same")
    found = [read(file).find(name, ScramMechanism.SHA_256).credential for name in ("alice", "bob")]
    assert found[0].stored_key != found[1].stored_key


@pytest.mark.parametrize(
    ("arguments", "password", "why"),
    [
        (("add", "alice", "--password-stdin"), "", "the password is empty"),
        (("add", "alice", "--password-stdin"), "pa\u0308ss", "SASLprep"),
        (("add", "a\u00adlice", "--password-stdin"), "geheim", "the name is not in the form"),
        (("add", "alice", "--password-stdin", "--iterations", "100"), "geheim", "4096<=x"),
        (("add", "alice", "--password-stdin", "--mechanism", "PLAIN"), "geheim", "SCRAM-SHA-256"),
        (("remove", "alice"), None, "there is no user 'alice'"),
    ],
)
def test_refusals(tmp_path: Path, arguments: tuple[str, ...], password: str | None, why: str) -> None:
    refused = users(tmp_path / "users.yaml", *arguments, password=password)
    assert refused.exit_code != 0
    assert why in refused.output
    assert "geheim" not in refused.output
    assert not list(tmp_path.iterdir())


def test_a_file_that_a_broker_would_refuse_is_not_made_worse(tmp_path: Path) -> None:
    file = tmp_path / "users.yaml"
    for text in ("users: {alice: {password: *geheim}}", "users: {alice: {}}", "geheim: 1"):
        file.write_text(text)
        refused = users(file, "add", "bob", "--password-stdin", password="x")
        assert refused.exit_code == 1
        assert str(file) in refused.output
        assert "geheim" not in refused.output
        assert file.read_text() == text
