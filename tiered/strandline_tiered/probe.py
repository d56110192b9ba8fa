"""Finds out what a bucket can do, at start: S3 servers differ, and some ignore silently what they do not know.

Who uses it: the composition root, to report it (condition, metric, log). Safety never depends on the answer (design 7.3):
conditional writes are a second guard, and everything else is needed, so a store without it is refused by name.

The probe writes below `<prefix>/` keys that nobody else uses, and removes them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from strandline_tiered.object_store import (
    AlreadyThere,
    NoSuchObject,
    ObjectStore,
    ObjectStoreError,
    Refused,
    Unavailable,
)

PROBE_PREFIX = ".probe"
SMALL_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What was found. `trouble` is empty if all that is needed works, else says what does not, for people.

    `reason` is one word for a condition: `Ready`, `Unavailable`, what a `Refused` said, or `Unusable`.
    """

    reason: str = "Ready"
    trouble: str = ""
    range_reads: bool = False
    list_after_put: bool = False
    delete: bool = False
    large_objects: bool | None = None
    """Uploads in parts; None: not tried."""
    conditional_writes: bool = False
    """Whether a second put with `if_absent` was refused. Where not, the guards of the protocol stand alone."""

    @property
    def usable(self) -> bool:
        """Whether tiering can work here."""
        return not self.trouble

    def describe(self) -> str:
        """Say it in one line, for logs and conditions."""
        if self.trouble:
            return self.trouble
        guard = "honoured" if self.conditional_writes else "ignored (not needed for safety)"
        parts = {None: "not tried", True: "work", False: "do not work"}[self.large_objects]
        return f"reachable; conditional writes {guard}; uploads in parts {parts}"


async def probe(
    store: ObjectStore, *, large_bytes: int = 0, rng: random.Random | None = None
) -> Capabilities:
    """Try everything once. Never raises ObjectStoreError: what fails is in the answer.

    `large_bytes`: size of an object that is uploaded in parts, more than the store's part size; 0 leaves that out.
    """
    key = f"{PROBE_PREFIX}/{(rng or random.Random()).getrandbits(128):032x}"  # noqa: S311 - no secret
    found = Capabilities()
    try:
        try:
            found = await _probe_small(store, key, found)
            if large_bytes:
                found = await _probe_large(store, f"{key}-large", large_bytes, found)
        finally:
            found = await _probe_delete(store, [key, f"{key}-large"], found)
    except Refused as refused:
        return replace(found, reason=refused.reason, trouble=str(refused))
    except Unavailable as error:
        return replace(found, reason="Unavailable", trouble=str(error))
    except ObjectStoreError as error:
        return replace(found, reason="Unusable", trouble=str(error))
    return _judge(found)


async def _probe_small(store: ObjectStore, key: str, found: Capabilities) -> Capabilities:
    content = bytes(number % 251 for number in range(SMALL_BYTES))
    await store.put(key, [content], if_absent=True)
    found = replace(found, list_after_put=[info.key async for info in store.list(key)] == [key])
    try:
        found = replace(found, range_reads=await store.get(key, 100, 200) == content[100:200])
    except Refused as refused:
        if refused.reason != "NoRangeReads":
            raise
    try:
        await store.put(key, [content], if_absent=True)
    except AlreadyThere:
        return replace(found, conditional_writes=True)
    return found


async def _probe_large(store: ObjectStore, key: str, size: int, found: Capabilities) -> Capabilities:
    piece = bytes(range(256)) * 4096
    parts = [piece] * (size // len(piece)) + [piece[: size % len(piece)]]
    try:
        await store.put(key, parts)
        end = await store.get(key, size - 100, size)
    except Refused:
        return replace(found, large_objects=False)
    whole = (await store.head(key)).size == size
    return replace(found, large_objects=whole and end == (piece + parts[-1])[-100:])


async def _probe_delete(store: ObjectStore, keys: list[str], found: Capabilities) -> Capabilities:
    await store.delete(keys)
    try:
        await store.get(keys[0])
    except NoSuchObject:
        return replace(found, delete=True)
    return found


def _judge(found: Capabilities) -> Capabilities:
    """Name what is needed and missing."""
    missing = [
        words
        for works, words in (
            (found.range_reads, "range reads"),
            (found.list_after_put, "lists that show what was just put"),
            (found.delete, "deletion"),
            (found.large_objects is not False, "uploads in parts"),
        )
        if not works
    ]
    if missing:
        return replace(found, reason="Unusable", trouble=f"the bucket has no {', no '.join(missing)}")
    return found
