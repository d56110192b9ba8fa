"""What a decision asks for: writes to the cluster store, and notices for people.

Values without behaviour. Every write names what it was decided from (UID and tested fields), so that applying it late,
twice, or by two controllers at once is harmless. Notices are given only after the write succeeded: decisions repeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

from strandline_broker.cluster.model import Object


class Priority(IntEnum):
    """Order in which the actions of one pass are applied; those of one priority run concurrently.

    Elections first: clients wait for them. Purge ids are recorded before anything is deleted.
    """

    ELECTION = 0
    CHANGE = 1
    RECORD_PURGE = 2
    REMOVE = 3
    STATUS = 4


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should learn: a Kubernetes Event, or a line of `strandline dev`."""

    kind: str
    name: str
    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object; that it exists already means somebody decided the same."""

    kind: str
    object: Object
    priority: Priority = Priority.CHANGE
    # Decided from the absence of something: look again at the newest state before doing it.
    needs_fresh_list: bool = False
    notices: tuple[Notice, ...] = ()

    @property
    def name(self) -> str:
        """Name of the object."""
        name: str = self.object["metadata"]["name"]
        return name


@dataclass(frozen=True, slots=True)
class Patch:
    """Change an object if it is still what was decided about."""

    kind: str
    name: str
    uid: str
    tests: tuple[tuple[str, Any], ...]
    operations: tuple[dict[str, Any], ...]
    subresource: Literal["status"] | None = None
    priority: Priority = Priority.CHANGE
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object if it is still what was decided about."""

    kind: str
    name: str
    uid: str
    tests: tuple[tuple[str, Any], ...] = ()
    priority: Priority = Priority.REMOVE
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """A status that differs from the one shown; `flips` says that it must not wait for its turn."""

    patch: Patch
    flips: bool

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name."""
        return self.patch.kind, self.patch.name


Action = Create | Patch | Delete
