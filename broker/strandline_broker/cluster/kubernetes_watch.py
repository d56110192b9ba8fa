"""The pure half of watching an API server: bytes of a stream to events. For the Kubernetes client alone.

A watch is an endless body of JSON objects, one a line: `{"type": "ADDED", "object": {...}}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from . import kubernetes_objects
from .kubernetes_errors import ApiRefusal, error_in_stream
from .store import Event, EventType, Gone, Unavailable

# An object has at most 1.5 MiB in etcd, escapes may make more of it on the wire.
MAX_LINE_BYTES: Final = 16 << 20


class LineSplitter:
    """Cuts a stream of chunks into lines. Holds at most `limit` bytes of an unfinished one."""

    __slots__ = ("_limit", "_rest", "_size")

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._rest: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that `chunk` completes, without their ends. Raises Unavailable for an endless line."""
        *lines, last = chunk.split(b"\n")
        for line in lines:
            self._rest.append(line)
            yield b"".join(self._rest)
            self._rest.clear()
            self._size = 0
        if last:
            self._size += len(last)
            if self._size > self._limit:
                raise Unavailable(f"a watch of the API server has a line above {self._limit} bytes")
            self._rest.append(last)


def event_of(kind: str, line: bytes) -> Event | None:
    """Return the event of one line of a watch, or None for what is none (an empty line, a bookmark).

    Raises Gone when the history is no longer kept (it comes as an event, after HTTP 200), Unavailable for any other
    error of the server and for what is no watch event.
    """
    if not line.strip():
        return None
    try:
        frame: Any = orjson.loads(line)
        type_, obj = frame["type"], frame["object"]
        if type_ == "BOOKMARK":
            return None
        if type_ != "ERROR":
            event = Event(EventType(type_), kubernetes_objects.received(kind, obj))
            assert event.version, "an event without a version"
            return event
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable(f"a watch of {kind} has a line that is no event: {error!r}") from error
    raise watch_error(kind, error_in_stream(obj if isinstance(obj, dict) else {}))


def watch_error(kind: str, error: ApiRefusal | Unavailable) -> Gone | Unavailable:
    """Return what the contract calls an error of a watch."""
    if isinstance(error, Unavailable):
        return error
    if error.history_is_gone:
        return Gone(f"events of {kind}: {error}")
    return Unavailable(f"the watch of {kind} was refused: {error}")
