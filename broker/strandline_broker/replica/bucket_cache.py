"""Values read from the bucket, kept within a bound; whoever asks for one that is being read waits for that.

Who uses it: `BucketReader`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

V = TypeVar("V")


class BucketCache(Generic[V]):
    """The values used last, by key. What is being read is bounded by who asks for it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, tuple[V, int]] = OrderedDict()
        self._loading: dict[str, asyncio.Future[V]] = {}
        self.kept_bytes = 0
        self.hits = 0
        self.misses = 0

    async def get(self, key: str, load: Callable[[], Awaitable[tuple[V, int]]]) -> V:
        """Return the value of a key; `load` reads it, and says how many bytes it takes. Raises what `load` raises."""
        while True:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                self.hits += 1
                return kept[0]
            loading = self._loading.get(key)
            if loading is None:
                return await self._load(key, load)
            try:
                return await asyncio.shield(loading)
            except asyncio.CancelledError:
                if not loading.cancelled():
                    raise
                # Who read it was cancelled, not who waits here: read it oneself.

    async def _load(self, key: str, load: Callable[[], Awaitable[tuple[V, int]]]) -> V:
        self.misses += 1
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._loading[key] = future
        try:
            value, size = await load()
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as error:
            future.set_exception(error)
            future.exception()  # looked at, even if nobody else waits
            raise
        else:
            future.set_result(value)
            self._keep(key, value, size)
            return value
        finally:
            del self._loading[key]

    def _keep(self, key: str, value: V, size: int) -> None:
        self._kept[key] = value, size
        self.kept_bytes += size
        while self.kept_bytes > self._max_bytes and len(self._kept) > 1:
            self.kept_bytes -= self._kept.popitem(last=False)[1][1]
