from __future__ import annotations

import struct

import pytest

from strandline_broker.peers.answers import ANSWERS_TO_SHRINK, SMALLEST_BYTES, AnswerBuffer
from strandline_broker.wire.errors import DecodeError

LIMIT = 1 << 20


def feed(buffer: AnswerBuffer, data: bytes) -> int:
    """Let bytes arrive as a socket would deliver them; return how many pieces it took."""
    pieces = 0
    while data:
        room = buffer.room()
        count = min(len(room), len(data))
        assert count, "no room while the answer is not complete"
        room[:count] = data[:count]
        buffer.received(count, LIMIT)
        data = data[count:]
        pieces += 1
    return pieces


def frame(size: int) -> bytes:
    return struct.pack(">i", size) + bytes(i & 0xFF for i in range(size))


def take(buffer: AnswerBuffer, size: int) -> memoryview:
    buffer.begin()
    feed(buffer, frame(size)[:-1])
    assert not buffer.complete
    feed(buffer, frame(size)[-1:])
    assert buffer.need == buffer.end == size + 4
    return buffer.view[4 : buffer.need]


def test_it_grows_to_what_an_answer_needs_and_keeps_what_was_received() -> None:
    buffer = AnswerBuffer(LIMIT)
    assert buffer.capacity == SMALLEST_BYTES
    for size in (4, SMALLEST_BYTES - 4, SMALLEST_BYTES - 3, 300_000, LIMIT, 100):
        assert bytes(take(buffer, size)) == frame(size)[4:]
    assert buffer.capacity == 2 * LIMIT, "1 MiB and the length prefix"
    again = buffer.view
    take(buffer, LIMIT)
    assert buffer.view is again


def test_it_shrinks_when_large_answers_no_longer_come() -> None:
    buffer = AnswerBuffer(LIMIT)
    take(buffer, 500_000)
    for _ in range(ANSWERS_TO_SHRINK - 1):
        take(buffer, 10)
    take(buffer, 10)
    assert buffer.capacity == 1 << 19, "the large one was among the hundred"
    for _ in range(ANSWERS_TO_SHRINK - 1):
        take(buffer, 100_000)
    assert buffer.capacity == 1 << 19
    buffer.begin()
    assert buffer.capacity == 1 << 17
    for _ in range(2 * ANSWERS_TO_SHRINK):
        take(buffer, 10)
    buffer.begin()
    assert buffer.capacity == SMALLEST_BYTES


def test_views_of_an_answer_outlive_its_buffer() -> None:
    buffer = AnswerBuffer(LIMIT)
    body = take(buffer, 1000)
    take(buffer, 500_000)
    assert bytes(body) == frame(1000)[4:]


@pytest.mark.parametrize("size", [-1, 0, 3, LIMIT + 1, 0x7FFFFFFF, -(1 << 31)])
def test_lengths_that_nobody_should_send(size: int) -> None:
    buffer = AnswerBuffer(2 * LIMIT)
    buffer.begin()
    with pytest.raises(DecodeError, match=f"an answer of {size} bytes"):
        feed(buffer, struct.pack(">i", size) + b"x")
    assert buffer.capacity == SMALLEST_BYTES


def test_the_smaller_limit_counts() -> None:
    for buffer_limit, limit in ((100, LIMIT), (LIMIT, 100)):
        buffer = AnswerBuffer(buffer_limit)
        buffer.view[:4] = struct.pack(">i", 101)
        with pytest.raises(DecodeError, match="where at most 100 are taken"):
            buffer.received(4, limit)


def test_bytes_behind_an_answer_are_refused() -> None:
    buffer = AnswerBuffer(LIMIT)
    buffer.begin()
    with pytest.raises(DecodeError, match="2 bytes behind"):
        feed(buffer, frame(10) + b"xy")
