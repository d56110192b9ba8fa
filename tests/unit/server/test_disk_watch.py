"""That the disk is looked at, and what is said of it."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable

import pytest
from tests.unit.replica.tiered_support import LoopClock
from tests.unit.tiered.virtual_time import virtually

from strandline_broker.replica.disk_pressure import Pressure
from strandline_broker.seams.disk import DiskError
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.server.config import load
from strandline_broker.server.disk_report import DiskTotals, storage_report
from strandline_broker.server.disk_watch import LOOK_INTERVAL_S, ROOM_INTERVAL_S, DiskWatch
from strandline_broker.server.storage_health import StorageHealth

SIZE = 1000


class Sized(SimDisk):
    """A disk as full as a test wants, or one that says nothing."""

    used = 0
    broken = False

    def free_bytes(self) -> int:
        if self.broken:
            raise DiskError(errno.EIO, "the test broke it")
        return SIZE - self.used

    def total_bytes(self) -> int:
        return SIZE


def watch_of(disk: Sized, *assignments: str) -> DiskWatch:
    async def blocking(work: Callable[[], object]) -> object:
        return work()

    return DiskWatch(
        load(None, ["broker_id=0", "data_dir=/d", "store=sqlite:/s", *assignments], {}),
        disk,
        [],
        LoopClock(),
        lambda log: 0,
        blocking,
    )


def test_the_level_follows_the_disk_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        disk = Sized()
        watch = watch_of(disk)
        task = asyncio.get_running_loop().create_task(watch.run())
        for used, level in (
            (500, "free"),
            (860, "throttled"),
            (960, "refused"),
            (940, "refused"),
            (100, "free"),
        ):
            disk.used = used
            await asyncio.sleep(LOOK_INTERVAL_S)
            assert watch.pressure.level.value == level
            await asyncio.sleep(60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    caplog.set_level(logging.INFO, "strandline_broker.server.disk_watch")
    virtually(test)
    said = [(record.levelname, record.getMessage().partition(":")[0]) for record in caplog.records]
    assert said == [
        ("WARNING", "86.0 % of the disk is used, 140 bytes are free"),
        ("WARNING", "96.0 % of the disk is used, 40 bytes are free"),
        ("INFO", "10.0 % of the disk is used, 900 bytes are free"),
    ]


def test_a_disk_that_cannot_be_measured_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        disk = Sized()
        disk.used = 900
        watch = watch_of(disk)
        await watch.look()
        disk.broken = True
        await watch.look()
        await watch.look()
        assert watch.pressure.level == "throttled"
        disk.broken, disk.used = False, 0
        await watch.look()
        assert watch.pressure.level.value == "free"

    virtually(test)
    assert sum("cannot be told" in record.message for record in caplog.records) == 1


def test_marks_are_as_configured() -> None:
    async def test() -> None:
        disk = Sized()
        disk.used = 600
        watch = watch_of(disk, "tiering_disk_throttle_percent=50", "tiering_disk_refuse_percent=60")
        await watch.look()
        assert watch.pressure.level is Pressure.REFUSED

    virtually(test)


def test_it_is_shown() -> None:
    async def test() -> None:
        disk = Sized()
        watch, health = watch_of(disk), StorageHealth()
        assert storage_report(3, health, watch) == {
            "broker": 3,
            "writable": True,
            "sizeBytes": -1,
            "freeBytes": -1,
            "producers": "free",
            "producersBytesPerSecond": None,
        }
        disk.used = 900
        await watch.look()
        shown = storage_report(3, health, watch)
        assert (shown["sizeBytes"], shown["freeBytes"], shown["producers"]) == (SIZE, 100, "throttled")
        assert shown["producersBytesPerSecond"] == round(watch.pressure.rate or 0) > 0
        disk.used = 960
        await watch.look()
        watch.pressure.refusal()
        totals = DiskTotals.of(watch)
        assert (totals.pressure, totals.rate, totals.refused) == (Pressure.REFUSED, None, 1)

    virtually(test)


def test_room_is_made_before_producers_are_slowed_down() -> None:
    async def test() -> None:
        disk = Sized()
        watch = watch_of(disk)
        wanted: list[int] = []

        async def make_room(wanted_bytes: int) -> int:
            wanted.append(wanted_bytes)
            return wanted_bytes

        watch.retention.make_room = make_room  # type: ignore[method-assign]
        task = asyncio.get_running_loop().create_task(watch.run())
        for used, asked in ((829, []), (831, [21]), (900, [90]), (810, [])):
            wanted.clear()
            disk.used = used
            await asyncio.sleep(LOOK_INTERVAL_S)
            assert wanted == asked
            await asyncio.sleep(ROOM_INTERVAL_S - 2 * LOOK_INTERVAL_S)
            assert wanted == asked, "what was deleted is not measured at once"
            await asyncio.sleep(LOOK_INTERVAL_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    virtually(test)


def test_without_marks_no_room_is_made() -> None:
    async def test() -> None:
        disk = Sized()
        disk.used = 999
        watch = watch_of(disk, "tiering_disk_throttle_percent=100", "tiering_disk_refuse_percent=100")
        await watch.look()
        assert watch.pressure.wanted_bytes == 0

    virtually(test)
