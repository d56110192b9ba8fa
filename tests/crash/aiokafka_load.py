"""An idempotent producer and a follower on aiokafka, each in a thread of its own, filling the same history as others."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
from tests.crash.history import Ack, History, Key, Read, Send
from tests.crash.kill_load import STUCK_S, Plan, decode, encode

MAX_IN_FLIGHT = 1_000
_REQUEST_TIMEOUT_MS = 30_000
_READER = "aiokafka"


class AiokafkaLoad:
    """Produces `records_per_s` with `acks=all`, and follows the topic from its beginning.

    A producer that reports an error is given up, with what it had not heard of; the next one has another name. aiokafka
    gives up records after its request timeout, so that is no finding.
    """

    def __init__(self, bootstrap: str, plan: Plan, history: History, records_per_s: int) -> None:
        self.findings: list[str] = []
        self.client_errors: Counter[str] = Counter()
        self.producers = 0
        self._bootstrap = bootstrap
        self._plan = plan
        self._history = history
        self._rate = records_per_s
        self._rng = random.Random(f"{plan.seed}/aiokafka")
        self._stop_producing = threading.Event()
        self._stop_reading = threading.Event()
        self._ends: dict[int, int] = {}
        self._threads = [
            threading.Thread(target=self._guarded, args=(run,), name=f"aiokafka-{name}")
            for name, run in (("producer", self._produce), ("follower", self._follow))
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def finish_producing(self) -> None:
        """Let the producer deliver what it holds."""
        self._stop_producing.set()
        self._threads[0].join()

    def finish_reading(self, ends: dict[int, int]) -> None:
        """Let the follower read up to the log ends."""
        self._ends = ends
        self._stop_reading.set()
        self._threads[1].join()

    def abandon(self) -> None:
        """Let everything end soon, without waiting for it."""
        self._stop_producing.set()
        self._stop_reading.set()

    def _guarded(self, run: Any) -> None:
        try:
            asyncio.run(run())
        except Exception as error:  # noqa: BLE001 - a thread's end must not go unnoticed
            self.findings.append(f"{threading.current_thread().name} died: {error!r}")

    # -- producer ------------------------------------------------------------------------------------------------------

    async def _produce(self) -> None:
        while not self._stop_producing.is_set():
            name = f"a{self._plan.seed}.{self.producers}"
            self.producers += 1
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                client_id=name,
                enable_idempotence=True,
                acks="all",
                linger_ms=self._rng.choice((0, 5, 20)),
                compression_type=self._rng.choice((None, "lz4", "gzip")),
                request_timeout_ms=_REQUEST_TIMEOUT_MS,
                metadata_max_age_ms=2_000,
                retry_backoff_ms=50,
            )
            try:
                await producer.start()
                await self._produce_until_error(producer, name)
            except KafkaError as error:
                self.client_errors[f"aiokafka producer: {type(error).__name__}"] += 1
                await asyncio.sleep(0.2)
            finally:
                # A producer that failed may wait for ever for what it cannot send.
                with contextlib.suppress(KafkaError, TimeoutError):
                    await asyncio.wait_for(producer.stop(), 5)

    async def _produce_until_error(self, producer: Any, name: str) -> None:
        """Raises the KafkaError of the first record that failed."""
        number = 0
        waiting: set[asyncio.Future[Any]] = set()
        failed: list[BaseException] = []

        def done(future: asyncio.Future[Any], key: Key, partition: int) -> None:
            waiting.discard(future)
            error = None if future.cancelled() else future.exception()
            if error is not None:
                failed.append(error)
            elif not future.cancelled():
                offset = future.result().offset
                self._history.acks.append(Ack(key, partition, offset, time.monotonic()))

        while not self._stop_producing.is_set() and not failed:
            if len(waiting) < MAX_IN_FLIGHT:
                key, partition = Key(name, number), self._rng.randrange(self._plan.partitions)
                self._history.sends.append(Send(key, partition, time.monotonic()))
                number += 1
                future = await producer.send(self._plan.topic, encode(key), partition=partition)
                future.add_done_callback(lambda of, key=key, partition=partition: done(of, key, partition))
                waiting.add(future)
            await asyncio.sleep(self._rng.uniform(0.5, 1.5) / self._rate)
        if waiting and not failed:
            await asyncio.wait(waiting, timeout=STUCK_S)
            if waiting and not failed:
                self.findings.append(
                    f"{name}: stuck with {len(waiting)} records {STUCK_S:.0f} s after the last fault"
                )
        if failed:
            raise failed[0]

    # -- follower ------------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        reads = self._history.polls.setdefault(_READER, [])
        everything = [TopicPartition(self._plan.topic, p) for p in range(self._plan.partitions)]
        positions = dict.fromkeys(range(self._plan.partitions), 0)
        quiet_since = time.monotonic()
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                request_timeout_ms=_REQUEST_TIMEOUT_MS,
                fetch_max_wait_ms=200,
                metadata_max_age_ms=2_000,
                check_crcs=True,
            )
            try:
                await consumer.start()
                consumer.assign(everything)
                for partition in everything:
                    consumer.seek(partition, positions[partition.partition])
                while True:
                    batches = await consumer.getmany(timeout_ms=200, max_records=500)
                    for partition, messages in batches.items():
                        quiet_since = time.monotonic()
                        reads += [Read(m.partition, m.offset, decode(m.value)) for m in messages]
                        positions[partition.partition] = messages[-1].offset + 1
                    if self._stop_reading.is_set() and self._at_end(positions, quiet_since):
                        return
            except KafkaError as error:  # for a place that is not there see `Load._go_back`
                self.client_errors[f"aiokafka follower: {type(error).__name__}"] += 1
                if self._stop_reading.is_set() and self._at_end(positions, quiet_since):
                    return
                await asyncio.sleep(0.2)
            finally:
                await consumer.stop()

    def _at_end(self, positions: dict[int, int], quiet_since: float) -> bool:
        if all(positions[partition] >= end for partition, end in self._ends.items()):
            return True
        if time.monotonic() - quiet_since > STUCK_S:
            self.findings.append(f"aiokafka follower: stuck at {positions}, the ends are {self._ends}")
            return True
        return False
