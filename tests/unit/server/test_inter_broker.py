from __future__ import annotations

import asyncio
import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.peers.support import OTHER_TOKEN, TOKEN

from strandline_broker.cluster.model import LEASE, BrokerLease, Endpoint
from strandline_broker.cluster.sqlite_store import SqliteStore
from strandline_broker.cluster.view import ClusterView
from strandline_broker.server.inter_broker import TokenFile, warn_once_others_appear


class Written:
    """A file whose every version has a time of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._time_ns = 1_700_000_000_000_000_000

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self._time_ns += 1_000_000_000
        os.utime(self.path, ns=(self._time_ns, self._time_ns))


@pytest.fixture
def written(tmp_path: Path) -> Written:
    made = Written(tmp_path / "token")
    made.write(f"{TOKEN}\n")
    return made


def test_a_changed_token_is_taken_up(written: Written) -> None:
    file = TokenFile(str(written.path))
    assert file.current == TOKEN
    assert not file.check()
    written.write(TOKEN)
    assert not file.check(), "the same token again"
    written.write(OTHER_TOKEN)
    assert file.check()
    assert file.current == OTHER_TOKEN


def test_a_link_that_points_elsewhere_is_a_change(written: Written, tmp_path: Path) -> None:
    other = Written(tmp_path / "other")
    other.write(OTHER_TOKEN)
    link = tmp_path / "link"
    link.symlink_to(written.path)
    file = TokenFile(str(link))
    link.unlink()
    link.symlink_to(other.path)
    assert file.check()
    assert file.current == OTHER_TOKEN


def test_a_file_that_cannot_be_used_changes_nothing_and_is_told_once(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = TokenFile(str(written.path))
    for text, why in (("geheim", "6 characters, where 32"), (None, "No such file")):
        caplog.clear()
        if text is None:
            written.path.unlink()
        else:
            written.write(text)
        for _ in range(3):
            assert not file.check()
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert why in caplog.text
        assert "stays as it was" in caplog.text
        assert "geheim" not in caplog.text
        assert file.current == TOKEN
    written.write(OTHER_TOKEN)
    assert file.check()
    assert TOKEN not in caplog.text
    assert OTHER_TOKEN not in caplog.text


def test_a_broker_does_not_start_without_a_usable_token(written: Written, tmp_path: Path) -> None:
    written.write("short")
    with pytest.raises(OSError, match=r"inter_broker_token_file: .*token: 5 characters, where 32"):
        TokenFile(str(written.path))
    with pytest.raises(OSError, match=r"inter_broker_token_file: .*none: No such file"):
        TokenFile(str(tmp_path / "none"))


def test_that_it_cannot_replicate_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        store = SqliteStore(":memory:")
        view = ClusterView(store, "c", rng=random.Random(1))
        warn_once_others_appear(view)
        following = asyncio.ensure_future(view.run())
        for broker_id in range(4):
            lease = BrokerLease(broker_id, f"i{broker_id}", 7, {"X": Endpoint("h", 1)}, cluster="c")
            await store.create(LEASE, lease.to_object())
            await view.wait_until(lambda seen, count=broker_id: len(seen.leases) > count)  # type: ignore[misc]
            told = [record for record in caplog.records if "replicate" in record.message]
            assert len(told) == (broker_id > 0)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await store.close()

    asyncio.run(scenario())


OPENED = """
import asyncio, random, sys
from concurrent.futures import ThreadPoolExecutor
import strandline_broker.server.run
from strandline_broker.peers.contract import PeerError
from strandline_broker.seams.clock import SystemClock
from strandline_broker.seams.local_network import LocalNetwork
from strandline_broker.server.config import load
from strandline_broker.server.inter_broker import InterBroker
keys = ["broker_id=1", "data_dir=/d", "store=sqlite:/c", "inter_broker_token_file=TOKEN_FILE"]
opened = InterBroker.open(
    load(None, keys, {}), clock=SystemClock(), rng=random.Random(1), executor=ThreadPoolExecutor(1)
)
"""


def printed(code: str, token_file: Path) -> list[str]:
    """Return the words that a fresh interpreter prints which runs `OPENED` and this."""
    program = OPENED.replace("TOKEN_FILE", str(token_file)) + code
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_broker_that_nobody_connects_to_loads_no_cryptography(written: Written) -> None:
    names = printed("asyncio.run(opened).peers(None)\nprint(*sys.modules)", written.path)
    loaded = [name.removeprefix("strandline_broker.") for name in names]
    found = [name for name in loaded if name.startswith(("security.", "peers.")) or name.endswith("sasl")]
    assert sorted(found) == ["peers.contract", "security.broker_token", "security.mechanisms"]


def test_after_the_warm_up_the_first_connections_load_and_derive_nothing(written: Written) -> None:
    code = """
async def scenario():
    made = await opened
    made.warm_up()
    loaded, users = set(sys.modules), made._users
    made._make_authenticator()
    assert users is not None and made._current_users() is users[1]
    try:
        await made.peers(LocalNetwork()).connect("127.0.0.1", 1)
    except PeerError:
        print("refused", *(set(sys.modules) - loaded))
asyncio.run(scenario())
"""
    assert printed(code, written.path) == ["refused"]
