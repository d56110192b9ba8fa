"""Compares one segment object with the manifest entry that stands for it.

Who uses it: `verify` and restore. By default the footer and the size are compared, which takes one small request; a *deep*
check reads every byte: all sections, all block checksums, and what a `LogCheck` finds in the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from strandline_tiered.envelope import FormatError
from strandline_tiered.keys import PartitionKeys, parse_partition_prefix
from strandline_tiered.manifest import Entry
from strandline_tiered.object_store import ObjectStore
from strandline_tiered.segment_object import FOOTER_BYTES, Footer, parse_footer, parse_tail

READ_BYTES = 4 << 20
"""Bytes of log that a deep check holds at once."""
_ABORTED = 3


class LogCheck(Protocol):
    """Follows the log of one segment, piece by piece."""

    def feed(self, data: memoryview) -> None:
        """Take the next bytes. Raises FormatError for what is no sound batch."""
        ...

    def end(self) -> None:
        """Hear that there is no more. Raises FormatError for a log that ends within a batch."""
        ...


MakeLogCheck = Callable[[Entry], LogCheck]
"""Makes the check of the segment that an entry stands for."""


def contradictions(entry: Entry, keys: PartitionKeys, footer: Footer) -> Iterator[str]:
    """Yield what a footer says other than its entry in the manifest of `keys`. Pure."""
    owner = keys if not entry.origin else parse_partition_prefix(entry.origin)
    assert owner is not None, "decoded manifests have origins that parse"
    info = footer.info
    start, end, _ = footer.section_ranges[_ABORTED]
    for what, theirs, ours in (
        ("topic id", info.topic_id, owner.topic_id),
        ("partition", info.partition, owner.partition),
        ("leader epoch", info.leader_epoch, entry.name.leader_epoch),
        ("base offset", info.base_offset, entry.name.base_offset),
        ("end offset", info.end_offset, entry.end_offset),
        ("first timestamp", info.base_timestamp, entry.base_timestamp),
        ("largest timestamp", info.max_timestamp, entry.max_timestamp),
        ("bytes of log", footer.log_bytes, entry.log_bytes),
        ("aborted transactions", end > start, entry.has_aborted_transactions),
    ):
        if theirs != ours:
            yield f"its {what}: {theirs}; the manifest says {ours}"


async def check_segment(store: ObjectStore, keys: PartitionKeys, entry: Entry, *, key: str = "") -> None:
    """Compare size and footer of an object with its entry; `key` is where it lies, if not where the entry says.

    Raises FormatError, NoSuchObject, Refused, Unavailable.
    """
    key = key or entry.key(keys)
    start = max(entry.object_bytes - FOOTER_BYTES, 0)
    # One byte more than there should be: a longer object shows, too.
    data = await store.get(key, start, entry.object_bytes + 1)
    _expect_size(entry, start + len(data))
    _expect(entry, keys, parse_footer(data, entry.object_bytes))


async def check_deeply(
    store: ObjectStore, keys: PartitionKeys, entry: Entry, make_check: MakeLogCheck, *, key: str = ""
) -> int:
    """Read a whole object and compare all of it with its entry and its own checksums; return the bytes read.

    Raises FormatError, NoSuchObject, Refused, Unavailable.
    """
    key = key or entry.key(keys)
    data = await store.get(key, entry.log_bytes, entry.object_bytes + 1)
    _expect_size(entry, entry.log_bytes + len(data))
    tail = parse_tail(data, entry.object_bytes)
    _expect(entry, keys, tail.footer)
    check = make_check(entry)
    step = max(1, READ_BYTES // tail.footer.block_bytes) * tail.footer.block_bytes
    for start in range(0, entry.log_bytes, step):
        end = min(start + step, entry.log_bytes)
        piece = await store.get(key, start, end)
        if len(piece) != end - start:
            raise FormatError(f"it ends within its log, at {start + len(piece)}")
        tail.check(start, piece)
        check.feed(memoryview(piece))
    check.end()
    return entry.object_bytes


def _expect_size(entry: Entry, size: int) -> None:
    if size < entry.object_bytes:
        raise FormatError(f"it is shorter than the {entry.object_bytes} bytes that the manifest says")
    if size > entry.object_bytes:
        raise FormatError(f"it is longer than the {entry.object_bytes} bytes that the manifest says")


def _expect(entry: Entry, keys: PartitionKeys, footer: Footer) -> None:
    found = list(contradictions(entry, keys, footer))
    if found:
        raise FormatError("; ".join(found))
