"""No acknowledged record is lost to a power failure, and the checker would notice.

`STRANDLINE_SEEDS` says how many seeds to try (20,000 take some minutes), `STRANDLINE_FIRST_SEED` where to begin. A
failure names its seed: `python -m tests.crash.power_loss SEED` repeats it.

The second half breaks the log on purpose, one promise at a time, and demands that the checker finds it.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from unittest import mock

import pytest
from tests.crash.log_model import Violation
from tests.crash.power_loss import run_seed

from strandline_broker.log import manager as manager_module
from strandline_broker.log import producers, recovery
from strandline_broker.log.checkpoints import read_offsets
from strandline_broker.log.log import Log
from strandline_broker.log.manager import LogManager
from strandline_broker.log.producer_state import ProducerState
from strandline_broker.log.scan import iter_headers
from strandline_broker.log.segment import Segment
from strandline_broker.log.sync_work import SyncWork
from strandline_broker.seams.sim_disk import SimDisk

SEEDS = int(os.environ.get("STRANDLINE_SEEDS", "300"))
FIRST_SEED = int(os.environ.get("STRANDLINE_FIRST_SEED", "0"))
SEEDS_PER_TEST = 50
SEEDS_PER_MUTANT = 400


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Recovery explains itself in the log, thousands of times here."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEEDS, SEEDS_PER_TEST))
def test_nothing_acknowledged_is_lost(first: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first, min(first + SEEDS_PER_TEST, FIRST_SEED + SEEDS)):
        counts.update(run_seed(seed).counts)
    for what in (
        "append",
        "flush",
        "power",
        "crash",
        "killed",
        "stop",
        "sick",
        "failsync",
        "truncate",
        "delete",
    ):
        assert counts[what] > 0, f"no seed came to {what}"


def _found(mutant: ExitStack) -> bool:
    with mutant:
        for seed in range(SEEDS_PER_MUTANT):
            try:
                run_seed(seed)
            except Violation:
                return True
    return False


def _break(owner: object, name: str, replacement: object) -> ExitStack:
    stack = ExitStack()
    stack.enter_context(mock.patch.object(owner, name, replacement))
    return stack


def _nothing(*_: object, **__: object) -> None:
    return None


def _sync_without(part: str) -> ExitStack:
    run = SyncWork.run

    def broken(work: SyncWork) -> None:
        setattr(work, part, [])
        run(work)

    return _break(SyncWork, "run", broken)


def _forget_new_names() -> ExitStack:
    """The flusher syncs files, but not the directories that name them."""
    return _sync_without("directories")


def _forget_files() -> ExitStack:
    """The flusher acknowledges without fdatasync."""
    return _sync_without("files")


def _forget_epochs() -> ExitStack:
    """The flusher does not write leader epochs."""
    return _sync_without("small_files")


def _acknowledge_what_is_written() -> ExitStack:
    """What was appended while a sync ran counts as synced, too."""
    finish = Log.finish_sync

    def broken(log: Log, work: SyncWork) -> bool:
        work.end_offset = log.end_offset
        return finish(log, work)

    return _break(Log, "finish_sync", broken)


def _trust_failed_syncs() -> ExitStack:
    """A failed fdatasync is ignored: the next one will do."""
    finish = Log.finish_sync

    def broken(log: Log, work: SyncWork) -> bool:
        work.error = None
        return finish(log, work)

    return _break(Log, "finish_sync", broken)


def _skip_checksums() -> ExitStack:
    """Recovery looks at headers only."""
    return _break(recovery, "iter_verified", iter_headers)


def _trust_the_page_cache() -> ExitStack:
    """Recovery claims what it finds to be durable without a sync."""
    return _break(recovery._Loader, "_sync", _nothing)


def _overlook_gaps() -> ExitStack:
    """Recovery goes on behind a lost end of a segment."""
    return _break(recovery._Loader, "_continues", lambda *_: True)


def _keep_the_clean_mark() -> ExitStack:
    """The mark of a clean stop survives the next start."""

    def broken(manager: LogManager) -> bool:
        return manager._disk.exists(manager._path(manager_module.CLEAN_SHUTDOWN))

    return _break(LogManager, "_take_clean_mark", broken)


def _mark_before_closing() -> ExitStack:
    """The stop is marked as clean although nothing was synced."""
    return _break(Log, "sync", _nothing)


def _record_unsynced_points() -> ExitStack:
    """Recovery points are the log ends, synced or not."""
    init = manager_module.Checkpoint.__init__

    def broken(checkpoint: manager_module.Checkpoint, manager: LogManager, marks: object = None) -> None:
        init(checkpoint, manager, marks)  # type: ignore[arg-type]
        checkpoint._recovery_points = {key: log.end_offset for key, log in manager.logs.items()}

    return _break(manager_module.Checkpoint, "__init__", broken)


def _write_start_carelessly() -> ExitStack:
    """The log start is written in place, without a sync."""

    def broken(disk: SimDisk, path: str, data: bytes) -> None:
        file = disk.open(path, create=True)
        file.truncate(0)
        file.append([data])

    return _break(SimDisk, "write_atomic", broken)


def _forget_to_truncate_failed_appends() -> ExitStack:
    """A failed append leaves its first part in the file."""
    return _break(Segment, "_restore", _nothing)


def _keep_producers_of_failed_appends() -> ExitStack:
    """A failed append counts for its producer."""
    return _break(ProducerState, "undo", _nothing)


def _forget_producers() -> ExitStack:
    """Recovery does not replay what no snapshot covers."""
    return _break(producers, "replay", _nothing)


def _inherit_checkpoints() -> ExitStack:
    """A new topic finds the offsets of a deleted one of its name."""
    stack = _break(LogManager, "_forget", _nothing)
    read = read_offsets
    stack.enter_context(
        mock.patch.object(
            LogManager, "_read_offsets", lambda self, name, _: read(self._disk, self._path(name))
        )
    )
    return stack


@pytest.mark.parametrize(
    "mutant",
    [
        _forget_new_names,
        _forget_files,
        _forget_epochs,
        _acknowledge_what_is_written,
        _trust_failed_syncs,
        _skip_checksums,
        _trust_the_page_cache,
        _overlook_gaps,
        _keep_the_clean_mark,
        _mark_before_closing,
        _record_unsynced_points,
        _write_start_carelessly,
        _forget_to_truncate_failed_appends,
        _keep_producers_of_failed_appends,
        _forget_producers,
        _inherit_checkpoints,
    ],
)
def test_a_broken_log_is_found_out(mutant: Callable[[], ExitStack]) -> None:
    assert _found(mutant()), f"{SEEDS_PER_MUTANT} seeds did not notice: {mutant.__doc__}"
