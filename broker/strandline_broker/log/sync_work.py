"""What one flush of one log has to make durable, captured on the loop's thread and done on another.

Who uses it: `Log.begin_sync` makes it, the flusher runs it, `Log.finish_sync` draws the conclusion. Running
it touches nothing of the log itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
