"""Follows the batches of a segment object, piece by piece: what `strandline tier verify --deep` looks for in its log."""

from __future__ import annotations

from strandline_broker.wire.batch import HEADER_SIZE, MAGIC, crc_ok, read_header
from strandline_tiered.envelope import FormatError
from strandline_tiered.manifest import Entry


class BatchCheck:
    """See `LogCheck`. Each batch has the right checksum, is of the segment, and follows the one before.

    Offsets may be left out, which compaction does, and never come twice. One piece and one batch are held.
    """

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._rest = b""
        self._position = 0
        self._next_offset = entry.name.base_offset
        self._epoch = -1
        self._start_seen = False

    def feed(self, data: memoryview) -> None:
        """See `LogCheck.feed`."""
        view = memoryview(self._rest + bytes(data)) if self._rest else data
        at = 0
        while at + HEADER_SIZE <= len(view):
            size = self._check_header(view, at)
            if at + size > len(view):
                break
            if not crc_ok(view[at : at + size]):
                raise FormatError(f"the batch at {self._position} does not fit its checksum")
            at += size
            self._position += size
        self._rest = bytes(view[at:])

    def _check_header(self, view: memoryview, at: int) -> int:
        """Judge the header of the next batch, once or again when more of it has come; return the batch's size."""
        header = read_header(view, at)
        entry, where = self._entry, f"the batch at {self._position}"
        if header.magic != MAGIC or header.size < HEADER_SIZE or header.last_offset_delta < 0:
            raise FormatError(f"there is no batch at {self._position}")
        if self._position + header.size > entry.log_bytes:
            raise FormatError(f"{where} ends behind the log")
        if at + header.size > len(view):
            return header.size
        if header.base_offset < self._next_offset or header.next_offset > entry.end_offset:
            raise FormatError(
                f"{where} has offsets {header.base_offset} to {header.last_offset}, where {self._next_offset} to "
                f"{entry.end_offset - 1} belong"
            )
        if not self._epoch <= header.leader_epoch <= entry.name.leader_epoch:
            raise FormatError(f"{where} is of leader epoch {header.leader_epoch}, after {self._epoch}")
        if self._position == entry.start_position:
            self._start_seen = header.base_offset <= entry.start_offset
        self._next_offset, self._epoch = header.next_offset, header.leader_epoch
        return header.size

    def end(self) -> None:
        """See `LogCheck.end`."""
        if self._rest:
            raise FormatError(f"its log ends within the batch at {self._position}")
        if not self._start_seen:
            entry = self._entry
            raise FormatError(
                f"no batch that leads to offset {entry.start_offset} begins at {entry.start_position}"
            )
