"""Random operations on a log against a plain list, on real files and on a disk that loses what was not synced."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.unit.log.support import NOW_MS, make_batch

from strandline_broker.errors import KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.seams.disk import Disk
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.seams.sim_disk import SimDisk
from strandline_broker.wire.batch import iter_batches

CONFIG = LogConfig(segment_bytes=700, index_interval_bytes=150, retention_ms=-1)


class Model:
    """The log as a list of (base offset, last offset, epoch, bytes behind the offsets)."""

    def __init__(self, disk: Disk, rng: random.Random) -> None:
        self.disk = disk
        self.rng = rng
        self.batches: list[tuple[int, int, int, bytes]] = []
        self.start = 0
        self.epoch = 0
        self.number = 0
        self.log = self.open(clean=False)

    def open(self, *, clean: bool, recovery_point: int = 0) -> Log:
        return Log.open(self.disk, "t-0", CONFIG, now_ms=NOW_MS, clean=clean, recovery_point=recovery_point)

    @property
    def end(self) -> int:
        return self.batches[-1][1] + 1 if self.batches else self.empty_end

    empty_end = 0

    def append(self) -> None:
        staged: list[tuple[int, int, int, bytes]] = []
        for _ in range(self.rng.randint(1, 6)):
            self.number += 1
            batch = make_batch(
                self.rng.randint(1, 3), size=self.rng.randint(0, 120), timestamp=NOW_MS + self.number
            )
            content = bytes(batch[16:])
            result = self.log.stage(memoryview(batch), self.epoch, NOW_MS)
            staged.append((result.base_offset, result.last_offset, self.epoch, content))
        self.log.commit()
        self.batches += staged

    def follow(self) -> None:
        base = self.end + self.rng.choice([0, 0, 0, 4])
        batch = make_batch(2, base_offset=base, epoch=self.epoch)
        self.log.append_follower(memoryview(batch))
        self.batches.append((base, base + 1, self.epoch, bytes(batch[16:])))

    def lead(self) -> None:
        self.epoch += self.rng.randint(1, 3)
        self.log.assign_epoch_start(self.epoch)

    def truncate(self) -> None:
        offset = self.rng.randint(self.start, self.end + 1)
        self.log.truncate_to(offset)
        if offset < self.end:
            self.batches = [batch for batch in self.batches if batch[1] < offset]
            self.empty_end = self.log.end_offset
            assert self.log.end_offset == self.end
            assert self.log.synced_end == self.end

    def delete_records(self) -> None:
        self.start = max(self.start, self.rng.randint(self.start, self.end))
        self.log.advance_start(self.start)
        self.log.apply_retention(NOW_MS, self.end)
        self.empty_end = self.end
        self.batches = [batch for batch in self.batches if batch[1] >= self.start]

    def roll(self) -> None:
        self.log.roll(NOW_MS)

    def sync(self) -> None:
        self.log.sync()

    def restart(self) -> None:
        self.log.close()
        self.log = self.open(clean=True)

    def kill(self) -> None:
        self.log = self.open(clean=False, recovery_point=self.rng.choice([0, self.log.synced_end]))

    def step(self) -> None:
        actions = [self.append] * 6 + [self.follow, self.lead, self.truncate, self.delete_records, self.roll]
        actions += [self.sync, self.restart, self.kill]
        self.rng.choice(actions)()

    def check(self) -> None:
        log = self.log
        assert (log.start_offset, log.end_offset) == (self.start, self.end)
        assert self.start <= log.synced_end <= self.end or log.synced_end < self.start
        offset = self.start
        seen: list[tuple[int, int, int, bytes]] = []
        while (
            found := log.read(offset, self.rng.choice([1, 150, 5000]), self.end, min_one_batch=True)
        ) is not None:
            data = found.read()
            for position, header in iter_batches(data):
                body = data[position + 16 : position + header.size]
                seen.append((header.base_offset, header.last_offset, header.leader_epoch, body))
                offset = header.next_offset
        assert seen == self.batches
        if self.batches:
            wanted = self.rng.choice(self.batches)
            found = log.read(max(wanted[0], self.start), 1, self.end, min_one_batch=True)
            assert found is not None
            assert found.read()[16:] == wanted[3]
            upper = self.rng.choice(self.batches)[0]
            below = [batch for batch in self.batches if batch[1] < upper]
            found = log.read(self.start, 1 << 20, upper, min_one_batch=True) if self.start <= upper else None
            assert (found is not None) == bool(below)
        assert log.verify() == []
        assert log.size_bytes == sum(log.disk.open(segment.path).size() for segment in log.segments)


@pytest.mark.parametrize("seed", range(60))
def test_random_operations_on_real_files(tmp_path: Path, seed: int) -> None:
    model = Model(LocalDisk(tmp_path), random.Random(seed))
    for _ in range(60):
        model.step()
        model.check()


@pytest.mark.parametrize("seed", range(150))
def test_what_was_synced_survives_a_power_failure(seed: int) -> None:
    rng = random.Random(seed)
    disk = SimDisk()
    model = Model(disk, rng)
    for _ in range(4):
        for _ in range(rng.randint(1, 25)):
            model.step()
        synced, start, batches = model.log.synced_end, model.start, list(model.batches)
        disk = disk.crash(rng, torn=rng.random() < 0.5)
        model.disk = disk
        model.log = model.open(clean=False, recovery_point=rng.choice([0, synced]))
        end = model.log.end_offset
        assert end >= synced
        assert model.log.start_offset == start
        assert not model.log.recovery.lost_synced
        model.batches = [batch for batch in batches if batch[1] < end]
        model.empty_end = end
        model.check()


def test_a_full_disk_at_any_moment_loses_nothing() -> None:
    for seed in range(80):
        rng = random.Random(seed)
        disk = SimDisk(capacity=rng.randint(3000, 12000))
        model = Model(disk, rng)
        model.log.sync()
        for _ in range(40):
            try:
                model.append()
            except KafkaError:
                assert not model.log.failed
                if rng.random() < 0.3:
                    disk.capacity += 2000
            model.check()
