"""The cluster store: the one place where cluster state lives, and the contract every implementation keeps.

`SqliteStore` (embedded) and the Kubernetes client implement it; `tests/unit/cluster/store_contract.py` holds
both to it. Operator, brokers and the command line call it. Objects are Kubernetes-shaped JSON values
(`model.Object`): callers own what they pass in and what they get back; a store keeps copies.

What holds for every operation:

- **Linearizable.** A read returns the newest state. A write that returned is seen by every read and watch
  after it.
- **Unknown outcomes.** `Unavailable`, and being cancelled, leave open whether a write happened. Read again
  and decide again; never repeat a write blindly.
- **No garbage collection.** `ownerReferences` are stored, nothing more; who deletes an owner deletes what it
  owns.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol

from .model import Object


class StoreError(Exception):
    """Base of everything a cluster store raises on purpose."""


class NotFound(StoreError):  # noqa: N818 - named like the API server's reasons
    """There is no object of that kind and name."""


class AlreadyExists(StoreError):  # noqa: N818 - named like the API server's reasons
    """`create`: an object of that kind and name exists, perhaps one whose deletion waits for finalizers."""


class Difference(NamedTuple):
    """A test that failed: what was expected at the JSON pointer and what is there (None: nothing)."""

    pointer: str
    expected: Any
    actual: Any


class Conflict(StoreError):  # noqa: N818 - named like the API server's reasons
    """The object is not the one the caller decided about: its UID or a tested field differs.

    Read and decide again.
    """

    def __init__(self, kind: str, name: str, differences: Sequence[Difference]) -> None:
        super().__init__(kind, name, tuple(differences))
        self.kind = kind
        self.name = name
        self.differences = tuple(differences)

    def __str__(self) -> str:
        found = "; ".join(f"{d.pointer} is {d.actual!r}, not {d.expected!r}" for d in self.differences)
        return f"{self.kind} {self.name} changed: {found}" if found else f"{self.kind} {self.name} changed"


class Invalid(StoreError):  # noqa: N818 - named like the API server's reasons
    """The object would break its schema or a rule.

    The message says which, for the user. Repeating cannot help.
    """


class Gone(StoreError):  # noqa: N818 - named like the API server's reasons
    """`watch`: the history after that version is no longer kept. List again and compare."""


class Unavailable(StoreError):  # noqa: N818 - named like the API server's reasons
    """The store cannot be reached or is overloaded.

    The outcome of a write is unknown. Retry later, with jitter.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EventType(StrEnum):
    """What happened to a watched object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Event:
    """One change.

    `object` is the state after it; for DELETED the last state, with the version of the deletion.
    """

    type: EventType
    object: Object

    @property
    def version(self) -> str:
        """The version to resume a watch from."""
        version: str = self.object["metadata"]["resourceVersion"]
        return version


# (JSON pointer, expected value). None matches null and also a last reference token that does not exist.
Test = tuple[str, Any]
# One JSON patch operation (RFC 6902): {"op": "add" | "replace" | "remove" | "test", "path": ..., "value":
# ...}
Operation = dict[str, Any]
Subresource = Literal["status"]


class Validator(Protocol):
    """Checks an object before it is stored, as the API server checks a custom resource against its CRD."""

    def __call__(self, kind: str, obj: Object, old: Object | None) -> None:
        """Raise Invalid if `obj` may not be stored in place of `old` (None: on create).

        May fill in defaults in `obj` itself. Runs inside the write's transaction: it must be quick and pure.
        """
        ...


class ClusterStore(Protocol):
    """Five operations on small versioned objects.

    `kind` is one of `model.KINDS`. What the server sets, whatever the caller says: `metadata.uid` (never used
    twice, not even for the same name), `resourceVersion` (opaque; changes with every change of the object),
    `creationTimestamp`, `deletionTimestamp`, and where the kind has it `generation` (1 at first; one more
    whenever something outside metadata and status changed).
    """

    async def get(self, kind: str, name: str) -> Object:
        """Return the object. Raises NotFound, Unavailable."""
        ...

    async def list(self, kind: str) -> tuple[list[Object], str]:
        """Return all objects of a kind, ordered by name, and the version to watch from.

        Raises Unavailable.
        """
        ...

    def watch(self, kind: str, version: str) -> AsyncGenerator[Event, None]:
        """Yield every change of a kind after `version` (of a list or an event), in order, without gaps.

        Events of one kind have one order, the same for all watchers; nothing is promised across kinds. Raises
        Gone when the history was cut after `version` or never had it; but an API server whose etcd was put back
        in time keeps a watch from a version of its future waiting: list now and then all the same. The
        generator may end at any time (an API server does that): resume from the last event's version. Raises
        Unavailable. Close it (`aclose`) when done.
        """
        ...

    async def create(self, kind: str, obj: Object) -> Object:
        """Store a new object and return it as stored.

        `status` is dropped where it is a subresource. Raises AlreadyExists, Invalid (bad name, another kind,
        a resourceVersion, a schema violation), Unavailable.
        """
        ...

    async def patch_if(
        self,
        kind: str,
        name: str,
        *,
        uid: str,
        tests: Sequence[Test],
        operations: Sequence[Operation],
        subresource: Subresource | None = None,
    ) -> Object:
        """Apply a JSON patch if the UID and all tests hold, atomically, and return the object as stored.

        `tests` are evaluated against the whole object, status included. `replace` of an object's member that is
        not there may be refused, or add it as an API server does: use `add` for what may be missing. With
        `subresource="status"` only `status` changes; otherwise everything but `status` where it is a subresource.
        A patch that changes nothing stores nothing and makes no event. Finalizers may not be added once deletion
        was requested; when the last one goes then, the object is deleted with it.

        Raises NotFound, Conflict (with what differed), Invalid (an operation cannot be applied, or the result
        breaks a rule), Unavailable.
        """
        ...

    async def delete_if(self, kind: str, name: str, *, uid: str, tests: Sequence[Test] = ()) -> None:
        """Delete the object if the UID and all tests hold.

        With finalizers it stays, marked with `metadata.deletionTimestamp`; deleting it again then changes
        nothing. Raises NotFound, Conflict, Unavailable.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and threads; running watches end. Further calls raise Unavailable."""
        ...
