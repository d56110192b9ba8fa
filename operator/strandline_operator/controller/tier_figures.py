"""How much of each topic is in the bucket, and how much is not there yet: from brokers' answers to columns. Pure.

Only the leader of a partition knows what is in its part of the bucket, so a topic's figures are the sum of what the leaders
of all its partitions say. While one of them does not say, what was known last stays: half a sum would look like a loss.

What is shown is rounded so much that a topic at work does not change its status every time: the API server pays for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from strandline_broker.cluster.model import NO_LEADER
from strandline_operator.controller.world import TopicSets

MAX_TOPICS: Final = 100_000
"""More than a broker can lead anything of; an answer with more is none."""
_UNITS: Final = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


class TopicTiers(NamedTuple):
    """Bytes of a topic's objects in the bucket, and bytes of its log that are not there yet."""

    stored_bytes: int
    unprotected_bytes: int


class Share(NamedTuple):
    """What one broker says of a topic: of so many partitions that it leads, and knows the bucket's part of."""

    partitions: int
    tiers: TopicTiers


Shares = Mapping[UUID, Share]
Figures = Mapping[UUID, TopicTiers | None]
"""By topic id. None: not tiered. A topic that is missing: nothing is known of it."""


def parse_shares(document: Any) -> Shares:
    """Read a broker's answer (`/v1/tiers`). Raises ValueError for what is none."""
    try:
        entries = document["topics"]
        if len(entries) > MAX_TOPICS:
            raise ValueError(f"{len(entries)} topics")
        return {UUID(entry["topicId"]): _share(entry) for entry in entries}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not what a broker says of its tiers: {error!r}") from error


def _share(entry: Mapping[str, Any]) -> Share:
    partitions, stored, unprotected = (
        entry[key] for key in ("partitions", "storedBytes", "unprotectedBytes")
    )
    if any(type(number) is not int or number < 0 for number in (partitions, stored, unprotected)):
        raise ValueError(f"not counts of topic {entry['topicId']}")
    return Share(partitions, TopicTiers(stored, unprotected))


def combine(former: Figures, answers: Mapping[int, Shares], topics: Iterable[TopicSets]) -> Figures:
    """Return the figures after a round in which the brokers in `answers`, by id, said this."""
    found: dict[UUID, TopicTiers | None] = {}
    for sets in topics:
        states = [state for slice_ in sets.slices for state in slice_.partitions]
        leaders = {state.leader for state in states}
        shares = [answer[sets.topic_id] for answer in answers.values() if sets.topic_id in answer]
        heard = NO_LEADER not in leaders and leaders <= answers.keys()
        if shares and sum(share.partitions for share in shares) == len(states):
            found[sets.topic_id] = total(share.tiers for share in shares)
        elif heard and not shares:
            found[sets.topic_id] = None
        elif sets.topic_id in former:
            found[sets.topic_id] = former[sets.topic_id]
    return found


def total(tiers: Iterable[TopicTiers]) -> TopicTiers:
    """Return the sum."""
    listed = list(tiers)
    return TopicTiers(sum(one.stored_bytes for one in listed), sum(one.unprotected_bytes for one in listed))


def tier_columns(figures: Figures, topic_ids: Iterable[UUID], shown: Mapping[str, Any]) -> dict[str, str]:
    """Return what the status of whoever has these topics should say; what it `shown` now, while something is not known."""
    ids = list(topic_ids)
    if any(topic_id not in figures for topic_id in ids):
        return {key: str(shown[key]) for key in ("unprotected", "stored") if key in shown}
    tiers = [one for topic_id in ids if (one := figures[topic_id]) is not None]
    if not tiers:
        return {}
    stored, unprotected = total(tiers)
    return {"unprotected": unprotected_text(unprotected), "stored": stored_text(stored)}


def stored_text(byte_count: int) -> str:
    """Return bytes with two digits: 0, 1.0Ki, 14Gi, 140Gi."""
    if byte_count == 0:
        return "0"
    value = max(byte_count / 1024, 1.0)
    for unit in _UNITS:
        rounded = round(value, 2 - len(str(int(value))))
        if rounded < 1000 or unit == _UNITS[-1]:
            return f"{rounded:.1f}{unit}" if rounded < 10 else f"{rounded:.0f}{unit}"
        value /= 1024
    raise AssertionError("the last unit takes everything")


def unprotected_text(byte_count: int) -> str:
    """Return bytes rounded up to a power of two, of a kibibyte at least: 0, 1Ki, 64Mi."""
    if byte_count == 0:
        return "0"
    exponent = max((byte_count - 1).bit_length(), 10)
    unit = min(exponent // 10 - 1, len(_UNITS) - 1)
    return f"{1 << (exponent - 10 * (unit + 1))}{_UNITS[unit]}"
