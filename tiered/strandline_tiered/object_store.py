"""The object store seam: the few operations on a bucket that tiered storage is built on.

`DirectoryStore` is the embedded default of `strandline dev`, `S3Store` speaks to S3-compatible servers, `MemoryStore`
serves tests and the simulator. `tests/unit/tiered/store_contract.py` holds all of them to it. `RetryingStore`,
`CountingStore` and `FaultyStore` wrap any of them.

What the protocol promises, and no more (design invariant 4 lives above it: every key is written by one process with one
content):

- an object becomes visible whole or not at all;
- a read, and a list, see every put that returned before they began;
- a put or delete whose outcome is unknown (`Unavailable`, cancellation) may still take effect at any later time;
- `if_absent` is a second guard where the store supports it, never the only one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol


class ObjectStoreError(Exception):
    """Base of everything an object store raises on purpose."""


class NoSuchObject(ObjectStoreError):  # noqa: N818 - S3's name for it
    """There is no object of that key."""


class AlreadyThere(ObjectStoreError):  # noqa: N818 - names what was found
    """`put` with `if_absent`: the key is taken. Nothing was written."""


class InvalidKey(ObjectStoreError, ValueError):  # noqa: N818 - names what was found
    """The key cannot be stored: empty, too long, or with empty, `.` or `..` parts."""


class Unavailable(ObjectStoreError):  # noqa: N818 - names what was found
    """The store cannot be reached or is overloaded; the outcome of a write is unknown. Retry with jitter.

    `retry_after_s`: seconds the store asked to be left alone, None if it did not say.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DamagedAnswer(Unavailable):
    """What arrived is not what was stored or asked for: cut short, or with a wrong checksum. The next try may be sound."""


class Refused(ObjectStoreError):  # noqa: N818 - names what was found
    """The store answers, and says no until a person changes something: rights, credentials, bucket, region, clock.

    `reason` is one word for conditions, such as `AccessDenied` or `NoSuchBucket`. Nothing was written. Retrying at once is
    of no use; what runs for ever tries again now and then.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SourceFailed(ObjectStoreError):  # noqa: N818 - names what happened
    """`put`: the content could not be read, or not as much as its size says. Nothing was written."""


class ObjectInfo(NamedTuple):
    """Key and size in bytes of one object."""

    key: str
    size: int


MAX_KEY_BYTES = 1024
"""Longest key in UTF-8, as S3 has it."""


def check_key(key: str) -> None:
    """Raise InvalidKey for a key that some store would not take or would mistake for another."""
    if not key or len(key.encode()) > MAX_KEY_BYTES or "\\" in key or "\0" in key:
        raise InvalidKey(f"{key!r} is no object key")
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidKey(f"{key!r} has an empty part, or one of dots")


class Source(Protocol):
    """The content of an object that is not in memory as a whole: segments are larger than a broker is.

    It may be read more than once, from several places at once, and from threads: a store computes a checksum before it
    sends, and sends again what did not arrive. It must give the same bytes every time.
    """

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, start: int, length: int) -> bytes | memoryview:
        """Return exactly `length` bytes from `start` on; blocks. Raises OSError."""
        ...


Content = Sequence[bytes | memoryview] | Source
"""What is put: parts that are in memory, in order, or a source to read from."""


class ObjectStore(Protocol):
    """A bucket, or a prefix of one. Keys are relative, `/`-separated. Safe to use from many tasks of one loop."""

    async def put(self, key: str, content: Content, *, if_absent: bool = False) -> None:
        """Store an object.

        Raises InvalidKey, AlreadyThere (only with `if_absent`, and only where conditional writes are supported),
        SourceFailed, Refused, Unavailable.
        """
        ...

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Return bytes [start, end) of an object, fewer where it ends earlier.

        Never fewer for any other reason: DamagedAnswer says that an answer was cut short.
        Raises NoSuchObject, Refused, Unavailable.
        """
        ...

    async def head(self, key: str) -> ObjectInfo:
        """Return size of an object. Raises NoSuchObject, Refused, Unavailable."""
        ...

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix` and is greater than `after`, in the order of UTF-8 bytes.

        Raises Refused, Unavailable; what was yielded until then is right.
        """
        ...

    async def copy(self, source: ObjectInfo, key: str) -> None:
        """Store under `key` what lies under `source.key`, without sending it through here.

        `source.size` says how much that is. What a store vouches for is its own copying: look at what came of it. Raises
        InvalidKey, NoSuchObject, Refused (reason `NotImplemented` where a server cannot copy: read, and put), Unavailable.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are gone already are no error.

        Raises Refused, Unavailable: any of them may be left.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...
