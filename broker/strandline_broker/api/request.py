"""One request of a cold API, as handlers get it; made by `api.dispatch`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strandline_broker.net.connection import Connection
    from strandline_broker.wire.api_keys import ApiKey

_MILLISECOND = timedelta(milliseconds=1)


class Request:
    """A decoded request.

    `body` is the kio entity of its version: fields that this version lacks are not there.
    """

    __slots__ = ("api_key", "body", "client_id", "connection", "correlation_id", "version")

    def __init__(
        self,
        api_key: ApiKey,
        version: int,
        correlation_id: int,
        client_id: str | None,
        connection: Connection,
        body: Any,
    ) -> None:
        self.api_key = api_key
        self.version = version
        self.correlation_id = correlation_id
        self.client_id = client_id
        self.connection = connection
        self.body = body

    @property
    def timeout_ms(self) -> int:
        """The request's `timeout` field in milliseconds."""
        return int(self.body.timeout / _MILLISECOND)

    def milliseconds(self, field: str, missing: int) -> int:
        """Return a duration of the body in milliseconds, `missing` where this version has no such field."""
        value = getattr(self.body, field, None)
        return missing if value is None else int(value / _MILLISECOND)
