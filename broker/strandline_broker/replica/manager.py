"""All partitions of this broker, brought in line with the cluster store again and again.

The manager is level-triggered: `reconcile` compares what the view says with what is open and moves each partition to
its role: led here, copied from its leader (`fetchers`), or idle. It learns topics and leadership only from the view;
nothing here decides who leads.

Order matters (design sections 3.3 and 3.4): a cluster state is on this broker's disk before it is used, and a partition
is led only in an epoch that was given to this very incarnation and log generation. Data is deleted only when
`ClusterState` names the topic id as purged: a PartitionSet that is merely absent leaves its data as a stray.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, cast
from uuid import UUID

from strandline_broker.cluster.internal_topics import CONSUMER_OFFSETS, INTERNAL_TOPICS
from strandline_broker.cluster.model import ReplicaRef
from strandline_broker.cluster.transitions import effective_min_isr
from strandline_broker.errors import ErrorCode, KafkaError
from strandline_broker.log.config import LogConfig
from strandline_broker.replica.partition import Partition
from strandline_broker.replica.recovery import recovery_of
from strandline_broker.replica.unopened import UnopenedLogs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

    from strandline_broker.cluster.model import PartitionState
    from strandline_broker.cluster.view import ClusterView, TopicView
    from strandline_broker.log.log import Log
    from strandline_broker.log.manager import LogManager
    from strandline_broker.replica.attempts import PartitionKey
    from strandline_broker.replica.fetchers import Fetchers
    from strandline_broker.replica.partition import FlushMode
    from strandline_broker.seams.clock import Clock

logger = logging.getLogger(__name__)

_LOGS_PER_PASS = 64
_INTERNAL_LOGS_PER_PASS = 2


class TopicReplicas:
    """A topic as this broker serves it."""

    __slots__ = ("config", "internal", "log_config", "name", "partitions", "topic_id")

    def __init__(self, name: str, topic_id: UUID) -> None:
        self.name = name
        self.internal = name in INTERNAL_TOPICS
        self.topic_id = topic_id
        self.config: dict[str, str] | None = None
        self.log_config = LogConfig()
        self.partitions: dict[int, Partition] = {}


class _Opened(NamedTuple):
    """The outcome for one log; `late`: it could not be opened when the broker started."""

    topic: TopicView
    partition: int
    late: bool
    log: Log | Exception


class ReplicaManager:
    """Opens, promotes, demotes and purges the partitions that have a replica here."""

    def __init__(
        self,
        *,
        broker_id: int,
        incarnation: str,
        resumable_incarnation: str | None,
        generation: int,
        view: ClusterView,
        logs: LogManager,
        fetchers: Fetchers,
        clock: Clock,
        flush: FlushMode,
        attempts: Mapping[PartitionKey, list[PartitionState]],
        run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
        persist_view: Callable[[bytes], None],
        has_bucket: bool = False,
    ) -> None:
        """Make a manager that serves nothing yet; `attempts` are what `replica.attempts` kept from an earlier start.

        `has_bucket`: logs whose topics allow it get a part in the bucket.
        """
        self._has_bucket = has_bucket
        self._broker_id = broker_id
        self._incarnations = {incarnation}
        if resumable_incarnation is not None:
            # The last incarnation ended in a clean stop: what it led may be resumed in the same epoch (ADR 0001).
            self._incarnations.add(resumable_incarnation)
        self._own_ref = ReplicaRef(broker_id, generation)
        self._view = view
        self._logs = logs
        self._fetchers = fetchers
        self._clock = clock
        self._flush = flush
        self._attempts = attempts
        self._run_blocking = run_blocking
        self._persist_view = persist_view
        self._persisted_version = -1
        self.by_key: dict[str | bytes, TopicReplicas] = {}
        self.on_roles: Callable[[], None] = _nothing
        """Called whenever partitions may have changed their roles (coordinators load and unload)."""
        self.on_recovered: Callable[[], None] = _nothing
        """Called with `recovered`."""
        self._partition_of: dict[Log, Partition] = {}
        # How many partitions led here each broker has to copy.
        self._followed_by: Counter[int] = Counter()
        self._waiting: set[PartitionKey] = set()
        self._open: dict[tuple[UUID, int], Partition] = {}
        # Topics as their partitions have roles by them; without those of which a partition needs another look.
        self._applied: dict[UUID, TopicView] = {}
        self._unopened = UnopenedLogs()
        # Of logs that failed while open: up to where this broker vouched for them, and which of them lack some of that.
        self._vouched: dict[PartitionKey, int] = {}
        self._lost: set[PartitionKey] = set()
        self._reconciling = asyncio.Lock()

    # -- lookups -------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Partition]:
        for key, topic in self.by_key.items():
            if isinstance(key, str):
                yield from topic.partitions.values()

    def partition(self, key: str | bytes, index: int) -> Partition:
        """Return a partition that has a replica here. Raises KafkaError as `why_absent` says."""
        topic = self.by_key.get(key)
        partition = topic.partitions.get(index) if topic is not None else None
        if partition is None:
            raise self.why_absent(key, index)
        return partition

    def find(self, key: str | bytes, index: int) -> Partition | None:
        """Return a partition that is open here, by the topic's name or id."""
        topic = self.by_key.get(key)
        return topic.partitions.get(index) if topic is not None else None

    def led(self) -> Iterator[tuple[PartitionKey, Partition]]:
        """Yield what this broker leads, or must step down from (for the ISR keeper)."""
        for key, partition in self._open.items():
            if partition.leadership is not None or partition.unfit_epoch >= 0:
                yield key, partition

    def unusable(self) -> Iterator[PartitionKey]:
        """Yield what the store names this broker the leader of although its log could not be opened."""
        for key in self._unopened:
            topic = self._view.topic_by_id(key[0])
            state = topic.partition(key[1]) if topic is not None else None
            if state is not None and state.leader == self._broker_id:
                yield key

    @property
    def may_be_resumed(self) -> bool:
        """Whether the next start may lead on in these epochs after a clean stop.

        Not while there is an epoch that is led no more because its log failed: the next start would not remember.
        """
        return all(
            partition.unfit_epoch < 0 or partition.unfit_epoch < partition.leader_epoch
            for partition in self._open.values()
        )

    def recovered(self) -> None:
        """Take note that a partition that is led here has done what `replica.recovery` asks for."""
        self.on_recovered()

    def followed_by(self, broker_id: int) -> int:
        """Return how many partitions that are led here this broker has to copy."""
        return self._followed_by[broker_id]

    def partition_of(self, log: Log) -> Partition | None:
        """Return the partition whose log this is."""
        return self._partition_of.get(log)

    def high_watermark_of(self, log: Log) -> int:
        """Return the high watermark of the partition whose log this is; where the log begins, if it is none's."""
        partition = self._partition_of.get(log)
        return partition.high_watermark if partition is not None else log.start_offset

    def high_watermarks(self) -> dict[tuple[str, int], int]:
        """Return the high watermark of every open partition, by topic and index, as a checkpoint keeps them."""
        return {(partition.topic, partition.index): partition.high_watermark for partition in self}

    def why_absent(self, key: str | bytes, index: int) -> KafkaError:
        """Return the error for a partition that is not open here: unknown, elsewhere, or not usable."""
        topic = self._topic_view(key)
        if topic is None:
            by_name = isinstance(key, str)
            return KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if by_name else ErrorCode.UNKNOWN_TOPIC_ID)
        if topic.partition(index) is None:
            return KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        if (topic.topic_id, index) in self._unopened:
            return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "the log of this partition could not be opened")
        return KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def current_leader(self, key: str | bytes, index: int) -> tuple[int, int] | None:
        """Return (leader id, leader epoch) as the cluster state has it, for the hint of KIP-951."""
        topic = self._topic_view(key)
        state = topic.partition(index) if topic is not None else None
        return (state.leader, state.leader_epoch) if state is not None else None

    def _topic_view(self, key: str | bytes) -> TopicView | None:
        return (
            self._view.topic_by_name(key) if isinstance(key, str) else self._view.topic_by_id(UUID(bytes=key))
        )

    # -- reconciliation ------------------------------------------------------------------------------------------------

    async def reconcile(self) -> None:
        """Bring every partition to the role that the newest cluster state gives it; call after every change of the view.

        Raises OSError when the cluster state cannot be kept on this disk: then it is not used either.
        """
        async with self._reconciling:
            while await self._reconcile_once():
                pass

    def resign_deposed(self) -> None:
        """Lead no more what the newest cluster state gives to a later epoch, while that cannot be kept on this disk.

        To lead no more needs no record: a leader that does nothing is none. What else the state says waits for the disk.
        """
        for key, partition in self._open.items():
            topic = self._view.topic_by_id(key[0])
            state = topic.partition(key[1]) if topic is not None else None
            if (
                partition.leadership is not None
                and state is not None
                and state.leader_epoch > partition.leader_epoch
            ):
                # For good, also for the next start: what it had attempted in this epoch is forgotten.
                partition.unfit_epoch = partition.leader_epoch
                partition.resign(-1, partition.leader_epoch)
                logger.info("%r is led no more: epoch %d is over", partition, partition.leader_epoch)
        self.on_roles()

    async def _reconcile_once(self) -> bool:
        """Make one pass; return whether the cluster state may have moved meanwhile, so that another is due."""
        while self._view.version != self._persisted_version:
            version = self._view.version
            image = self._view.to_bytes()
            await self._run_blocking(lambda image=image: self._persist_view(image))  # type: ignore[misc]
            self._persisted_version = version
        # No await between here and the first change of role: what is applied is what was persisted.
        wanted = {
            (topic.topic_id, index): (topic, index, state)
            for topic in self._view.topics.values()
            for index, state in topic.partitions()
            if self._broker_id in state.replicas
        }
        self._close_absent(wanted.keys())
        now = self._clock.monotonic()
        missing = [
            entry
            for key, entry in wanted.items()
            if key not in self._open and not self._unopened.waits(key, now)
        ]
        self._apply_changed(wanted)
        self._followed_by = Counter(
            broker_id
            for partition in self._open.values()
            if partition.leadership is not None
            for broker_id in partition.leadership.state.replicas
        )
        self.on_roles()
        if missing:
            # A few at a time, internal topics last: what a client waits for must not wait for fifty logs that nobody uses.
            users = [entry for entry in missing if entry[0].topic_name not in INTERNAL_TOPICS]
            await self._open_logs(users[:_LOGS_PER_PASS] or missing[:_INTERNAL_LOGS_PER_PASS])
            # Nothing is led before the cluster state has been looked at again.
            return True
        await self._purge()
        return False

    async def _open_logs(self, missing: list[tuple[TopicView, int, PartitionState]]) -> None:
        def open_all() -> list[_Opened]:
            opened: list[_Opened] = []
            for topic, index, _ in missing:
                name = topic.topic_name
                late = (name, index) in self._logs.offline
                try:
                    config = LogConfig.from_topic_config(topic.config)
                    log = self._logs.open_or_create(name, index, topic.topic_id, config)
                    opened.append(_Opened(topic, index, late, log))
                except (OSError, KafkaError, ValueError) as error:
                    opened.append(_Opened(topic, index, late, error))
            return opened

        results = await self._run_blocking(open_all)
        for topic, index, late, log in cast("list[_Opened]", results):
            if isinstance(log, Exception):
                # One bad log must not take the others down; the partition answers KAFKA_STORAGE_ERROR.
                delay_s = self._unopened.failed((topic.topic_id, index), str(log), self._clock.monotonic())
                logger.error(
                    "cannot open the log of %s-%d, trying again in %d s: %s",
                    topic.topic_name,
                    index,
                    delay_s,
                    log,
                )
                continue
            name = topic.topic_name
            if self._unopened.opened((topic.topic_id, index)) or late:
                self._judge_late(topic, index, log)
            high_watermark = self._logs.high_watermark(name, index)
            partition = Partition(name, topic.topic_id.bytes, index, log, self._flush, high_watermark)
            partition.on_recovered = self.recovered
            self._partition_of[log] = partition
            self._applied.pop(topic.topic_id, None)
            self._open[(topic.topic_id, index)] = partition

    def _judge_late(self, topic: TopicView, index: int, log: Log) -> None:
        """Look at a log that could not be opened at first: the log generation was decided without it.

        If it lacks what was durable, and others may count on that, it stays out of service (`revive`).
        """
        key = (topic.topic_id, index)
        if log.recovery.lost_synced and self._is_shared(key):
            self._lost.add(key)
            log.fail(f"ends at {log.end_offset}, below {log.recovery.recovery_point}")
        else:
            logger.info(
                "%s-%d: its log is open at last, it ends at %d", topic.topic_name, index, log.end_offset
            )

    def _apply_changed(self, wanted: Mapping[PartitionKey, tuple[TopicView, int, PartitionState]]) -> None:
        """Give the partitions of every topic that changed their roles; the others have theirs."""
        former = self._applied
        self._applied = {topic.topic_id: topic for topic, _, _ in wanted.values()}
        for key, (topic, index, state) in wanted.items():
            partition = self._open.get(key)
            if partition is not None and former.get(topic.topic_id) is not topic:
                self._apply(partition, topic, index, state)

    def _apply(self, partition: Partition, topic: TopicView, index: int, state: PartitionState) -> None:
        served = self.by_key.get(topic.topic_name)
        if served is None or served.topic_id != topic.topic_id:
            served = TopicReplicas(topic.topic_name, topic.topic_id)
            self.by_key[topic.topic_name] = self.by_key[topic.topic_id.bytes] = served
        served.partitions[index] = partition
        self._configure(served, topic, partition)
        if self._has_bucket and partition.tier is None and partition.log.config.tierable:
            _start_tiering(partition)
        if state.leader_epoch < max(partition.leader_epoch, partition.log.last_epoch):
            # Older than the log (design section 3.3): ignored, never acted on. A log that leads or follows on is unharmed.
            self._say_once(partition, f"the cluster state is older than its log: epoch {state.leader_epoch}")
        elif (topic.topic_id, index) in self._lost:
            partition.resign(state.leader, state.leader_epoch)
        elif self._may_lead(state) and state.leader_epoch > partition.unfit_epoch:
            self._lead(partition, topic, index, state)
        else:
            self._follow(partition, state)

    def _lead(self, partition: Partition, topic: TopicView, index: int, state: PartitionState) -> None:
        part = topic.partition_set(index)
        assert part is not None, "the state came from this topic"
        self._fetchers.unfollow(partition)
        self._waiting.discard((topic.topic_id, index))
        partition.lead(
            self._own_ref,
            state,
            effective_min_isr(part.min_insync_replicas, state),
            self._clock.monotonic(),
            # Ours, from before a clean restart, and possibly stored since: they count until we know better.
            [
                attempt
                for attempt in self._attempts.get((topic.topic_id, index), ())
                if attempt.leader_epoch == state.leader_epoch
                and attempt.partition_epoch > state.partition_epoch
            ],
            recovery_of(
                state,
                has_bucket=self._has_bucket,
                is_tiered=partition.tier is not None or partition.log.config.tierable,
                has_group_offsets=topic.topic_name == CONSUMER_OFFSETS,
            ),
        )

    def _follow(self, partition: Partition, state: PartitionState) -> None:
        """Copy the partition if it has a leader elsewhere; otherwise stand by."""
        # A leader that waits for an epoch of its own leads nothing and follows nobody: readers must look elsewhere.
        leader_id = state.leader if state.leader != self._broker_id else -1
        if partition.is_leader or (leader_id, state.leader_epoch) != (
            partition.leader_id,
            partition.leader_epoch,
        ):
            partition.resign(leader_id, state.leader_epoch)
        if state.leader in (-1, self._broker_id):
            self._fetchers.unfollow(partition)
            if state.leader == self._broker_id:
                self._say_once(
                    partition,
                    f"waits for an epoch of its own: {state.leader_epoch} was given to another start",
                )
            return
        self._waiting.discard((UUID(bytes=partition.topic_id), partition.index))
        self._fetchers.follow(partition, state.leader, state.leader_epoch)

    def _say_once(self, partition: Partition, why: str) -> None:
        key = (UUID(bytes=partition.topic_id), partition.index)
        if key not in self._waiting:
            self._waiting.add(key)
            logger.info("%r is neither led nor copied here now: %s", partition, why)

    def _may_lead(self, state: PartitionState) -> bool:
        return (
            state.leader == self._broker_id
            and state.leader_incarnation in self._incarnations
            and self._own_ref in state.isr
        )

    def _configure(self, served: TopicReplicas, topic: TopicView, partition: Partition) -> None:
        """Hand the topic's configuration to a partition, and one that changed to all of them."""
        if served.config == topic.config:
            if partition.log.config is not served.log_config:
                partition.log.config = served.log_config
            return
        try:
            served.log_config = LogConfig.from_topic_config(topic.config)
        except (KafkaError, ValueError) as error:
            logger.error(
                "topic %s keeps its configuration, the new one is not valid: %s", topic.topic_name, error
            )
        served.config = dict(topic.config)
        for other in served.partitions.values():
            other.log.config = served.log_config

    def _close_absent(self, wanted: Collection[tuple[UUID, int]]) -> None:
        """Stop serving what the cluster state no longer gives to this broker; its data stays where it is."""
        self._unopened.keep_only(wanted)
        for key in [key for key in self._open if key not in wanted]:
            partition = self._open.pop(key)
            self._fetchers.unfollow(partition)
            partition.resign(-1, partition.leader_epoch)
            self._partition_of.pop(partition.log, None)
            served = self.by_key.get(partition.topic_id)
            if served is not None:
                served.partitions.pop(partition.index, None)
                if not served.partitions:
                    del self.by_key[partition.topic_id]
                    if self.by_key.get(partition.topic) is served:
                        del self.by_key[partition.topic]
            self._logs.set_aside(partition.topic, partition.index)

    async def open_unopened(self) -> None:
        """Try again to open what could not be opened, where it is time. Raises OSError as `reconcile` does."""
        if self._unopened.any_due(self._clock.monotonic()):
            await self.reconcile()

    def unopened(self) -> Iterator[tuple[str, int, str]]:
        """Yield (topic, partition, reason) of what should be here and could not be opened."""
        for key in self._unopened:
            topic = self._view.topic_by_id(key[0])
            if topic is not None:
                yield topic.topic_name, key[1], self._unopened.reason(key)

    async def revive(self, partition: Partition, now_ms: int) -> bool:
        """Take a partition back into service whose log failed; the log is cut at what was synced.

        Followers may have copied what is cut, so a leader with followers does not lead again in the same epoch: it steps
        down (`IsrKeeper`), and whoever is elected next compares logs.

        Returns False if this broker vouched for what is cut, to brokers that count on it: the log then stays out of
        service until another start, which needs another log generation.
        """
        # Nobody gives the partition a role meanwhile: what it took then would be cut, acknowledged or not.
        async with self._reconciling:
            if self._partition_of.get(partition.log) is not partition:
                return True  # closed while this waited
            may_serve = await self._reopen(partition, now_ms)
        if not partition.log.failed:
            await self.reconcile()
        return may_serve

    async def _reopen(self, partition: Partition, now_ms: int) -> bool:
        key = (UUID(bytes=partition.topic_id), partition.index)
        self._applied.pop(key[0], None)
        leadership = partition.leadership
        if leadership is not None and len(leadership.state.replicas) > 1:
            partition.unfit_epoch = leadership.epoch
        self._fetchers.unfollow(partition)
        partition.resign(-1, partition.leader_epoch)
        # What was said before the first attempt counts: each of them may leave less.
        vouched = self._vouched.setdefault(key, partition.replicated_end)
        if key in self._lost or self.has_lost(partition):
            self._lost.add(key)
            return False
        try:
            await self._run_blocking(lambda: partition.log.reopen(now_ms))
        except KafkaError as error:
            logger.warning("%r stays out of service: %s", partition, error)
            return True
        if partition.log.end_offset < vouched and self._is_shared(key):
            self._lost.add(key)
            partition.log.fail(f"ends at {partition.log.end_offset}, below {vouched}")
            return False
        del self._vouched[key]
        logger.info("%r is back in service, its log ends at %d", partition, partition.log.end_offset)
        return True

    def has_lost(self, partition: Partition) -> bool:
        """Whether a failed log will end, when it is reopened, below what this broker vouched for to others."""
        key = (UUID(bytes=partition.topic_id), partition.index)
        vouched = self._vouched.get(key, partition.replicated_end)
        return bool(partition.log.failed) and partition.log.synced_end < vouched and self._is_shared(key)

    def _is_shared(self, key: PartitionKey) -> bool:
        """Whether other brokers have replicas of a partition, as far as is known."""
        topic = self._view.topic_by_id(key[0])
        state = topic.partition(key[1]) if topic is not None else None
        return state is not None and len(state.replicas) > 1

    async def _purge(self) -> None:
        """Delete the data of topics that `ClusterState` names as purged, and of nothing else (invariant 5)."""
        state = self._view.state
        if state is None:
            return
        purged = [topic_id for topic_id in state.purged_topic_ids if self._logs.holds(topic_id)]

        def purge_all() -> None:
            for topic_id in purged:
                self._logs.purge(topic_id)

        if purged:
            await self._run_blocking(purge_all)


def _start_tiering(partition: Partition) -> None:
    try:
        partition.start_tiering()
    except KafkaError as error:
        # Its log failed: it is looked at again when that is back in service.
        logger.error("%r is not tiered yet: %s", partition, error)


def _nothing() -> None:
    """Stand in until somebody wants to know."""
