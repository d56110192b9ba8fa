"""Answers of the coordinators' APIs: they may come at once, after a commit, or when a whole group has gathered.

A handler makes a `Ticket`, hands it to the coordinator and returns it: it is the `Pending` of its connection, which is
muted meanwhile, so a connection never waits for more than one. When the connection goes, the ticket drops what it holds;
whoever still keeps it answers into nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from strandline_broker.net.handler import Pending
from strandline_broker.wire import cold

if TYPE_CHECKING:
    from strandline_broker.api.request import Request
    from strandline_broker.errors import ErrorCode

logger = logging.getLogger(__name__)

Body = Mapping[str, Any]


class Ticket(Pending):
    """Implements `coordinator.machine.Ticket` for one request."""

    __slots__ = ("_finish", "_refusal", "_request")

    def __init__(
        self,
        request: Request,
        refusal: Callable[[ErrorCode], Body],
        finish: Callable[[Body], Body] | None = None,
    ) -> None:
        """`refusal` makes the body that says an error; `finish` completes the body that the coordinator gives."""
        super().__init__(mute=True)
        self._request: Request | None = request
        self._refusal: Callable[[ErrorCode], Body] | None = refusal
        self._finish = finish

    def answer(self, body: Body) -> None:
        """Send `body`; does nothing the second time, or when the connection is gone."""
        request, finish = self._request, self._finish
        if request is None:
            return
        self._forget()
        try:
            complete = body if finish is None else finish(body)
            response = cold.encode_response(
                request.api_key, request.version, request.correlation_id, complete
            )
        except Exception:
            # A bug of ours ends this connection, so that its client retries; the coordinator has others to answer.
            logger.exception("%s v%d: no answer", request.api_key.name, request.version)
            request.connection.close(f"{request.api_key.name} failed")
            return
        self.complete(response)

    def refuse(self, code: ErrorCode) -> None:
        """Send the body that says `code`; does nothing the second time, or when the connection is gone."""
        if self._refusal is not None:
            self.answer(self._refusal(code))

    def detach(self) -> None:
        """See `Pending.detach`."""
        super().detach()
        self._forget()

    def _forget(self) -> None:
        self._request = self._refusal = self._finish = None


class SharedTicket:
    """One of several answers that make up one response; the last one sends it."""

    __slots__ = ("_answers", "_index", "_refusal", "_whole")

    def __init__(
        self, whole: Gathering, index: int, answers: list[Body | None], refusal: Callable[[ErrorCode], Body]
    ) -> None:
        self._whole = whole
        self._index = index
        self._answers = answers
        self._refusal = refusal

    def answer(self, body: Body) -> None:
        """Take the answer; does nothing the second time."""
        if self._answers[self._index] is None:
            self._answers[self._index] = body
            self._whole.arrived()

    def refuse(self, code: ErrorCode) -> None:
        """Take the answer that says `code`; does nothing the second time."""
        self.answer(self._refusal(code))


class Gathering:
    """Collects the answers of several shards into one."""

    __slots__ = ("_answers", "_assemble", "_missing", "_ticket")

    def __init__(self, ticket: Ticket, count: int, assemble: Callable[[list[Body]], Body]) -> None:
        """`assemble` gets `count` answers in order. With 0 the ticket is answered at once."""
        self._ticket = ticket
        self._answers: list[Body | None] = [None] * count
        self._missing = count
        self._assemble = assemble
        if not count:
            ticket.answer(assemble([]))

    def ticket(self, index: int, refusal: Callable[[ErrorCode], Body]) -> SharedTicket:
        """Return the ticket of answer number `index`."""
        return SharedTicket(self, index, self._answers, refusal)

    def arrived(self) -> None:
        """Count an answer; called by its ticket."""
        self._missing -= 1
        if not self._missing:
            self._ticket.answer(self._assemble([answer for answer in self._answers if answer is not None]))
