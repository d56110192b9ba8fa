"""What one flush of one log has to make durable, captured on the loop's thread and done on another.

Who uses it: `Log.begin_sync` makes it, the flusher runs it, `Log.finish_sync` draws the conclusion. Running
it touches nothing of the log itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from strandline_broker.log.checkpoints import encode_epochs
from strandline_broker.log.names import LEADER_EPOCH_CHECKPOINT

if TYPE_CHECKING:
    from strandline_broker.log.log import Log
    from strandline_broker.seams.disk import Disk, File


class SyncWork:
    """Files and directories to sync, small files to replace, and the log end that is durable afterwards."""

    __slots__ = ("directories", "disk", "end_offset", "error", "files", "log", "round", "small_files")

    def __init__(
        self,
        log: Log,
        disk: Disk,
        files: list[File],
        small_files: Sequence[tuple[str, bytes]],
        directories: list[str],
        end_offset: int,
        sync_round: int,
    ) -> None:
        self.log = log
        self.disk = disk
        self.files = files
        self.small_files = small_files
        self.directories = directories
        self.end_offset = end_offset
        self.round = sync_round
        self.error: OSError | None = None

    def run(self) -> None:
        """Do it; blocks. A failure is kept in `error`, never raised: the log decides what it means."""
        try:
            for file in self.files:
                file.datasync()
            with self.log.small_files_lock:
                # Read only now: an inline sync takes them away, having written newer ones.
                for path, data in self.small_files:
                    if self.log.failed:
                        return  # deleted or moved meanwhile: the path may belong to a new log of that name
                    self.disk.write_atomic(path, data)
            for directory in self.directories:
                self.disk.sync_dir(directory)
        except OSError as error:
            self.error = error


def capture(log: Log) -> SyncWork | None:
    """Take over all that is dirty; see `Log.begin_sync`."""
    if log.failed or not log.wants_sync:
        return None
    files = log.dirty_files
    if log.active_dirty:
        files.append(log.active.hold())
    small_files: list[tuple[str, bytes]] = []
    if log.epochs.dirty:
        small_files.append((f"{log.directory}/{LEADER_EPOCH_CHECKPOINT}", encode_epochs(log.epochs.entries)))
        log.epochs.dirty = False
    directories = sorted(log.dirty_directories)
    log.dirty_files = []
    log.dirty_directories = set()
    log.active_dirty = False
    work = SyncWork(log, log.disk, files, small_files, directories, log.end_offset, log.sync_round)
    log.in_flight.append(work)
    return work


def conclude(log: Log, work: SyncWork) -> bool:
    """Raise the synced end, or fail the log; see `Log.finish_sync`."""
    log.in_flight.remove(work)
    if work.error is not None:
        log.fail(f"sync failed: {work.error}")
        return False
    # A truncation in between made its own sync, and what this one knew is void.
    if work.round == log.sync_round and work.end_offset > log.synced_end:
        log.synced_end = work.end_offset
    return True


def sync_now(log: Log) -> None:
    """Make everything durable on this thread; see `Log.sync`."""
    # What another thread is about to sync may take it longer than this does.
    for earlier in log.in_flight:
        log.dirty_files.extend(earlier.files)
        log.dirty_directories.update(earlier.directories)
        log.epochs.dirty = log.epochs.dirty or bool(earlier.small_files)
        earlier.small_files = ()  # older than what is written here
    work = capture(log)
    if work is not None:
        work.run()
        if not conclude(log, work):
            assert work.error is not None
            raise work.error
