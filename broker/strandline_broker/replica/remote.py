"""What a partition asks of its part in the bucket: the contracts, and the errors that they may raise.

What stands on `strandline_tiered` implements them, and tests put something simpler in its place. Who implements `RemoteLog`
reads through chunks and caches of its own (design section 7.4); nothing blocks, everything may take as long as the bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from strandline_broker.log.producer_state import ProducerEntry


class RemoteError(Exception):
    """Base of what a read from the bucket raises on purpose."""


class RemoteUnavailable(RemoteError):  # noqa: N818 - names what was found
    """The bucket cannot be reached, is overloaded or too slow. Trying again may help."""


class RemoteCorrupt(RemoteError):  # noqa: N818 - names what was found
    """What the bucket holds is not what was put there. Trying again hardly helps."""


class RemoteGone(RemoteCorrupt):
    """The bucket lacks an object that the manifest names: it is lost, or a later leader had no need of it.

    Only a leader that does not know that it was replaced sees the latter; its successor can be asked.
    """


class NotRemote(RemoteError):  # noqa: N818 - names what was found
    """The manifest holds no such offset: it is below the log start by now, or was never uploaded."""


class OffsetAt(NamedTuple):
    """A record found by time: its timestamp (ms), offset, and leader epoch (-1 where the log does not know it)."""

    timestamp: int
    offset: int
    leader_epoch: int


class RemoteLog(Protocol):
    """One partition's records in the bucket, as the manifest of its leader has them: offsets [log start, `end_offset`)."""

    @property
    def end_offset(self) -> int:
        """The manifest's end: the first offset that is not in the bucket. Never falls."""
        ...

    async def read(self, offset: int, max_bytes: int) -> bytes | memoryview:
        """Return whole batches from the one that holds `offset` on, within `max_bytes` but at least one.

        They lie below `end_offset`; there may be more of them. The bytes are never changed afterwards. Raises RemoteError.
        """
        ...

    async def offset_for_timestamp(self, timestamp: int, end: int) -> OffsetAt | None:
        """Return the first record below `end` whose timestamp (ms) is not below `timestamp`. Raises RemoteError."""
        ...

    async def max_timestamp(self, end: int) -> OffsetAt | None:
        """Return the first record with the highest timestamp among those below `end`. Raises RemoteError."""
        ...


class TailState(NamedTuple):
    """What a replica has to know of the records before the offset at which it begins."""

    epochs: Sequence[tuple[int, int]]
    """(leader epoch, start offset), ascending; all below that offset."""
    producers: Sequence[ProducerEntry]
    """The producers' state at that offset."""


class TierBootstrap(Protocol):
    """Where a new replica learns what came before the offset at which its leader lets it begin (design section 7.3)."""

    async def tail_state(self, segment_key: str, offset: int) -> TailState:
        """Return the state at `offset`, the end of the segment object `segment_key`. Raises RemoteError."""
        ...
