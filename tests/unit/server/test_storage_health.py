"""When a disk that refused a write is believed again, and what is said of it meanwhile."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from typing import Any

from tests.simulation.loop import VirtualLoop, simulate
from tests.simulation.seams import SimClock

from strandline_broker.seams.disk import DiskError
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.server.storage_health import (
    FREE_BYTES,
    HOLD_FIRST_S,
    HOLD_MAX_S,
    RELAPSE_S,
    TRIAL_FILE,
    TRIAL_INTERVAL_S,
    StorageHealth,
    StorageWatch,
)

FULL = DiskError(errno.ENOSPC, "the test filled it")


def fall_ill(health: StorageHealth, now: float) -> float:
    """Let a write fail; return for how long the disk is not believed."""
    assert health.failed(now)
    assert not health.failed(now), "only the first failure is news"
    return health.next_trial_s(now)


def test_a_disk_is_believed_again_after_a_moment() -> None:
    health = StorageHealth()
    assert health.writable
    assert fall_ill(health, 10.0) == HOLD_FIRST_S
    assert health.next_trial_s(10.0 + HOLD_FIRST_S) == TRIAL_INTERVAL_S, "asking does not heal a disk"
    health.succeeded(12.0)
    assert health.writable
    assert health.failures == 1


def test_a_disk_that_fills_again_and_again_is_believed_later_and_later() -> None:
    health, now, held = StorageHealth(), 0.0, []
    for _ in range(7):
        held.append(fall_ill(health, now))
        now += held[-1]
        health.succeeded(now)
        now += RELAPSE_S / 2
    assert held == [1, 2, 4, 8, 16, HOLD_MAX_S, HOLD_MAX_S]
    assert fall_ill(health, now + RELAPSE_S) == HOLD_FIRST_S, "that is long ago"


class Sized(SimDisk):
    """A disk that says what a test wants of its free space."""

    free: int | None = None

    def free_bytes(self) -> int:
        return super().free_bytes() if self.free is None else self.free


class Watched:
    """A watch over a simulated disk, and what it told."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.disk = Sized()
        self.told: list[tuple[bool, float]] = []
        self.deaf = False
        self.watch = StorageWatch(
            self.disk, clock=SimClock(loop), run_blocking=self._blocking, announce=self._announce
        )

    async def _blocking(self, work: Callable[[], object]) -> object:
        return work()

    async def _announce(self, writable: bool) -> None:
        if self.deaf:
            await asyncio.Event().wait()
        self.told.append((writable, round(self.loop.time(), 3)))

    async def until_writable(self, timeout_s: float) -> None:
        """Return when the disk counts as writable, or after so long."""
        end = self.loop.time() + timeout_s
        while not self.watch.health.writable and self.loop.time() < end:
            await asyncio.sleep(0.001)


def watched(test: Callable[[Watched], Coroutine[Any, Any, None]]) -> None:
    async def main(loop: VirtualLoop) -> None:
        made = Watched(loop)
        task = loop.create_task(made.watch.run())
        await test(made)
        task.cancel()

    simulate(main, VirtualLoop())


def test_a_full_disk_is_announced_at_once_and_its_end_when_a_trial_lasts() -> None:
    async def test(made: Watched) -> None:
        made.disk.free = 0
        made.watch.write_failed(FULL)
        await asyncio.sleep(9.5)
        assert made.told == [(False, 0.0)]
        assert not made.watch.health.writable
        made.disk.free = None
        await made.until_writable(60)
        await asyncio.sleep(0)
        assert made.told == [(False, 0.0), (True, 10.0)]
        assert not made.disk.exists(TRIAL_FILE)

    watched(test)


def test_a_little_space_is_not_enough() -> None:
    async def test(made: Watched) -> None:
        for size, wanted in ((50 * FREE_BYTES, FREE_BYTES // 2), (500 * FREE_BYTES, FREE_BYTES)):
            made.disk.capacity, made.disk.free = size, wanted - 1
            made.watch.write_failed(FULL)
            await made.until_writable(600)
            assert not made.watch.health.writable
            made.disk.free = wanted
            await made.until_writable(600)
            assert made.watch.health.writable

    watched(test)


def test_free_space_that_cannot_be_written_to_is_not_enough() -> None:
    async def test(made: Watched) -> None:
        for operation in ("append", "datasync"):
            made.disk.fail_next(operation, errno.EIO, path_part=TRIAL_FILE)
            made.watch.write_failed(DiskError(errno.EIO, "the test broke it"))
            since = made.loop.time()
            await made.until_writable(60)
            assert made.loop.time() - since > HOLD_FIRST_S + TRIAL_INTERVAL_S / 2

    watched(test)


def test_only_a_failure_of_writing_counts_where_it_may_have_been_one_of_reading() -> None:
    async def test(made: Watched) -> None:
        made.watch.out_of_space(DiskError(errno.EIO, "unreadable"))
        made.watch.out_of_space(FileNotFoundError(errno.ENOENT, "not there"))
        assert made.watch.health.writable
        made.watch.out_of_space(DiskError(errno.EROFS, "read-only"))
        assert not made.watch.health.writable

    watched(test)


def test_a_store_that_is_away_does_not_keep_the_disk_from_being_tried() -> None:
    async def test(made: Watched) -> None:
        made.deaf = True
        made.watch.write_failed(FULL)
        await made.until_writable(60)
        assert made.watch.health.writable
        assert made.told == []

    watched(test)
