"""Manifests and pages as bytes. Byte by byte in docs/formats.md.

Who uses it: leaders that write manifests, and everybody who loads one. The envelope (`envelope`) is in front; all integers
are big-endian, UUIDs 16 bytes. A *string* is a length u16 and UTF-8. Encoding is canonical: what decodes encodes to the
same bytes.

    manifest  topic id, partition i32, epoch i32, sequence i32, log start i64, end i64, high watermark i64,
              written at i64 (ms), counts: origins u16, epochs u32, parts u32; then origins (strings),
              epochs (epoch i32, start offset i64), parts
    page      count of origins u16, count of entries u32, origins, entries
    part      kind u8 (0 entry, 1 page reference), then one of these
    entry     start i64, end i64, base offset i64, epoch i32, object UUID, bytes of the object i64, bytes of log i64,
              start position i64, base timestamp i64, max timestamp i64, flags u8 (bit 0: aborted transactions),
              origin u16
    page ref  start i64, end i64, epoch i32, object UUID, count u32, bytes of log i64, bytes of objects i64,
              max timestamp i64, bytes of the page u32, CRC-32C of the page u32, origin u16

`origin`: 0 is the manifest's own prefix, n the n-th of the list, in the order of first use.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from uuid import UUID

from crc32c import crc32c

from strandline_tiered.envelope import FormatError, seal, unseal
from strandline_tiered.epochs import EpochStart
from strandline_tiered.keys import (
    ManifestName,
    PageName,
    SegmentName,
    parse_partition_prefix,
)
from strandline_tiered.manifest import Entry, Manifest, PageRef, Part, check, check_sequence, page_ref

MANIFEST_MAGIC = b"SLMF"
PAGE_MAGIC = b"SLPG"
VERSION = 1

_MANIFEST = struct.Struct(">16siiiqqqqHII")
_PAGE = struct.Struct(">HI")
_EPOCH = struct.Struct(">iq")
_ENTRY = struct.Struct(">qqqi16sqqqqqBH")
_PAGE_REF = struct.Struct(">qqi16sIqqqIIH")
_LENGTH = struct.Struct(">H")
_KIND = struct.Struct(">B")
_KIND_ENTRY, _KIND_PAGE = 0, 1
_ABORTED_TRANSACTIONS = 1
_MAX_ORIGINS = 0xFFFF


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the object's bytes. Raises ValueError for a manifest that contradicts itself."""
    check(manifest)
    origins = _Origins(part.origin for part in manifest.parts)
    body = bytearray(
        _MANIFEST.pack(
            manifest.topic_id.bytes,
            manifest.partition,
            *manifest.name,
            manifest.log_start,
            manifest.end_offset,
            manifest.high_watermark,
            manifest.written_at_ms,
            len(origins.names),
            len(manifest.epochs),
            len(manifest.parts),
        )
    )
    body += origins.encoded()
    for epoch in manifest.epochs:
        body += _EPOCH.pack(*epoch)
    for part in manifest.parts:
        if isinstance(part, Entry):
            body.append(_KIND_ENTRY)
            body += _encode_entry(part, origins)
        else:
            body.append(_KIND_PAGE)
            body += _encode_page_ref(part, origins)
    return seal(MANIFEST_MAGIC, VERSION, bytes(body))


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest in an object. Raises FormatError, of which UnsupportedVersion is one."""
    reader = _Reader(unseal(MANIFEST_MAGIC, VERSION, data))
    try:
        topic_id, partition, epoch, sequence, *offsets, origins, epochs, parts = reader.unpack(_MANIFEST)
        log_start, end_offset, high_watermark, written_at_ms = offsets
        reader.read_origins(origins)
        history = tuple([EpochStart(*reader.unpack(_EPOCH)) for _ in reader.counted(epochs, _EPOCH)])
        manifest = Manifest(
            UUID(bytes=topic_id),
            partition,
            ManifestName(_not_negative(epoch), _not_negative(sequence)),
            log_start=log_start,
            end_offset=end_offset,
            high_watermark=high_watermark,
            written_at_ms=written_at_ms,
            epochs=history,
            parts=tuple([_decode_part(reader) for _ in reader.counted(parts, _PAGE_REF)]),
        )
        reader.end()
        check(manifest)
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f"a manifest that contradicts itself: {error}") from error
    return manifest


def encode_page(entries: tuple[Entry, ...]) -> bytes:
    """Return the bytes of a page object. Raises ValueError for entries that do not ascend, or none."""
    _check_page(entries)
    origins = _Origins(entry.origin for entry in entries)
    body = _PAGE.pack(len(origins.names), len(entries)) + origins.encoded()
    body += b"".join(_encode_entry(entry, origins) for entry in entries)
    return seal(PAGE_MAGIC, VERSION, body)


def decode_page(data: bytes) -> tuple[Entry, ...]:
    """Return the entries in a page object. Raises FormatError. Whose page it is: see `load_page`."""
    reader = _Reader(unseal(PAGE_MAGIC, VERSION, data))
    try:
        origins, count = reader.unpack(_PAGE)
        reader.read_origins(origins)
        entries = tuple([_decode_entry(reader) for _ in reader.counted(count, _ENTRY)])
        reader.end()
        _check_page(entries)
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f"a page that contradicts itself: {error}") from error
    return entries


def make_page(entries: tuple[Entry, ...], leader_epoch: int, object_id: UUID) -> tuple[PageRef, bytes]:
    """Return the reference to a page of these entries, and the page's bytes. Raises ValueError as `encode_page`."""
    data = encode_page(entries)
    name = PageName(entries[0].start_offset, leader_epoch, object_id)
    return page_ref(entries, name, len(data), crc32c(data)), data


