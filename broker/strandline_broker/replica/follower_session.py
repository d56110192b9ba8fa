"""A follower's half of an incremental fetch session (KIP-227): what to send so that the leader knows what we want. Pure.

    no session ──full request, epoch 0──▶ the leader names a session ──only changes, epoch 1, 2, ...──▶ ...
    any error of the session, or a new connection ──▶ no session

A leader that names no session gets everything each time. Source: Apache Kafka, `FetchSessionHandler`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from strandline_broker.wire.fetch import FetchPartition

PartitionKey = tuple[bytes, int]
"""(topic id, partition)"""

_INITIAL_EPOCH = 0
_MAX_EPOCH = 2**31 - 1


class SessionRequest(NamedTuple):
    """What of a Fetch request depends on the session."""

    session_id: int
    session_epoch: int
    topics: list[tuple[bytes, list[FetchPartition]]]
    forgotten: list[tuple[bytes, list[int]]]


class FollowerSession:
    """See the module."""

    __slots__ = ("_epoch", "_id", "_sent")

    def __init__(self) -> None:
        self._id = 0
        self._epoch = _INITIAL_EPOCH
        self._sent: dict[PartitionKey, FetchPartition] = {}

    @property
    def established(self) -> bool:
        """Whether the next request needs to carry only changes."""
        return self._epoch != _INITIAL_EPOCH

    def reset(self) -> None:
        """Begin anew: the connection or the session is gone. One that the leader may still keep is named once more."""
        self._epoch = _INITIAL_EPOCH
        self._sent.clear()

    def request(
        self, changed: Mapping[PartitionKey, FetchPartition], dropped: Iterable[PartitionKey]
    ) -> SessionRequest:
        """Return the next request. Without a session `changed` has to name everything."""
        if not self.established:
            self._sent = dict(changed)
            return SessionRequest(self._id, _INITIAL_EPOCH, _by_topic(self._sent), [])
        sent = self._sent
        news = {key: entry for key, entry in changed.items() if sent.get(key) != entry}
        forgotten: dict[bytes, list[int]] = {}
        for key in dropped:
            if sent.pop(key, None) is not None:
                forgotten.setdefault(key[0], []).append(key[1])
        sent.update(news)
        return SessionRequest(self._id, self._epoch, _by_topic(news), list(forgotten.items()))

    def answered(self, session_id: int) -> None:
        """Take note of a good answer, which names the session, or 0 for none."""
        if session_id == 0:
            self._id = 0
            self.reset()
        elif session_id != self._id or not self.established:
            self._id = session_id
            self._epoch = 1
        else:
            self._epoch = 1 if self._epoch == _MAX_EPOCH else self._epoch + 1


def _by_topic(entries: Mapping[PartitionKey, FetchPartition]) -> list[tuple[bytes, list[FetchPartition]]]:
    topics: dict[bytes, list[FetchPartition]] = {}
    for (topic_id, _), entry in entries.items():
        topics.setdefault(topic_id, []).append(entry)
    return list(topics.items())
