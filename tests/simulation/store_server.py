"""The cluster store of the simulator: its memory, without any network between it and who asks.

`MemoryStore` (store.py) is what brokers and controllers get. The rules of an API server are those of
`cluster.object_rules`, which `SqliteStore` uses as well.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from strandline_broker.cluster import object_rules
from strandline_broker.cluster.model import KINDS, Object
from strandline_broker.cluster.store import (
    AlreadyExists,
    Event,
    EventType,
    Gone,
    Invalid,
    NotFound,
    Operation,
    Subresource,
    Test,
    Validator,
)
from strandline_broker.seams.randomness import new_uuid


class Change(NamedTuple):
    """One event as it is kept: `at` is when it happened, `body` the object's JSON."""

    version: int
    at: float
    type: EventType
    body: bytes


class StoreServer:
    """Objects and their history. Every method is one atomic step, so the store is linearizable by nature.

    `history`: events kept per kind. `on_change(kind, old, new)` sees every write, before watchers are woken.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        now_ms: Callable[[], int],
        time: Callable[[], float] = lambda: 0.0,
        validator: Validator | None = None,
        history: int = 1_000,
    ) -> None:
        self._rng = rng
        self._now_ms = now_ms
        self._time = time
        self._validator = validator
        self._history = history
        self._version = 0
        self._objects: dict[str, dict[str, bytes]] = {kind: {} for kind in KINDS}
        self._changes: dict[str, deque[Change]] = {kind: deque() for kind in KINDS}
        self._floors: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.wakers: dict[Callable[[str], None], None] = {}
        """Called with the kind after every write."""
        self.on_change: Callable[[str, Object | None, Object | None], None] | None = None
        self.writes = 0

    def get(self, kind: str, name: str) -> Object:
        """See `ClusterStore.get`."""
        object_rules.check_kind(kind)
        body = self._objects[kind].get(name)
        if body is None:
            raise NotFound(f"there is no {kind} {name}")
        return _load(body)

    def list_objects(self, kind: str) -> tuple[list[Object], str]:
        """See `ClusterStore.list`."""
        object_rules.check_kind(kind)
        return [_load(body) for _, body in sorted(self._objects[kind].items())], str(self._version)

    def changes_after(self, kind: str, version: int) -> list[Change]:
        """Return what happened after `version`. Raises Gone."""
        if not self._floors[kind] <= version <= self._version:
            raise Gone(f"{kind} events after version {version} are not kept")
        changes = self._changes[kind]
        if not changes or changes[-1].version <= version:
            return []
        return [change for change in changes if change.version > version]

    def create(self, kind: str, obj: Object) -> Object:
        """See `ClusterStore.create`."""
        new = object_rules.created(
            kind, obj, uid=str(new_uuid(self._rng)), now=self._timestamp(), validator=self._validator
        )
        name = new["metadata"]["name"]
        if name in self._objects[kind]:
            raise AlreadyExists(f"{kind} {name} exists already")
        return self._store(kind, None, new, EventType.ADDED)

    def patch_if(
        self,
        kind: str,
        name: str,
        uid: str,
        tests: Sequence[Test],
        operations: Sequence[Operation],
        subresource: Subresource | None,
    ) -> Object:
        """See `ClusterStore.patch_if`."""
        old = self.get(kind, name)
        object_rules.check_tests(kind, old, uid, tests)
        new = object_rules.patched(kind, old, operations, subresource, self._validator)
        if new is None:
            return old
        finished = object_rules.is_finished(new)
        return self._store(kind, old, new, EventType.DELETED if finished else EventType.MODIFIED)

    def delete_if(self, kind: str, name: str, uid: str, tests: Sequence[Test]) -> None:
        """See `ClusterStore.delete_if`."""
        old = self.get(kind, name)
        object_rules.check_tests(kind, old, uid, tests)
        if not old["metadata"].get("finalizers"):
            self._store(kind, old, old, EventType.DELETED)
            return
        marked = object_rules.marked_for_deletion(kind, old, self._timestamp())
        if marked is not None:
            self._store(kind, old, marked, EventType.MODIFIED)

    def _store(self, kind: str, old: Object | None, new: Object, type_: EventType) -> Object:
        self._version += 1
        self.writes += 1
        name = new["metadata"]["name"]
        new["metadata"]["resourceVersion"] = str(self._version)
        try:
            body = orjson.dumps(new)
        except TypeError as error:
            raise Invalid(f"{kind} {name} holds something that is not JSON: {error}") from error
        if len(body) > object_rules.MAX_OBJECT_BYTES:
            raise Invalid(
                f"{kind} {name} has {len(body)} bytes; {object_rules.MAX_OBJECT_BYTES} is the limit"
            )
        if type_ is EventType.DELETED:
            self._objects[kind].pop(name, None)
        else:
            self._objects[kind][name] = body
        changes = self._changes[kind]
        changes.append(Change(self._version, self._time(), type_, body))
        if len(changes) > self._history:
            self._floors[kind] = changes.popleft().version
        if self.on_change is not None:
            self.on_change(kind, old, None if type_ is EventType.DELETED else new)
        for wake in list(self.wakers):
            wake(kind)
        return _load(body)

    def _timestamp(self) -> str:
        moment = datetime.fromtimestamp(self._now_ms() // 1000, tz=UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def event_of(change: Change) -> Event:
    """Return a change as watchers get it."""
    return Event(change.type, _load(change.body))


def _load(body: bytes) -> Object:
    obj: Object = orjson.loads(body)
    return obj
