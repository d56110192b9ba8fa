"""The format of a segment object: a sealed segment with all that is known about it, in one immutable object. Pure.

Who uses it: the archiver builds, readers, restore and scrub parse. docs/formats.md has it byte by byte. The log bytes come
first and are Kafka's own, so what reads a `.log` file reads the beginning of an object; behind them stands the *tail*:

    log | block checksums | offset index | time index | aborted transactions | leader epochs | producers | footer

A store vouches for whole objects at best, and readers fetch ranges, so the log is divided into blocks with a CRC-32C each.
A tail is read with one request, [log_bytes, object_bytes) as the manifest's entry has them; who knows only the size of the
object reads the footer first, which has a fixed length.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from crc32c import crc32c

from strandline_tiered.content import PartsSource, pieces, read_exactly
from strandline_tiered.envelope import FormatError, UnsupportedVersion
from strandline_tiered.epochs import History, history_of
from strandline_tiered.object_store import Source

Buffer = bytes | bytearray | memoryview

MAGIC = b"STRNDSEG"
VERSION = 1
BLOCK_BYTES = 1 << 20
"""Bytes of log under one checksum."""
MAX_TAIL_BYTES = 64 << 20
"""No segment of less than 4 GiB has a longer tail, unless somebody configured an index entry per batch."""

# Magic last: the end of an object is what one reads first. Crc, version and magic stay where they are in all versions.
_HEAD = struct.Struct(">16siiqqqqQI")
_SECTION = struct.Struct(">QI")
_END = struct.Struct(">IHH8s")
_SECTIONS = 6
FOOTER_BYTES = _HEAD.size + _SECTIONS * _SECTION.size + _END.size

_CHECKSUM = struct.Struct(">I")
_EPOCH = struct.Struct(">iq")
_OFFSET_ENTRY = struct.Struct(">II")
_TIME_ENTRY = struct.Struct(">qI")
ABORTED_ENTRY_BYTES = 34
"""Bytes of an entry of Kafka's `.txnindex`: version i16, producer id, first, last and last stable offset i64."""


class SegmentInfo(NamedTuple):
    """Whose segment it is. `leader_epoch` is the uploader's; offsets are [base, end); timestamps in ms, -1 for none."""

    topic_id: UUID
    partition: int
    leader_epoch: int
    base_offset: int
    end_offset: int
    base_timestamp: int
    max_timestamp: int


class Companions(NamedTuple):
    """What lies beside a log file, in Kafka's formats (docs/formats.md): whole files.

    `epochs`: the leader epochs up to the segment's end; `producers`: the snapshot at its end. Empty where there is none.
    """

    offset_index: bytes = b""
    time_index: bytes = b""
    aborted_transactions: bytes = b""
    epochs: History = ()
    producers: bytes = b""


class SegmentObject:
    """See `Source`: an object about to be put. The log is read from its own source, only the tail is in memory."""

    __slots__ = ("_log", "_tail", "log_bytes", "size")

    def __init__(self, log: Source, tail: Sequence[bytes]) -> None:
        self._log = log
        self._tail = PartsSource(tail)
        self.log_bytes = log.size
        self.size = log.size + self._tail.size

    def read(self, start: int, length: int) -> bytes | memoryview:
        """See `Source.read`."""
        from_log = max(0, min(length, self.log_bytes - start))
        if from_log == length:
            return self._log.read(start, length)
        rest = self._tail.read(max(0, start - self.log_bytes), length - from_log)
        return b"".join((self._log.read(start, from_log), rest)) if from_log else rest


def build(info: SegmentInfo, log: Source, companions: Companions) -> SegmentObject:
    """Return the object for a sealed segment. Reads the log once, so it blocks. Raises SourceFailed."""
    sections = (
        b"".join(map(_CHECKSUM.pack, _block_checksums(log))),
        companions.offset_index,
        companions.time_index,
        companions.aborted_transactions,
        b"".join(_EPOCH.pack(*epoch) for epoch in companions.epochs),
        companions.producers,
    )
    return SegmentObject(log, (*sections, _footer(info, log.size, sections)))


def _block_checksums(log: Source) -> list[int]:
    found = []
    for start in range(0, log.size, BLOCK_BYTES):
        crc = 0
        for piece in pieces(log, start, min(BLOCK_BYTES, log.size - start)):
            crc = crc32c(piece, crc)
        found.append(crc)
    return found


def _footer(info: SegmentInfo, log_bytes: int, sections: Sequence[bytes]) -> bytes:
    head = _HEAD.pack(info.topic_id.bytes, *info[1:], log_bytes, BLOCK_BYTES)
    body = head + b"".join(_SECTION.pack(len(section), crc32c(section)) for section in sections)
    return body + _END.pack(crc32c(body), FOOTER_BYTES, VERSION, MAGIC)


@dataclass(frozen=True, slots=True)
class Footer:
    """What the footer says. `section_ranges`: [start, end) of every section within the object, with its CRC-32C."""

    info: SegmentInfo
    log_bytes: int
    block_bytes: int
    section_ranges: tuple[tuple[int, int, int], ...]


