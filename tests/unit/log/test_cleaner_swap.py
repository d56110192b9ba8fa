"""What happens to a cleaning when its log is read, changed, closed or fails meanwhile, at every point between its steps."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import replace
from typing import cast
from uuid import UUID

import pytest
from tests.unit.log.cleaner_support import Held, clean, contents, keyed, prepare
from tests.unit.log.support import NOW_MS, append, read_all

from strandline_broker.log.checkpoints import CLEANER_OFFSETS, read_offsets
from strandline_broker.log.cleaner_swap import Cleaning, Outcome
from strandline_broker.log.cleaner_work import CleaningAborted
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.log.manager import LogManager
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.sim_disk import SimDisk

CONFIG = LogConfig(cleanup_policy=frozenset({"compact"}), segment_bytes=500, index_interval_bytes=100)
KEY = ("t", 0)
TOPIC_ID = UUID(int=1)


def fill(log: Log, count: int = 40) -> list[Held]:
    """Append records of four keys, about six to a segment."""
    for number in range(count):
        append(log, keyed([(b"k%d" % (number % 4), b"%d" % number * 5)]))
    log.sync()
    return contents(log)


def managed(disk: SimDisk) -> tuple[LogManager, Log]:
    logs = LogManager(disk, ManualClock(wall_ms=NOW_MS))
    logs.open(lambda _: CONFIG)
    return logs, logs.open_or_create(*KEY, TOPIC_ID, CONFIG)


def step_through(cleaning: Cleaning, between: Callable[[int], None], *, after: bool = True) -> Outcome | None:
    """Run a cleaning; call `between(n)` after its n-th piece of work (or before it). None if it was aborted."""
    steps = cleaning.steps()
    number = 0
    try:
        work = next(steps)
        while True:
            if not after:
                between(number)
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 # handed to whom it concerns
                work = steps.throw(error)
                continue
            if after:
                between(number)
            number += 1
            work = steps.send(result)
    except StopIteration as end:
        return cast("Outcome", end.value)
    except CleaningAborted:
        return None


def count_steps() -> int:
    _, log = managed(SimDisk())
    fill(log)
    seen: list[int] = []
    assert step_through(prepare(log), seen.append) is not None
    return len(seen)


STEPS = count_steps()
EVERY_STEP = [(step, after) for step in range(STEPS) for after in (True, False)]


def no_leftovers(log: Log) -> None:
    names = log.disk.listdir(log.directory)
    assert not [name for name in names if name.endswith((".cleaned", ".swap", ".deleted"))], names
    assert not [segment for segment in log.segments if segment.suffix]
    assert log.cleaning is None


def test_there_are_steps_enough() -> None:
    assert STEPS >= 1 + 3 * 3, "the map, and three steps for each of several replacements"


def test_readers_see_every_offset_at_every_step() -> None:
    _, log = managed(SimDisk())
    written = fill(log)
    taken = log.read(0, 1 << 20, log.end_offset, min_one_batch=True)
    assert taken is not None
    old = taken.read()
    reader = contents(log)

    def read(_: int) -> None:
        held = contents(log)
        assert {record.key: record for record in held} == {record.key: record for record in written}
        assert [record for record in held if record not in written] == []
        # From any offset a reader gets on, in small pieces too.
        for offset in (0, 3, 11, 25, 39):
            assert read_all(log, max_bytes=90, start=offset)
        append(log, keyed([(b"k0", b"later")]))
        written.append(contents(log)[-1])

    assert step_through(prepare(log), read) is not None
    assert taken.read() == old, "what a response holds stays valid"
    assert len(contents(log)) < len(reader)
    no_leftovers(log)


@pytest.mark.parametrize(("step", "after"), EVERY_STEP)
def test_truncation_aborts(step: int, *, after: bool) -> None:
    """Above the stable offset nothing was cleaned, so that nothing but what is cut goes."""
    disk = SimDisk()
    _, log = managed(disk)
    written = fill(log)

    def truncate(number: int) -> None:
        if number == step:
            log.truncate_to(37)
            append(log, keyed([(b"k1", b"after the truncation")]))
            log.sync()

    outcome = step_through(prepare(log, stable_offset=36), truncate, after=after)
    assert outcome is None or step == STEPS - 1
    held = contents(log)
    assert held[-1].value == b"after the truncation"
    assert log.end_offset == 38
    expected = {record.key: record for record in written if record.offset < 37}
    assert {record.key: record for record in held[:-1]} == expected
    no_leftovers(log)
    assert contents(managed(disk.crash(random.Random(step)))[1]) == held


@pytest.mark.parametrize(("step", "after"), EVERY_STEP)
@pytest.mark.parametrize("crash", [True, False])
def test_truncation_of_what_is_being_cleaned(step: int, *, after: bool, crash: bool) -> None:
    """After an unclean election: what is cut never comes back, and the log is whole."""
    disk = SimDisk()
    logs, log = managed(disk)
    written = fill(log)
    logs.checkpoint().write()

    def truncate(number: int) -> None:
        if number == step:
            log.truncate_to(17)

    outcome = step_through(prepare(log), truncate, after=after)
    assert outcome is None or step == STEPS - 1
    held = contents(log)
    assert [record for record in held if record not in written] == []
    assert all(record.offset < 17 for record in held)
    assert log.verify() == []
    no_leftovers(log)
    logs, again = managed(disk.crash(random.Random(step)) if crash else disk.kill())
    assert contents(again) == held
    assert logs.lost_synced == []
    append(again, keyed([(b"k1", b"after the truncation")]))
    assert len(contents(again)) == len(held) + 1


@pytest.mark.parametrize(("step", "after"), EVERY_STEP)
def test_reset_aborts(step: int, *, after: bool) -> None:
    disk = SimDisk()
    _, log = managed(disk)
    fill(log)

    def reset(number: int) -> None:
        if number == step:
            log.reset_to(0)
            append(log, keyed([(b"new", b"1")]), epoch=0)
            log.sync()

    assert step_through(prepare(log), reset, after=after) is None or step == STEPS - 1
    assert [record.key for record in contents(log)] == [b"new"]
    no_leftovers(log)
    again = managed(disk.crash(random.Random(step)))[1]
    assert [record.key for record in contents(again)] == [b"new"]


@pytest.mark.parametrize(("step", "after"), EVERY_STEP)
def test_deletion_aborts_and_touches_no_successor(step: int, *, after: bool) -> None:
    disk = SimDisk()
    logs, log = managed(disk)
    fill(log)
    successor: list[Log] = []

    def delete(number: int) -> None:
        if number == step:
            logs.purge(TOPIC_ID)
            successor.append(logs.open_or_create(*KEY, UUID(int=2), CONFIG))
            fill(successor[0], 30)

    assert step_through(prepare(log), delete, after=after) is None or step == STEPS - 1
    (new,) = successor
    held = contents(new)
    assert len(held) == 30
    assert new.verify() == []
    again = LogManager(disk.kill(), ManualClock(wall_ms=NOW_MS))
    again.open(lambda _: CONFIG)
    assert contents(again.open_or_create(*KEY, UUID(int=2), CONFIG)) == held


@pytest.mark.parametrize(("step", "after"), EVERY_STEP)
@pytest.mark.parametrize("clean_stop", [True, False])
def test_the_end_of_the_log_aborts(step: int, *, after: bool, clean_stop: bool) -> None:
    disk = SimDisk()
    logs, log = managed(disk)
    written = fill(log)

    def close(number: int) -> None:
        if number == step:
            if clean_stop:
                logs.close()
            else:
                log.close(clean=False)

    assert step_through(prepare(log), close, after=after) is None or step == STEPS - 1
    logs, log = managed(disk.kill())
    assert logs.clean_start is clean_stop
    assert {record.key: record for record in contents(log)} == {record.key: record for record in written}
    assert log.end_offset == 40
    assert log.verify() == []
    clean(log)
    no_leftovers(log)


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize(
    "operation", ["append", "create", "datasync", "rename", "sync_dir", "remove", "pread"]
)
def test_a_failing_disk_costs_nothing(step: int, operation: str) -> None:
    disk = SimDisk()
    _, log = managed(disk)
    written = fill(log)

    def sicken(number: int) -> None:
        if number == step:
            disk.fail_next(operation, errno.EIO)

    try:
        step_through(prepare(log), sicken, after=False)
    except OSError:
        pass
    disk.clear_faults()
    assert log.cleaning is None
    if log.failed:
        log.reopen(NOW_MS)
    assert {record.key: record for record in contents(log)} == {record.key: record for record in written}
    append(log, keyed([(b"k0", b"life goes on")]))
    log.roll(NOW_MS)
    clean(log)
    assert not [name for name in disk.listdir("t-0") if name.endswith(".swap")]
    held = contents(log)
    assert len(held) == 4
    assert contents(managed(disk.kill())[1]) == held


@pytest.mark.parametrize("step", range(STEPS))
def test_aborted_by_the_stop_of_the_cleaner(step: int) -> None:
    """The log lives on: what is not taken in is withdrawn, so that later changes need not think of it."""
    _, log = managed(SimDisk())
    written = fill(log)
    cleaning = prepare(log)

    def abort(number: int) -> None:
        if number == step:
            cleaning.abort()

    assert step_through(cleaning, abort) is None
    assert {record.key: record for record in contents(log)} == {record.key: record for record in written}
    no_leftovers(log)
    clean(log)
    no_leftovers(log)


def test_left_in_the_middle_it_withdraws_too() -> None:
    _, log = managed(SimDisk())
    fill(log)
    steps = prepare(log).steps()
    work = next(steps)
    for _ in range(2):
        work = steps.send(work())
    assert [name for name in log.disk.listdir("t-0") if name.endswith(".swap")]
    steps.close()
    no_leftovers(log)


def test_retention_waits_for_the_end_of_a_cleaning() -> None:
    config = replace(CONFIG, cleanup_policy=frozenset({"compact", "delete"}), retention_bytes=0)
    log = Log.open(SimDisk(), "t-0", config, now_ms=NOW_MS, clean=False)
    fill(log)
    freed: list[int] = []
    assert step_through(prepare(log), lambda _: freed.append(log.apply_retention(NOW_MS, 40))) is not None
    assert set(freed) == {0}
    assert log.apply_retention(NOW_MS, 40) > 0


def test_delete_records_during_a_cleaning() -> None:
    _, log = managed(SimDisk())
    fill(log)
    assert step_through(prepare(log), lambda number: log.advance_start(number * 2)) is not None
    assert log.start_offset == (STEPS - 1) * 2
    assert [record.offset for record in contents(log)] == [36, 37, 38, 39]


class TestCheckpoint:
    def test_it_is_kept_in_kafkas_format(self) -> None:
        disk = SimDisk()
        logs, log = managed(disk)
        fill(log)
        logs.note_cleaned(KEY, log, 36, log.sync_round)
        assert disk.read_bytes("cleaner-offset-checkpoint") == b"0\n1\nt 0 36\n"
        assert logs.close()
        assert managed(disk)[0].cleaned == {KEY: 36}

    def test_truncation_lowers_it_durably(self) -> None:
        disk = SimDisk()
        logs, log = managed(disk)
        fill(log)
        logs.note_cleaned(KEY, log, 36, log.sync_round)
        sync_round = log.sync_round
        log.truncate_to(20)
        assert read_offsets(disk, CLEANER_OFFSETS) == {KEY: 20}
        logs.note_cleaned(KEY, log, 36, sync_round)
        assert logs.cleaned == {KEY: 20}, "a cleaning from before the truncation says nothing"
        log.truncate_to(30)
        assert logs.cleaned == {KEY: 20}

    def test_a_deleted_topic_leaves_none(self) -> None:
        disk = SimDisk()
        logs, log = managed(disk)
        fill(log)
        logs.note_cleaned(KEY, log, 36, log.sync_round)
        logs.purge(TOPIC_ID)
        assert read_offsets(disk, CLEANER_OFFSETS) == {}
        logs.note_cleaned(KEY, log, 36, log.sync_round)
        assert logs.cleaned == {}

    def test_a_log_that_ends_below_it_counts_as_dirty(self) -> None:
        disk = SimDisk()
        logs, log = managed(disk)
        fill(log)
        logs.note_cleaned(KEY, log, 36, log.sync_round)
        for segment in log.segments[3:]:
            segment.remove()
        logs, log = managed(disk.kill())
        assert log.end_offset < 36
        assert logs.cleaned == read_offsets(logs._disk, CLEANER_OFFSETS) == {KEY: 0}
