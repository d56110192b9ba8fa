"""Fetch on a bare socket: takes whole answers into one buffer, and looks at nothing but the headers of their batches.

Callers: the rows about cold reads. Records are neither decoded nor copied, as a client for ranged GETs does not look into
what it gets, so the two compare. Sizes default to what Kafka's clients ask for.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks import requests
from benchmarks.raw_client import RawClient, RequestFailedError

FETCH_MAX_BYTES = 52_428_800
PARTITION_MAX_BYTES = 1_048_576
"""`fetch.max.bytes` and `max.partition.fetch.bytes` of Kafka's consumer (librdkafka has the same)."""
_MAX_WAIT_MS = 5_000
_FIRST_BUFFER_BYTES = 8 << 20
_BATCH = struct.Struct(">qi")  # base offset, length of what follows
_LAST_DELTA = struct.Struct(">i")
_LAST_DELTA_AT = 23
_BATCH_HEADER_BYTES = 61
_ROW = struct.Struct(">ihqqq")  # partition, error, high watermark, last stable offset, log start offset


class Row(NamedTuple):
    """One partition of an answer. `next_offset` follows its last batch; -1 without any."""

    partition: int
    error: int
    size_bytes: int
    next_offset: int


class Answer(NamedTuple):
    """One answer; seconds since its request was sent until its first byte, and until its last one."""

    rows: list[Row]
    first_byte_s: float
    last_byte_s: float


class FetchClient:
    """One connection that asks for partitions of one topic, without a fetch session."""

    def __init__(self, host: str, port: int, topic: str) -> None:
        self._client = RawClient(host, port)
        self._topic = topic.encode()
        self._buffer = bytearray(_FIRST_BUFFER_BYTES)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def fetch(self, offsets: Mapping[int, int], *, partition_max_bytes: int = PARTITION_MAX_BYTES) -> Answer:
        """Fetch from each partition's offset on; waits up to five seconds for the first records.

        Raises:
            RequestFailedError: the broker answered with an error, or closed the connection.

        """
        sent = time.perf_counter()
        self._client.socket.sendall(
            requests.fetch(
                self._topic,
                offsets,
                1,
                max_wait_ms=_MAX_WAIT_MS,
                max_bytes=FETCH_MAX_BYTES,
                partition_max_bytes=partition_max_bytes,
            )
        )
        self._receive(0, 4)
        first = time.perf_counter()
        (length,) = struct.unpack_from(">i", self._buffer)
        if length > len(self._buffer):
            self._buffer = bytearray(2 * length)
        self._receive(0, length)
        last = time.perf_counter()
        rows = parse(memoryview(self._buffer)[:length])
        for row in rows:
            if row.error:
                raise RequestFailedError(f"Fetch from partition {row.partition}: error {row.error}")
        return Answer(rows, first - sent, last - sent)

    def _receive(self, at: int, count: int) -> None:
        view = memoryview(self._buffer)[at : at + count]
        while view:
            received = self._client.socket.recv_into(view)
            if not received:
                raise RequestFailedError("the broker closed the connection")
            view = view[received:]


def parse(frame: memoryview) -> list[Row]:
    """Return the partitions of a Fetch v11 answer for one topic, without its length prefix. Raises RequestFailedError."""
    (error,) = struct.unpack_from(">h", frame, 8)  # behind correlation id and throttle time
    if error:
        raise RequestFailedError(f"Fetch: error {error}")
    at = 8 + 2 + 4
    (topics,) = struct.unpack_from(">i", frame, at)
    at += 4
    if topics == 0:
        return []
    at += 2 + struct.unpack_from(">h", frame, at)[0]
    (count,) = struct.unpack_from(">i", frame, at)
    at += 4
    rows = []
    for _ in range(count):
        partition, code, *_ = _ROW.unpack_from(frame, at)
        at += _ROW.size
        (aborted,) = struct.unpack_from(">i", frame, at)
        at += 4 + 16 * max(aborted, 0) + 4  # and the preferred replica
        size = max(struct.unpack_from(">i", frame, at)[0], 0)
        at += 4
        rows.append(Row(partition, code, size, _next_offset(frame[at : at + size])))
        at += size
    return rows


def _next_offset(records: memoryview) -> int:
    found, at = -1, 0
    while at + _BATCH_HEADER_BYTES <= len(records):
        base, length = _BATCH.unpack_from(records, at)
        if at + _BATCH.size + length > len(records):
            break
        found = base + _LAST_DELTA.unpack_from(records, at + _LAST_DELTA_AT)[0] + 1
        at += _BATCH.size + length
    return found


class Read(NamedTuple):
    """What a sequential read moved: bytes of record batches."""

    size_bytes: int
    elapsed_s: float


def read(client: FetchClient, ends: Mapping[int, int]) -> Read:
    """Read every partition from offset 0 to its end (exclusive; the last batch may go beyond).

    Raises:
        RequestFailedError: an error, or nothing came for five seconds.

    """
    offsets = dict.fromkeys(ends, 0)
    size_bytes = 0
    began = time.perf_counter()
    while offsets:
        rows = [row for row in client.fetch(offsets).rows if row.next_offset >= 0]
        if not rows:
            raise RequestFailedError(f"no records at {offsets} of {dict(ends)}")
        for row in rows:
            size_bytes += row.size_bytes
            offsets[row.partition] = row.next_offset
            if row.next_offset >= ends[row.partition]:
                del offsets[row.partition]
    return Read(size_bytes, time.perf_counter() - began)
