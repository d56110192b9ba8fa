"""Real records, as many as wanted: what lies on this machine, read once, and remembered by digests.

The package index of a Debian or Ubuntu system comes first, one stanza a record, then the files below some folders, in
pieces: programs, texts, tables, of very different sizes and entropy. Nothing is made up, and nothing comes twice before
all of it came once; `Source.repeats` says how often it did. 128 bits of BLAKE2b stand for the bytes of a record (key and
value), so a reader needs neither the source again nor the memory for it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

PIECE_BYTES = 16 << 10
"""Of a file that is longer, in one record."""
DIGEST_BYTES = 16
FOLDERS = (Path("/usr/share"), Path("/usr/lib"), Path(sysconfig.get_paths()["purelib"]), Path("/usr/bin"))


def digest(key: bytes, value: bytes) -> bytes:
    """Return what stands for a record."""
    found = hashlib.blake2b(b"%d " % len(key) + key, digest_size=DIGEST_BYTES)
    found.update(value)
    return found.digest()


class Digests:
    """The records of one partition, in order; DIGEST_BYTES of memory each."""

    def __init__(self) -> None:
        self._all = bytearray()

    def __len__(self) -> int:
        return len(self._all) // DIGEST_BYTES

    def add(self, key: bytes, value: bytes) -> None:
        """Remember the next record."""
        self._all += digest(key, value)

    def is_at(self, offset: int, key: bytes, value: bytes) -> bool:
        """Whether this is the record at an offset."""
        start = offset * DIGEST_BYTES
        return self._all[start : start + DIGEST_BYTES] == digest(key, value)


class Source:
    """Iterates over (key, value) without end, from the beginning again where there is nothing new. Raises OSError."""

    def __init__(self, folders: Sequence[Path] = FOLDERS, *, packages: bool = True) -> None:
        self._folders = folders
        self._packages = packages
        self.repeats = 0
        """Times that everything there is has come already."""

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            came = False
            for record in self._once():
                came = True
                yield record
            if not came:
                raise FileNotFoundError(f"no package index and no files below {self._folders}")
            self.repeats += 1

    def _once(self) -> Iterator[tuple[bytes, bytes]]:
        if self._packages:
            yield from _packages()
        for folder in self._folders:
            yield from _pieces(folder)


def _packages() -> Iterator[tuple[bytes, bytes]]:
    if shutil.which("apt-cache") is None:
        return
    with subprocess.Popen(["apt-cache", "dumpavail"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines: list[bytes] = []
        for line in process.stdout:
            if line.strip():
                lines.append(line)
            elif lines:
                yield _stanza(lines)
                lines = []
        if lines:
            yield _stanza(lines)


def _stanza(lines: list[bytes]) -> tuple[bytes, bytes]:
    return lines[0].partition(b": ")[2].strip(), b"".join(lines)


def _pieces(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    for directory, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_symlink() or not path.is_file():
                continue
            try:
                with path.open("rb") as file:
                    key = os.fsencode(path)
                    while piece := file.read(PIECE_BYTES):
                        yield key, piece
            except PermissionError:
                continue
