"""Retries around any object store: full jitter, bounded by a deadline, each attempt bounded by a timeout.

Who uses it: the composition root, around the store that it opened. What is retried is `Unavailable`, nothing else: the type
of an error is the policy. Waiting is uniform between 0 and a bound that doubles with every attempt (AWS's "full jitter"),
and never shorter than the store asked for.

A retried put is the same content under the same key, so one that lands twice, or late, changes nothing (invariant 4). After
an attempt of unknown outcome `AlreadyThere` may be that attempt's success: what is there is compared with what was sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from strandline_tiered.content import as_source, read_exactly
from strandline_tiered.object_store import (
    AlreadyThere,
    Content,
    NoSuchObject,
    ObjectInfo,
    ObjectStore,
    Source,
    Unavailable,
)

T = TypeVar("T")

WHOLE_BYTES = 8 << 20
"""What an object is taken for that is read to its end: manifests, pages and snapshots are; segments are read in ranges.
What it is allowed to take is also how long a silent server is waited for, and readers with it."""
COMPARED_BYTES = 1 << 20
"""Bytes read back at once to compare an object with its source."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds in seconds. An attempt may take `attempt_timeout_s`, and its size over `slowest_bytes_per_s` more."""

    deadline_s: float = 60.0
    """Time for one operation with all its attempts, beside what its size allows."""
    attempt_timeout_s: float = 30.0
    slowest_bytes_per_s: int = 1 << 20
    first_wait_s: float = 0.1
    longest_wait_s: float = 10.0

    def allowance_s(self, size: int) -> float:
        """Return the seconds that moving `size` bytes may take."""
        return size / self.slowest_bytes_per_s

    def longest_wait(self, failures: int) -> float:
        """Return the bound of the wait after so many failures in a row."""
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(failures - 1, 60))


class RetryingStore:
    """See `ObjectStore`. Raises Unavailable only when the deadline leaves no room for another attempt."""

    def __init__(
        self, store: ObjectStore, policy: RetryPolicy | None = None, *, rng: random.Random | None = None
    ) -> None:
        self._store = store
        self._policy = policy or RetryPolicy()
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self.retries = 0
        """Attempts beyond the first, of all operations."""

    async def put(self, key: str, content: Content, *, if_absent: bool = False) -> None:
        """See `ObjectStore.put`."""
        source = as_source(content)
        unknown = False

        async def attempt() -> None:
            nonlocal unknown
            try:
                await self._store.put(key, source, if_absent=if_absent)
            except AlreadyThere:
                if not (unknown and await self._holds(key, source)):
                    raise
            except BaseException:
                unknown = True
                raise

        await self._retry(f"put {key}", attempt, source.size)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        size = WHOLE_BYTES if end is None else end - start
        return await self._retry(f"get {key}", lambda: self._store.get(key, start, end), max(0, size))

    async def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""
        return await self._retry(f"head {key}", lambda: self._store.head(key))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore.list`. Goes on behind the last key that was yielded; the deadline begins anew with each."""
        listing: AsyncIterator[ObjectInfo] | None = None

        async def advance() -> ObjectInfo | None:
            nonlocal listing
            if listing is None:
                listing = self._store.list(prefix, after=after)
            try:
                return await anext(listing, None)
            except BaseException:
                listing = None  # it cannot be gone on with
                raise

        try:
            while (info := await self._retry(f"list {prefix}", advance)) is not None:
                after = info.key
                yield info
        finally:
            if isinstance(listing, AsyncGenerator):
                await listing.aclose()

    async def copy(self, source: ObjectInfo, key: str) -> None:
        """See `ObjectStore.copy`."""
        await self._retry(f"copy to {key}", lambda: self._store.copy(source, key), source.size)

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        await self._retry("delete", lambda: self._store.delete(keys))

    async def close(self) -> None:
        """See `ObjectStore.close`."""
        await self._store.close()

    async def _holds(self, key: str, source: Source) -> bool:
        """Say whether an object has exactly the content of a source."""
        try:
            if (await self._store.head(key)).size != source.size:
                return False
            for start in range(0, source.size, COMPARED_BYTES):
                length = min(COMPARED_BYTES, source.size - start)
                theirs = await self._store.get(key, start, start + length)
                if theirs != read_exactly(source, start, length):
                    return False
        except NoSuchObject:
            return False
        return True

    async def _retry(self, what: str, attempt: Callable[[], Awaitable[T]], size: int = 0) -> T:
        loop = asyncio.get_running_loop()
        allowance = self._policy.allowance_s(size)
        deadline = loop.time() + self._policy.deadline_s + allowance
        failures = 0
        while True:
            left = deadline - loop.time()
            try:
                async with asyncio.timeout(min(left, self._policy.attempt_timeout_s + allowance)) as limit:
                    return await attempt()
            except TimeoutError:
                if not limit.expired():
                    raise
                failure = Unavailable(f"{what}: no answer in time")
            except Unavailable as error:
                failure = error
            failures += 1
            wait = max(
                self._rng.uniform(0, self._policy.longest_wait(failures)), failure.retry_after_s or 0.0
            )
            if loop.time() + wait >= deadline:
                raise Unavailable(
                    f"{failure} (attempt {failures}, the last before the deadline)"
                ) from failure
            self.retries += 1
            await asyncio.sleep(wait)