def parse_footer(data: Buffer, object_bytes: int) -> Footer:
    """Understand the last FOOTER_BYTES (or more) of an object of that size. Raises FormatError."""
    if len(data) < FOOTER_BYTES:
        raise FormatError(f"{len(data)} bytes are too few for a footer")
    data = memoryview(data)[-FOOTER_BYTES:]
    checksum, length, version, magic = _END.unpack(data[-_END.size :])
    if magic != MAGIC:
        raise FormatError("no segment object: it does not end with the magic")
    if version != VERSION or length != FOOTER_BYTES:
        raise UnsupportedVersion(f"version {version} with a footer of {length} bytes is not known here")
    body = data[: -_END.size]
    if crc32c(body) != checksum:
        raise FormatError("the footer does not fit its checksum")
    topic_id, *numbers, log_bytes, block_bytes = _HEAD.unpack_from(body)
    position = log_bytes
    ranges = []
    for index in range(_SECTIONS):
        section_bytes, crc = _SECTION.unpack_from(body, _HEAD.size + index * _SECTION.size)
        ranges.append((position, position + section_bytes, crc))
        position += section_bytes
    if position + FOOTER_BYTES != object_bytes:
        raise FormatError(f"sections end at {position}, the object has {object_bytes} bytes")
    blocks = ranges[0][1] - ranges[0][0]
    if block_bytes == 0 or blocks != -(-log_bytes // block_bytes) * _CHECKSUM.size:
        raise FormatError("the checksums are not one per block")
    for (start, end, _), size in zip(ranges[1:], (8, 12, ABORTED_ENTRY_BYTES, _EPOCH.size, 1), strict=True):
        if (end - start) % size:
            raise FormatError(f"a section of {end - start} bytes, which are no entries of {size}")
    return Footer(SegmentInfo(UUID(bytes=topic_id), *numbers), log_bytes, block_bytes, tuple(ranges))


class Tail:
    """All of a segment object but its log: answers where to look in the log, and whether bytes of it are right."""

    __slots__ = ("_sections", "footer", "size")

    def __init__(self, footer: Footer, sections: tuple[memoryview, ...], size: int) -> None:
        self.footer = footer
        self._sections = sections
        self.size = size
        """Bytes of memory, about."""

    @property
    def companions(self) -> Companions:
        """Copies of what lay beside the log file, to restore it."""
        _, offsets, times, aborted, epochs, producers = self._sections
        return Companions(bytes(offsets), bytes(times), bytes(aborted), _history(epochs), bytes(producers))

    def position_of(self, offset: int) -> int:
        """Return a position at which a batch begins, at or before the one that holds `offset`: scan from there.

        0 below the segment; above it, somewhere in its last batches.
        """
        relative = offset - self.footer.info.base_offset
        index = self._sections[1]
        count = bisect_right(
            range(len(index) // _OFFSET_ENTRY.size), relative, key=_field(_OFFSET_ENTRY, index, 0)
        )
        if count == 0:
            return 0
        position: int = _OFFSET_ENTRY.unpack_from(index, (count - 1) * _OFFSET_ENTRY.size)[1]
        return min(position, self.footer.log_bytes)

    def position_of_time(self, timestamp: int) -> int:
        """Return a position from which to scan for the first record with a timestamp (ms) at or after this one."""
        index = self._sections[2]
        entries = range(len(index) // _TIME_ENTRY.size)
        count = bisect_left(entries, timestamp, key=_field(_TIME_ENTRY, index, 0))
        if count == 0:
            return 0
        relative: int = _TIME_ENTRY.unpack_from(index, (count - 1) * _TIME_ENTRY.size)[1]
        return self.position_of(self.footer.info.base_offset + relative)

    def check(self, start: int, data: Buffer) -> None:
        """Verify bytes of the log from `start` on, as far as they are whole blocks. Raises FormatError."""
        block_bytes, log_bytes = self.footer.block_bytes, self.footer.log_bytes
        view = memoryview(data)
        if start + len(view) > log_bytes:
            raise FormatError(f"bytes up to {start + len(view)} of a log of {log_bytes}")
        first = -(-start // block_bytes)
        for block in range(first, len(self._sections[0]) // _CHECKSUM.size):
            begin, end = block * block_bytes, min((block + 1) * block_bytes, log_bytes)
            if end > start + len(view):
                return
            (expected,) = _CHECKSUM.unpack_from(self._sections[0], block * _CHECKSUM.size)
            if crc32c(view[begin - start : end - start]) != expected:
                raise FormatError(f"the log's bytes [{begin}, {end}) do not fit their checksum")


def _field(entry: struct.Struct, index: memoryview, field: int) -> Callable[[int], int]:
    def read(number: int) -> int:
        value: int = entry.unpack_from(index, number * entry.size)[field]
        return value

    return read


def parse_tail(data: Buffer, object_bytes: int) -> Tail:
    """Understand the end of an object, which must reach back to the end of its log. Raises FormatError."""
    footer = parse_footer(data, object_bytes)
    skipped = object_bytes - len(data)
    if footer.log_bytes < skipped:
        raise FormatError(f"the tail begins at {footer.log_bytes}, before what was read ({skipped})")
    view = memoryview(data).toreadonly()
    sections = tuple(view[start - skipped : end - skipped] for start, end, _ in footer.section_ranges)
    for section, (start, _, checksum) in zip(sections, footer.section_ranges, strict=True):
        if crc32c(section) != checksum:
            raise FormatError(f"the section at {start} does not fit its checksum")
    _history(sections[4])
    return Tail(footer, sections, len(data))


def _history(section: memoryview) -> History:
    try:
        return history_of(_EPOCH.iter_unpack(section))
    except ValueError as error:
        raise FormatError(str(error)) from error


def verify(content: Source) -> Tail:
    """Check every byte of an object; blocks. Returns its tail. Raises FormatError, SourceFailed."""
    if content.size < FOOTER_BYTES:
        raise FormatError(f"{content.size} bytes are no segment object")
    end = read_exactly(content, content.size - FOOTER_BYTES, FOOTER_BYTES)
    footer = parse_footer(end, content.size)
    tail = parse_tail(read_exactly(content, footer.log_bytes, content.size - footer.log_bytes), content.size)
    for start in range(0, footer.log_bytes, footer.block_bytes):
        length = min(footer.block_bytes, footer.log_bytes - start)
        tail.check(start, b"".join(pieces(content, start, length)))
    return tail
