"""Counts the requests that reach a bucket, around any other store.

Who uses it: the composition root, between the retries and the store, so that attempts count as the bill counts them.
`cost.py` turns the counts into money.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

from strandline_tiered.content import as_source
from strandline_tiered.cost import RequestCounts
from strandline_tiered.object_store import (
    AlreadyThere,
    Content,
    NoSuchObject,
    ObjectInfo,
    ObjectStore,
    ObjectStoreError,
)

KEYS_PER_LIST = 1000
"""Keys of one page: a list is as many requests as it has pages."""
KEYS_PER_DELETE = 1000


class CountingStore:
    """See `ObjectStore`. `part_bytes`: above this size a put is one request per part and two more, as in `S3Config`."""

    def __init__(self, store: ObjectStore, *, part_bytes: int | None = None) -> None:
        self._store = store
        self._part_bytes = part_bytes
        self.counts = RequestCounts()

    @contextlib.contextmanager
    def _outcome(self) -> Iterator[None]:
        """Count how a request ends."""
        try:
            yield
        except BaseException as error:
            self._failed(error)
            raise
        self.counts.answers += 1

    def _failed(self, error: BaseException) -> None:
        self.counts.failures += 1
        if isinstance(error, NoSuchObject | AlreadyThere):
            self.counts.answers += 1
        elif isinstance(error, ObjectStoreError):
            self.counts.last_failure = str(error)

    async def put(self, key: str, content: Content, *, if_absent: bool = False) -> None:
        """See `ObjectStore.put`."""
        source = as_source(content)
        parts = 1 if self._part_bytes is None else max(1, -(-source.size // self._part_bytes))
        self.counts.puts += parts if parts == 1 else parts + 2
        self.counts.bytes_put += source.size
        with self._outcome():
            await self._store.put(key, source, if_absent=if_absent)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        self.counts.gets += 1
        with self._outcome():
            data = await self._store.get(key, start, end)
        self.counts.bytes_got += len(data)
        return data

    async def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`. It costs what a GET costs."""
        self.counts.gets += 1
        with self._outcome():
            return await self._store.head(key)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        found = 0
        try:
            async for info in self._store.list(prefix, after=after):
                self.counts.lists += found % KEYS_PER_LIST == 0
                found += 1
                yield info
        except GeneratorExit:
            raise
        except BaseException as error:
            self._failed(error)
            raise
        else:
            self.counts.answers += 1
        finally:
            self.counts.lists += found == 0

    async def copy(self, source: ObjectInfo, key: str) -> None:
        """See `ObjectStore.copy`. It costs what PUTs cost, and moves no bytes out of the bucket."""
        parts = 1 if self._part_bytes is None else max(1, -(-source.size // self._part_bytes))
        self.counts.puts += parts if parts == 1 else parts + 2
        with self._outcome():
            await self._store.copy(source, key)

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        self.counts.deletes += -(-len(keys) // KEYS_PER_DELETE)
        with self._outcome():
            await self._store.delete(keys)

    async def close(self) -> None:
        """See `ObjectStore.close`."""
        await self._store.close()
