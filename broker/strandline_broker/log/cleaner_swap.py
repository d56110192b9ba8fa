"""One cleaning of one log, from what is captured of it to new segments in the place of old ones.

Who uses it: `cleaner` runs a `Cleaning`; `Log`, `truncation` and `retention` look at `Log.cleaning`;
`recovery` calls `complete_swaps`.

`Cleaning.steps` runs on the event loop's thread and yields what is to be done elsewhere (reading and writing
records, syncing, removing files), so everything that touches the log happens on one thread, between two
yields, in a few renames. Names of one replacement, with what a crash after each line leads to:

    | where  | what                                              | after a crash                        |
    |--------|---------------------------------------------------|--------------------------------------|
    | worker | `X.log.cleaned` and indexes written and synced    | undone: `.cleaned` is removed        |
    | loop   | renamed to `.swap`, the log file last             | either way                           |
    | worker | directory synced                                  | done: `.swap` takes the place of all |
    | loop   | taken into the log; old files renamed `.deleted`  | segments that start below its end    |
    | worker | directory synced, `.deleted` removed              | done                                 |
    | loop   | `.swap` dropped from the names                    | done                                 |

A replacement ends exactly where its last source ended (its last batch stays, if need be empty), so the files
alone say what it replaces, and recovery finds no gap between segments.

Readers: a response that sends from an old file keeps it open. A truncation, a reset, the end of the log and
the end of the broker abort a cleaning: what was taken in stays, the rest never comes. Retention waits for
the end of a cleaning, as Kafka's does.

Source: Kafka `LocalLog.replaceSegments`, `LogLoader.load`, `Cleaner.doClean`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from strandline_broker.log.cleaner_plan import Group, group_sources
from strandline_broker.log.cleaner_work import Cleaned, CleaningAborted, Job, Mapped, Worker
from strandline_broker.log.names import CLEANED_SUFFIX, SWAP_SUFFIX
from strandline_broker.log.segment import Segment

if TYPE_CHECKING:
    from strandline_broker.log.log import Log

logger = logging.getLogger(__name__)

Work = Callable[[], Any]
Steps = Generator[Work, Any, "Outcome"]


@dataclass(slots=True)
class Outcome:
    """What a cleaning did. Everything below `end_offset` is clean now."""

    end_offset: int
    map_full: bool = False
    keys: int = 0
    map_bytes_read: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_freed: int = 0
    records_read: int = 0
    records_kept: int = 0
    records_without_key: int = 0
    segments_before: int = 0
    segments_after: int = 0

    def add(self, group: Group, cleaned: Cleaned) -> None:
        """Count a group."""
        self.bytes_read += cleaned.bytes_read
        self.records_read += cleaned.records_read
        self.records_kept += cleaned.records_kept
        self.records_without_key += cleaned.records_without_key
        self.segments_before += len(group.sources)
        if cleaned.changed:
            self.segments_after += 1
            self.bytes_written += cleaned.size
            self.bytes_freed += sum(source.size for source in group.sources) - cleaned.size
        else:
            self.segments_after += len(group.sources)


@dataclass(slots=True, eq=False)
class Cleaning:
    """A cleaning under way; `Log.cleaning` is set while it runs."""

    log: Log
    job: Job
    worker: Worker
    aborted: bool = False
    _pending: Segment | None = field(default=None, init=False)
    """The segment whose `.swap` names may be durable although the log does not use it yet."""

    def abort(self) -> None:
        """Give up: from now on this cleaning changes nothing of the log. The loop's thread, or one that owns the log."""
        self.aborted = True
        self.worker.cancel()

    def abort_for_change(self) -> None:
        """Give up before the log's old content is changed: no crash may complete a swap afterwards.

        The change itself syncs the directory. Raises DiskError.
        """
        self.abort()
        if self._pending is not None:
            self._withdraw()

    def _withdraw(self) -> None:
        """Remove a replacement that is not taken in, the log file first: without it the others mean nothing."""
        segment, self._pending = self._pending, None
        assert segment is not None
        self.log.dirty_directories.add(self.log.directory)
        for path in reversed(segment.paths()):
            self.log.disk.remove(path)

    def _check(self) -> None:
        if self.aborted or self.log.failed:
            raise CleaningAborted

    def steps(self) -> Steps:
        """Clean; see the module. Raises CleaningAborted, and what the work raises."""
        log = self.log
        assert log.cleaning is None, "one cleaning at a time"
        log.cleaning = self
        try:
            mapped: Mapped = yield lambda: self.worker.build(self.job)
            outcome = Outcome(mapped.end_offset, mapped.full, mapped.keys, mapped.bytes_read)
            for group in group_sources(self.job.sources, mapped.end_offset, log.config):
                self._check()
                cleaned: Cleaned = yield _call(self.worker.write, group)
                outcome.add(group, cleaned)
                if cleaned.changed:
                    yield from self._swap(group, cleaned)
            self._check()
            return outcome
        except Exception as error:
            if self.aborted:
                # Whatever the work stumbled over: what it read was being changed.
                raise CleaningAborted from error
            raise
        finally:
            log.cleaning = None
            if self._pending is not None and not log.failed:
                # Aborted although the log goes on: what changes it from now on asks nobody.
                try:
                    self._withdraw()
                except OSError as error:
                    log.fail(f"a replacement of segments cannot be withdrawn: {error}")

    def _swap(self, group: Group, cleaned: Cleaned) -> Steps:
        log = self.log
        old = [
            segment
            for segment in log.segments
            if group.base_offset <= segment.base_offset < group.next_offset
        ]
        new = Segment(
            log.files, log.directory, group.base_offset, log.config, log.now_ms, suffix=CLEANED_SUFFIX
        )
        new.size = cleaned.size
        new.next_offset = group.next_offset
        if self.aborted or log.failed or [segment.path for segment in old] != [s.path for s in group.sources]:
            yield lambda: _remove_all(log, new.paths())
            raise CleaningAborted
        new.created_ms = old[-1].created_ms
        self._pending = new
        try:
            new.change_suffix(SWAP_SUFFIX)
            yield lambda: log.disk.sync_dir(log.directory)
            # Aborted by the end of the log: the next opening completes what is durable. Otherwise it is withdrawn.
            self._check()
            self._pending = None
            index = log.segments.index(old[0])
            log.set_segments([*log.segments[:index], new, *log.segments[index + len(old) :]])
            doomed: list[str] = []
            for segment in old:
                doomed.extend(segment.retire())
            yield lambda: _sync_and_remove(log, doomed)
            # It may have gone meanwhile, by truncation or with the log.
            if new in log.segments and not log.failed:
                new.change_suffix("")
                log.dirty_directories.add(log.directory)
        except OSError as error:
            # Nobody knows which names are on the disk: recovery finds out, and completes or undoes.
            if not log.failed:
                log.fail(f"replacing segments failed: {error}")
            raise
        return Outcome(0)


def _call(function: Callable[[Group], Cleaned], group: Group) -> Work:
    return lambda: function(group)


def _sync_and_remove(log: Log, doomed: list[str]) -> None:
    log.disk.sync_dir(log.directory)
    _remove_all(log, doomed)


def _remove_all(log: Log, paths: list[str]) -> None:
    for path in paths:
        try:
            log.disk.remove(path)
        except OSError as error:
            logger.warning("%s stays until the next start: %s", path, error)


def run_here(cleaning: Cleaning) -> Outcome:
    """Run a cleaning to its end on this thread (tests, benchmarks)."""
    steps = cleaning.steps()
    try:
        work = next(steps)
        while True:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 # handed to whom it concerns, a power loss too
                work = steps.throw(error)
            else:
                work = steps.send(result)
    except StopIteration as end:
        return cast("Outcome", end.value)
