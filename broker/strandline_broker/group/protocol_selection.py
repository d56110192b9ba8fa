"""Which assignment protocol a group uses, and which topics its consumers read.

Members list the protocols they support in order of preference. A group needs one that all support; among those each
member votes for its favourite.

Source: Kafka 4.2, `ClassicGroup.selectProtocol`, `computeSubscribedTopics`; KIP-429 does not change either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from strandline_broker.group.members import Member, Protocols
from strandline_broker.wire import primitives as p
from strandline_broker.wire.errors import DecodeError

#: Protocol type of consumers; other types (Kafka Connect's, for example) keep their metadata to themselves.
CONSUMER_PROTOCOL_TYPE = "consumer"


class ProtocolCounts:
    """How many members support each protocol, kept up to date so that a join need not look at every member."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, protocols: Protocols) -> None:
        """Count a member in."""
        for name, _ in protocols:
            self._counts[name] += 1

    def remove(self, protocols: Protocols) -> None:
        """Count a member out."""
        for name, _ in protocols:
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]

    def supported_by_all(self, member_count: int) -> set[str]:
        """Return the protocols that every one of `member_count` members supports."""
        return {name for name, count in self._counts.items() if count == member_count}

    def any_supported_by_all(self, protocols: Protocols, member_count: int) -> bool:
        """Return whether one of `protocols` is supported by every member."""
        return any(self._counts.get(name, 0) == member_count for name, _ in protocols)


def select_protocol(members: Collection[Member], candidates: Collection[str]) -> str:
    """Return the candidate with the most votes; of equals the one that the longest-standing voter chose."""
    votes = Counter(member.vote(candidates) for member in members)
    return max(votes, key=votes.__getitem__)


def subscribed_topics(subscriptions: Iterable[bytes]) -> frozenset[str] | None:
    """Return the topics in consumers' subscriptions; None when one of them is not a consumer's subscription.

    Every version of the format starts as version 0 does: int16 version, array of topic names, nullable user data.
    """
    topics: set[str] = set()
    for subscription in subscriptions:
        try:
            (version,) = p.INT16.unpack_from(subscription)
            if version < 0:
                return None
            count, pos = p.read_array_length(subscription, 2, 2)
            if count < 0:
                return None
            for _ in range(count):
                topic, pos = p.read_string(subscription, pos)
                topics.add(topic)
        except (DecodeError, *p.MALFORMED):
            return None
    return frozenset(topics)
