"""Targets of the wire codecs: only `DecodeError` may come out, and a length is never believed."""

from __future__ import annotations

import struct
from typing import Any

from tests.fuzz.target import Target, split

from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.api_versions import decode_api_versions, is_valid_software
from strandline_broker.wire.batch import (
    Compression,
    Record,
    build_batch,
    crc_ok,
    iter_batches,
    iter_records,
    read_end_txn_marker,
    read_header,
)
from strandline_broker.wire.cold import decode_request, encode_request
from strandline_broker.wire.compression import compress, decompress
from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.fetch import decode_fetch, encode_fetch_response
from strandline_broker.wire.fetch_client import decode_fetch_response
from strandline_broker.wire.header import decode_request_header
from strandline_broker.wire.metadata import decode_metadata
from strandline_broker.wire.produce import decode_produce
from strandline_broker.wire.registry import KAFKA_RANGES
from strandline_broker.wire.sasl import decode_sasl_authenticate, decode_sasl_handshake
from strandline_broker.wire.sasl_client import (
    decode_sasl_authenticate_response,
    decode_sasl_handshake_response,
)

_LIMIT = 1 << 20

_RECORDS = [
    Record(
        timestamp=1_700_000_000_000 + i,
        key=b"k%d" % i,
        value=b"value" * i,
        headers=(("h", b"x"), ("n", None)),
    )
    for i in range(5)
]
BATCHES = tuple(
    build_batch(
        _RECORDS, base_offset=7, compression=compression, producer_id=9, producer_epoch=1, base_sequence=0
    )
    for compression in Compression
)


def request_header(data: bytes) -> None:
    header = decode_request_header(memoryview(bytearray(data)))
    assert 10 <= header.body_offset <= len(data)


def produce(data: bytes) -> None:
    (version,), body = split(data, 1)
    request = decode_produce(memoryview(bytearray(body)), 0, 3 + version % 11)
    total = 0
    for key, partitions in request.topics:
        assert isinstance(key, str) or len(key) == 16
        for _, records in partitions:
            if records is not None:
                assert not records.readonly
                total += len(records)
    assert total <= len(body)


def fetch(data: bytes) -> None:
    (version,), body = split(data, 1)
    request = decode_fetch(memoryview(bytearray(body)), 0, 4 + version % 15)
    for key, partitions in request.topics:
        assert isinstance(key, str) or len(key) == 16
        assert all(len(partition) == 6 for partition in partitions)


def fetch_response(data: bytes) -> None:
    (version,), body = split(data, 1)
    response = decode_fetch_response(memoryview(bytearray(body)), 15 + version % 4)
    total = 0
    for topic_id, partitions in response.topics:
        assert len(topic_id) == 16
        for partition in partitions:
            assert not partition.records.readonly
            total += len(partition.records) + 36
    assert total <= len(body)


def batch(data: bytes) -> None:
    header = read_header(data)
    crc_ok(memoryview(data))
    count = 0
    for record in iter_records(data, _LIMIT):
        count += 1
        if header.is_control:
            read_end_txn_marker(record)
    assert count == header.record_count


def batch_sequence(data: bytes) -> None:
    end = 0
    for position, header in iter_batches(data):
        assert position == end
        end = position + header.size
        assert end <= len(data)


def decompression(data: bytes) -> None:
    (kind,), body = split(data, 1)
    assert len(decompress(kind % 8, body, _LIMIT)) <= _LIMIT


def metadata(data: bytes) -> None:
    (version,), body = split(data, 1)
    decode_metadata(memoryview(body), 0, version % 14)


def api_versions(data: bytes) -> None:
    (version,), body = split(data, 1)
    is_valid_software(decode_api_versions(memoryview(body), 0, version % 6))


def sasl(data: bytes) -> None:
    (version,), body = split(data, 1)
    if version % 4 == 3:
        decode_sasl_handshake(memoryview(body), 0)
    else:
        decode_sasl_authenticate(memoryview(body), 0, version % 4)


def sasl_response(data: bytes) -> None:
    (which,), body = split(data, 1)
    if which % 2:
        decode_sasl_handshake_response(memoryview(body))
    else:
        assert len(decode_sasl_authenticate_response(memoryview(body)).token) <= len(body)


def cold_request(data: bytes) -> None:
    """Any version of any API that has no codec of its own."""
    (number, version), body = split(data, 2)
    api = _COLD[number % len(_COLD)]
    version = api.min_version + version % (api.max_version - api.min_version + 1)
    decode_request(api.key, version, memoryview(body), 0)


_HOT = (ApiKey.PRODUCE, ApiKey.FETCH, ApiKey.METADATA, ApiKey.API_VERSIONS)
_COLD = tuple(api for api in KAFKA_RANGES if api.key not in _HOT)


