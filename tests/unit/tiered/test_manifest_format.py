from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.tiered.manifest_support import FOREIGN, Drawn, entry, histories, manifest_of

from strandline_tiered.envelope import FormatError, UnsupportedVersion, seal
from strandline_tiered.epochs import EpochStart
from strandline_tiered.manifest_events import LogStartRaised, Spilled, apply
from strandline_tiered.manifest_format import (
    MANIFEST_MAGIC,
    decode_manifest,
    decode_page,
    encode_manifest,
    encode_page,
    load_page,
    make_page,
)

GOLDEN = Path(__file__).parent / "data"
ENTRIES = (
    entry(0, 10, max_timestamp=-1),
    entry(10, 25, epoch=4, origin=FOREIGN),
    entry(25, 30, base=20, position=400, aborted=True),
    entry(30, 31, epoch=7),
)
WHOLE = manifest_of(*ENTRIES, epochs=(EpochStart(4, 0), EpochStart(7, 28)))
PAGE, PAGE_BYTES = make_page(WHOLE.entries[:2], 7, UUID(int=77))
GOLDEN_MANIFEST = apply(apply(WHOLE, Spilled(PAGE)), LogStartRaised(3))


def golden(name: str) -> bytes:
    """Bytes of a file of hexadecimal digits with comments."""
    text = (GOLDEN / name).read_text(encoding="utf-8")
    return bytes.fromhex(re.sub(r"#.*", "", text))


def test_the_bytes_of_a_manifest_never_change() -> None:
    data = golden("manifest-v1.hex")
    assert decode_manifest(data) == GOLDEN_MANIFEST
    assert encode_manifest(GOLDEN_MANIFEST) == data


def test_the_bytes_of_a_page_never_change() -> None:
    data = golden("page-v1.hex")
    assert decode_page(data) == ENTRIES[:2]
    assert encode_page(ENTRIES[:2]) == data == PAGE_BYTES


@settings(max_examples=40, deadline=None)
@given(histories())
def test_what_is_encoded_is_decoded_again(drawn: Drawn) -> None:
    data = encode_manifest(drawn.manifest)
    assert decode_manifest(data) == drawn.manifest
    for page, content in drawn.pages.items():
        entries = load_page(page, content)
        assert encode_page(decode_page(content)) == content
        assert [e.start_offset for e in entries] == sorted(e.start_offset for e in entries)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    sound = encode_manifest(GOLDEN_MANIFEST)
    position = data.draw(st.integers(0, len(sound) - 1))
    damaged = bytearray(sound)
    damaged[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FormatError):
        decode_manifest(bytes(damaged))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000))
def test_any_cut_is_noticed(length: int) -> None:
    sound = encode_manifest(GOLDEN_MANIFEST)
    with pytest.raises(FormatError):
        decode_manifest(sound[: length % len(sound)])
    with pytest.raises(FormatError):
        decode_manifest(sound + b"\0" * (1 + length))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_meaningless_content_with_a_right_checksum_is_refused_or_canonical(data: st.DataObject) -> None:
    body = bytearray(encode_manifest(GOLDEN_MANIFEST)[16:])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    sealed = seal(MANIFEST_MAGIC, 1, bytes(body))
    try:
        manifest = decode_manifest(sealed)
    except FormatError:
        return
    assert encode_manifest(manifest) == sealed


def test_a_later_version_says_what_to_do() -> None:
    later = seal(MANIFEST_MAGIC, 2, b"whatever comes")
    with pytest.raises(
        UnsupportedVersion, match="SLMF of version 2: this release reads up to 1; upgrade first"
    ):
        decode_manifest(later)


def test_other_objects_are_told_apart() -> None:
    with pytest.raises(FormatError, match="begins with b'SLPG' where SLMF should be"):
        decode_manifest(PAGE_BYTES)
    with pytest.raises(FormatError, match="0 bytes are too few"):
        decode_page(b"")


def test_a_page_is_the_one_that_its_manifest_means() -> None:
    assert load_page(PAGE, PAGE_BYTES) == ENTRIES[:2]
    other = encode_page(ENTRIES[2:])
    with pytest.raises(FormatError, match="checksum"):
        load_page(PAGE, other)
    with pytest.raises(FormatError, match="other entries"):
        load_page(replace(PAGE, page_bytes=len(other), checksum=crc32c(other)), other)


def test_entries_of_a_page_of_another_cluster_are_of_that_cluster() -> None:
    loaded = load_page(replace(PAGE, origin=FOREIGN), PAGE_BYTES)
    assert [e.origin for e in loaded] == [FOREIGN, FOREIGN]


def test_a_count_is_not_believed() -> None:
    body = bytearray(encode_manifest(GOLDEN_MANIFEST)[16:])
    struct.pack_into(">I", body, 66, 0xFFFFFFFF)  # parts
    with pytest.raises(FormatError, match="4294967295 items in"):
        decode_manifest(seal(MANIFEST_MAGIC, 1, bytes(body)))
