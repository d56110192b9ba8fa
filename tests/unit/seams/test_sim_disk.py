"""The simulated disk loses all that the contract allows, and nothing that it does not."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import TypeVar

import pytest

from strandline_broker.seams.disk import DiskError
from strandline_broker.seams.sim_disk import PowerLoss, SimDisk, SimFile

T = TypeVar("T")


def _synced(disk: SimDisk, path: str, content: bytes) -> SimFile:
    file = disk.open(path, create=True)
    file.append([content])
    file.datasync()
    disk.sync_dir("/".join(path.split("/")[:-1]))
    return file


def _outcomes(prepare: Callable[[], SimDisk], look: Callable[[SimDisk], T], *, torn: bool = False) -> set[T]:
    return {look(prepare().crash(random.Random(seed), torn=torn)) for seed in range(300)}


def _tree(disk: SimDisk) -> tuple[tuple[str, bytes], ...]:
    return tuple(sorted((path, bytes(inode.data)) for path, inode in disk.files()))


def test_what_was_synced_is_always_there() -> None:
    def prepare() -> SimDisk:
        disk = SimDisk()
        disk.makedirs("t-0")
        disk.sync_dir("")
        _synced(disk, "t-0/log", b"durable")
        return disk

    assert _outcomes(prepare, _tree) == {(("t-0/log", b"durable"),)}


def test_unsynced_bytes_leave_every_prefix() -> None:
    def prepare() -> SimDisk:
        disk = SimDisk()
        file = _synced(disk, "a", b"12")
        file.append([b"34"])
        file.append([b"5"])
        return disk

    assert _outcomes(prepare, lambda disk: disk.read_bytes("a")) == {b"12", b"123", b"1234", b"12345"}


def test_an_unsynced_truncation_may_be_undone() -> None:
    def prepare() -> SimDisk:
        disk = SimDisk()
        file = _synced(disk, "a", b"1234")
        file.truncate(2)
        return disk

    assert _outcomes(prepare, lambda disk: disk.read_bytes("a")) == {b"12", b"1234"}


def test_a_torn_write_keeps_loses_zeroes_or_spoils_each_sector_and_never_what_was_synced() -> None:
    old, new = b"o" * 700, b"n" * 1500

    def prepare() -> SimDisk:
        disk = SimDisk()
        _synced(disk, "a", old).append([new])
        return disk

    seen = _outcomes(prepare, lambda disk: disk.read_bytes("a"), torn=True)
    assert all(content.startswith(old) for content in seen)
    assert old in seen
    assert old + new in seen
    lengths = {len(content) for content in seen}
    assert {700, 1024, 1536, 2048, 2200} <= lengths
    second = {content[1024:1536] for content in seen if len(content) == 2200}
    assert {bytes(512), b"n" * 512} <= second
    assert any(set(piece) - set(b"\0n") for piece in second), "no sector of garbage"


def test_an_unsynced_name_may_be_lost_although_its_bytes_are_synced() -> None:
    def prepare() -> SimDisk:
        disk = SimDisk()
        file = disk.open("a", create=True)
        file.append([b"x"])
        file.datasync()
        return disk

    assert _outcomes(prepare, _tree) == {(), (("a", b"x"),)}


def test_a_synced_name_may_have_no_bytes() -> None:
    def prepare() -> SimDisk:
        disk = SimDisk()
        disk.open("a", create=True).append([b"x"])
        disk.sync_dir("")
        return disk

    assert _outcomes(prepare, _tree) == {(("a", b""),), (("a", b"x"),)}


def test_names_are_lost_in_no_order() -> None:
    def prepare() -> SimDisk:
        disk = SimDisk()
        disk.open("a", create=True)
        disk.open("b", create=True)
        return disk

    assert _outcomes(prepare, lambda disk: tuple(disk.listdir(""))) == {(), ("a",), ("b",), ("a", "b")}


def test_a_directory_that_was_not_synced_takes_its_files_along() -> None:
    def prepare() -> SimDisk:
        disk = SimDisk()
        disk.makedirs("t-0")
        _synced(disk, "t-0/log", b"x")
        return disk

    assert _outcomes(prepare, _tree) == {(), (("t-0/log", b"x"),)}


def test_an_unsynced_removal_may_be_undone() -> None:
    def prepare() -> SimDisk:
        disk = SimDisk()
        _synced(disk, "a", b"x")
        disk.remove("a")
        return disk

    assert _outcomes(prepare, _tree) == {(), (("a", b"x"),)}


def test_a_removed_tree_may_come_back_in_parts() -> None:
    def prepare() -> SimDisk:
        disk = SimDisk()
        disk.makedirs("t-0")
        disk.sync_dir("")
        _synced(disk, "t-0/a", b"")
        _synced(disk, "t-0/b", b"")
        disk.remove_tree("t-0")
        return disk

    seen = _outcomes(prepare, lambda disk: tuple(disk.listdir("t-0")) if disk.exists("t-0") else None)
    assert seen == {None, (), ("a",), ("b",), ("a", "b")}


def test_a_rename_is_atomic() -> None:
    def prepare() -> SimDisk:
        disk = SimDisk()
        _synced(disk, "a", b"new")
        _synced(disk, "b", b"old")
        disk.rename("a", "b")
        return disk

    assert _outcomes(prepare, _tree) == {(("a", b"new"), ("b", b"old")), (("b", b"new"),)}


@pytest.mark.parametrize("synced", ["from", "to"])
def test_a_move_between_directories_never_loses_the_file(synced: str) -> None:
    def prepare() -> SimDisk:
        disk = SimDisk()
        disk.makedirs("from")
        disk.makedirs("to")
        disk.sync_dir("")
        _synced(disk, "from/a", b"x")
        disk.rename("from/a", "to/a")
        disk.sync_dir(synced)
        return disk

    moved = (("to/a", b"x"),)
    assert _outcomes(prepare, _tree) == ({moved} if synced == "from" else {moved, (("from/a", b"x"), *moved)})


def test_write_atomic_is_all_or_nothing_at_every_step() -> None:
    def stop_at(step: int) -> Callable[[int, str, str], None]:
        def hook(count: int, name: str, path: str) -> None:
            if count == step:
                raise PowerLoss

        return hook

    for seed in range(200):
        rng = random.Random(seed)
        disk = SimDisk()
        disk.write_atomic("checkpoint", b"old")
        disk.on_operation = stop_at(disk.operations + 1 + seed % 7)
        try:
            disk.write_atomic("checkpoint", b"new")
            expected = {b"new"}
        except PowerLoss:
            expected = {b"old", b"new"}
        assert disk.crash(rng, torn=True).read_bytes("checkpoint") in expected


def test_the_same_seed_gives_the_same_disk() -> None:
    def build() -> SimDisk:
        disk = SimDisk()
        for i in range(20):
            disk.open(f"f{i}", create=True).append([random.Random(i).randbytes(3000)])
        return disk

    first, second = (build().crash(random.Random(7), torn=True) for _ in range(2))
    assert _tree(first) == _tree(second)


def test_after_a_crash_the_old_disk_is_off() -> None:
    disk = SimDisk()
    file = _synced(disk, "a", b"x")
    after = disk.crash(random.Random(0))
    for use in (
        lambda: file.append([b"y"]),
        lambda: file.pread(1, 0),
        lambda: disk.listdir(""),
        file.datasync,
    ):
        with pytest.raises(PowerLoss):
            use()
    file.close()
    assert after.read_bytes("a") == b"x"


def test_a_killed_process_leaves_the_page_cache_and_its_volatility() -> None:
    def prepare() -> SimDisk:
        disk = SimDisk()
        file = _synced(disk, "a", b"1")
        file.append([b"2"])
        disk.open("b", create=True)
        after = disk.kill()
        with pytest.raises(PowerLoss):
            file.append([b"3"])
        assert _tree(after) == (("a", b"12"), ("b", b""))
        return after

    seen = _outcomes(prepare, _tree)
    assert {(("a", b"1"),), (("a", b"12"), ("b", b""))} <= seen


def test_the_machine_stops_before_the_chosen_operation_and_stays_off() -> None:
    disk = SimDisk()
    steps: list[tuple[int, str, str]] = []

    def hook(count: int, name: str, path: str) -> None:
        steps.append((count, name, path))
        if name == "datasync":
            raise PowerLoss

    disk.on_operation = hook
    file = disk.open("a", create=True)
    file.append([b"x"])
    with pytest.raises(PowerLoss):
        file.datasync()
    with pytest.raises(PowerLoss):
        file.truncate(0)
    assert steps == [(1, "create", "a"), (2, "append", "a"), (3, "datasync", "a")]
    assert disk.unsynced() == (1, 1)


def test_a_full_disk_takes_what_fits() -> None:
    disk = SimDisk(capacity=10)
    file = disk.open("a", create=True)
    file.append([b"123456"])
    with pytest.raises(DiskError) as raised:
        file.append([b"abc", b"def"])
    assert raised.value.errno == errno.ENOSPC
    assert file.pread(100, 0) == b"123456abcd"
    with pytest.raises(DiskError):
        file.pwrite(b"xy", 9)
    file.pwrite(b"!", 9)
    file.truncate(6)
    assert disk.free_bytes() == 4
    file.append([b"ok"])
    assert disk.total_bytes() == 10


def test_a_fault_hits_the_chosen_operation_once() -> None:
    disk = SimDisk()
    file = disk.open("a.log", create=True)
    disk.fail_next("append", errno.EIO, path_part=".log", skip=1)
    file.append([b"1"])
    disk.open("b", create=True).append([b"-"])
    with pytest.raises(DiskError) as raised:
        file.append([b"2"])
    assert raised.value.errno == errno.EIO
    file.append([b"3"])
    assert file.pread(10, 0) == b"13"


def test_faults_repeat_as_often_as_asked_and_can_be_cleared() -> None:
    disk = SimDisk()
    disk.fail_next("create", errno.ENOSPC, times=3)
    for _ in range(2):
        with pytest.raises(DiskError):
            disk.open("a", create=True)
    disk.clear_faults()
    disk.open("a", create=True)


def test_a_failed_sync_loses_its_bytes_although_the_next_one_succeeds() -> None:
    disk = SimDisk()
    file = _synced(disk, "a", b"1111")
    file.append([b"2222"])
    disk.fail_next("datasync", errno.EIO)
    with pytest.raises(DiskError):
        file.datasync()
    file.append([b"3333"])
    file.datasync()
    assert file.pread(100, 0) == b"111122223333"
    assert disk.crash(random.Random(0)).read_bytes("a") == b"1111\0\0\0\0" + b"3333"
