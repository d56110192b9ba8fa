"""What `SimDisk` is made of: contents and names, each as programs see it and as it is on the platter.

Only `sim_disk` uses this. The difference between the two versions is a list of changes in the order they
were made: a sync applies its part of the list to the platter, a crash applies a random part (`Survival`).
"""

from __future__ import annotations

import random
from enum import Enum

SECTOR_BYTES = 512


class _Fate(Enum):
    """What becomes of everything that was not synced in one file or in the name space."""

    LOST = "lost"
    KEPT = "kept"
    PREFIX = "prefix"
    SUBSET = "subset"


class Survival:
    """The dice of one crash."""

    __slots__ = ("rng", "torn")

    def __init__(self, rng: random.Random, *, torn: bool) -> None:
        self.rng = rng
        self.torn = torn

    def file_fate(self) -> _Fate:
        """Draw for one file."""
        some = _Fate.SUBSET if self.torn else _Fate.PREFIX
        return self.rng.choice((_Fate.LOST, _Fate.KEPT, some, some, some))

    def names_fate(self) -> _Fate:
        """Draw for all names."""
        return self.rng.choice((_Fate.LOST, _Fate.KEPT, _Fate.PREFIX, _Fate.SUBSET, _Fate.SUBSET))


class Inode:
    """A file: `data` is what programs read, `durable` the platter, `pending` the way between.

    A pending change is (offset, bytes) for a write and (length, None) for a truncation.
    """

    __slots__ = ("data", "durable", "pending")

    def __init__(self, content: bytes | bytearray = b"") -> None:
        self.data = bytearray(content)
        self.durable = bytearray(content)
        self.pending: list[tuple[int, bytes | None]] = []

    def write(self, offset: int, data: bytes) -> None:
        """Write, with zeros for a gap."""
        if data:
            _apply(self.data, offset, data)
            self.pending.append((offset, data))

    def truncate(self, length: int) -> None:
        """Cut or extend with zeros."""
        if length != len(self.data):
            _apply(self.data, length, None)
            self.pending.append((length, None))

    def settle(self) -> None:
        """Make everything durable."""
        pending, self.pending = self.pending, []
        for offset, data in pending:
            _apply(self.durable, offset, data)

    def forget_pending(self) -> None:
        """Drop the changes as a failed fsync does: still readable, never written."""
        self.pending = []

    def pending_bytes(self) -> int:
        """Return how many written bytes are not durable."""
        return sum(len(data) for _, data in self.pending if data is not None)

    def survivor(self, survival: Survival) -> Inode:
        """Return the file as found after a crash."""
        image = bytearray(self.durable)
        rng = survival.rng
        fate = survival.file_fate() if self.pending else _Fate.LOST
        if fate is _Fate.KEPT:
            for offset, data in self.pending:
                _apply(image, offset, data)
        elif fate is _Fate.PREFIX:
            whole = rng.randrange(len(self.pending))
            for offset, data in self.pending[:whole]:
                _apply(image, offset, data)
            offset, data = self.pending[whole]
            if data is not None:
                _apply(image, offset, data[: rng.randrange(len(data) + 1)])
        elif fate is _Fate.SUBSET:
            for offset, data in self.pending:
                if data is not None:
                    _tear(image, offset, data, rng)
                elif rng.random() < 0.5:
                    _apply(image, offset, None)
        return Inode(image)


class Directory:
    """A directory: `entries` is what programs see, `durable` what is on the platter."""

    __slots__ = ("durable", "entries")

    def __init__(self) -> None:
        self.entries: dict[str, Directory | Inode] = {}
        self.durable: dict[str, Directory | Inode] = {}


Effect = tuple[Directory, str, "Directory | Inode | None"]


class Journal:
    """The name changes that are not durable, oldest first. The effects of one change survive together."""

    __slots__ = ("changes",)

    def __init__(self) -> None:
        self.changes: list[tuple[Effect, ...]] = []

    def change(self, *effects: Effect) -> None:
        """Make a change visible and remember that it is volatile."""
        for directory, name, node in effects:
            _assign(directory.entries, name, node)
        self.changes.append(effects)

    def settle(self, directory: Directory) -> None:
        """Make the names in `directory` durable; for files moved out of it also those where they went."""
        kept: list[tuple[Effect, ...]] = []
        moved_to: list[Directory] = []
        for effects in self.changes:
            if any(where is directory and node is None for where, _, node in effects):
                moved_to += [
                    where for where, _, node in effects if where is not directory and node is not None
                ]
        for effects in self.changes:
            for where, name, node in effects:
                if where is directory:
                    _assign(directory.durable, name, node)
            rest = tuple(effect for effect in effects if effect[0] is not directory)
            if rest:
                kept.append(rest)
        self.changes = kept
        for target in moved_to:
            self.settle(target)

    def survivors(self, root: Directory, survival: Survival) -> Directory:
        """Return the tree as found after a crash."""
        rng = survival.rng
        fate = survival.names_fate()
        if fate is _Fate.PREFIX:
            chosen = self.changes[: rng.randrange(len(self.changes) + 1)]
        elif fate is _Fate.SUBSET:
            chosen = [effects for effects in self.changes if rng.random() < 0.5]
        else:
            chosen = self.changes if fate is _Fate.KEPT else []
        tables: dict[Directory, dict[str, Directory | Inode]] = {}
        for effects in chosen:
            for where, name, node in effects:
                _assign(tables.setdefault(where, dict(where.durable)), name, node)
        return _rebuild(root, tables, survival, {})


def _rebuild(
    directory: Directory,
    tables: dict[Directory, dict[str, Directory | Inode]],
    survival: Survival,
    done: dict[Directory | Inode, Directory | Inode],
) -> Directory:
    """Copy a tree; a file that kept both names of a half-done move stays one file."""
    copy = Directory()
    done[directory] = copy
    for name, node in sorted(tables.get(directory, directory.durable).items()):
        found = done.get(node)
        if found is None:
            if isinstance(node, Directory):
                found = _rebuild(node, tables, survival, done)
            else:
                found = done[node] = node.survivor(survival)
        copy.entries[name] = found
    copy.durable = dict(copy.entries)
    return copy


def _assign(table: dict[str, Directory | Inode], name: str, node: Directory | Inode | None) -> None:
    if node is None:
        table.pop(name, None)
    else:
        table[name] = node


def _apply(image: bytearray, offset: int, data: bytes | None) -> None:
    """Apply one change: write `data` at `offset`, or cut to `offset` bytes."""
    if offset > len(image):
        image.extend(bytes(offset - len(image)))
    if data is None:
        del image[offset:]
    else:
        image[offset : offset + len(data)] = data


def _tear(image: bytearray, offset: int, data: bytes, rng: random.Random) -> None:
    """Write each sector of `data` with its own fate; other bytes of the same sector stay intact."""
    position = 0
    while position < len(data):
        length = SECTOR_BYTES - (offset + position) % SECTOR_BYTES
        piece = data[position : position + length]
        fate = rng.randrange(10)
        if fate < 5:
            _apply(image, offset + position, piece)
        elif fate == 5:
            _apply(image, offset + position, bytes(len(piece)))
        elif fate == 6:
            _apply(image, offset + position, rng.randbytes(len(piece)))
        position += length
