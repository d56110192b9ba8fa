"""One contract for every `Disk`: what runs on the local file system runs unchanged on the simulated one."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from strandline_broker.seams.disk import Disk, DiskError, File, FileSlice
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.seams.sim_disk import SimDisk

MakeDisk = Callable[[Path], Disk]


def _local(root: Path) -> Disk:
    return LocalDisk(str(root))


def _simulated(root: Path) -> Disk:
    return SimDisk()


@pytest.fixture(params=[_local, _simulated], ids=["local", "simulated"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    make: MakeDisk = request.param
    return make(tmp_path)


def _file(disk: Disk, path: str, content: bytes = b"") -> File:
    file = disk.open(path, create=True)
    if content:
        assert file.append([content]) == len(content)
    return file


def test_open_creates_only_when_told_to(disk: Disk) -> None:
    with pytest.raises(FileNotFoundError):
        disk.open("a")
    assert not disk.exists("a")
    file = disk.open("a", create=True)
    assert file.path.endswith("a")
    assert file.size() == 0
    assert disk.exists("a")


def test_open_keeps_what_is_there(disk: Disk) -> None:
    _file(disk, "a", b"hello").close()
    again = disk.open("a", create=True)
    assert again.pread(100, 0) == b"hello"
    again.append([b" there"])
    assert disk.read_bytes("a") == b"hello there"


def test_open_needs_the_directory(disk: Disk) -> None:
    with pytest.raises(FileNotFoundError):
        disk.open("missing/a", create=True)


def test_a_second_handle_reads_what_the_first_appends(disk: Disk) -> None:
    writer = _file(disk, "a", b"12")
    reader = disk.open("a")
    writer.append([b"34"])
    assert reader.pread(10, 0) == b"1234"
    assert disk.open("a").size() == 4


def test_append_gathers_buffers_of_every_kind(disk: Disk) -> None:
    file = _file(disk, "a")
    written = file.append([b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3], b""])
    assert written == 6
    assert file.pread(100, 0) == b"abcdef"
    assert file.append([]) == 0


def test_append_takes_more_buffers_than_one_system_call(disk: Disk) -> None:
    file = _file(disk, "a")
    assert file.append([b"x%04d" % i for i in range(2500)]) == 12500
    assert file.size() == 12500
    assert file.pread(5, 12495) == b"x2499"


def test_appended_buffers_may_be_reused(disk: Disk) -> None:
    file = _file(disk, "a")
    buffer = bytearray(b"first")
    file.append([memoryview(buffer)])
    buffer[:] = b"other"
    assert file.pread(100, 0) == b"first"


def test_pread_is_short_only_at_the_end(disk: Disk) -> None:
    file = _file(disk, "a", b"0123456789")
    assert file.pread(4, 3) == b"3456"
    assert file.pread(10, 8) == b"89"
    assert file.pread(10, 10) == b""
    assert file.pread(10, 500) == b""


def test_pread_into_fills_what_there_is(disk: Disk) -> None:
    file = _file(disk, "a", b"0123456789")
    buffer = bytearray(b"......")
    assert file.pread_into(buffer, 7) == 3
    assert buffer == b"789..."
    assert file.pread_into(memoryview(buffer)[:2], 0) == 2
    assert buffer == b"019..."
    assert file.pread_into(buffer, 10) == 0


def test_pwrite_overwrites_in_place_and_may_extend(disk: Disk) -> None:
    file = _file(disk, "a", b"0123456789")
    file.pwrite(b"xyz", 4)
    assert file.pread(100, 0) == b"0123xyz789"
    file.pwrite(b"END", 12)
    assert file.pread(100, 0) == b"0123xyz789\0\0END"


def test_appends_go_to_the_end_after_truncate_and_pwrite(disk: Disk) -> None:
    file = _file(disk, "a", b"0123456789")
    file.truncate(4)
    assert file.size() == 4
    file.append([b"new"])
    file.pwrite(b"_", 0)
    file.append([b"er"])
    assert file.pread(100, 0) == b"_123newer"


def test_truncate_may_extend_with_zeros(disk: Disk) -> None:
    file = _file(disk, "a", b"ab")
    file.truncate(4)
    assert file.pread(10, 0) == b"ab\0\0"


def test_allocate_does_not_change_the_size(disk: Disk) -> None:
    file = _file(disk, "a", b"ab")
    file.allocate(1 << 16)
    assert file.size() == 2
    file.append([b"cd"])
    assert file.pread(10, 0) == b"abcd"


def test_datasync_succeeds(disk: Disk) -> None:
    file = _file(disk, "a", b"ab")
    file.datasync()
    disk.sync_dir("")
    assert disk.read_bytes("a") == b"ab"


def test_a_closed_file_cannot_be_used(disk: Disk) -> None:
    file = _file(disk, "a", b"ab")
    file.close()
    for use in (lambda: file.pread(1, 0), lambda: file.append([b"x"]), file.datasync):
        with pytest.raises((DiskError, ValueError)):
            use()
    file.close()


def test_a_removed_file_stays_readable_through_its_handle(disk: Disk) -> None:
    file = _file(disk, "a", b"still here")
    part = FileSlice(file, 6, 4)
    disk.remove("a")
    assert not disk.exists("a")
    assert len(part) == 4
    assert part.read() == b"here"
    _file(disk, "a", b"another")
    assert file.pread(100, 0) == b"still here"


def test_remove_is_idempotent(disk: Disk) -> None:
    _file(disk, "a").close()
    disk.remove("a")
    disk.remove("a")
    disk.remove("never-was")


def test_makedirs_creates_parents_and_is_idempotent(disk: Disk) -> None:
    disk.makedirs("x/y/z")
    disk.makedirs("x/y")
    disk.makedirs("x/y/z")
    assert disk.exists("x/y")
    assert disk.listdir("x") == ["y"]
    _file(disk, "x/y/z/a", b"1").close()
    assert disk.read_bytes("x/y/z/a") == b"1"
    disk.sync_dir("x/y/z")


def test_listdir_sorts_and_needs_the_directory(disk: Disk) -> None:
    for name in ("c", "a", "b"):
        _file(disk, name).close()
    disk.makedirs("bb")
    assert disk.listdir("") == ["a", "b", "bb", "c"]
    with pytest.raises(FileNotFoundError):
        disk.listdir("missing")


def test_rename_replaces_a_file(disk: Disk) -> None:
    _file(disk, "a", b"new").close()
    _file(disk, "b", b"old").close()
    disk.rename("a", "b")
    assert disk.listdir("") == ["b"]
    assert disk.read_bytes("b") == b"new"


def test_rename_moves_a_directory_with_open_files(disk: Disk) -> None:
    disk.makedirs("t-0")
    file = _file(disk, "t-0/log", b"abc")
    disk.rename("t-0", "t-0.deleted")
    assert not disk.exists("t-0")
    file.append([b"d"])
    assert disk.read_bytes("t-0.deleted/log") == b"abcd"


def test_rename_needs_a_source(disk: Disk) -> None:
    with pytest.raises(FileNotFoundError):
        disk.rename("missing", "b")


def test_rename_does_not_replace_a_directory_that_holds_something(disk: Disk) -> None:
    disk.makedirs("a")
    disk.makedirs("b")
    _file(disk, "b/inside").close()
    with pytest.raises(DiskError) as raised:
        disk.rename("a", "b")
    assert raised.value.errno in (errno.ENOTEMPTY, errno.EEXIST)


def test_files_and_directories_are_not_mixed_up(disk: Disk) -> None:
    disk.makedirs("d")
    _file(disk, "f").close()
    for use in (
        lambda: disk.open("d"),
        lambda: disk.remove("d"),
        lambda: disk.makedirs("f"),
        lambda: disk.rename("f", "d"),
        lambda: disk.rename("d", "f"),
        lambda: disk.listdir("f"),
        lambda: disk.remove_tree("f"),
        lambda: disk.sync_dir("missing"),
    ):
        with pytest.raises(DiskError):
            use()
    assert disk.listdir("") == ["d", "f"]


def test_remove_tree_removes_everything_and_is_idempotent(disk: Disk) -> None:
    disk.makedirs("t-0/deep/er")
    _file(disk, "t-0/log", b"abc").close()
    _file(disk, "t-0/deep/er/file", b"abc").close()
    disk.remove_tree("t-0")
    assert not disk.exists("t-0")
    assert disk.listdir("") == []
    disk.remove_tree("t-0")


def test_read_bytes_needs_the_file(disk: Disk) -> None:
    with pytest.raises(FileNotFoundError):
        disk.read_bytes("missing")


def test_write_atomic_replaces_and_leaves_nothing_else(disk: Disk) -> None:
    disk.makedirs("d")
    disk.write_atomic("d/checkpoint", b"one, and long")
    disk.write_atomic("d/checkpoint", b"two")
    assert disk.read_bytes("d/checkpoint") == b"two"
    assert disk.listdir("d") == ["checkpoint"]


def test_write_atomic_survives_a_left_over_temporary_file(disk: Disk) -> None:
    disk.write_atomic("probe", b"x")
    _file(disk, "checkpoint.tmp", b"the rest of a crashed attempt, longer than what follows").close()
    disk.write_atomic("checkpoint", b"two")
    assert disk.read_bytes("checkpoint") == b"two"


def test_space_is_reported(disk: Disk) -> None:
    assert 0 < disk.free_bytes() <= disk.total_bytes()
