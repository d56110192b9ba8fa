"""Producer ids of this broker: one block in use, one in reserve for when the cluster store is away.

The block in use lives in memory only: what is left of it at a restart is never given out, so no id is given out twice.
The reserve lives on disk; taking it into use is recorded there first.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import orjson

from strandline_broker.cluster.producer_ids import allocate_block
from strandline_broker.cluster.store import NotFound, Unavailable
from strandline_broker.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from strandline_broker.cluster.store import ClusterStore
    from strandline_broker.seams.disk import Disk

logger = logging.getLogger(__name__)

RESERVE_FILE = "producer-id-reserve.json"


class ProducerIds:
    """Hands out producer ids; `refill` should run once at start-up."""

    def __init__(
        self,
        store: ClusterStore,
        cluster: str,
        disk: Disk,
        rng: random.Random,
        run_blocking: Callable[[Callable[[], object]], Awaitable[object]],
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._disk = disk
        self._rng = rng
        self._run_blocking = run_blocking
        self._block = range(0)
        self._reserve = self._load()
        self._lock = asyncio.Lock()
        self._refilling: asyncio.Task[None] | None = None

    async def allocate(self) -> int:
        """Return an id that nobody got before. Raises KafkaError(COORDINATOR_LOAD_IN_PROGRESS) while none can be had."""
        async with self._lock:
            if not self._block:
                await self._next_block()
            producer_id = self._block[0]
            self._block = self._block[1:]
        if not self._reserve and (self._refilling is None or self._refilling.done()):
            self._refilling = asyncio.get_running_loop().create_task(self.refill())
        return producer_id

    async def refill(self) -> None:
        """Take a block into reserve if there is none; tries once, the next allocation tries again."""
        if self._reserve:
            return
        try:
            block = await allocate_block(self._store, self._cluster, rng=self._rng)
        except (Unavailable, NotFound) as error:
            logger.info("no producer ids in reserve yet: %s", error)
            return
        await self._save(block)
        self._reserve = block

    async def close(self) -> None:
        """End a refill that is under way."""
        if self._refilling is not None:
            self._refilling.cancel()
            await asyncio.gather(self._refilling, return_exceptions=True)

    async def _next_block(self) -> None:
        if self._reserve:
            block, self._reserve = self._reserve, range(0)
            await self._save(range(0))
            self._block = block
            return
        try:
            self._block = await allocate_block(self._store, self._cluster, rng=self._rng)
        except (Unavailable, NotFound) as error:
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, f"no producer ids: {error}") from error

    def _load(self) -> range:
        try:
            saved = orjson.loads(self._disk.read_bytes(RESERVE_FILE))
            return range(int(saved["first"]), int(saved["end"]))
        except FileNotFoundError:
            return range(0)
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s is not readable, its ids are not used: %s", RESERVE_FILE, error)
            return range(0)

    async def _save(self, block: range) -> None:
        data = orjson.dumps({"first": block.start, "end": block.stop})
        await self._run_blocking(lambda: self._disk.write_atomic(RESERVE_FILE, data))
