"""What the network part asks of a request handler, and the answers it takes.

`api.dispatch` implements `RequestHandler` and creates `Pending` objects; `net.connection` calls it. There is
no task and no future per request: a handler answers at once or completes a `Pending` later, in the loop's
thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from strandline_broker.seams.disk import FileSlice

if TYPE_CHECKING:
    from strandline_broker.net.connection import Connection

Part = bytes | memoryview | FileSlice
# A complete frame, length prefix included. The memory must stay unchanged until it is sent, so it must not be
# a slice of a request frame.
Response = bytes | Sequence[Part]


class RequestHandler(Protocol):
    """Handles frames synchronously, in the loop's thread."""

    def handle(self, conn: Connection, frame: memoryview, /) -> Response | Pending | None:
        """Handle one request; `frame` begins after the length prefix, is writable, and dies with the burst.

        None means that this request has no answer (Produce with acks=0). An exception closes the connection:
        ValueError is a malformed request, everything else is a bug here and logged with its traceback.
        """
        ...

    def end_of_burst(self) -> None:
        """Do what is better done for many requests: called once after the frames of one read were handled.

        Answers completed in here leave together with those of the burst, in one write per connection.
        """
        ...

    def connection_lost(self, conn: Connection, /) -> None:
        """Forget the connection; called exactly once for each connection that is gone."""
        ...


class _Owner(Protocol):
    def completed(self, pending: Pending, response: Response | None, /) -> None: ...


class Pending:
    """An answer that comes later; answers behind it wait, because Kafka answers in request order.

    `mute` (long polls, slow administration): no further frame of the connection is handled until this is
    completed. May be subclassed.
    """

    __slots__ = ("_done", "_lost", "_owner", "mute", "response")

    def __init__(self, mute: bool = False) -> None:
        self.mute = mute
        self.response: Response | None = None
        self._owner: _Owner | None = None
        self._done = False
        self._lost = False

    @property
    def done(self) -> bool:
        """Whether `complete` was called."""
        return self._done

    @property
    def lost(self) -> bool:
        """Whether the connection is gone, so that nobody waits for the answer."""
        return self._lost

    def complete(self, response: Response | None) -> None:
        """Give the answer, None for no answer at all; does nothing when `lost`.

        Raises RuntimeError the second time.
        """
        if self._done:
            raise RuntimeError("a request was answered twice")
        self._done = True
        owner = self._owner
        if owner is not None:
            self._owner = None
            owner.completed(self, response)
        elif not self._lost:
            self.response = (
                response  # completed inside `handle`: the connection finds it when it gets this object
            )

    def attach(self, owner: _Owner) -> None:
        """Say who wants the answer; called by the connection only."""
        self._owner = owner

    def detach(self) -> None:
        """Say that nobody wants the answer any more; called by the connection only."""
        self._owner = None
        self._lost = True
        self.response = None
