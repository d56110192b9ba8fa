"""Incremental fetch sessions as KIP-227 describes them."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from strandline_broker.api.fetch_sessions import FetchSessionCache
from strandline_broker.errors import ErrorCode, KafkaError

VERSION = 12
WITH_IDS = 13


def request(
    session_id: int = 0,
    epoch: int = 0,
    topics: list[tuple[str | bytes, list[tuple[int, ...]]]] | None = None,
    forgotten: list[tuple[str | bytes, list[int]]] | None = None,
) -> Any:
    return SimpleNamespace(
        session_id=session_id, session_epoch=epoch, topics=topics or [], forgotten=forgotten or []
    )


def entry(partition: int, offset: int = 0) -> tuple[int, ...]:
    return (partition, -1, offset, -1, -1, 1 << 20)


def cache(**arguments: Any) -> FetchSessionCache:
    return FetchSessionCache(random.Random(7), **arguments)


def test_a_full_request_opens_a_session_and_the_next_epoch_continues_it() -> None:
    sessions = cache()
    session, targets = sessions.open(request(topics=[("a", [entry(0, 5), entry(1)])]), VERSION, now=0.0)
    assert session is not None
    assert [(target.key, target.index, target.fetch_offset) for target in targets] == [
        ("a", 0, 5),
        ("a", 1, 0),
    ]

    again, targets = sessions.open(request(session.id, 1, [("a", [entry(1, 9)])]), VERSION, now=1.0)
    assert again is session
    assert [(target.index, target.fetch_offset) for target in targets] == [(0, 5), (1, 9)]


def test_forgotten_partitions_are_no_longer_served_and_an_empty_session_ends() -> None:
    sessions = cache()
    session, _ = sessions.open(request(topics=[("a", [entry(0), entry(1)])]), VERSION, now=0.0)
    assert session is not None
    _, targets = sessions.open(request(session.id, 1, forgotten=[("a", [0])]), VERSION, now=0.0)
    assert [target.index for target in targets] == [1]
    _, targets = sessions.open(request(session.id, 2, forgotten=[("a", [1])]), VERSION, now=0.0)
    assert targets == []
    assert len(sessions) == 0


@pytest.mark.parametrize(
    ("session_offset", "epoch", "version", "code"),
    [
        (1, 1, VERSION, ErrorCode.FETCH_SESSION_ID_NOT_FOUND),
        (0, 2, VERSION, ErrorCode.INVALID_FETCH_SESSION_EPOCH),
        (0, 1, WITH_IDS, ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR),
    ],
)
def test_what_does_not_continue_a_session_is_refused(
    session_offset: int, epoch: int, version: int, code: ErrorCode
) -> None:
    sessions = cache()
    session, _ = sessions.open(request(topics=[("a", [entry(0)])]), VERSION, now=0.0)
    assert session is not None
    with pytest.raises(KafkaError) as caught:
        sessions.open(request(session.id + session_offset, epoch), version, now=0.0)
    assert caught.value.code is code


def test_the_final_epoch_closes_the_session_and_is_answered_in_full() -> None:
    sessions = cache()
    session, _ = sessions.open(request(topics=[("a", [entry(0)])]), VERSION, now=0.0)
    assert session is not None
    none, targets = sessions.open(request(session.id, -1, [("a", [entry(3)])]), VERSION, now=0.0)
    assert none is None
    assert [target.index for target in targets] == [3]
    assert len(sessions) == 0


def test_a_busy_cache_answers_without_a_session_and_evicts_only_what_rested() -> None:
    sessions = cache(slots=1, eviction_seconds=120.0)
    first, _ = sessions.open(request(topics=[("a", [entry(0)])]), VERSION, now=0.0)
    assert first is not None
    refused, targets = sessions.open(request(topics=[("b", [entry(0)])]), VERSION, now=119.0)
    assert refused is None
    assert len(targets) == 1
    second, _ = sessions.open(request(topics=[("b", [entry(0)])]), VERSION, now=121.0)
    assert second is not None
    assert sessions.evictions == 1
    with pytest.raises(KafkaError):
        sessions.open(request(first.id, 1), VERSION, now=122.0)


def test_partitions_that_got_data_move_behind_the_others() -> None:
    sessions = cache()
    session, targets = sessions.open(
        request(topics=[("a", [entry(0), entry(1), entry(2)])]), VERSION, now=0.0
    )
    assert session is not None
    session.served(targets[0])
    _, targets = sessions.open(request(session.id, 1), VERSION, now=0.0)
    assert [target.index for target in targets] == [1, 2, 0]


def test_the_epoch_wraps_to_one() -> None:
    sessions = cache()
    session, _ = sessions.open(request(topics=[("a", [entry(0)])]), VERSION, now=0.0)
    assert session is not None
    session.epoch = 2**31 - 1
    sessions.open(request(session.id, 2**31 - 1), VERSION, now=0.0)
    assert session.epoch == 1
