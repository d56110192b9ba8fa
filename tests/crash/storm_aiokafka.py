"""Group members on aiokafka: all of one `storm_worker` process in one event loop."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition  # type: ignore[import-untyped]
from aiokafka.coordinator.assignors.range import RangePartitionAssignor  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
from tests.crash.storm_check import Place
from tests.crash.storm_journal import Journal
from tests.crash.storm_worker import (
    COMMIT_EVERY_S,
    FETCH_MIN_BYTES,
    FETCH_WAIT_MS,
    HEARTBEAT_MS,
    REBALANCE_TIMEOUT_MS,
    SESSION_TIMEOUT_MS,
    Control,
    Life,
    Progress,
    Slot,
    WorkerSpec,
    number_of,
)


class AiokafkaMember(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka has no types
    """One life of a consumer."""

    def __init__(self, spec: WorkerSpec, slot: Slot, journal: Journal) -> None:
        self._slot = slot
        self._journal = journal
        self._progress = Progress(journal, slot.name)
        self._owned: set[Place] = set()
        journal.write("join", slot.name)
        self._consumer: Any = AIOKafkaConsumer(
            bootstrap_servers=spec.bootstrap,
            client_id=slot.name,
            group_id=slot.group,
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            max_poll_interval_ms=REBALANCE_TIMEOUT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            request_timeout_ms=REBALANCE_TIMEOUT_MS + 10_000,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            fetch_min_bytes=FETCH_MIN_BYTES,
            metadata_max_age_ms=60_000,
            retry_backoff_ms=200,
        )
        self._consumer.subscribe(spec.topics, listener=self)

    async def live(self, life: Life) -> None:
        """Read and commit until life is over, then leave."""
        while life.goes_on:
            try:
                await self._consumer.start()
                break
            except KafkaError as error:  # the broker is down
                self._journal.write("error", self._slot.name, f"start: {type(error).__name__}")
                await asyncio.sleep(1)
        commit_at = time.monotonic() + COMMIT_EVERY_S
        while life.goes_on:
            try:
                batches = await self._consumer.getmany(timeout_ms=1000, max_records=200)
            except KafkaError as error:
                self._journal.write("error", self._slot.name, type(error).__name__)
                await asyncio.sleep(0.2)
                continue
            self._take(batches)
            if time.monotonic() >= commit_at:
                await self._commit()
                commit_at = time.monotonic() + COMMIT_EVERY_S
        await self._commit()
        await self._stop()
        self._journal.write("leave", self._slot.name)

    async def _stop(self) -> None:
        """Leave the group.

        aiokafka leaves, then cancels its fetches and awaits them: one that has not begun ends that with CancelledError,
        before the connections are closed.
        """
        task = asyncio.current_task()
        assert task is not None
        try:
            await self._consumer.stop()
        except asyncio.CancelledError:
            if task.cancelling():
                raise
            await self._consumer._client.close()

    def _take(self, batches: dict[TopicPartition, list[Any]]) -> None:
        records = []
        for partition, messages in batches.items():
            place = Place(partition.topic, partition.partition)
            if place in self._owned:
                records += [(place, m.offset, number_of(m.value, place)) for m in messages]
        if records:
            self._progress.delivered(records)

    async def _commit(self) -> None:
        commit_id, wanted = self._progress.begin_commit()
        if not wanted:
            return
        errors: dict[Place, str] = {}
        try:
            await self._consumer.commit({TopicPartition(*place): offset for place, offset in wanted.items()})
        except KafkaError as error:
            errors = dict.fromkeys(wanted, type(error).__name__)
        self._progress.end_commit(commit_id, wanted, errors)

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Commit what was read, and forget it."""
        places = [Place(partition.topic, partition.partition) for partition in revoked]
        if places:
            await self._commit()
            self._owned.difference_update(places)
            self._progress.revoked(places)

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Take note of the partitions of this generation."""
        places = [Place(partition.topic, partition.partition) for partition in assigned]
        coordinator = self._consumer._coordinator
        self._owned.update(places)
        self._progress.assigned(coordinator.generation, places)


async def run_tasks(spec: WorkerSpec, journal: Journal, control: Control) -> None:
    """Run all slots until the storm is over."""

    async def run(slot: Slot) -> None:
        life = Life(spec, slot, control)
        while not control.finish.is_set():
            if life.paused:
                await asyncio.sleep(0.2)
                continue
            life.begin()
            await AiokafkaMember(spec, slot, journal).live(life)
            life.end()

    outcomes = await asyncio.gather(*map(run, spec.slots), return_exceptions=True)
    for slot, outcome in zip(spec.slots, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            journal.write("error", slot.name, f"the member ended: {outcome!r}")
