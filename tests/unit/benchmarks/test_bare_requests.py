"""What the benchmarks send and read by hand, against the schemas."""

from __future__ import annotations

import pytest
from benchmarks import fetch_client, requests
from benchmarks.raw_client import RequestFailedError

from strandline_broker.wire import cold
from strandline_broker.wire.api_keys import ApiKey
from strandline_broker.wire.batch import Record, build_batch
from strandline_broker.wire.fetch import decode_fetch, encode_fetch_response
from strandline_broker.wire.header import decode_request_header

FETCH_V = 11


def batch(first: int, count: int) -> bytes:
    """Return a batch as the log has it, from offset `first` on."""
    made = bytearray(build_batch([Record(-1, 1, None, b"x" * 50, ()) for _ in range(count)]))
    made[:8] = first.to_bytes(8, "big")
    return bytes(made)


def answer(*rows: tuple[int, int, bytes]) -> memoryview:
    topics = [("t", [(index, error, 90, 90, 0, None, -1, records) for index, error, records in rows])]
    parts = encode_fetch_response(FETCH_V, 7, 0, 0, topics)
    return memoryview(b"".join(bytes(part) for part in parts if isinstance(part, bytes | memoryview)))[4:]


def test_a_fetch_by_hand_is_what_was_meant() -> None:
    sent = requests.fetch(
        b"t", {0: 5, 3: 1 << 40}, 7, max_wait_ms=500, max_bytes=1000, partition_max_bytes=100
    )
    frame = memoryview(sent)[4:]
    header = decode_request_header(frame)
    request = decode_fetch(frame, header.body_offset, header.api_version)
    assert (header.api_key, header.api_version) == (ApiKey.FETCH, FETCH_V)
    assert (request.replica_id, request.max_wait_ms, request.min_bytes, request.max_bytes) == (
        -1,
        500,
        1,
        1000,
    )
    assert (request.session_id, request.session_epoch) == (0, -1)
    assert request.topics == [("t", [(0, -1, 5, -1, -1, 100), (3, -1, 1 << 40, -1, -1, 100)])]


def test_answers_say_where_to_go_on() -> None:
    rows = fetch_client.parse(answer((0, 0, batch(5, 3) + batch(8, 2)), (1, 0, b""), (2, 6, b"")))
    assert rows == [
        fetch_client.Row(0, 0, len(batch(5, 3) + batch(8, 2)), 10),
        fetch_client.Row(1, 0, 0, -1),
        fetch_client.Row(2, 6, 0, -1),
    ]


def test_half_a_batch_at_the_end_is_not_counted() -> None:
    (row,) = fetch_client.parse(answer((0, 0, batch(5, 3) + batch(8, 2)[:-1])))
    assert row.next_offset == 8


def test_an_error_of_the_whole_answer_is_raised() -> None:
    frame = memoryview(b"".join(bytes(part) for part in encode_fetch_response(FETCH_V, 7, 74, 0, [])))[4:]  # type: ignore[arg-type]
    with pytest.raises(RequestFailedError, match="74"):
        fetch_client.parse(frame)


def test_a_reassignment_by_hand_is_what_was_meant() -> None:
    frame = memoryview(requests.alter_reassignments(b"t", {0: [2, 1]}, 7))[4:]
    header = decode_request_header(frame)
    request = cold.decode_request(header.api_key, header.api_version, frame, header.body_offset)
    assert header.api_key == ApiKey.ALTER_PARTITION_REASSIGNMENTS
    assert [
        (topic.name, [(row.partition_index, row.replicas) for row in topic.partitions])
        for topic in request.topics
    ] == [("t", [(0, (2, 1))])]


@pytest.mark.parametrize(("whole", "row", "expected"), [(0, 0, 0), (41, 0, 41), (0, 37, 37)])
def test_a_refused_reassignment_is_noticed(whole: int, row: int, expected: int) -> None:
    body = {
        "throttle_time": 0,
        "error_code": whole,
        "error_message": "no" if whole else None,
        "responses": [
            {"name": "t", "partitions": [{"partition_index": 0, "error_code": row, "error_message": None}]}
        ],
    }
    frame = cold.encode_response(ApiKey.ALTER_PARTITION_REASSIGNMENTS, 0, 7, body)
    assert requests.alter_reassignments_error(bytes(frame)[4:]) == expected
