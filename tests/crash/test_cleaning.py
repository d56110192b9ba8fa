"""Power failures at every step of a cleaning: nothing of use is lost, nothing deleted comes back.

A log is filled on a simulated disk and cleaned; the machine stops before each single operation of that, in several
ways of what the disk keeps. After each the log is opened again and compared with what was written.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from uuid import UUID

import pytest
from tests.unit.log.cleaner_support import Held, contents, keyed, latest_of, prepare, random_pairs
from tests.unit.log.support import NOW_MS

from strandline_broker.log.checkpoints import CLEANER_OFFSETS, read_offsets
from strandline_broker.log.cleaner_swap import run_here
from strandline_broker.log.config import LogConfig
from strandline_broker.log.log import Log
from strandline_broker.log.manager import LogManager
from strandline_broker.seams.clock import ManualClock
from strandline_broker.seams.sim_disk import PowerLoss, SimDisk
from strandline_broker.wire.batch import Compression

KEY = ("t", 0)
TOPIC_ID = UUID(int=7)
CONFIG = LogConfig(
    cleanup_policy=frozenset({"compact"}),
    segment_bytes=1200,
    index_interval_bytes=200,
    delete_retention_ms=1000,
)
RETENTION_OVER_MS = NOW_MS + 10_000


class World:
    """A log's disk, what was ever written to the log, and the tombstones that were seen to be gone."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.disk = SimDisk()
        self.written: list[Held] = []
        self.logs = self.open()
        self.sequence = 0

    def open(self) -> LogManager:
        """Start a broker's log manager on the disk."""
        logs = LogManager(self.disk, ManualClock(wall_ms=NOW_MS))
        logs.open(lambda _: CONFIG)
        logs.open_or_create(*KEY, TOPIC_ID, CONFIG)
        return logs

    @property
    def log(self) -> Log:
        """The log."""
        log = self.logs.get(*KEY)
        assert log is not None
        return log

    def fill(self, batches: int, keys: int = 9, *, roll: bool = False) -> None:
        """Append, durably; two producers, one of them seldom."""
        for number in range(batches):
            pairs = random_pairs(self.rng, self.rng.choice((1, 2, 5)), keys)
            producer = None
            if number % 3:
                producer = (11, 0, self.sequence)
                self.sequence += len(pairs)
            elif number == 0:
                producer = (12 + self.log.end_offset, 0, 0)
            codec = self.rng.choice((Compression.NONE, Compression.NONE, Compression.LZ4))
            self.log.stage(memoryview(keyed(pairs, producer=producer, compression=codec)), 1, NOW_MS)
            self.log.commit()
            if roll and number % 2:
                self.log.roll(NOW_MS)
        self.log.sync()
        self.logs.checkpoint({KEY: self.log.end_offset}).write()
        # What a cleaning removed is not known here: only ever compared with all that was written.
        known = {record.offset: record for record in (*self.written, *contents(self.log))}
        self.written = [known[offset] for offset in sorted(known)]

    def clean(self, now_ms: int) -> None:
        """Clean as the cleaner does, with its checkpoint."""
        log = self.log
        outcome = run_here(prepare(log, cleaned=self.logs.cleaned.get(KEY), now_ms=now_ms))
        self.logs.note_cleaned(KEY, log, outcome.end_offset, log.sync_round)

    def check(self) -> None:
        """Compare the log with what was written."""
        log = self.log
        held = contents(log)
        known = {record.offset: record for record in self.written}
        assert log.end_offset == self.written[-1].offset + 1
        assert [record.offset for record in held] == sorted({record.offset for record in held})
        assert all(known.get(record.offset) == record for record in held)
        last = latest_of(self.written)
        found = latest_of(held)
        for key, record in last.items():
            if record.value is not None:
                assert found.get(key) == record, f"the latest value of {key!r} is lost"
            else:
                assert key not in found or found[key] == record, f"{key!r} was deleted and is back"
        assert log.verify() == []
        for segment, following in zip(log.segments, log.segments[1:], strict=False):
            *_, (_, last_header) = segment.headers()
            assert last_header.next_offset == following.base_offset, "no gap between segments"
        names = self.disk.listdir("t-0")
        assert not [name for name in names if name.endswith((".swap", ".cleaned", ".deleted"))], names
        cleaned = read_offsets(self.disk, CLEANER_OFFSETS).get(KEY, 0)
        below = [record for record in held if record.offset < cleaned]
        assert len(below) == len({record.key for record in below}), "what the checkpoint says is clean"
        # The sequences of the producers were kept.
        entry = log.producers.get(11)
        assert entry is not None
        assert entry.last_sequence == self.sequence - 1


