"""A broker's part in tiered storage: its bucket, one archiver for each partition that it leads, and what they share.

Made by `server.broker` where a bucket is configured. `roles_changed` begins an archiver for each epoch in which a tiered
partition is led here and ends the others; `run` looks after all of them twice a second: new segments, segments to be
sealed by age, retention, scrubs.

An epoch is begun once. Who leads again in the same epoch, after a restart or because its log failed, serves what is in the
bucket and writes nothing: what it sent before may still land there (design sections 3.3 and 7.3). After a restart the
controller gives it another epoch; where only the log failed it asks for one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.identity import IdentityError
from strandline_broker.log.scan import CorruptBatch
from strandline_broker.replica.archiver import Archiver
from strandline_broker.replica.bucket_log import BucketReader
from strandline_broker.replica.remote import RemoteCorrupt, RemoteUnavailable
from strandline_broker.replica.uploads import SegmentUploader
from strandline_broker.seams.local_disk import LocalDisk
from strandline_broker.server.config_tiering import DIRECTORY_PREFIX
from strandline_tiered.counting_store import CountingStore
from strandline_tiered.disk_cache import DiskCache
from strandline_tiered.effects import BucketEffects
from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import PartitionKeys
from strandline_tiered.leadership import Phase
from strandline_tiered.object_store import ObjectStoreError
from strandline_tiered.offsets_store import load_newest_offsets
from strandline_tiered.open_store import open_bucket
from strandline_tiered.probe import Capabilities, probe
from strandline_tiered.protocol_messages import PageNeeded
from strandline_tiered.retention import Policy, remote_retention

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from strandline_broker.log.log import Log
    from strandline_broker.replica.attempts import PartitionKey
    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.replica.partition import Partition
    from strandline_broker.seams.clock import Clock
    from strandline_broker.seams.disk import Disk
    from strandline_broker.seams.threads import Threads
    from strandline_broker.server.config import BrokerConfig
    from strandline_broker.server.volume import Volume
    from strandline_tiered.cost import RequestCounts
    from strandline_tiered.object_store import ObjectStore
    from strandline_tiered.offsets_snapshot import OffsetsSnapshot

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.5
PROBE_INTERVAL_S = 30.0
RETENTION_EVERY = 10
"""Looks between two of retention."""
UPLOADS_PER_PARTITION = 2
CACHE_DIRECTORY = "tier-cache"
"""Beside the logs; emptied at every start."""


class TierFigures(NamedTuple):
    """What is known of one partition's tiers at its leader; bytes, milliseconds, -1 for unknown."""

    phase: str
    remote_bytes: int
    object_bytes: int
    remote_log_start: int
    remote_end: int
    unprotected_bytes: int
    unprotected_age_ms: int
    problem: str


def unprotected_bytes(log: Log, end_offset: int) -> int:
    """Return the bytes of the segments that are not wholly in the bucket, whose part ends at `end_offset`."""
    first = log.segment_of(end_offset) if end_offset > log.start_offset else 0
    return sum(segment.size for segment in log.segments[first:])


def local_only_bytes(log: Log, end_offset: int) -> int:
    """Return the bytes of log from `end_offset` on, where the bucket's part ends.

    Not those of a segment before it, which are counted there: the segments of two leaders do not begin at the same offsets.
    Raises KafkaError(KAFKA_STORAGE_ERROR).
    """
    if end_offset <= log.start_offset:
        return log.size_bytes
    first = log.segment_of(end_offset)
    try:
        before = log.segments[first].position_of(end_offset)
    except (OSError, CorruptBatch) as error:
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{log.directory}: {error}") from error
    return sum(segment.size for segment in log.segments[first:]) - before


def bucket_of(config: BrokerConfig) -> tuple[ObjectStore, RequestCounts] | None:
    """Return the bucket that a broker is configured with and what it counts, None if there is none."""
    if config.tiering_bucket is None:
        return None
    opened = open_bucket(
        config.tiering_bucket.removeprefix(DIRECTORY_PREFIX),
        endpoint_url=config.tiering_endpoint_url,
        region=config.tiering_region,
    )
    return opened.store, opened.counts


