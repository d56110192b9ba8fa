from __future__ import annotations

import base64
import hashlib

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.tiered.store_contract import FileLike, pattern

from strandline_tiered.content import PIECE_BYTES, PartsSource, as_source, checksums, pieces, read_exactly
from strandline_tiered.object_store import SourceFailed


@given(st.lists(st.binary(max_size=9), max_size=6), st.data())
def test_parts_read_as_their_concatenation(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    source = PartsSource([memoryview(part) for part in parts])
    assert source.size == len(whole)
    start = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, len(whole) - start))
    assert bytes(source.read(start, length)) == whole[start : start + length]


def test_buffers_of_wider_items_count_bytes() -> None:
    assert PartsSource([memoryview(bytes(8)).cast("I")]).size == 8


def test_a_source_is_read_in_pieces_and_a_range_of_it_too() -> None:
    data = pattern(2 * PIECE_BYTES + 5)
    assert [len(piece) for piece in pieces(FileLike(data))] == [PIECE_BYTES, PIECE_BYTES, 5]
    assert b"".join(pieces(FileLike(data), 3, PIECE_BYTES + 4)) == data[3 : PIECE_BYTES + 7]
    assert as_source(source := FileLike(data)) is source


def test_checksums_are_of_the_range() -> None:
    data = pattern(600_000)
    crc, md5 = checksums(FileLike(data), 1000, 500_000, md5=True)
    part = data[1000:501_000]
    assert base64.b64decode(crc) == crc32c(part).to_bytes(4, "big")
    assert md5 is not None
    assert base64.b64decode(md5) == hashlib.md5(part).digest()
    assert checksums(FileLike(data), 1000, 500_000, md5=False) == (crc, None)


def test_a_source_that_lies_about_its_size_is_noticed() -> None:
    class Shrunk(FileLike):
        def read(self, start: int, length: int) -> bytes:
            return super().read(start, length)[:-1]

    with pytest.raises(SourceFailed, match="instead of"):
        read_exactly(Shrunk(b"abc"), 0, 3)
