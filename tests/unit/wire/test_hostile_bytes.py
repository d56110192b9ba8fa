"""Whatever bytes come in, a decoder returns a value or raises DecodeError, and takes no more memory than they allow."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.wire import oracle

from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.api_versions import decode_api_versions
from strandline_broker.wire.batch import (
    Compression,
    Record,
    build_batch,
    iter_batches,
    iter_records,
    read_header,
)
from strandline_broker.wire.compression import compress, decompress
from strandline_broker.wire.errors import DecodeError
from strandline_broker.wire.fetch import decode_fetch
from strandline_broker.wire.header import decode_request_header
from strandline_broker.wire.metadata import decode_metadata
from strandline_broker.wire.produce import decode_produce
from strandline_broker.wire.registry import KAFKA_RANGES, ApiRange

Decoder = Callable[[memoryview], object]
ENDS = sorted({(e.key, v) for e in KAFKA_RANGES for v in (e.min_version, e.max_version)})
HAND_WRITTEN: dict[ApiKey, Callable[[memoryview, int, int], object]] = {
    ApiKey.PRODUCE: decode_produce,
    ApiKey.FETCH: decode_fetch,
    ApiKey.METADATA: decode_metadata,
    ApiKey.API_VERSIONS: decode_api_versions,
}
# Lengths and counts at which arithmetic goes wrong, in both encodings.
NASTY = [
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff",
    b"\x7f\xff",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\x07",
    b"\x80\x80\x80\x80\x80\x80",
    b"\x00",
]


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """Valid bytes with a few places overwritten, cut out or repeated."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(result) - 1)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            nasty = draw(st.sampled_from(NASTY))
            result[start : start + len(nasty)] = nasty
        elif kind == 1:
            result[start : start + 1] = draw(st.binary(max_size=3))
        elif kind == 2:
            del result[start : start + draw(st.integers(1, 8))]
        else:
            result[start:start] = result[start : start + draw(st.integers(1, 40))]
    return bytes(result)


def survives(decode: Decoder, data: bytes) -> None:
    try:
        decode(memoryview(bytearray(data)))
    except DecodeError:
        pass


@pytest.mark.parametrize("entry", KAFKA_RANGES, ids=lambda entry: entry.key.name)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_requests(entry: ApiRange, data: st.DataObject) -> None:
    key = entry.key
    version = data.draw(st.integers(entry.min_version, entry.max_version))
    decoders: list[Decoder] = [lambda frame: cold.decode_request(key, version, frame, 0)]
    if key in HAND_WRITTEN:
        decoders.append(lambda frame: HAND_WRITTEN[key](frame, 0, version))
    valid = oracle.write(data.draw(oracle.entities(oracle.request_schema(key, version))))
    inputs = [data.draw(st.binary(max_size=60)), data.draw(mutations(valid))]
    inputs += [valid[: data.draw(st.integers(0, len(valid)))]]
    for decode in decoders:
        for content in inputs:
            survives(decode, content)


@pytest.mark.parametrize("entry", KAFKA_RANGES, ids=lambda entry: entry.key.name)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_responses(entry: ApiRange, data: st.DataObject) -> None:
    key = entry.key
    version = data.draw(st.integers(entry.min_version, entry.max_version))
    frame = oracle.response_frame(data.draw(oracle.entities(oracle.response_schema(key, version))))[4:]
    for content in (data.draw(st.binary(max_size=60)), data.draw(mutations(frame))):
        survives(lambda view: cold.decode_response(key, version, view), content)


@pytest.mark.parametrize("key", list(HAND_WRITTEN), ids=lambda key: key.name)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_no_cut_of_a_request_goes_unnoticed(key: ApiKey, data: st.DataObject) -> None:
    entry = next(entry for entry in KAFKA_RANGES if entry.key == key)
    version = data.draw(st.integers(entry.min_version, entry.max_version))
    frame = oracle.body_frame(data.draw(oracle.entities(oracle.request_schema(key, version))))
    HAND_WRITTEN[key](frame, 0, version)
    for end in range(len(frame)):
        with pytest.raises(DecodeError):
            HAND_WRITTEN[key](frame[:end], 0, version)
        with pytest.raises(DecodeError):
            cold.decode_request(key, version, frame[:end], 0)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_headers(data: bytes) -> None:
    survives(decode_request_header, data)


BATCHES = {
    codec: build_batch(
        [
            Record(timestamp=i, key=b"k" * i, value=b"v" * 40, headers=(("h", b"x"), ("n", None)))
            for i in range(12)
        ],
        compression=codec,
    )
    for codec in Compression
}


def read_batch(view: memoryview) -> None:
    header = read_header(view)
    assert header.length > -(2**32)
    for _ in iter_batches(view):
        pass
    for _ in iter_records(view, 1 << 20):
        pass


@pytest.mark.parametrize("codec", list(Compression))
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_batches(codec: Compression, data: st.DataObject) -> None:
    batch = bytearray(data.draw(mutations(BATCHES[codec])))
    if len(batch) > 61 and data.draw(st.booleans()):
        batch[8:12] = (len(batch) - 12).to_bytes(4, "big")  # get past the check of the length
    survives(read_batch, bytes(batch))


@pytest.mark.parametrize("codec", list(Compression))
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_compressed_data(codec: Compression, data: st.DataObject) -> None:
    valid = compress(codec, data.draw(st.binary(max_size=300)) * data.draw(st.integers(1, 50)))
    for content in (data.draw(st.binary(max_size=60)), data.draw(mutations(valid))):
        survives(lambda view: decompress(codec, view, 1 << 16), content)


@pytest.mark.parametrize(("key", "version"), ENDS, ids=lambda value: getattr(value, "name", str(value)))
def test_a_count_alone_allocates_nothing(key: ApiKey, version: int) -> None:
    """A count is put at every place where a field of a message might begin."""
    decoders: list[Decoder] = [lambda frame: cold.decode_request(key, version, frame, 0)]
    if key in HAND_WRITTEN:
        decoders.append(lambda frame: HAND_WRITTEN[key](frame, 0, version))
    tracemalloc.start()
    try:
        for count in (b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x07", b"\x7f\xff\xff\xff"):
            for start in range(12):
                for decode in decoders:
                    survives(decode, bytes(start) + count + bytes(24))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_snappy_block_that_claims_gigabytes_allocates_nothing() -> None:
    with pytest.raises(DecodeError, match="claims to expand"):
        decompress(2, b"\xff\xff\xff\xff\x0f" + bytes(100))