def _one_cleaning(world: World) -> None:
    world.fill(25)


def _with_earlier_cleanings(world: World) -> None:
    """Tombstones with a delete horizon that has passed, and new values above them."""
    world.fill(25)
    world.clean(NOW_MS)
    world.fill(12)


def _small_segments(world: World) -> None:
    """Every replacement takes the place of several segments."""
    world.fill(20, roll=True)


def _stop_at(step: int) -> Callable[[int, str, str], None]:
    def hook(count: int, name: str, path: str) -> None:
        if count >= step:
            raise PowerLoss(f"at step {count}, {name} {path}")

    return hook


def _steps(make: Callable[[World], None], seed: int) -> int:
    world = World(seed)
    make(world)
    before = world.disk.operations
    world.clean(RETENTION_OVER_MS)
    return world.disk.operations - before


@pytest.mark.parametrize("make", [_one_cleaning, _with_earlier_cleanings, _small_segments])
def test_power_failure_at_every_step(make: Callable[[World], None]) -> None:
    seed = 3
    steps = _steps(make, seed)
    assert steps > 60
    completed = 0
    for step in range(1, steps + 1):
        for way in range(3):
            world = World(seed)
            make(world)
            world.disk.on_operation = _stop_at(world.disk.operations + step)
            with pytest.raises(PowerLoss):
                world.clean(RETENTION_OVER_MS)
            rng = random.Random(step * 10 + way)
            world.disk = world.disk.kill() if way == 0 else world.disk.crash(rng, torn=way > 1)
            world.logs = world.open()
            world.check()
            completed += len(contents(world.log)) < len(world.written)
            if way == 1:
                # Life goes on: another cleaning, new records, another start.
                world.clean(RETENTION_OVER_MS)
                world.check()
                world.fill(3)
                world.check()
                assert world.logs.close()
                world.logs = world.open()
                assert world.log.recovery.clean
                world.check()
    assert completed > steps // 4, "crashes late enough find replaced segments"


def _with_a_decided_swap(seed: int, nth: int) -> World:
    """Return a world whose machine stopped when the `nth` replacement was decided, and the old segments were there."""
    world = World(seed)
    _small_segments(world)
    seen = 0

    def hook(count: int, name: str, path: str) -> None:
        nonlocal seen
        seen += name == "sync_dir"
        if seen == 2 * nth - 1 and name != "sync_dir":
            raise PowerLoss("the directory with the new names is synced")

    cleaning = prepare(world.log, now_ms=RETENTION_OVER_MS)
    world.disk.on_operation = hook
    with pytest.raises(PowerLoss):
        run_here(cleaning)
    world.disk = world.disk.crash(random.Random(seed))
    return world


@pytest.mark.parametrize("seed", range(4))
def test_power_failure_at_every_step_of_completing_a_swap(seed: int) -> None:
    completed = 0
    for way in range(6):
        step, done = 0, False
        while not done:
            step += 1
            world = _with_a_decided_swap(seed, 1 + way % 2)
            world.disk.on_operation = _stop_at(step)
            try:
                world.logs = world.open()
                done = True
            except PowerLoss:
                completed += 1
            world.disk = world.disk.crash(random.Random(way), torn=way > 1)
            world.logs = world.open()
            world.check()
    assert completed > 6 * 10


@pytest.mark.parametrize("seed", range(6))
def test_what_recovery_may_cut_is_never_what_was_cleaned(seed: int) -> None:
    """Unsynced appends, truncations and cleanings in turn, with a power failure somewhere."""
    rng = random.Random(seed)
    for _ in range(12):
        world = World(seed)
        _with_earlier_cleanings(world)
        world.disk.on_operation = _stop_at(world.disk.operations + rng.randint(20, 200))
        end = world.log.end_offset
        try:
            for _ in range(4):
                world.log.append_follower(
                    memoryview(keyed([(b"key-1", b"new")], base_offset=world.log.end_offset, epoch=1))
                )
                cleaning = prepare(world.log, now_ms=RETENTION_OVER_MS)
                run_here(cleaning)
                world.log.truncate_to(end)
        except PowerLoss:
            pass
        world.disk = world.disk.crash(rng, torn=True)
        world.logs = world.open()
        if world.log.end_offset > end:
            world.log.truncate_to(end)
        world.check()
