"""Where everything that aiobotocore, botocore and aiohttp raise becomes an error of the object store seam.

Who uses it: the S3 modules, around every request. Messages name operation, key and what the server said, never a header, a
credential or a signature.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from strandline_tiered.object_store import (
    AlreadyThere,
    DamagedAnswer,
    InvalidKey,
    NoSuchObject,
    ObjectStoreError,
    Refused,
    Unavailable,
)

MAX_SERVER_WORDS = 200
"""Characters of a server's own message that are passed on."""

_MISSING = {"NoSuchKey", "404", "NotFound"}
_TAKEN = {"PreconditionFailed", "412"}
_KEYS = {"KeyTooLongError", "InvalidURI", "InvalidObjectName", "XMinioInvalidObjectName"}
_DAMAGED = {"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "NoCredentials"}
"""Reasons of `Refused` after which credentials are read anew."""
_REFUSED = CREDENTIALS | {
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "InvalidBucketName",
    "InvalidBucketState",
    "InvalidObjectState",
    "MethodNotAllowed",
    "NoSuchBucket",
    "NotImplemented",
    "PermanentRedirect",
    "QuotaExceeded",
    "RequestTimeTooSkewed",
    "XMinioStorageFull",
}
# Client errors by their status, and yet the next try may succeed. An upload that is gone was aborted, or done already.
_PASSING = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "NoSuchUpload",
}
_PASSING_STATUS = {408, 409, 425, 429}
_STATUS_REASONS = {
    301: "PermanentRedirect",
    401: "AccessDenied",
    403: "AccessDenied",
    405: "MethodNotAllowed",
}
# What botocore itself refuses before anything is sent, by the name of its exception.
_LOCAL_REASONS = {
    "NoCredentialsError": "NoCredentials",
    "PartialCredentialsError": "NoCredentials",
    "CredentialRetrievalError": "NoCredentials",
    "TokenRetrievalError": "NoCredentials",
    "ProfileNotFound": "NoCredentials",
    "InvalidRegionError": "InvalidRegion",
    "ParamValidationError": "InvalidRequest",
}


@contextlib.contextmanager
def foreign_errors(operation: str, key: str) -> Iterator[None]:
    """Map what is raised inside; errors of the seam pass. A cancellation stays one."""
    from aiohttp import ClientError as HttpError
    from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError, IncompleteReadError

    try:
        yield
    except ObjectStoreError:
        raise
    except ClientError as error:
        raise of_response(operation, key, error.response) from None
    except (FlexibleChecksumError, IncompleteReadError) as error:
        raise DamagedAnswer(f"{operation} {key}: {type(error).__name__}") from None
    except BotoCoreError as error:
        reason = _LOCAL_REASONS.get(type(error).__name__)
        if reason is not None:
            raise Refused(reason, f"{operation} {key}: {reason} ({_words(str(error))})") from None
        raise Unavailable(f"{operation} {key}: {type(error).__name__}") from None
    except (HttpError, TimeoutError, OSError) as error:
        raise Unavailable(f"{operation} {key}: {type(error).__name__}") from None


def of_response(operation: str, key: str, response: dict[str, Any]) -> ObjectStoreError:
    """Return the error that a server's error answer stands for, `response` as botocore parses it."""
    error = response.get("Error", {})
    metadata = response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    code = str(error.get("Code") or status)
    said = f"{operation} {key}: {code} (HTTP {status}) {_words(str(error.get('Message') or ''))}".rstrip()
    if code in _MISSING:
        return NoSuchObject(key)
    if code in _TAKEN:
        return AlreadyThere(key)
    if code in _KEYS:
        return InvalidKey(said)
    if code in _DAMAGED:
        return DamagedAnswer(said)
    if code in _REFUSED:
        return Refused(code, said)
    if code == str(status) and status in _STATUS_REASONS:
        return Refused(_STATUS_REASONS[status], said)
    if 400 <= status < 500 and status not in _PASSING_STATUS and code not in _PASSING:
        return Refused(code, said)
    return Unavailable(said, retry_after_s=_retry_after(metadata.get("HTTPHeaders", {})))


def _retry_after(headers: dict[str, str]) -> float | None:
    """Seconds of a Retry-After header; the form with a date is not worth a clock."""
    value = headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdecimal() else None


def _words(message: str) -> str:
    return " ".join(message.split())[:MAX_SERVER_WORDS]
