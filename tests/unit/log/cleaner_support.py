"""What the tests of the cleaner share: keyed batches, one cleaning without an event loop, what a log holds, and a model."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.unit.log.support import NOW_MS, read_all

from strandline_broker.log.cleaner_plan import candidate, sources_of
from strandline_broker.log.cleaner_swap import Cleaning, Outcome, run_here
from strandline_broker.log.cleaner_work import InlineWorker, Job, Worker
from strandline_broker.log.log import Log
from strandline_broker.wire.batch import (
    BatchHeader,
    Compression,
    Record,
    build_batch,
    iter_batches,
    iter_records,
)

Pair = tuple[bytes | None, bytes | None]


class Held(NamedTuple):
    """A record as found in a log."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def keyed(
    pairs: Iterable[Pair],
    *,
    timestamp: int = NOW_MS,
    producer: tuple[int, int, int] | None = None,
    compression: Compression = Compression.NONE,
    headers: tuple[tuple[str, bytes | None], ...] = (),
    base_offset: int = 0,
    epoch: int = -1,
) -> bytearray:
    """Return a produced batch of (key, value) pairs; timestamps rise by one."""
    producer_id, producer_epoch, sequence = producer or (-1, -1, -1)
    return bytearray(
        build_batch(
            [
                Record(timestamp=timestamp + index, key=key, value=value, headers=headers)
                for index, (key, value) in enumerate(pairs)
            ],
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=sequence,
            compression=compression,
            base_offset=base_offset,
            leader_epoch=epoch,
        )
    )


def batches_of(log: Log) -> list[tuple[BatchHeader, bytes]]:
    """Return the batches that a consumer sees."""
    data = read_all(log)
    return [(header, data[position : position + header.size]) for position, header in iter_batches(data)]


def contents(log: Log) -> list[Held]:
    """Return the records that a consumer sees."""
    return [
        Held(*record)
        for _, batch in batches_of(log)
        for record in iter_records(batch)
        if record.offset >= log.start_offset
    ]


def latest_of(records: Sequence[Held]) -> dict[bytes, Held]:
    """Return the last record of every key."""
    return {record.key: record for record in records if record.key is not None}


def prepare(
    log: Log,
    *,
    cleaned: int | None = None,
    now_ms: int = NOW_MS,
    stable_offset: int | None = None,
    dedupe_buffer_bytes: int = 1 << 20,
    io_buffer_bytes: int = 512,
    worker: Worker | None = None,
) -> Cleaning:
    """Capture a cleaning as the cleaner does. The log is synced first: nothing else is cleaned."""
    log.sync()
    best = candidate(log, cleaned, log.end_offset if stable_offset is None else stable_offset, now_ms)
    config = log.config
    job = Job(
        directory=log.directory,
        sources=tuple(sources_of(log, best.upper_offset)),
        first_dirty_offset=best.first_dirty_offset,
        now_ms=now_ms,
        segment_bytes=config.segment_bytes,
        segment_index_bytes=config.segment_index_bytes,
        index_interval_bytes=config.index_interval_bytes,
        delete_retention_ms=config.delete_retention_ms,
        last_batches={entry.producer_id: (entry.last_offset, entry.epoch) for entry in log.producers},
        dedupe_buffer_bytes=dedupe_buffer_bytes,
        io_buffer_bytes=io_buffer_bytes,
    )
    return Cleaning(log, job, worker or InlineWorker(log.disk))


def clean(log: Log, **arguments: object) -> Outcome:
    """Run one cleaning to its end."""
    return run_here(prepare(log, **arguments))  # type: ignore[arg-type]


def check_cleaned(before: Sequence[Held], after: Sequence[Held], cleaned_below: int) -> None:
    """Compare what a log held with what it holds: nothing invented or moved, nothing of use lost, nothing back.

    Below `cleaned_below` at most the latest record of each key may be left; from there on all are.
    """
    known = {record.offset: record for record in before}
    offsets = [record.offset for record in after]
    assert offsets == sorted(set(offsets)), "order kept, no offset twice"
    for record in after:
        assert known.get(record.offset) == record, "records are as they were written"
    latest = latest_of([record for record in before if record.offset < cleaned_below])
    left = {record.offset for record in after}
    for record in after:
        if record.offset < cleaned_below:
            assert record.key is not None
            assert latest[record.key].offset == record.offset, "older values are gone"
    for record in latest.values():
        assert record.value is None or record.offset in left, "the latest value stays"
    for record in before:
        if record.offset >= cleaned_below:
            assert record.offset in left, "what was not looked at stays"


def random_pairs(rng: random.Random, count: int, keys: int) -> list[Pair]:
    """Draw records: few keys, short and long ones, now and then a tombstone."""
    pairs: list[Pair] = []
    for _ in range(count):
        number = rng.randrange(keys)
        key = b"key-%d" % number if number % 3 else b"a-long-key-" * 5 + b"%d" % number
        pairs.append((key, None if rng.random() < 0.15 else rng.randbytes(rng.choice((0, 5, 70, 200)))))
    return pairs
