"""The log cleaner of a broker: which log is cleaned when, by whom, and what becomes of failures.

Who uses it: the broker starts `run` and stops it with `stop`; everything here runs on the event loop's
thread, the work of `cleaner_work` in one thread of its own (which, in a broker, only waits for a process).

One log at a time, the dirtiest first, at once while there is one, else again after the backoff. Cleaned up to
where is in `cleaner-offset-checkpoint`, written only when all replacements of a cleaning are durable: a
tombstone must not be forgotten before what it deletes is gone.

| a cleaning ends with | then |
|----------------------|------|
| success | the checkpoint moves, retention takes its turn |
| CleaningAborted | nothing; the log is looked at again |
| a corrupt or malformed batch, or a bug | the log is *uncleanable* until the broker restarts or the log is made anew |
| a failing or full disk | the log is left alone for a while |

Source: Kafka `LogCleaner`, `LogCleanerManager`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from strandline_broker.errors import KafkaError
from strandline_broker.log.cleaner_plan import Candidate, candidate, dirtiest, sources_of
from strandline_broker.log.cleaner_swap import Cleaning, Outcome
from strandline_broker.log.cleaner_work import (
    DEFAULT_DEDUPE_BUFFER_BYTES,
    DEFAULT_IO_BUFFER_BYTES,
    CleaningAborted,
    Job,
    Worker,
)

if TYPE_CHECKING:
    from strandline_broker.log.checkpoints import TopicPartition
    from strandline_broker.log.log import Log
    from strandline_broker.log.manager import LogManager
    from strandline_broker.seams.clock import Clock

logger = logging.getLogger(__name__)

_DISK_RETRY_S = 60.0
# Planning looks at every compacted log; so many at a time, then others get their turn.
_LOGS_PER_SLICE = 100


@dataclass(frozen=True, slots=True)
class CleanerConfig:
    """Settings of a broker's cleaner (Kafka's `log.cleaner.*`)."""

    dedupe_buffer_bytes: int = DEFAULT_DEDUPE_BUFFER_BYTES
    io_buffer_bytes: int = DEFAULT_IO_BUFFER_BYTES
    max_bytes_per_second: int = 0
    backoff_ms: int = 15_000


@dataclass(slots=True)
class CleanerMetrics:
    """Plain counters for metrics."""

    cleanings: int = 0
    aborted: int = 0
    failed: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_freed: int = 0
    records_read: int = 0
    records_removed: int = 0
    records_without_key: int = 0
    cpu_s: float = 0.0
    last_duration_s: float = 0.0
    max_dirty_ratio: float = 0.0
    """Of the dirtiest log when last looked."""


class LogCleaner:
    """See the module."""

    def __init__(
        self,
        logs: LogManager,
        clock: Clock,
        executor: Executor,
        *,
        config: CleanerConfig,
        make_worker: Callable[[], Worker],
        stable_offset_of: Callable[[Log], int],
        high_watermark_of: Callable[[Log], int],
        request_sync: Callable[[Log], None],
    ) -> None:
        """`executor` runs one job at a time; `stable_offset_of` is what every reader may see of a log."""
        self._logs = logs
        self._clock = clock
        self._executor = executor
        self.config = config
        self._make_worker = make_worker
        self._stable_offset_of = stable_offset_of
        self._high_watermark_of = high_watermark_of
        self._request_sync = request_sync
        self.metrics = CleanerMetrics()
        self._uncleanable: dict[Log, str] = {}
        self._retry_at_s: dict[Log, float] = {}
        self._current: Cleaning | None = None
        self._wake = asyncio.Event()
        self._stopping = False

    @property
    def uncleanable(self) -> list[str]:
        """The directories of logs that are not cleaned any more, because cleaning them failed."""
        return sorted(log.directory for log in self._uncleanable if log in self._logs.logs.values())

    # -- the schedule ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Clean whatever is due, until `stop`."""
        while not self._stopping:
            try:
                cleaned = await self.clean_once()
            except Exception:
                # One failed look must not end all later ones.
                logger.exception("the log cleaner failed; it goes on after its backoff")
                cleaned = False
            if not cleaned and not self._stopping:
                await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self.config.backoff_ms / 1000):
                await self._wake.wait()
        except TimeoutError:
            pass

    def stop(self) -> None:
        """End the running cleaning soon, and with it `run`; the caller awaits that."""
        self._stopping = True
        self._wake.set()
        if self._current is not None:
            self._current.abort()

    async def clean_once(self) -> bool:
        """Clean the dirtiest log that is due; return whether one was cleaned."""
        found = await self._look()
        if found is None or self._stopping:
            return False
        key, best = found
        return await self._clean(key, best)

    async def _look(self) -> tuple[TopicPartition, Candidate] | None:
        now_ms = self._clock.now_ms()
        self._forget_absent()
        candidates: dict[Log, tuple[TopicPartition, Candidate]] = {}
        for number, (key, log) in enumerate(list(self._logs.logs.items()), 1):
            if number % _LOGS_PER_SLICE == 0:
                await asyncio.sleep(0)
            if self._may_clean(key, log):
                try:
                    entry = candidate(log, self._logs.cleaned.get(key), self._stable_offset_of(log), now_ms)
                except Exception as error:  # noqa: BLE001 # one bad log must not keep the others from being cleaned
                    self._note_failure(log, error)
                    continue
                candidates[log] = key, entry
        entries = [entry for _, entry in candidates.values()]
        self.metrics.max_dirty_ratio = max((entry.dirty_ratio for entry in entries), default=0.0)
        best = dirtiest(entries)
        # Others had their turn: only what is still so counts.
        if best is None or not self._may_clean(candidates[best.log][0], best.log):
            return None
        return candidates[best.log]

    def _forget_absent(self) -> None:
        open_logs = set(self._logs.logs.values())
        for table in (self._uncleanable, self._retry_at_s):
            for log in table.keys() - open_logs:
                del table[log]

    def _may_clean(self, key: TopicPartition, log: Log) -> bool:
        return (
            log.config.compact
            and not log.failed
            and not log.staged
            and self._logs.logs.get(key) is log
            and log not in self._uncleanable
            and self._retry_at_s.get(log, 0.0) <= self._clock.monotonic()
        )

    # -- one cleaning ----------------------------------------------------------------------------------------

    async def _clean(self, key: TopicPartition, best: Candidate) -> bool:
        log = best.log
        worker = self._make_worker()
        cleaning = Cleaning(log, self._job(best), worker)
        self._current = cleaning
        started = self._clock.monotonic()
        try:
            sync_round = log.sync_round
            outcome = await self._drive(cleaning)
            await self._blocking(lambda: self._logs.note_cleaned(key, log, outcome.end_offset, sync_round))
        except CleaningAborted:
            logger.info("%s: cleaning aborted", log.directory)
            self.metrics.aborted += 1
            return False
        except Exception as error:  # noqa: BLE001 # one bad log must not keep the others from being cleaned
            self._note_failure(log, error)
            return False
        finally:
            self._current = None
            self.metrics.cpu_s += getattr(worker, "cpu_s", 0.0)
            await self._blocking(worker.close)
        self._note_success(best, outcome, self._clock.monotonic() - started)
        self._after(log)
        return outcome.end_offset > best.first_dirty_offset

    def _job(self, best: Candidate) -> Job:
        log = best.log
        config = log.config
        return Job(
            directory=log.directory,
            sources=tuple(sources_of(log, best.upper_offset)),
            first_dirty_offset=best.first_dirty_offset,
            now_ms=self._clock.now_ms(),
            segment_bytes=config.segment_bytes,
            segment_index_bytes=config.segment_index_bytes,
            index_interval_bytes=config.index_interval_bytes,
            delete_retention_ms=config.delete_retention_ms,
            last_batches={
                entry.producer_id: (entry.last_offset, entry.epoch)
                for entry in log.producers
                if entry.last_offset < best.upper_offset
            },
            dedupe_buffer_bytes=self.config.dedupe_buffer_bytes,
            io_buffer_bytes=self.config.io_buffer_bytes,
            max_bytes_per_second=self.config.max_bytes_per_second,
        )

    async def _drive(self, cleaning: Cleaning) -> Outcome:
        """Run the steps of a cleaning: here what touches the log, in the thread what takes long."""
        steps = cleaning.steps()
        try:
            work = next(steps)
            while True:
                try:
                    result = await self._blocking(work)
                except Exception as error:  # noqa: BLE001 # handed to whom it concerns
                    work = steps.throw(error)
                else:
                    work = steps.send(result)
        except StopIteration as end:
            return cast("Outcome", end.value)
        finally:
            steps.close()

    async def _blocking(self, work: Callable[[], object]) -> object:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    # -- afterwards ------------------------------------------------------------------------------------------

    def _note_success(self, best: Candidate, outcome: Outcome, duration_s: float) -> None:
        metrics = self.metrics
        metrics.cleanings += 1
        metrics.bytes_read += outcome.bytes_read + outcome.map_bytes_read
        metrics.bytes_written += outcome.bytes_written
        metrics.bytes_freed += outcome.bytes_freed
        metrics.records_read += outcome.records_read
        metrics.records_removed += outcome.records_read - outcome.records_kept
        metrics.records_without_key += outcome.records_without_key
        metrics.last_duration_s = duration_s
        logger.info(
            "%s: cleaned [%d, %d) with %d keys in %.1f s: %d of %d records stay, %d bytes freed, "
            "%d segments instead of %d%s",
            best.log.directory,
            best.first_dirty_offset,
            outcome.end_offset,
            outcome.keys,
            duration_s,
            outcome.records_kept,
            outcome.records_read,
            outcome.bytes_freed,
            outcome.segments_after,
            outcome.segments_before,
            "; the rest does not fit into log.cleaner.dedupe.buffer.size" if outcome.map_full else "",
        )
        if outcome.records_without_key:
            logger.warning(
                "%s: %d records without a key removed", best.log.directory, outcome.records_without_key
            )

    def _note_failure(self, log: Log, error: Exception) -> None:
        if log.failed:
            # Taken out of service: it is looked at again when it is back.
            logger.warning("%s: cleaning ended: %s", log.directory, error)
            self.metrics.aborted += 1
            return
        self.metrics.failed += 1
        if isinstance(error, OSError):
            logger.warning("%s: cleaning failed, again in %.0f s: %s", log.directory, _DISK_RETRY_S, error)
            self._retry_at_s[log] = self._clock.monotonic() + _DISK_RETRY_S
            return
        logger.error("%s is not cleaned any more: %s", log.directory, error, exc_info=error)
        self._uncleanable[log] = str(error)

    def _after(self, log: Log) -> None:
        """Let retention take its turn, which waited for the cleaning; have new names made durable."""
        if log.failed:
            return
        try:
            log.apply_retention(self._clock.now_ms(), self._high_watermark_of(log))
        except KafkaError as error:
            logger.error("retention of %s: %s", log.directory, error)
        if log.wants_sync and not log.failed:
            self._request_sync(log)
