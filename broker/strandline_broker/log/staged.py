"""Small types in the log's interface, apart from `log.py` so that its helpers can name them.

Who uses it: `Log`; callers get `Staged` from it, and a log manager is a `RecoveryPointKeeper`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from strandline_broker.log.log import Log


class Staged:
    """Where a staged batch goes. `log_append_time_ms` is -1 with CreateTime.

    `duplicate`: the batch is in the log already, at these offsets, and is not written again.
    """

    __slots__ = ("base_offset", "duplicate", "last_offset", "log_append_time_ms")

    def __init__(self, base_offset: int, last_offset: int, log_append_time_ms: int, duplicate: bool) -> None:
        self.base_offset = base_offset
        self.last_offset = last_offset
        self.log_append_time_ms = log_append_time_ms
        self.duplicate = duplicate


class RecoveryPointKeeper(Protocol):
    """Who keeps recovery points on disk: must be told before a log throws away what is below its point.

    It also hears of appends that failed.
    """

    def recovery_point_falls(self, log: Log, offset: int) -> None:
        """Record durably that everything from `offset` on must be checked after a crash. Raises DiskError."""
        ...

    def write_failed(self, error: OSError) -> None:
        """Take note that the disk did not take what was to be appended."""
        ...
