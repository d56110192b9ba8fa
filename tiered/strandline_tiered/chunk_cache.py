"""Chunks of the bucket in memory: least recently used go first, and the bound holds at every moment.

Who uses it: the remote reader. Pure: no I/O, no time. Bytes on their way count as well: who fetches reserves room first,
then turns the reservation into an entry or gives it back.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")


class ChunkName(NamedTuple):
    """The bytes of an object from `start` on; how many is the same for everybody who asks."""

    key: str
    start: int


class Evicted(NamedTuple, Generic[V]):
    """What had to go. `passing`: it came for one who reads on and on; `unused`: nobody asked for it since it came."""

    name: ChunkName
    value: V
    passing: bool
    unused: bool


class _Entry(Generic[V]):
    __slots__ = ("passing", "size", "unused", "value")

    def __init__(self, value: V, size: int, *, unused: bool, passing: bool) -> None:
        self.value = value
        self.size = size
        self.unused = unused
        self.passing = passing


class ChunkCache(Generic[V]):
    """At most `limit_bytes`, reservations included. `unused_bytes` counts what was read ahead and not asked for yet."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.unused_bytes = 0
        self._entries: OrderedDict[ChunkName, _Entry[V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: ChunkName) -> bool:
        return name in self._entries

    def get(self, name: ChunkName) -> V | None:
        """Return what is cached under a name, which makes it the last to go; None if there is nothing."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        self._entries.move_to_end(name)
        if entry.unused:
            entry.unused = False
            self.unused_bytes -= entry.size
        return entry.value

    def keep(self, name: ChunkName) -> bool:
        """Make an entry the last to go, though nobody asked for it yet: somebody is on the way to it. False if not here."""
        if name not in self._entries:
            return False
        self._entries.move_to_end(name)
        return True

    def reserve(self, size: int) -> list[Evicted[V]]:
        """Make room for `size` bytes and return what had to go. Raises MemoryError if reservations leave too little."""
        evicted: list[Evicted[V]] = []
        while self.used_bytes + size > self.limit_bytes:
            if not self._entries:
                raise MemoryError(f"no room for {size} bytes beside {self.used_bytes} of {self.limit_bytes}")
            name, entry = self._entries.popitem(last=False)
            self._forget(entry)
            evicted.append(Evicted(name, entry.value, entry.passing, entry.unused))
        self.used_bytes += size
        return evicted

    def release(self, size: int) -> None:
        """Give a reservation back."""
        self.used_bytes -= size
        assert self.used_bytes >= 0, "more was given back than was reserved"

    def fill(self, name: ChunkName, value: V, size: int, *, unused: bool, passing: bool = False) -> None:
        """Turn a reservation of `size` bytes into an entry. `unused`, `passing`: see `Evicted`."""
        self.discard(name)
        self._entries[name] = _Entry(value, size, unused=unused, passing=passing)
        if unused:
            self.unused_bytes += size

    def discard(self, name: ChunkName) -> None:
        """Drop an entry, if there is one."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._forget(entry)

    def discard_object(self, key: str) -> None:
        """Drop everything of an object."""
        for name in [name for name in self._entries if name.key == key]:
            self.discard(name)

    def _forget(self, entry: _Entry[V]) -> None:
        self.used_bytes -= entry.size
        if entry.unused:
            self.unused_bytes -= entry.size
