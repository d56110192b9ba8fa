"""A small file system of its own for each broker, so that one can be filled: ext4 in a file behind a loop device.

Needs root and loop devices; `available` says whether there are any. ext4's `lost+found` lies in the broker's data
directory, as it does on many volumes in Kubernetes.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

_KEPT = "lost+found"


@functools.cache
def available() -> bool:
    """Say whether a file system can be made and mounted here."""
    if os.geteuid() != 0 or not (shutil.which("mkfs.ext4") and shutil.which("mount")):
        return False
    with tempfile.TemporaryDirectory(prefix="strandline-volume-") as scratch:
        try:
            with contextlib.closing(Volume(Path(scratch) / "image", Path(scratch) / "mounted", 8 << 20)):
                return True
        except subprocess.CalledProcessError:
            return False


class Volume:
    """A mounted file system of `size` bytes; `close` unmounts it. Raises CalledProcessError when it cannot be had."""

    def __init__(self, image: Path, mounted: Path, size: int) -> None:
        self.path = mounted
        self._filler = mounted / _KEPT / "filler"
        mounted.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(size)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        _run("mount", "-o", "loop", str(image), str(mounted))

    def fill(self, leave: int) -> int:
        """Take all space but about `leave` bytes; return how much that was."""
        with self._filler.open("wb") as file:
            taken = 0
            for step in (16 << 20, 1 << 20, 64 << 10, 4 << 10):
                with contextlib.suppress(OSError):
                    for _ in iter(int, 1):
                        os.posix_fallocate(file.fileno(), taken, step)
                        taken += step
            if leave:
                taken = max(0, taken - leave)
                file.truncate(taken)
        return taken

    def free(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount; the file behind it stays, for whoever wants to look at it."""
        self.free()
        _run("umount", "--lazy", str(self.path))


def wipe(directory: Path) -> None:
    """Remove everything in a broker's data directory, as if its volume were new. The broker must not run."""
    for path in _entries(directory):
        if path.name == _KEPT:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _entries(directory: Path) -> Iterator[Path]:
    try:
        yield from list(directory.iterdir())
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
