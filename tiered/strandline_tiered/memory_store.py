"""An object store in memory, for tests and the simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from strandline_tiered.content import as_source, pieces
from strandline_tiered.object_store import AlreadyThere, Content, NoSuchObject, ObjectInfo, check_key


class MemoryStore:
    """See `ObjectStore`. `objects` may be looked at and tampered with by tests."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def put(self, key: str, content: Content, *, if_absent: bool = False) -> None:
        """See `ObjectStore.put`."""
        check_key(key)
        if if_absent and key in self.objects:
            raise AlreadyThere(key)
        self.objects[key] = b"".join(pieces(as_source(content)))

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        return self._find(key)[start:end]

    async def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""
        return ObjectInfo(key, len(self._find(key)))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        for key in sorted(self.objects, key=str.encode):
            data = self.objects.get(key)
            if data is not None and key.startswith(prefix) and key.encode() > after.encode():
                yield ObjectInfo(key, len(data))

    async def copy(self, source: ObjectInfo, key: str) -> None:
        """See `ObjectStore.copy`."""
        check_key(key)
        self.objects[key] = self._find(source.key)

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        for key in keys:
            self.objects.pop(key, None)

    async def close(self) -> None:
        """See `ObjectStore.close`."""

    def _find(self, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError:
            raise NoSuchObject(key) from None
