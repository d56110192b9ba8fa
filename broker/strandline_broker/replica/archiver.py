"""The tiering of one partition that is led here, in one epoch: carries the protocol's effects out, and tells it what came.

`strandline_tiered.protocol` decides everything (design section 7.3); this is its hands: the bucket, the local log, time.
The protocol is told of one thing after the other, on the loop's thread, and what it asks for runs as tasks. After a failure
the answer is held back for a while, with jitter, so that a bucket that is away is not asked in a loop; nothing else waits.

    roles changed ──▶ Archiver(...).begin() ──▶ hear(event) ⇄ tasks ──▶ close(): the epoch ended here

Who uses it: `server.tiering`, which makes one for each epoch of each led partition that is tiered. Bounds: at most
`max_uploads` uploads and one task for each other kind of effect.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from strandline_broker.cluster.backoff import Backoff
from strandline_broker.errors import KafkaError
from strandline_broker.replica.recovery import Recovery
from strandline_broker.replica.remote import RemoteError
from strandline_broker.replica.tier import Renewal
from strandline_tiered.epochs import history_of
from strandline_tiered.keys import ClaimName, ManifestName
from strandline_tiered.leadership import Context, LocalLog, Phase
from strandline_tiered.manifest import Entry
from strandline_tiered.protocol import begin, may_append, step
from strandline_tiered.protocol_messages import (
    Deleted,
    Event,
    Failed,
    Listed,
    LogChanged,
    PageNeeded,
    RaiseLogStart,
    Release,
    Report,
    ResetLocalLog,
    ScrubDue,
    SealedSegment,
    SegmentUploaded,
    Upload,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Coroutine
    from typing import Any

    from strandline_broker.replica.bucket_log import BucketLog, BucketReader
    from strandline_broker.replica.partition import Partition
    from strandline_broker.seams.clock import Clock
    from strandline_tiered.effects import BucketEffects
    from strandline_tiered.keys import PartitionKeys
    from strandline_tiered.leadership import Leadership
    from strandline_tiered.manifest import Manifest
    from strandline_tiered.protocol_messages import Effect

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.2
LONGEST_RETRY_S = 30.0
_SAID_AGAIN = (LogChanged, RaiseLogStart, PageNeeded, ScrubDue)
"""Events that may be left out: they come again, or are looked for."""


class Uploader(Protocol):
    """Puts segments into the bucket; shared by all archivers of a broker."""

    async def upload(self, partition: Partition, keys: PartitionKeys, effect: Upload) -> Entry:
        """Upload a sealed segment under a new name; return its entry. Raises RemoteError, KafkaError."""
        ...


class Archiver:
    """See the module. `state` is the protocol's, for reports."""

    def __init__(
        self,
        partition: Partition,
        keys: PartitionKeys,
        *,
        bucket: BucketEffects,
        uploader: Uploader,
        reader: BucketReader,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        may_write: bool,
        max_uploads: int,
        wants_epoch: bool = False,
    ) -> None:
        """`wants_epoch`: nobody else will give this leader an epoch in which it may write: it has to ask itself."""
        assert partition.tier is not None, "only tiered partitions are archived"
        self.partition = partition
        self.leader_epoch = partition.leader_epoch
        self.keys = keys
        self._tier = partition.tier
        self._bucket = bucket
        self._uploader = uploader
        self._reader = reader
        self._leadership = partition.leadership
        self._remote: BucketLog | None = None
        self._clock = clock
        self._loop = loop
        self._rng = rng
        self._may_write = may_write
        self._max_uploads = max_uploads
        self._wants_epoch = wants_epoch
        # In the order of their beginning, in which they are ended.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._backoffs: dict[type[Effect], Backoff] = {}
        # Heard while the local log is being replaced: the protocol must not look at it before.
        self._held_back: list[Event] | None = None
        self._seen: tuple[int, int, bool] = (-1, -1, False)
        self._closed = False
        self.state: Leadership
        self.problem = ""
        """Why the local log is not replaced yet."""
        self.failures = 0
        """Effects that failed, for metrics."""

    def is_of(self, partition: Partition) -> bool:
        """Whether this is the archiver of what a partition leads now: of this epoch, and without a break in between."""
        return partition is self.partition and partition.leadership is self._leadership

    @property
    def copies(self) -> bool:
        """Whether new segments go to the bucket: neither the topic's configuration nor its log stands against it."""
        log = self.partition.log
        return (
            self._may_write and log.config.tierable and not (log.config.remote_log_copy_disable or log.failed)
        )

    def begin(self) -> None:
        """Claim the epoch, also where it was resumed, and look what there is."""
        assert self.keys.partition == self.partition.index, "these are its keys"
        self.state, effects = begin(
            self.keys.topic_id,
            self.keys.partition,
            self.leader_epoch,
            may_write=self._may_write,
            recovering=self.partition.recovery is Recovery.LOG,
        )
        self._tier.on_wanted = self._raise_log_start
        self._carry_out(effects)

    async def close(self) -> None:
        """Do nothing more in this epoch; what was sent may still land."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what happens --------------------------------------------------------------------------------------------------

    def look_at_log(self) -> None:
        """Take note of what the local log has become; cheap, to be called again and again."""
        log = self.partition.log
        base = log.active.base_offset
        seen = (base, min(self.partition.high_watermark, base), self.copies)
        if seen != self._seen and not log.failed:
            self._seen = seen
            self.hear(LogChanged())

    def scrub(self) -> None:
        """Look for objects in the bucket that nothing needs."""
        self.hear(ScrubDue())

    def _raise_log_start(self) -> None:
        self.hear(RaiseLogStart(self._tier.wanted_log_start))

    def hear(self, event: Event) -> None:
        """Take the protocol's next step."""
        if self._is_over:
            return
        if self._held_back is not None:
            if not isinstance(event, _SAID_AGAIN):
                self._held_back.append(event)
            return
        was_ready = self.state.phase is Phase.READY
        before = self.state.published
        self.state, effects = step(self.state, event, self._context())
        if self.state.phase is Phase.READY and (not was_ready or self.state.published is not before):
            assert self.state.published is not None
            self._read_by(self.state.published)
        self._carry_out(effects)
        self._ask_for_epoch(event)
        if self._replaces_log:
            return
        if not was_ready and self.state.phase is Phase.READY and self._tier.wanted_log_start:
            self._raise_log_start()
        if self.partition.recovery is Recovery.LOG and may_append(self.state):
            logger.info("%r: its log, which ends at %d, is in line with the bucket", self.partition,
                        self.partition.log.end_offset)  # fmt: skip
            self.partition.recovered()

    def _ask_for_epoch(self, event: Event) -> None:
        """Ask for a higher epoch where this one can write nothing more although the store may still give it to this leader.

        Where another was elected, the store refuses. Where it was not, it is a store that was put back: the bucket has been
        written in epochs that it does not know.
        """
        if self.state.phase is Phase.SUPERSEDED and isinstance(event, Listed):
            epochs = [name.leader_epoch for name in event.names if isinstance(name, ClaimName | ManifestName)]
            self._tier.renewal = Renewal(max(epochs), recovering=True)
            logger.warning("%r: the bucket was written in epoch %d", self.partition, max(epochs))
        elif self._wants_epoch and self.state.phase is Phase.READY:
            # As soon as the bucket answers: until then another epoch were of no use.
            self._tier.renewal = Renewal(self.leader_epoch, recovering=False)

    @property
    def _replaces_log(self) -> bool:
        return self._held_back is not None

    @property
    def _is_over(self) -> bool:
        """Whether this epoch has ended here, or the archiver was closed."""
        return self._closed or not self.is_of(self.partition)

    def _read_by(self, manifest: Manifest) -> None:
        if self._remote is None:
            self._tier.remote = self._remote = self._reader.log_of(self.keys, manifest)
        else:
            self._remote.manifest = manifest

    def _context(self) -> Context:
        partition, log = self.partition, self.partition.log
        draft = self.state.draft
        segments = log.segments
        first = log.segment_of(draft.upload_from) if draft is not None else 0
        sealed = tuple(
            SealedSegment(segments[number].base_offset, segments[number + 1].base_offset)
            for number in range(first, min(first + self._max_uploads + 1, len(segments) - 1))
            if segments[number].size
        )
        local = LocalLog(
            log_start=partition.log_start_offset,
            start_offset=log.start_offset,
            end_offset=log.end_offset,
            high_watermark=partition.high_watermark,
            last_stable_offset=partition.last_stable_offset,
            epochs=history_of(log.epochs.entries),
            sealed=sealed,
        )
        return Context(local, self._clock.now_ms(), self._max_uploads if self.copies else 0)

    # -- what is asked for ---------------------------------------------------------------------------------------------

    def _carry_out(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Release():
                    self._release(effect)
                case Report(problem):
                    logger.error("%r: tiering: %s", self.partition, problem)
                case ResetLocalLog():
                    self._held_back = []
                    self._spawn(self._reset(effect))
                case Upload():
                    self._spawn(self._upload(effect))
                case _:
                    self._spawn(self._ask_bucket(effect))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and task.exception() is not None:
            logger.critical("%r: tiering died", self.partition, exc_info=task.exception())

    def _release(self, release: Release) -> None:
        """Let this broker and its followers delete what is in the bucket for good."""
        confirmed = self.state.confirmed
        assert confirmed is not None, "released is what was confirmed"
        last = confirmed.parts[-1] if confirmed.parts else None
        segment_key = last.key(self.keys) if isinstance(last, Entry) else ""
        try:
            self.partition.raise_log_start(release.log_start)
        except KafkaError as error:
            logger.error("%r: its log start stays: %s", self.partition, error)
        self._tier.authorise(release.tiered_through, segment_key)

    async def _ask_bucket(self, effect: Any) -> None:
        event = await self._bucket.carry_out(effect)
        if isinstance(event, Deleted):
            for name in event.names:
                self._reader.segments.forget(self.keys.key(name))
        await self._answer(effect, event, self._bucket.last_failure)

    async def _upload(self, effect: Upload) -> None:
        event: Event
        failure: Exception | None = None
        try:
            event = SegmentUploaded(await self._uploader.upload(self.partition, self.keys, effect))
        except (RemoteError, KafkaError) as error:
            event, failure = Failed(effect), error
        await self._answer(effect, event, failure)

    async def _answer(self, effect: Effect, event: Event, failure: Exception | None) -> None:
        backoff = self._backoffs.get(type(effect))
        if isinstance(event, Failed):
            self.failures += 1
            if backoff is None:
                backoff = self._backoffs[type(effect)] = Backoff(
                    self._rng, first_s=FIRST_RETRY_S, cap_s=LONGEST_RETRY_S
                )
                logger.warning("%r: %s failed: %s", self.partition, type(effect).__name__, failure)
            await asyncio.sleep(backoff.next_s())
        elif backoff is not None:
            del self._backoffs[type(effect)]
        self.hear(event)

    async def _reset(self, effect: ResetLocalLog) -> None:
        """Replace the local log, which an unclean election left behind the bucket, and only then go on."""
        backoff = Backoff(self._rng, first_s=FIRST_RETRY_S, cap_s=LONGEST_RETRY_S)
        while True:
            try:
                tail = await self._reader.state_at(self.keys, effect.last, effect.epochs)
                if self._is_over:
                    return
                self._tier.raise_log_start(effect.log_start)
                self.partition.start_over(effect.start_offset, tail)
                break
            except (RemoteError, KafkaError) as error:
                self.problem = f"the local log is not replaced yet: {error}"
                logger.warning("%r: %s", self.partition, self.problem)
            await asyncio.sleep(backoff.next_s())
        self.problem = ""
        held_back, self._held_back = self._held_back or [], None
        for event in held_back:
            self.hear(event)
        self.hear(LogChanged())
        if self._tier.wanted_log_start:
            self._raise_log_start()