class Tiering:
    """See the module."""

    def __init__(
        self,
        config: BrokerConfig,
        store: ObjectStore,
        *,
        counts: RequestCounts,
        cluster_id: str,
        incarnation: str,
        clock: Clock,
        rng: random.Random,
        threads: Threads,
        request_sync: Callable[[Partition], None],
        cache_directory: str | None = None,
    ) -> None:
        """`incarnation` is that of this process; without `cache_directory` nothing is cached on a disk.

        Raises IdentityError for a cluster id that keys cannot have.
        """
        try:
            self._cluster_id = UUID(cluster_id)
        except ValueError as error:
            raise IdentityError(f"tiered storage needs a UUID as cluster id, not {cluster_id!r}") from error
        self._config = config
        self._store = store
        self.counts = counts
        self.prices = config.prices
        self._started_at = clock.monotonic()
        self.capabilities: Capabilities | None = None
        """What the bucket was found to be able to do; None before it was asked."""
        self._incarnation = incarnation
        self._clock = clock
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._request_sync = request_sync
        self._executor = threads.pool("tiering")
        self._archivers: dict[PartitionKey, Archiver] = {}
        # The last epoch of each partition in which something may have been written to the bucket.
        self._begun: dict[PartitionKey, int] = {}
        self._scrub_at: dict[PartitionKey, float] = {}
        self._closing: dict[asyncio.Task[None], None] = {}
        self._looks = 0
        self._cache_executor = threads.pool("tier-cache")
        self.reader = BucketReader(
            store, config.tiering_cache_memory_bytes, self._disk_cache(cache_directory)
        )
        self.uploader = SegmentUploader(
            store,
            executor=self._executor,
            clock=clock,
            new_id=self._new_id,
            max_uploads=config.tiering_uploads_max,
            bytes_per_second=config.tiering_upload_max_bytes_per_second,
        )
        self.failures = 0
        """Requests of archivers that have ended which failed."""

    def _disk_cache(self, directory: str | None) -> DiskCache | None:
        limit = self._config.tiering_cache_disk_bytes
        if directory is None or limit == 0:
            return None
        executor = self._cache_executor
        cache = DiskCache(
            directory,
            limit,
            in_thread=lambda work, *arguments: self._loop.run_in_executor(executor, work, *arguments),
        )
        # Before all other work of that thread. If it fails, so does that, and is counted.
        executor.submit(cache.open)
        return cache

    @classmethod
    def open(
        cls,
        config: BrokerConfig,
        bucket: ObjectStore | None,
        volume: Volume,
        clock: Clock,
        rng: random.Random,
        threads: Threads,
        disk: Disk,
        request_sync: Callable[[Partition], None],
    ) -> Tiering | None:
        """Return a broker's part in tiered storage, None where there is neither `bucket` nor one in the configuration."""
        if bucket is not None:
            counting = CountingStore(bucket)
            store: ObjectStore = counting
            counts = counting.counts
        elif (opened := bucket_of(config)) is not None:
            store, counts = opened
        else:
            return None
        return cls(
            config,
            store,
            counts=counts,
            cluster_id=volume.identity.cluster_id,
            incarnation=volume.incarnation,
            clock=clock,
            rng=rng,
            threads=threads,
            request_sync=request_sync,
            cache_directory=f"{config.data_dir}/{CACHE_DIRECTORY}" if isinstance(disk, LocalDisk) else None,
        )

    def _new_id(self) -> UUID:
        return UUID(int=self._rng.getrandbits(128), version=4)

    @property
    def store(self) -> ObjectStore:
        """The bucket, its requests counted."""
        return self._store

    @property
    def cluster_id(self) -> UUID:
        """Id of the cluster, as keys have it."""
        return self._cluster_id

    @property
    def incarnation(self) -> str:
        """What this start of the broker is called: only under epochs that were given to it anything is written."""
        return self._incarnation

    def __iter__(self) -> Iterator[Archiver]:
        return iter(self._archivers.values())

    # -- roles ---------------------------------------------------------------------------------------------------------

    def roles_changed(self, replicas: ReplicaManager) -> None:
        """Begin what is led here from now on, and end what is not."""
        led: dict[PartitionKey, Partition] = {
            key: partition
            for key, partition in replicas.led()
            if partition.tier is not None and partition.is_leader
        }
        for key, archiver in list(self._archivers.items()):
            partition = led.get(key)
            if partition is None or not archiver.is_of(partition):
                del self._archivers[key]
                self._scrub_at.pop(key, None)
                self.failures += archiver.failures
                self._close(archiver)
        for key, partition in led.items():
            if key not in self._archivers:
                self._begin(key, partition)

    def _begin(self, key: PartitionKey, partition: Partition) -> None:
        leadership = partition.leadership
        assert leadership is not None, "led here"
        epoch = partition.leader_epoch
        is_own = leadership.state.leader_incarnation == self._incarnation
        is_new = is_own and self._begun.get(key, -1) < epoch
        self._begun[key] = max(epoch, self._begun.get(key, -1))
        keys = PartitionKeys(self._cluster_id, partition.topic, key[0], key[1])
        archiver = self._archivers[key] = Archiver(
            partition,
            keys,
            bucket=BucketEffects(self._store, keys, epoch, self._new_id),
            uploader=self.uploader,
            reader=self.reader,
            clock=self._clock,
            loop=self._loop,
            rng=self._rng,
            may_write=is_new,
            max_uploads=UPLOADS_PER_PARTITION,
            # To an earlier start's epoch the controller gives a successor.
            wants_epoch=is_own and not is_new,
        )
        interval_s = self._config.tiering_scrub_interval_ms / 1000
        self._scrub_at[key] = self._clock.monotonic() + interval_s * self._rng.uniform(0.1, 1.0)
        archiver.begin()

    def _close(self, archiver: Archiver) -> None:
        task = self._loop.create_task(archiver.close())
        self._closing[task] = None
        task.add_done_callback(self._closing.pop)

    async def close(self) -> None:
        """End everything; what was sent may still land."""
        for archiver in self._archivers.values():
            self._close(archiver)
        self._archivers.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self.reader.close()
        await self._store.close()
        self._executor.shutdown()
        self._cache_executor.shutdown()

    # -- upkeep --------------------------------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Find out what the bucket can do, and say it: again and again as long as it is of no use."""
        while self.capabilities is None or not self.capabilities.usable:
            if self.capabilities is not None:
                await asyncio.sleep(PROBE_INTERVAL_S)
            former, self.capabilities = self.capabilities, await probe(self._store, rng=self._rng)
            if self.capabilities != former:
                level = logging.INFO if self.capabilities.usable else logging.ERROR
                logger.log(
                    level, "the bucket %s: %s", self._config.tiering_bucket, self.capabilities.describe()
                )

    async def run(self) -> None:
        """Look after the partitions until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            self._looks += 1
            for key, archiver in list(self._archivers.items()):
                try:
                    self._look(key, archiver)
                except KafkaError as error:
                    logger.error("%r: %s", archiver.partition, error)

    def _look(self, key: PartitionKey, archiver: Archiver) -> None:
        partition = archiver.partition
        log = partition.log
        if log.failed or not partition.is_leader:
            return
        if archiver.copies and log.roll_if_older(
            self._clock.now_ms(), self._config.tiering_max_unuploaded_age_ms
        ):
            self._request_sync(partition)
        archiver.look_at_log()
        if self._looks % RETENTION_EVERY == 0:
            self._apply_retention(archiver)
        now = self._clock.monotonic()
        if now >= self._scrub_at[key]:
            self._scrub_at[key] = now + self._config.tiering_scrub_interval_ms / 1000
            archiver.scrub()

    def _apply_retention(self, archiver: Archiver) -> None:
        manifest, partition = archiver.state.draft, archiver.partition
        if archiver.state.phase is not Phase.READY or manifest is None or not archiver.state.may_write:
            return
        config, tier = partition.log.config, partition.tier
        if not config.delete or tier is None:
            return
        policy = Policy(retention_ms=config.retention_ms, retention_bytes=config.retention_bytes)
        waiting = local_only_bytes(partition.log, manifest.end_offset)
        plan = remote_retention(manifest, waiting, self._clock.now_ms(), policy)
        if plan.log_start > manifest.log_start:
            tier.ask_log_start(plan.log_start)
        if plan.needs_page is not None:
            archiver.hear(PageNeeded())

    # -- group offsets -------------------------------------------------------------------------------------------------

    async def newest_offsets(self, partition: Partition) -> OffsetsSnapshot | None:
        """See `coordinator.groups.OffsetSnapshots`."""
        topic_id = UUID(bytes=partition.topic_id)
        keys = PartitionKeys(self._cluster_id, partition.topic, topic_id, partition.index)
        try:
            return await load_newest_offsets(self._store, keys)
        except FormatError as error:
            raise RemoteCorrupt(str(error)) from error
        except ObjectStoreError as error:
            raise RemoteUnavailable(f"{keys.prefix}: {error}") from error

    # -- figures -------------------------------------------------------------------------------------------------------

    @property
    def running_s(self) -> float:
        """Seconds since the first request to the bucket, about."""
        return self._clock.monotonic() - self._started_at

    def figures(self, partition: Partition) -> TierFigures | None:
        """Return what is known of a partition's tiers; None where it is not led here, or not tiered."""
        archiver = self._archivers.get((UUID(bytes=partition.topic_id), partition.index))
        if archiver is None:
            return None
        state, log = archiver.state, partition.log
        manifest = state.published
        problem = state.problem or archiver.problem
        if manifest is None:
            return TierFigures(state.phase.value, -1, -1, -1, -1, -1, -1, problem)
        first = log.segment_of(manifest.end_offset) if manifest.end_offset > log.start_offset else 0
        segment = log.segments[first]
        waiting = unprotected_bytes(log, manifest.end_offset)
        age_ms = max(self._clock.now_ms() - segment.created_ms, 0) if waiting else 0
        return TierFigures(
            state.phase.value,
            manifest.size,
            manifest.object_bytes,
            manifest.log_start,
            manifest.end_offset,
            waiting,
            age_ms,
            problem,
        )
