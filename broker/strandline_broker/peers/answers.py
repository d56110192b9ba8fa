"""The memory that the answers of one connection are received into.

One buffer per connection, used again for every answer, because the page faults of fresh megabytes cost more than
receiving them. It grows to what an answer needs, by powers of two up to the largest answer that is accepted, and shrinks
when a hundred answers in a row needed no more than a quarter of it.

Used by `peers.connection` only.
"""

from __future__ import annotations

import mmap
from typing import Final

from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.primitives import INT32

SMALLEST_BYTES: Final = 64 * 1024
ANSWERS_TO_SHRINK: Final = 100
_PREFIX_BYTES: Final = 4
_unpack_length = INT32.unpack_from


class AnswerBuffer:
    """Bytes [0, `end`) of `view` were received; `need` is the size of the answer with its length prefix, or 0."""

    __slots__ = ("_answers", "_largest", "_limit", "end", "need", "view")

    def __init__(self, max_answer_bytes: int) -> None:
        self._limit = max_answer_bytes
        self._answers = 0
        self._largest = 0
        self.view = _allocate(SMALLEST_BYTES)
        self.end = 0
        self.need = 0

    @property
    def capacity(self) -> int:
        """Bytes that it takes now."""
        return len(self.view)

    @property
    def complete(self) -> bool:
        """Whether a whole answer is here."""
        return 0 < self.need <= self.end

    def begin(self) -> None:
        """Forget the last answer, whose views die now, and expect the next one."""
        if self.need:
            self._largest = max(self._largest, self.need)
            self._answers += 1
            if self._answers >= ANSWERS_TO_SHRINK:
                if len(self.view) > SMALLEST_BYTES and self._largest * 4 <= len(self.view):
                    self.view = _allocate(_capacity_for(self._largest))
                self._answers = self._largest = 0
        self.end = self.need = 0

    def room(self) -> memoryview:
        """Return where the next bytes go; never empty while the answer is not complete."""
        return self.view[self.end : self.need] if self.need else self.view[self.end :]

    def received(self, count: int, limit: int) -> None:
        """Take note of `count` more bytes; `limit` bounds the answer, without its prefix.

        Raises DecodeError for a length that nobody should send, and for bytes behind the answer.
        """
        self.end += count
        if not self.need:
            if self.end < _PREFIX_BYTES:
                return
            (size,) = _unpack_length(self.view, 0)
            if not _PREFIX_BYTES <= size <= min(limit, self._limit):
                raise DecodeError(
                    f"an answer of {size} bytes, where at most {min(limit, self._limit)} are taken"
                )
            self.need = size + _PREFIX_BYTES
            if self.need > len(self.view):
                self._grow()
        if self.end > self.need:
            raise DecodeError(f"{self.end - self.need} bytes behind an answer that nothing was asked after")

    def _grow(self) -> None:
        grown = _allocate(_capacity_for(self.need))
        grown[: self.end] = self.view[: self.end]
        self.view = grown


def _capacity_for(size: int) -> int:
    """Return the smallest power of two that holds `size` bytes, and not less than the smallest buffer."""
    return max(SMALLEST_BYTES, 1 << (size - 1).bit_length())


def _allocate(capacity: int) -> memoryview:
    # An anonymous mapping: page-aligned, pages appear as they are touched and go back to the system at the end.
    return memoryview(mmap.mmap(-1, capacity))
