"""Objects of which the greatest (epoch, sequence) counts: topic manifests and snapshots of group offsets (design 7.1).

Who uses it: `topic_store`, `offsets_store`. Each such object is whole by itself. A writer that knows one of its own to be
stored may collect what is smaller: whatever else lands, and whenever, that is not the greatest any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from strandline_tiered.keys import OffsetsName, TopicManifestName
from strandline_tiered.object_store import NoSuchObject, ObjectStore, Unavailable

KEPT = 2
"""Objects that are left when superseded ones are collected: the newest, and one to look into should it be damaged."""
MAX_DELETE = 1000
"""Keys of one request to delete, as S3 has it."""
_MAX_LOOKS = 5

NameT = TypeVar("NameT", OffsetsName, TopicManifestName)


def superseded(names: Iterable[NameT], stored: NameT) -> list[NameT]:
    """Return which of `names` may be deleted by who stored one; all but the KEPT greatest up to it. Pure."""
    smaller = sorted({name for name in names if name < stored})
    return smaller[: max(len(smaller) - (KEPT - 1), 0)]


async def load_newest(
    store: ObjectStore, prefix: str, parse: Callable[[str], NameT | None]
) -> tuple[NameT, str, bytes] | None:
    """Return name, key and bytes of the greatest object below `prefix`, None if there is none.

    `parse` returns the name that a key stands for, None for a key that is none of them. Raises Refused, Unavailable.
    """
    key = ""
    for _ in range(_MAX_LOOKS):
        newest: tuple[NameT, str] | None = None
        async for info in store.list(prefix):
            name = parse(info.key)
            if name is not None and (newest is None or name > newest[0]):
                newest = name, info.key
        if newest is None:
            return None
        name, key = newest
        try:
            return name, key, await store.get(key)
        except NoSuchObject:
            # Collected meanwhile: there is a greater one now.
            continue
    raise Unavailable(f"{key}, or one in its place, was gone each time it was asked for")


async def delete_all(store: ObjectStore, keys: Sequence[str]) -> None:
    """Delete objects, MAX_DELETE at once. Raises Refused, Unavailable: any of them may be left."""
    for first in range(0, len(keys), MAX_DELETE):
        await store.delete(keys[first : first + MAX_DELETE])
