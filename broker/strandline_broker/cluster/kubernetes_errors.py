"""What an API server's refusals mean, as pure functions: for the Kubernetes client of the cluster store alone.

An answer that is no success either says something about the request (`ApiRefusal`: it was not carried out, and asking
again the same way cannot help) or about the server (`Unavailable`: whether a write happened is open). Bodies may be
anything: a proxy's page, or plain text as the API server's own 429 has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from .store import Unavailable

# Longest message of a server that is passed on, in characters.
_MAX_MESSAGE: Final = 500
# A server that asks for a longer pause than this is asked earlier all the same, in seconds.
_MAX_RETRY_AFTER_S: Final = 30.0
# Codes with which a server judges the request. 401 and 403 are not among them: credentials rotate, and roles and quotas
# change while a broker runs. 404 and 410 have rules of their own.
_REFUSALS: Final = frozenset({400, 404, 409, 410, 413, 415, 422})
_TOO_NEW: Final = "ResourceVersionTooLarge"


class Cause(NamedTuple):
    """One entry of a Status' `details.causes`."""

    reason: str
    message: str
    field: str


class ApiRefusal(Exception):  # noqa: N818 - named like the API server's reasons
    """The API server judged the request and did not carry it out.

    `reason` is the Status' reason (`NotFound`, `AlreadyExists`, `Invalid`, ...), empty where the server gave none.
    """

    def __init__(self, code: int, reason: str, message: str, causes: tuple[Cause, ...] = ()) -> None:
        super().__init__(code, reason, message)
        self.code = code
        self.reason = reason
        self.message = message
        self.causes = causes

    def __str__(self) -> str:
        more = [
            f"{cause.field}: {cause.message}" if cause.field else cause.message
            for cause in self.causes
            if cause.message and cause.message not in self.message
        ]
        return _shortened("; ".join([self.message, *more]))

    @property
    def history_is_gone(self) -> bool:
        """Whether the server cannot continue from a version: too old (410), or of a future that never was."""
        return self.code == 410 or any(cause.reason == _TOO_NEW for cause in self.causes)

    @property
    def not_applied(self) -> bool:
        """Whether a JSON patch could not be applied: a `test` did not hold, or a path is not there.

        The code is 422 as for a refused schema, but no cause is given.
        """
        return self.code == 422 and not self.causes


def error_of(code: int, headers: Mapping[str, str], body: bytes) -> ApiRefusal | Unavailable:
    """Return the error that an answer with an HTTP code of 300 or above stands for."""
    return _error(code, _status_of(body), body, _retry_after_s(headers))


def error_in_stream(status: Mapping[str, Any]) -> ApiRefusal | Unavailable:
    """Return the error of a watch event of type ERROR, whose object is a Status."""
    code = status.get("code")
    return _error(code if isinstance(code, int) else 500, status, b"", None)


def _error(
    code: int, status: Mapping[str, Any] | None, body: bytes, retry_after_s: float | None
) -> ApiRefusal | Unavailable:
    if status is None:
        text = body[: 4 * _MAX_MESSAGE].decode("utf-8", "replace").strip()
        message = f"{code} {text}"[:_MAX_MESSAGE]
        # Without a Status it is no judgement: a path that no API serves (its CRD is missing), or a proxy's page.
        return Unavailable(f"the API server answers {message}", retry_after_s=retry_after_s)
    details = status.get("details") or {}
    causes = tuple(
        Cause(*(str(entry.get(key) or "") for key in ("reason", "message", "field")))
        for entry in details.get("causes") or ()
        if isinstance(entry, dict)
    )
    message = _shortened(str(status.get("message") or ""))
    refusal = ApiRefusal(code, str(status.get("reason") or ""), message, causes)
    if refusal.history_is_gone or (code in _REFUSALS and not _about_the_namespace(code, details)):
        return refusal
    seconds = details.get("retryAfterSeconds")
    if retry_after_s is None and isinstance(seconds, int) and seconds > 0:
        retry_after_s = min(float(seconds), _MAX_RETRY_AFTER_S)
    return Unavailable(f"the API server answers {code} {message}", retry_after_s=retry_after_s)


def _shortened(text: str) -> str:
    """Return a message of bearable length: some hold the whole object in the middle, and what is wrong at the end."""
    if len(text) <= _MAX_MESSAGE:
        return text
    head = _MAX_MESSAGE // 4
    return f"{text[:head]} ... {text[head - _MAX_MESSAGE :]}"


def _about_the_namespace(code: int, details: Mapping[str, Any]) -> bool:
    """Return whether a 404 says that there is no such namespace, or no such kind: nothing about the object."""
    return code == 404 and (details.get("kind") == "namespaces" or not details.get("name"))


def _status_of(body: bytes) -> dict[str, Any] | None:
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return status if isinstance(status, dict) and status.get("kind") == "Status" else None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the pause that the server asks for. Only seconds are understood, which is what API servers send."""
    text = headers.get("Retry-After", "").strip()
    if not (text.isascii() and text.isdigit()):
        return None
    return min(float(text), _MAX_RETRY_AFTER_S)
