"""What a log must know of its part in the bucket: where the log begins across both tiers, and what it may give up here.

    log start                 local start            tiered through         log end
        |-- only in the bucket --|-- in the bucket and here --|-- only here --|

`Log.start_offset` is the local start. A log has a `LogTier` from the moment on that its partition is tiered; a file in the
partition's directory, `tier-log-start`, says so and holds the log start. That offset never falls, and is on the disk before
anybody is told of it (design section 6). How far segments may be deleted is not kept: only the leader of the moment
authorises that, after it wrote and looked (design section 7.3), and followers learn it from their fetches.

Who uses it: `Log` and its helpers; the partition layer raises both offsets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strandline_broker.log.checkpoints import encode_single_offset, read_single_offset
from strandline_broker.log.config import LONG_MAX
from strandline_broker.log.names import TIER_LOG_START

if TYPE_CHECKING:
    from strandline_broker.seams.disk import Disk


class LogTier:
    """See the module. Offsets are those of records; `tiered_through` is the first offset that must stay here."""

    __slots__ = ("_disk", "_path", "log_start", "sweep_at_ms", "swept_through", "tiered_through")

    def __init__(self, disk: Disk, directory: str, log_start: int) -> None:
        self._disk = disk
        self._path = f"{directory}/{TIER_LOG_START}"
        self.log_start = log_start
        self.tiered_through = 0
        # What `retention.take_released` knows of its last look, and when the next one may find more.
        self.swept_through = 0
        self.sweep_at_ms = LONG_MAX

    @classmethod
    def load(cls, disk: Disk, directory: str) -> LogTier | None:
        """Return what the directory of a tiered partition says, None for one that is not tiered.

        Raises CorruptCheckpoint, DiskError.
        """
        log_start = read_single_offset(disk, f"{directory}/{TIER_LOG_START}")
        return cls(disk, directory, log_start) if log_start is not None else None

    @classmethod
    def create(cls, disk: Disk, directory: str, log_start: int) -> LogTier:
        """Make a log tiered that begins at `log_start`; durable when it returns. Raises DiskError."""
        tier = cls(disk, directory, log_start)
        tier._write(log_start)
        return tier

    def raise_log_start(self, offset: int) -> bool:
        """Let the log begin at `offset`, unless it begins later; return whether it moved.

        Durable when it returns. Raises DiskError: then nothing moved.
        """
        if offset <= self.log_start:
            return False
        self._write(offset)
        self.log_start = offset
        return True

    def raise_tiered_through(self, offset: int) -> None:
        """Let everything below `offset` be deleted here. What was authorised once stays so: it never falls."""
        self.tiered_through = max(self.tiered_through, offset)

    @property
    def deletable_end(self) -> int:
        """The end of what local retention may take: in the bucket for good, or deleted in both tiers."""
        return max(self.tiered_through, self.log_start)

    def _write(self, log_start: int) -> None:
        self._disk.write_atomic(self._path, encode_single_offset(log_start))
