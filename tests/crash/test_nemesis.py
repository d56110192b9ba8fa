"""Nothing acknowledged is lost when leaders are killed or cut off. `make nemesis` goes on for longer."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.crash import netns, volumes
from tests.crash.faults import Inject, Site, cut, kill_leader, slow_link
from tests.crash.nemesis import NemesisPlan, options_of, run
from tests.crash.nemesis_cluster import NemesisCluster
from tests.crash.nemesis_load import TOPIC, LoadPlan
from tests.crash.nemesis_report import NemesisOutcome
from tests.crash.netns import HOST, Netns
from tests.crash.netns_cluster import NetnsCluster
from tests.crash.volumes import Volume, wipe

needs_namespaces = pytest.mark.skipif(not netns.available(), reason="needs root, iproute2 and namespaces")
needs_volumes = pytest.mark.skipif(not volumes.available(), reason="needs root, mkfs.ext4 and loop devices")


def _plan(*faults: Inject) -> NemesisPlan:
    """A few faults one after the other, under so little load that a busy machine can bear it too."""
    return NemesisPlan(load=LoadPlan(seed=1, partitions=3, records_per_s=100, groups=False), faults=faults)


def _check(outcome: NemesisOutcome) -> None:
    assert outcome.ok, str(outcome)
    durable = outcome.verdicts["acks=all"]
    assert durable.acked > 50
    assert durable.read >= durable.acked
    assert outcome.counts["passes"] > 0
    assert outcome.counts["batches compared"] > 0


def test_killing_a_leader_loses_nothing_and_leaves_equal_replicas(tmp_path: Path) -> None:
    plan = _plan(kill_leader)
    cluster = NemesisCluster(tmp_path / "cluster", options=options_of(plan, []))
    outcome = run(plan, cluster, tmp_path / "clients")
    _check(outcome)
    (measured,) = outcome.faults
    assert measured.fault.kind == "kill leader"
    assert measured.recovered_s is not None


@pytest.mark.crash
@needs_namespaces
def test_cutting_leaders_off_loses_nothing_and_leaves_equal_replicas(tmp_path: Path) -> None:
    plan = _plan(cut, slow_link, cut)
    with Netns(3) as network:
        cluster = NetnsCluster(tmp_path / "cluster", network)
        outcome = run(plan, cluster, tmp_path / "clients", make_site=lambda made: Site(made, TOPIC, network))
    _check(outcome)
    assert [measured.fault.kind for measured in outcome.faults] == ["cut", "slow link", "cut"]


# -- the tools of faults -----------------------------------------------------------------------------------------------


def _reaches(network: Netns, broker: int, address: tuple[str, int]) -> bool:
    """Say whether a connection from a broker's namespace comes about."""
    program = f"import socket; socket.create_connection({address!r}, timeout=0.5)"
    command = ["ip", "netns", "exec", network.namespace(broker), sys.executable, "-I", "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0 or "TimeoutError" in done.stderr, done.stderr
    return done.returncode == 0


@needs_namespaces
def test_each_direction_of_a_link_can_be_cut_and_healed() -> None:
    with Netns(2) as network, socket.create_server((network.address(HOST), 0)) as server:
        address = server.getsockname()
        assert _reaches(network, 0, address)
        for sender, receiver in ((0, HOST), (HOST, 0)):
            network.block(sender, receiver)
            assert not _reaches(network, 0, address)
            assert _reaches(network, 1, address), "only one link is cut"
            network.unblock(sender, receiver)
            assert _reaches(network, 0, address)


@needs_namespaces
def test_nothing_is_left_of_a_network() -> None:
    with Netns(2) as network:
        names = [network.namespace(end) for end in ("switch", 0, 1)]
        listed = subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout
        assert all(name in listed for name in names)
    listed = subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout
    assert not any(name in listed for name in names)
    with pytest.raises(OSError, match="assign"):
        socket.create_server((network.address(HOST), 0))


@needs_volumes
def test_a_volume_fills_up_frees_and_forgets(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "image", tmp_path / "mounted", 16 << 20)
    try:
        (volume.path / "t-0").mkdir()
        (volume.path / "t-0" / "kept").write_bytes(b"x" * 5000)
        assert volume.fill(0) > 1 << 20
        descriptor = os.open(volume.path / "more", os.O_CREAT | os.O_WRONLY)
        try:
            with pytest.raises(OSError, match="No space") as caught:
                os.posix_fallocate(descriptor, 0, 1 << 20)
        finally:
            os.close(descriptor)
        assert caught.value.errno == errno.ENOSPC
        volume.free()
        (volume.path / "more").write_bytes(b"x" * (1 << 20))
        assert (volume.path / "t-0" / "kept").read_bytes() == b"x" * 5000
        wipe(volume.path)
        assert [path.name for path in volume.path.iterdir()] == ["lost+found"]
    finally:
        volume.close()
    assert not list((tmp_path / "mounted").iterdir())