def _cold_seeds() -> tuple[bytes, ...]:
    seeds = []
    for number, api in enumerate(_COLD):
        frame = encode_request(api.key, api.max_version, 1, "c", {})[4:]
        body = frame[decode_request_header(memoryview(frame)).body_offset :]
        seeds.append(bytes([number, api.max_version - api.min_version]) + body)
    topics = {"topics": [{"name": "t", "num_partitions": 3, "replication_factor": 1}], "validate_only": False}
    frame = encode_request(ApiKey.CREATE_TOPICS, 7, 1, "c", topics)[4:]
    number = next(i for i, api in enumerate(_COLD) if api.key == ApiKey.CREATE_TOPICS)
    body = frame[decode_request_header(memoryview(frame)).body_offset :]
    return (*seeds, bytes([number, 5]) + body)


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _header_seeds() -> tuple[bytes, ...]:
    plain = struct.pack(">hhih", 0, 3, 1, 4) + b"test"
    return (
        plain,
        struct.pack(">hhih", 18, 4, 1, -1) + b"\0",
        struct.pack(">hhih", 1, 12, 1, 4) + b"test\x01\x05\x02ab",
    )


def _produce_seeds() -> tuple[bytes, ...]:
    records = BATCHES[0]
    legacy = struct.pack(">hhii", -1, -1, 1000, 1) + _string("topic")
    legacy += struct.pack(">iii", 1, 0, len(records)) + records
    size = len(records) + 1
    compact_size = bytes([size & 0x7F | 0x80, size >> 7])
    flexible = struct.pack(">Bhi", 0, -1, 1000) + b"\x02\x06topic\x02" + struct.pack(">i", 0)
    flexible += compact_size + records + b"\0\0\0"
    by_id = struct.pack(">Bhi", 0, 1, 1000) + b"\x02" + bytes(range(16)) + b"\x02" + struct.pack(">i", 0)
    by_id += compact_size + records + b"\0\0\0"
    return (b"\0" + legacy, b"\x06" + flexible, b"\x0a" + by_id)


def _fetch_seeds() -> tuple[bytes, ...]:
    legacy = struct.pack(">iiiiBi", -1, 500, 1, 1 << 20, 0, 1) + _string("topic")
    legacy += struct.pack(">iiqi", 1, 0, 5, 1 << 20)
    v11 = struct.pack(">iiiiBiii", -1, 500, 1, 1 << 20, 0, 0, -1, 1) + _string("topic")
    v11 += struct.pack(">iiiqqi", 1, 0, -1, 5, -1, 1 << 20) + struct.pack(">i", 0) + _string("rack")
    flexible = struct.pack(">iiiBii", 500, 1, 1 << 20, 0, 0, -1) + b"\x02" + bytes(range(16)) + b"\x02"
    flexible += struct.pack(">iiqiqi", 0, -1, 5, -1, -1, 1 << 20) + b"\0\0\x01\x05rack\0"
    return (b"\0" + legacy, b"\x07" + v11, b"\x0d" + flexible, b"\x0e" + flexible)


def _fetch_response_seeds() -> tuple[bytes, ...]:
    full: tuple[Any, ...] = (3, 0, 9, 9, 1, [(5, 6)], -1, BATCHES[0], (4, 7), (2, 8), (9, 9))
    plain: tuple[Any, ...] = (4, 6, 9, 9, 1, None, -1, None)
    topics = [(bytes(range(16)), [full, plain]), (bytes(16), [plain, plain])]
    seeds = []
    for version in range(4):
        parts: list[Any] = list(
            encode_fetch_response(15 + version, 1, 0, 7, topics, 0, [(1, "host", 9092, None)])
        )
        seeds.append(bytes([version]) + b"".join(parts)[9:])
    return tuple(seeds)


def _metadata_seeds() -> tuple[bytes, ...]:
    legacy = struct.pack(">i", 1) + _string("topic") + b"\x01\0\0"
    newest = b"\x02" + bytes(16) + b"\x06topic\0" + b"\x01\0" + b"\0"
    return (b"\x01" + struct.pack(">i", 0), b"\x08" + legacy, b"\x0d" + newest, b"\x0d\0\x01\0\0")


_REFUSALS = (DecodeError,)

WIRE_TARGETS = (
    Target("request-header", request_header, _REFUSALS, _header_seeds()),
    Target("produce", produce, _REFUSALS, _produce_seeds()),
    Target("fetch", fetch, _REFUSALS, _fetch_seeds()),
    Target("fetch-response", fetch_response, _REFUSALS, _fetch_response_seeds()),
    Target("metadata", metadata, _REFUSALS, _metadata_seeds()),
    Target("api-versions", api_versions, _REFUSALS, (b"\x03\x04lib\x041.0\0", b"\0")),
    Target("sasl", sasl, _REFUSALS, (b"\x03\0\x05PLAIN", b"\0\0\0\0\x02ab", b"\x02\x03ab\0")),
    Target(
        "sasl-response",
        sasl_response,
        _REFUSALS,
        (b"\x01\0\0\0\0\0\x01\0\x05PLAIN", b"\0\0\x3a\x03no\x03ab" + bytes(8) + b"\0"),
    ),
    Target("cold-request", cold_request, _REFUSALS, _cold_seeds()),
    Target("batch", batch, _REFUSALS, BATCHES),
    Target("batch-sequence", batch_sequence, _REFUSALS, (BATCHES[0] + BATCHES[1] + BATCHES[2],)),
    Target(
        "decompression",
        decompression,
        _REFUSALS,
        tuple(bytes([kind]) + compress(kind, b"some text, some text, " * 20) for kind in Compression),
    ),
)
