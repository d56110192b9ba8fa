"""Targets of what lies in a bucket: with its checksum damaged, and with a right checksum over any content."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from tests.fuzz.target import Target

from strandline_tiered.envelope import HEADER_SIZE, FormatError, seal
from strandline_tiered.epochs import EpochStart
from strandline_tiered.keys import (
    ManifestName,
    OffsetsName,
    PartitionKeys,
    SegmentName,
    TopicManifestName,
    parse_key,
)
from strandline_tiered.manifest import Entry, empty_manifest
from strandline_tiered.manifest_events import Spilled, Stamped, Uploaded, apply
from strandline_tiered.manifest_format import (
    MANIFEST_MAGIC,
    PAGE_MAGIC,
    decode_manifest,
    decode_page,
    encode_manifest,
    encode_page,
    make_page,
)
from strandline_tiered.offsets_snapshot import MAGIC as OFFSETS_MAGIC
from strandline_tiered.offsets_snapshot import (
    CommittedOffset,
    OffsetsSnapshot,
    TopicPartition,
    decode_offsets,
    encode_offsets,
)
from strandline_tiered.topic_manifest import MAGIC as TOPIC_MAGIC
from strandline_tiered.topic_manifest import TopicManifest, decode_topic_manifest, encode_topic_manifest

_KEYS = PartitionKeys(UUID(int=1), "orders", UUID(int=2), 3)


def _entry(start: int, origin: str = "") -> Entry:
    name = SegmentName(start, 4, UUID(int=start))
    return Entry(start, start + 10, name, 1050, 1000, 0, 7, 8, origin=origin)


def _manifest() -> tuple[bytes, bytes]:
    manifest = empty_manifest(_KEYS.topic_id, 3, 0)
    for number in range(4):
        origin = "" if number % 2 else _KEYS.prefix
        event = Uploaded(_entry(10 * number, origin), (EpochStart(2, 0), EpochStart(4, 15)))
        manifest = apply(manifest, event)
    page, data = make_page(manifest.entries[:2], 4, UUID(int=9))
    manifest = apply(apply(manifest, Spilled(page)), Stamped(ManifestName(4, 1), 40, 0))
    return encode_manifest(manifest), data


MANIFEST, PAGE = _manifest()


def manifest(data: bytes) -> None:
    assert encode_manifest(decode_manifest(data)) == data


def page(data: bytes) -> None:
    assert encode_page(decode_page(data)) == data


def topic_manifest(data: bytes) -> None:
    found = decode_topic_manifest(data)
    assert decode_topic_manifest(encode_topic_manifest(found)) == found


def offsets(data: bytes) -> None:
    found = decode_offsets(data)
    assert decode_offsets(encode_offsets(found)) == found


_TOPIC_MANIFEST = encode_topic_manifest(
    TopicManifest("orders", UUID(int=2), TopicManifestName(4, 2), 1, 3, 3, {"a": "b"}, deleted_at_ms=5)
)
_OFFSETS = encode_offsets(
    OffsetsSnapshot(
        1,
        OffsetsName(4, 2),
        9,
        {"g": {TopicPartition("orders", 0): CommittedOffset(5, 1, "m", 7, -1, UUID(int=2))}},
    )
)


def _sealed(magic: bytes, decode: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def run(body: bytes) -> None:
        decode(seal(magic, 1, body))

    return run


def key(data: bytes) -> None:
    text = data.decode()
    parsed = parse_key(text)
    if parsed is not None:
        assert text.startswith(parsed.topic.prefix)
        assert text.endswith(str(parsed.name))


TIERED_TARGETS = (
    Target("manifest", manifest, (FormatError,), (MANIFEST,)),
    Target("manifest-body", _sealed(MANIFEST_MAGIC, manifest), (FormatError,), (MANIFEST[HEADER_SIZE:],)),
    Target("manifest-page", page, (FormatError,), (PAGE,)),
    Target("manifest-page-body", _sealed(PAGE_MAGIC, page), (FormatError,), (PAGE[HEADER_SIZE:],)),
    Target("topic-manifest", topic_manifest, (FormatError,), (_TOPIC_MANIFEST,)),
    Target(
        "topic-manifest-body",
        _sealed(TOPIC_MAGIC, topic_manifest),
        (FormatError,),
        (_TOPIC_MANIFEST[HEADER_SIZE:],),
    ),
    Target("group-offsets", offsets, (FormatError,), (_OFFSETS,)),
    Target("group-offsets-body", _sealed(OFFSETS_MAGIC, offsets), (FormatError,), (_OFFSETS[HEADER_SIZE:],)),
    Target("object-key", key, (UnicodeDecodeError,), (_KEYS.key(ManifestName(1, 2)).encode(),)),
)