def load_page(page: PageRef, data: bytes) -> tuple[Entry, ...]:
    """Return the entries of the page that a manifest refers to.

    Entries that it calls its own are those of the page's origin. Raises FormatError if the bytes are not that page's.
    """
    if len(data) != page.page_bytes or crc32c(data) != page.checksum:
        raise FormatError(f"{page.name}: {len(data)} bytes with a checksum other than its manifest says")
    entries = decode_page(data)
    if not page.holds(entries):
        raise FormatError(f"{page.name} holds other entries than its manifest says")
    if page.origin:
        return tuple(entry if entry.origin else replace(entry, origin=page.origin) for entry in entries)
    return entries


def _check_page(entries: tuple[Entry, ...]) -> None:
    if not entries:
        raise ValueError("a page without entries")
    # A page does not know the log start, below which holes may lie.
    check_sequence(entries, log_start=entries[-1].start_offset)


class _Origins:
    """Foreign prefixes by number, in the order of first use."""

    def __init__(self, origins: Iterable[str]) -> None:
        self.names = [name for name in dict.fromkeys(origins) if name]
        if len(self.names) > _MAX_ORIGINS:
            raise ValueError(f"{len(self.names)} origins are too many")
        self._numbers = {"": 0} | {name: number for number, name in enumerate(self.names, 1)}

    def encoded(self) -> bytes:
        texts = [name.encode() for name in self.names]
        return b"".join(_LENGTH.pack(len(text)) + text for text in texts)

    def __getitem__(self, origin: str) -> int:
        return self._numbers[origin]


def _encode_entry(entry: Entry, origins: _Origins) -> bytes:
    return _ENTRY.pack(
        entry.start_offset,
        entry.end_offset,
        entry.name.base_offset,
        entry.name.leader_epoch,
        entry.name.object_id.bytes,
        entry.object_bytes,
        entry.log_bytes,
        entry.start_position,
        entry.base_timestamp,
        entry.max_timestamp,
        _ABORTED_TRANSACTIONS if entry.has_aborted_transactions else 0,
        origins[entry.origin],
    )


def _encode_page_ref(page: PageRef, origins: _Origins) -> bytes:
    return _PAGE_REF.pack(
        page.start_offset,
        page.end_offset,
        page.name.leader_epoch,
        page.name.object_id.bytes,
        page.count,
        page.size,
        page.object_bytes,
        page.max_timestamp,
        page.page_bytes,
        page.checksum,
        origins[page.origin],
    )


class _Reader:
    """A position in a body. Whatever reads beyond the end raises FormatError; counts are not believed."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._position = 0
        self._origins = [""]
        self._used = 0

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self._take(layout.size))

    def counted(self, count: int, smallest: struct.Struct) -> range:
        """Return a range of `count`, if so many items of at least this size can follow."""
        if count * smallest.size > len(self._data) - self._position:
            raise FormatError(f"{count} items in {len(self._data) - self._position} bytes")
        return range(count)

    def read_origins(self, count: int) -> None:
        for _ in self.counted(count, _LENGTH):
            (length,) = self.unpack(_LENGTH)
            try:
                origin = str(self._take(length), "utf-8")
            except UnicodeDecodeError as error:
                raise FormatError(f"an origin that is no text: {error}") from error
            if parse_partition_prefix(origin) is None or origin in self._origins:
                raise FormatError(f"{origin!r} is no origin, or there twice")
            self._origins.append(origin)

    def origin(self, number: int) -> str:
        """Return an origin; they come in the order of first use."""
        if number > self._used + 1 or number >= len(self._origins):
            raise FormatError(f"origin {number} of {len(self._origins) - 1}")
        self._used = max(self._used, number)
        return self._origins[number]

    def end(self) -> None:
        if self._position != len(self._data) or self._used != len(self._origins) - 1:
            raise FormatError(f"{len(self._data) - self._position} bytes or an origin too many")

    def _take(self, size: int) -> memoryview:
        start, self._position = self._position, self._position + size
        if self._position > len(self._data):
            raise FormatError(f"ends at {len(self._data)}, within what begins at {start}")
        return self._data[start : self._position]


def _decode_part(reader: _Reader) -> Part:
    (kind,) = reader.unpack(_KIND)
    if kind == _KIND_ENTRY:
        return _decode_entry(reader)
    if kind != _KIND_PAGE:
        raise FormatError(f"a part of kind {kind}")
    start, end, epoch, object_id, count, size, object_bytes, max_timestamp, page_bytes, checksum, origin = (
        reader.unpack(_PAGE_REF)
    )
    return PageRef(
        start_offset=start,
        end_offset=end,
        name=PageName(start, _not_negative(epoch), UUID(bytes=object_id)),
        count=count,
        size=size,
        object_bytes=object_bytes,
        max_timestamp=max_timestamp,
        page_bytes=page_bytes,
        checksum=checksum,
        origin=reader.origin(origin),
    )


def _decode_entry(reader: _Reader) -> Entry:
    start, end, base, epoch, object_id, *sizes, first, last, flags, origin = reader.unpack(_ENTRY)
    object_bytes, log_bytes, start_position = sizes
    if flags & ~_ABORTED_TRANSACTIONS:
        raise FormatError(f"unknown flags {flags:#x}")
    return Entry(
        start_offset=start,
        end_offset=end,
        name=SegmentName(base, _not_negative(epoch), UUID(bytes=object_id)),
        object_bytes=object_bytes,
        log_bytes=log_bytes,
        start_position=start_position,
        base_timestamp=first,
        max_timestamp=last,
        has_aborted_transactions=bool(flags & _ABORTED_TRANSACTIONS),
        origin=reader.origin(origin),
    )


def _not_negative(number: int) -> int:
    if number < 0:
        raise FormatError(f"a negative epoch or sequence, {number}")
    return number
