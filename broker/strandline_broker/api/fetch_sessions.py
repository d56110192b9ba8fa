"""Incremental fetch sessions (KIP-227): the broker remembers what a client reads, the client sends only changes.

Pure bookkeeping; the fetch handler is the only caller. A session is usable from its own connection or another one: its
id is random and its epoch orders requests, as in Kafka (`FetchSession.scala`).

    request epoch | meaning
    --------------+-----------------------------------------------------------------------
        -1        | close the session if one is named; answer in full, without a session
         0        | close the session if one is named; answer in full and open a new one
        n > 0     | incremental: exactly the next epoch of a session that exists
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from strandline_broker.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    import random

    from strandline_broker.wire.fetch import FetchRequest

FINAL_EPOCH = -1
INITIAL_EPOCH = 0
_MAX_EPOCH = 2**31 - 1
_MAX_SESSION_ID = 2**31 - 1

TopicKey = str | bytes


class FetchTarget:
    """One partition that a client reads, and what it was told last."""

    __slots__ = (
        "current_leader_epoch",
        "fetch_offset",
        "index",
        "key",
        "last_fetched_epoch",
        "log_start_offset",
        "max_bytes",
        "told_high_watermark",
        "told_start_offset",
        "told_tiered_through",
    )

    def __init__(self, key: TopicKey, entry: tuple[int, int, int, int, int, int]) -> None:
        self.key = key
        self.told_high_watermark = -1
        self.told_start_offset = -1
        self.told_tiered_through = -1
        self.index = entry[0]
        self.update(entry)

    def update(self, entry: tuple[int, int, int, int, int, int]) -> None:
        """Take over what the client asks for now."""
        (
            _,
            self.current_leader_epoch,
            self.fetch_offset,
            self.last_fetched_epoch,
            self.log_start_offset,
            self.max_bytes,
        ) = entry


class FetchSession:
    """The targets of one client, in the order in which they are served next."""

    __slots__ = ("epoch", "id", "last_used", "targets", "uses_topic_ids")

    def __init__(
        self, session_id: int, targets: list[FetchTarget], now: float, *, uses_topic_ids: bool
    ) -> None:
        self.id = session_id
        self.epoch = 1
        self.last_used = now
        self.uses_topic_ids = uses_topic_ids
        self.targets: OrderedDict[tuple[TopicKey, int], FetchTarget] = OrderedDict(
            ((target.key, target.index), target) for target in targets
        )

    def update(self, request: FetchRequest) -> None:
        """Apply an incremental request."""
        targets = self.targets
        for key, entries in request.topics:
            for entry in entries:
                known = targets.get((key, entry[0]))
                if known is None:
                    targets[(key, entry[0])] = FetchTarget(key, entry)
                else:
                    known.update(entry)
        for key, indexes in request.forgotten:
            for index in indexes:
                targets.pop((key, index), None)

    def served(self, target: FetchTarget) -> None:
        """Move a partition that got data behind the others, so that a full response starves nobody."""
        self.targets.move_to_end((target.key, target.index))


class FetchSessionCache:
    """All sessions of a broker; at most `slots`, and at most `max_targets` partitions in all of them together."""

    def __init__(
        self,
        rng: random.Random,
        *,
        slots: int = 1000,
        max_targets: int = 200_000,
        eviction_seconds: float = 120.0,
    ) -> None:
        self._rng = rng
        self._slots = slots
        self._max_targets = max_targets
        self._eviction_seconds = eviction_seconds
        self._sessions: OrderedDict[int, FetchSession] = OrderedDict()
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def open(
        self, request: FetchRequest, version: int, now: float
    ) -> tuple[FetchSession | None, list[FetchTarget]]:
        """Return the session, if any, and the targets of this request in the order to serve them.

        Raises KafkaError FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH or FETCH_SESSION_TOPIC_ID_ERROR.
        """
        epoch = request.session_epoch
        if epoch in (FINAL_EPOCH, INITIAL_EPOCH):
            if request.session_id:
                self._sessions.pop(request.session_id, None)
            targets = [FetchTarget(key, entry) for key, entries in request.topics for entry in entries]
            if epoch == FINAL_EPOCH or not targets or not self._make_room(len(targets), now):
                return None, targets
            session = FetchSession(self._new_id(), targets, now, uses_topic_ids=version >= 13)
            self._sessions[session.id] = session
            return session, targets
        return self._continue(request, version, now)

    def _continue(
        self, request: FetchRequest, version: int, now: float
    ) -> tuple[FetchSession, list[FetchTarget]]:
        session = self._sessions.get(request.session_id)
        if session is None:
            raise KafkaError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if request.session_epoch != session.epoch:
            raise KafkaError(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        if session.uses_topic_ids != (version >= 13):
            raise KafkaError(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR)
        session.update(request)
        session.epoch = 1 if session.epoch == _MAX_EPOCH else session.epoch + 1
        session.last_used = now
        self._sessions.move_to_end(session.id)
        if not session.targets:
            # Kafka closes a session that reads nothing any more.
            del self._sessions[session.id]
        return session, list(session.targets.values())

    def _make_room(self, target_count: int, now: float) -> bool:
        if target_count > self._max_targets:
            return False
        total = sum(len(session.targets) for session in self._sessions.values()) if target_count > 1000 else 0
        while len(self._sessions) >= self._slots or total + target_count > self._max_targets:
            if not self._sessions:
                return False
            oldest = next(iter(self._sessions.values()))
            if now - oldest.last_used < self._eviction_seconds:
                return False
            total -= len(oldest.targets)
            del self._sessions[oldest.id]
            self.evictions += 1
        return True

    def _new_id(self) -> int:
        while True:
            session_id = self._rng.randint(1, _MAX_SESSION_ID)
            if session_id not in self._sessions:
                return session_id
