"""A broker whose disk is full: who leads meanwhile, who is waited for, and that it comes back."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.integration.replicated import TOPIC, Trio, trio
from tests.integration.support import run, until
from tests.unit.log.support import FailingDisk

from strandline_broker.cluster.model import BrokerLease
from strandline_broker.errors import ErrorCode
from strandline_broker.seams.disk import DiskError
from strandline_broker.server import log_failures, view_follower

MIN_ISR_2 = {"min.insync.replicas": "2"}


class FullDisk(FailingDisk):
    """A disk that can be filled to the last byte."""

    __slots__ = ()

    def fill(self) -> None:
        self.room = 0

    def free(self) -> None:
        self.room = None

    def write_atomic(self, path: str, data: bytes) -> None:
        if self.room == 0:
            raise DiskError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        super().write_atomic(path, data)

    def free_bytes(self) -> int:
        return 0 if self.room == 0 else super().free_bytes()


async def with_full_disks(three: Trio) -> dict[int, FullDisk]:
    """Start everybody on a disk that can be filled, and wait until all are in sync."""
    await three.made.create_topic(TOPIC, config=MIN_ISR_2, replicas=3)
    await three.in_sync(3)
    disks = {}
    for broker_id in range(3):
        await three.stop(broker_id)
        await three.in_sync(2)
        disks[broker_id] = FullDisk(three.made.directory / f"broker-{broker_id}")
        await three.start(broker_id, disk=disks[broker_id])
        await three.in_sync(3)
    return disks


def lease_of(three: Trio, seen_by: int, broker_id: int) -> BrokerLease:
    return three.brokers[seen_by].view.leases[broker_id]


def test_a_leader_without_disk_space_is_succeeded_at_once_and_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            disks = await with_full_disks(three)
            full = (await three.in_sync(3)).config.broker_id
            assert await three.write(b"a") == [0]
            disks[full].fill()
            assert await three.write(b"b") == [ErrorCode.KAFKA_STORAGE_ERROR]
            await until(
                lambda: (
                    (found := three.leader()) is not None
                    and found.config.broker_id != full
                    and len(three.isr()) == 2
                )
            )
            assert full not in three.isr()
            assert await three.write(b"c") == [0]
            # It cannot record who leads now, but it leads no more.
            deposed = three.partition(full)
            assert deposed is not None
            await until(lambda: not deposed.is_leader)
            assert not three.brokers[full].storage.health.writable
            assert not lease_of(three, (full + 1) % 3, full).writable

            disks[full].free()
            leader = await three.in_sync(3)
            assert leader.config.broker_id != full, "leaderships return when all is calm, and not before"
            await until(lambda: set(three.log_ends().values()) == {2})
            assert await three.read(leader) == [b"a", b"c"]
            assert lease_of(three, (full + 1) % 3, full).writable

    run(scenario())


def test_a_leader_that_cannot_sync_is_succeeded_at_once_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing looks after failed logs but who hears that the disk is writable again.
    for module in (log_failures, view_follower):
        monkeypatch.setattr(module, "RETRY_INTERVAL_S", 3600.0)

    async def scenario() -> None:
        async with trio(tmp_path) as three:
            disks = await with_full_disks(three)
            ill = (await three.in_sync(3)).config.broker_id
            disks[ill].fail_sync = True
            assert await three.write(b"a") == [ErrorCode.KAFKA_STORAGE_ERROR]
            await until(
                lambda: (
                    (found := three.leader()) is not None
                    and found.config.broker_id != ill
                    and ill not in three.isr()
                )
            )
            assert await three.write(b"b") == [0]
            disks[ill].fail_sync = False
            leader = await three.in_sync(3)
            await until(lambda: len(set(three.log_ends().values())) == 1)
            assert (await three.read(leader))[-1] == b"b"

    run(scenario())


def test_nobody_waits_for_a_follower_without_disk_space(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            disks = await with_full_disks(three)
            leader = await three.in_sync(3)
            full = (leader.config.broker_id + 1) % 3
            disks[full].fill()
            assert await three.write(b"a", b"b") == [0, 0]
            assert three.leader() is leader
            assert full not in three.isr()
            disks[full].free()
            await three.in_sync(3)
            await until(lambda: set(three.log_ends().values()) == {2})

    run(scenario())


def test_a_leader_without_disk_space_leads_on_while_nobody_else_could(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trio(tmp_path) as three:
            disks = await with_full_disks(three)
            leader = await three.in_sync(3)
            full = leader.config.broker_id
            for other in {0, 1, 2} - {full}:
                await three.crash(other)
            disks[full].fill()
            assert await three.write(b"a", acks=1) == [ErrorCode.KAFKA_STORAGE_ERROR]
            await until(lambda: not leader.view.leases[full].writable)
            assert three.leader() is leader
            disks[full].free()
            await until(lambda: leader.view.leases[full].writable)
            assert await three.write(b"a", acks=1) == [0]

    run(scenario())
