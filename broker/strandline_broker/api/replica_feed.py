"""What one follower, on one connection, has still to be told: so that a fetch looks at few of its partitions.

A follower keeps one Fetch open for everything that it copies from here, and most partitions have nothing new most of the
time. Each partition tells its feeds when something was written, its high watermark moved or its role changed. A fetch then
looks at what the follower speaks of, at what is new, and at what has not caught up.

That is for speed only. Every `whole_interval_s` a fetch looks at everything: what nobody told (a log start that moved, a
partition that was opened again) and what has to be seen fresh (when a follower was last caught up) is found then.

Who uses it: `api.fetch_replica`. Bound: one feed per connection, one entry per partition of its session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from strandline_broker.api.fetch_replica import ReplicaFetchOperation
    from strandline_broker.api.fetch_sessions import FetchSession, FetchTarget, TopicKey
    from strandline_broker.replica.manager import ReplicaManager
    from strandline_broker.replica.partition import Partition
    from strandline_broker.wire.fetch import FetchRequest

    TargetKey = tuple[TopicKey, int]


class ReplicaFeed:
    """See the module; `replica.waiters.ReplicaWaiter` as partitions know it."""

    __slots__ = ("_replicas", "_watched", "_whole_at", "held_back", "news", "outside", "parked", "session")

    def __init__(self, replicas: ReplicaManager) -> None:
        self._replicas = replicas
        self._watched: dict[TargetKey, Partition] = {}
        self._whole_at = float("-inf")
        self.session: FetchSession | None = None
        self.parked: ReplicaFetchOperation | None = None
        """The fetch that waits for news."""
        self.held_back: Container[TargetKey] = ()
        """Partitions whose records a throttle keeps while the fetch waits: more of them are no reason to answer."""
        self.news: dict[TargetKey, None] = {}
        """Partitions that have something to tell or to copy, the longest waiting first."""
        self.outside: dict[TargetKey, None] = {}
        """Partitions whose ISR the follower may want to join: each of its fetches counts."""

    # -- what partitions tell ------------------------------------------------------------------------------------------

    def data_arrived(self, key: TargetKey) -> None:
        """Answer soon: there is something to copy, or a role changed."""
        self.news[key] = None
        if self.parked is not None and key not in self.held_back:
            self.parked.answer_soon()

    def high_watermark_moved(self, key: TargetKey) -> None:
        """Answer a little later, so that the follower learns of it; data that arrives meanwhile tells it at once."""
        self.news[key] = None
        if self.parked is not None:
            self.parked.answer_within_news_ms()

    # -- what a fetch has to look at -----------------------------------------------------------------------------------

    def due(
        self,
        request: FetchRequest,
        session: FetchSession | None,
        targets: list[FetchTarget],
        now: float,
        whole_interval_s: float,
    ) -> list[FetchTarget]:
        """Return what a fetch that just arrived has to look at; `targets` is everything that it asks for."""
        if (
            session is None
            or session is not self.session
            or request.session_epoch <= 0
            or now - self._whole_at >= whole_interval_s
        ):
            self.session = session
            self._whole_at = now
            self.outside.clear()
            self._watch_all(targets)
            return targets
        keys = self.news | self.outside
        for topic, entries in request.topics:
            for entry in entries:
                key = (topic, entry[0])
                keys[key] = None
                self._watch(key)
        return self._targets(session, keys)

    def new_since(self, operation: ReplicaFetchOperation) -> list[FetchTarget]:
        """Return what a fetch that waited has to look at before it is answered."""
        if operation.session is None:
            return operation.targets
        return self._targets(operation.session, self.news)

    @staticmethod
    def _targets(session: FetchSession, keys: Iterable[TargetKey]) -> list[FetchTarget]:
        targets = session.targets
        # What the follower does not ask for any more may still have told us something.
        return [targets[key] for key in keys if key in targets]

    def counted(self, key: TargetKey, *, may_join: bool) -> None:
        """Remember whether the next fetch counts for this partition although nothing about it is new."""
        if may_join:
            self.outside[key] = None
        elif self.outside:
            self.outside.pop(key, None)

    # -- being told ----------------------------------------------------------------------------------------------------

    def _watch(self, key: TargetKey) -> None:
        partition = self._replicas.find(*key)
        present = self._watched.get(key)
        if present is partition:
            return
        if present is not None:
            present.replica_waiters.pop(self, None)
            del self._watched[key]
        if partition is not None:
            partition.replica_waiters[self] = key
            self._watched[key] = partition

    def _watch_all(self, targets: list[FetchTarget]) -> None:
        keys = {(target.key, target.index) for target in targets}
        for key in self._watched.keys() - keys:
            self._watched.pop(key).replica_waiters.pop(self, None)
        for key in keys:
            self._watch(key)

    def close(self) -> None:
        """Be told nothing any more: the connection is gone."""
        for partition in self._watched.values():
            partition.replica_waiters.pop(self, None)
        self._watched.clear()
        self.news.clear()
        self.outside.clear()
