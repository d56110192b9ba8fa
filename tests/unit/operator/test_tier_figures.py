"""From what leaders say of their tiers to the columns of Topics and Clusters."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cluster.support import partition_set

from strandline_broker.cluster.model import NO_LEADER, PartitionState, ReplicaRef
from strandline_operator.controller.tier_figures import (
    Share,
    TopicTiers,
    combine,
    parse_shares,
    stored_text,
    tier_columns,
    unprotected_text,
)
from strandline_operator.controller.world import TopicSets

A = UUID(int=1)


def topic(*leaders: int) -> TopicSets:
    states = [
        PartitionState(replicas=(leader,), isr=(ReplicaRef(leader, 1),), leader=leader, partition_epoch=1)
        for leader in leaders
    ]
    return TopicSets(A, (partition_set(*states),), 0)


def says(partitions: int, stored: int, unprotected: int) -> dict[UUID, Share]:
    return {A: Share(partitions, TopicTiers(stored, unprotected))}


FORMER = {A: TopicTiers(7, 7)}


@pytest.mark.parametrize(
    ("leaders", "answers", "found"),
    [
        ((0, 1), {0: says(1, 10, 1), 1: says(1, 20, 2)}, TopicTiers(30, 3)),
        ((0, 1), {0: says(1, 10, 1), 1: says(1, 20, 2), 2: {}}, TopicTiers(30, 3)),
        # Half of it is not known: a broker does not answer, has not loaded its part, or the leader has just changed.
        ((0, 1), {0: says(1, 10, 1)}, TopicTiers(7, 7)),
        ((0, 1), {0: says(1, 10, 1), 1: says(0, 0, 0)}, TopicTiers(7, 7)),
        ((0, 1), {0: says(2, 10, 1), 1: says(1, 20, 2)}, TopicTiers(7, 7)),
        ((0, 1), {0: {}}, TopicTiers(7, 7)),
        ((0, NO_LEADER), {0: {}}, TopicTiers(7, 7)),
        ((0, 1), {}, TopicTiers(7, 7)),
        # All leaders answer, and have nothing to say of it.
        ((0, 1), {0: {}, 1: {}}, None),
    ],
)
def test_a_topic_is_the_sum_of_its_leaders(
    leaders: tuple[int, ...], answers: dict[int, Any], found: TopicTiers | None
) -> None:
    assert combine(FORMER, answers, [topic(*leaders)]) == {A: found}


def test_what_was_never_known_is_not_made_up_and_what_is_gone_is_forgotten() -> None:
    assert combine({}, {0: says(1, 10, 1)}, [topic(0, 1)]) == {}
    assert combine(FORMER, {0: {}}, []) == {}


@pytest.mark.parametrize(
    ("figures", "columns"),
    [
        ({}, {"unprotected": "1Ki", "stored": "1.0Ki"}),
        ({A: None}, {}),
        ({A: TopicTiers(3 << 30, 5 << 20)}, {"unprotected": "8Mi", "stored": "3.0Gi"}),
        ({A: TopicTiers(0, 0)}, {"unprotected": "0", "stored": "0"}),
    ],
)
def test_columns_stay_as_they_are_until_more_is_known(figures: Any, columns: dict[str, str]) -> None:
    assert tier_columns(figures, [A], {"unprotected": "1Ki", "stored": "1.0Ki", "topics": 3}) == columns


def test_a_cluster_is_the_sum_of_its_topics() -> None:
    ids = [UUID(int=n) for n in range(3)]
    figures = {ids[0]: TopicTiers(1 << 30, 1 << 20), ids[1]: None, ids[2]: TopicTiers(1 << 30, 1 << 20)}
    assert tier_columns(figures, ids, {}) == {"unprotected": "2Mi", "stored": "2.0Gi"}


@pytest.mark.parametrize(
    ("byte_count", "stored", "unprotected"),
    [
        (0, "0", "0"),
        (1, "1.0Ki", "1Ki"),
        (1024, "1.0Ki", "1Ki"),
        (1025, "1.0Ki", "2Ki"),
        (10_180, "9.9Ki", "16Ki"),
        (10_200, "10Ki", "16Ki"),
        (145 * 1024, "140Ki", "256Ki"),
        (994 * 1024, "990Ki", "1Mi"),
        (996 * 1024, "1.0Mi", "1Mi"),
        (3 << 40, "3.0Ti", "4Ti"),
        (7 << 60, "7.0Ei", "8Ei"),
        (3 << 71, "6100Ei", "8192Ei"),
    ],
)
def test_bytes_are_rounded(byte_count: int, stored: str, unprotected: str) -> None:
    assert stored_text(byte_count) == stored
    assert unprotected_text(byte_count) == unprotected


UNITS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


@given(st.integers(1024, 1 << 63))
def test_rounding_is_small_and_never_hides_what_is_unprotected(byte_count: int) -> None:
    def value(text: str) -> float:
        return float(text[:-2]) * 2.0 ** UNITS[text[-2:]]

    assert abs(value(stored_text(byte_count)) / byte_count - 1) <= 0.051
    assert 1 <= value(unprotected_text(byte_count)) / byte_count < 2


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"topics": 3},
        {"topics": ["x"]},
        {"topics": [{"topicId": "x", "partitions": 1, "storedBytes": 1, "unprotectedBytes": 1}]},
        {"topics": [{"topicId": str(A), "partitions": 1, "storedBytes": -1, "unprotectedBytes": 1}]},
        {"topics": [{"topicId": str(A), "partitions": True, "storedBytes": 1, "unprotectedBytes": 1}]},
        {"topics": [{"topicId": str(A), "storedBytes": 1, "unprotectedBytes": 1}]},
    ],
)
def test_what_is_no_answer_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_shares(document)
