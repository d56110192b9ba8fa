from __future__ import annotations

import json
import logging
import os
import random
from pathlib import Path

import pytest
from tests.unit.security.support import entry

from strandline_broker.security.credentials import ScramMechanism
from strandline_broker.security.users import UsersError
from strandline_broker.server.users_file import UsersFile

SHA_256 = ScramMechanism.SHA_256


class Written:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._time_ns = 1_700_000_000_000_000_000

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self._time_ns += 1_000_000_000
        os.utime(self.path, ns=(self._time_ns, self._time_ns))

    def users(self, **passwords: str) -> None:
        self.write(json.dumps({"users": {name: entry(password) for name, password in passwords.items()}}))


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "users.yaml")


def opened(written: Written) -> UsersFile:
    return UsersFile(str(written.path), random.Random(1))


def test_a_changed_file_is_taken_up(written: Written) -> None:
    written.users(alice="one")
    users = opened(written)
    assert not users.check()
    written.users(alice="two", bob="x")
    before = users.current
    assert users.check()
    assert before.find("alice", SHA_256).credential.verifies("one"), "who logs in meanwhile is not disturbed"
    assert users.current.find("alice", SHA_256).credential.verifies("two")
    assert users.current.find("bob", SHA_256).known
    assert not users.check()


def test_a_file_that_cannot_be_used_changes_nothing_and_is_told_once(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    written.users(alice="one")
    users = opened(written)
    for text in ("users: {alice: {password: *geheim}}", None):
        caplog.clear()
        if text is None:
            written.path.unlink()
        else:
            written.write(text)
        assert not users.check()
        assert not users.check()
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert "geheim" not in caplog.text
        assert users.current.find("alice", SHA_256).known
    written.users(bob="x")
    assert users.check()
    assert users.current.find("bob", SHA_256).known


def test_made_up_salts_stay_when_the_file_changes(written: Written) -> None:
    written.users(alice="one")
    users = opened(written)
    salt = users.current.find("mallory", SHA_256).credential.salt
    written.users(alice="one", bob="x")
    assert users.check()
    assert users.current.find("mallory", SHA_256).credential.salt == salt


def test_clear_passwords_are_warned_about(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    written.write("users: {alice: {password: geheim}}")
    assert opened(written).current.find("alice", SHA_256).credential.verifies("geheim")
    assert "holds 1 clear passwords" in caplog.text
    assert "geheim" not in caplog.text


def test_files_that_no_broker_starts_with(written: Written, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        opened(written)
    written.write("users: {alice: {}, bob: {}}")
    with pytest.raises(UsersError) as refused:
        opened(written)
    lines = str(refused.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{written.path}: user ") for line in lines)
    written.path.write_bytes(b"users: \xff")
    with pytest.raises(UsersError, match="not UTF-8"):
        opened(written)
    as_json = Written(tmp_path / "users.json")
    as_json.write("users: {}")
    with pytest.raises(UsersError, match="not JSON at line 1"):
        opened(as_json)
