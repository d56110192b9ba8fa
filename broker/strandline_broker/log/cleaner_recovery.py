"""What a crash left of a replacement of segments, completed or undone when the log is opened.

Who uses it: `recovery`, before it looks at the segments. `cleaner_swap` says which names mean what: a
`.log.swap` was complete and synced before it got that name, and stands for everything from its base offset
to its end; `.cleaned` files, and `.swap` indexes without their log file, stand for nothing.

Source: Kafka `LogLoader.load`, `LogLoader.removeTempFilesAndCollectSwapFiles`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from strandline_broker.log.names import (
    LOG_SUFFIX,
    SEGMENT_SUFFIXES,
    SWAP_SUFFIX,
    file_name,
    split_name,
)
from strandline_broker.log.scan import CorruptBatch, iter_headers

if TYPE_CHECKING:
    from strandline_broker.log.files import FileCache

logger = logging.getLogger(__name__)


def complete_swaps(files: FileCache, directory: str) -> bool:
    """Put every `.swap` segment in its place; return whether names changed that are not synced. Raises DiskError.

    It can be interrupted anywhere and done again.
    """
    disk = files.disk
    names = disk.listdir(directory)
    swaps = [name for name in names if name.endswith(SWAP_SUFFIX)]
    if not swaps:
        return False
    plain = [
        (offset, name) for name in names for offset, kind in [split_name(name)] if kind in SEGMENT_SUFFIXES
    ]
    taken: list[int] = []
    doomed: list[str] = []
    end = -1
    for name in swaps:
        base, kind = split_name(name)
        if kind != LOG_SUFFIX + SWAP_SUFFIX or base < end:
            continue
        is_whole, found_end = _end_of(files, f"{directory}/{name}", base)
        if not is_whole and any(entry == file_name(base, LOG_SUFFIX) for _, entry in plain):
            logger.error("%s/%s is damaged, what it was to replace is kept", directory, name)
            continue
        end = found_end
        logger.info("%s/%s replaces what starts in [%d, %d)", directory, name, base, end)
        taken.append(base)
        doomed += [entry for offset, entry in plain if base <= offset < end]
    kept = {f"{file_name(base, kind)}{SWAP_SUFFIX}" for base in taken for kind in SEGMENT_SUFFIXES}
    doomed += [name for name in swaps if name not in kept]
    for name in doomed:
        files.forget(f"{directory}/{name}")
        disk.remove(f"{directory}/{name}")
    # Before the new names: without the mark nothing tells old segments from valid ones.
    disk.sync_dir(directory)
    for name in sorted(kept.intersection(swaps), key=lambda name: name.endswith(LOG_SUFFIX + SWAP_SUFFIX)):
        source = f"{directory}/{name}"
        target = source.removesuffix(SWAP_SUFFIX)
        files.forget(source)
        files.forget(target)
        disk.rename(source, target)
    return bool(taken)


def _end_of(files: FileCache, path: str, base_offset: int) -> tuple[bool, int]:
    """Walk a segment; return whether all of it can be read, and the offset behind its last batch."""
    file = files.disk.open(path)
    end = base_offset
    try:
        for _, header in iter_headers(file, 0, file.size()):
            end = header.next_offset
    except CorruptBatch as error:
        logger.warning("%s", error)
        return False, end
    return end > base_offset, end
