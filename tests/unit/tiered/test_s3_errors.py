"""What foreign errors become, and how a bucket is named."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from botocore import exceptions

from strandline_tiered.object_store import (
    AlreadyThere,
    DamagedAnswer,
    InvalidKey,
    NoSuchObject,
    ObjectStoreError,
    Refused,
    Unavailable,
)
from strandline_tiered.s3_config import MAX_PARTS, S3Config
from strandline_tiered.s3_errors import MAX_SERVER_WORDS, foreign_errors


def client_error(code: str, status: int, message: str = "", **headers: str) -> exceptions.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return exceptions.ClientError(response, "Whatever")


def mapped(error: BaseException) -> ObjectStoreError:
    with pytest.raises(ObjectStoreError) as raised, foreign_errors("get", "a/b"):
        raise error
    return raised.value


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchKey", 404, NoSuchObject),
        ("404", 404, NoSuchObject),  # of HEAD, which has no body
        ("NoSuchBucket", 404, Refused),
        ("PreconditionFailed", 412, AlreadyThere),
        ("412", 412, AlreadyThere),
        ("ConditionalRequestConflict", 409, Unavailable),
        ("OperationAborted", 409, Unavailable),
        ("SlowDown", 503, Unavailable),
        ("503", 503, Unavailable),
        ("InternalError", 500, Unavailable),
        ("InternalError", 200, Unavailable),  # S3 may say so after it answered 200
        ("RequestTimeout", 400, Unavailable),
        ("TooManyRequests", 429, Unavailable),
        ("NoSuchUpload", 404, Unavailable),
        ("BadDigest", 400, DamagedAnswer),
        ("IncompleteBody", 400, DamagedAnswer),
        ("AccessDenied", 403, Refused),
        ("403", 403, Refused),
        ("SignatureDoesNotMatch", 403, Refused),
        ("RequestTimeTooSkewed", 403, Refused),
        ("PermanentRedirect", 301, Refused),
        ("NotImplemented", 501, Refused),
        ("SomethingNew", 400, Refused),
        ("SomethingNew", 502, Unavailable),
        ("KeyTooLongError", 400, InvalidKey),
    ],
)
def test_an_answer_becomes(code: str, status: int, kind: type[ObjectStoreError]) -> None:
    error = mapped(client_error(code, status, "words of  the\nserver"))
    assert type(error) is kind
    if isinstance(error, Refused):
        assert error.reason == ("AccessDenied" if code == "403" else code)
        assert "words of the server" in str(error)
        assert "get a/b" in str(error)


def test_a_store_says_how_long_it_wants_to_be_left_alone() -> None:
    for value, expected in (("7", 7.0), ("", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)):
        error = mapped(client_error("SlowDown", 503, **{"retry-after": value}))
        assert isinstance(error, Unavailable)
        assert error.retry_after_s == expected


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (exceptions.EndpointConnectionError(endpoint_url="http://h", error="refused"), Unavailable),
        (exceptions.ReadTimeoutError(endpoint_url="http://h", error="late"), Unavailable),
        (exceptions.ConnectionClosedError(endpoint_url="http://h", error="closed"), Unavailable),
        (exceptions.HTTPClientError(error="?"), Unavailable),
        (exceptions.NoCredentialsError(), Refused),
        (exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), DamagedAnswer),
        (exceptions.FlexibleChecksumError(error_msg="differs"), DamagedAnswer),
        (aiohttp.ClientPayloadError("cut"), Unavailable),
        (aiohttp.ServerDisconnectedError(), Unavailable),
        (TimeoutError(), Unavailable),
        (ConnectionResetError(), Unavailable),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_a_failure_below_http_becomes(error: Exception, kind: type[ObjectStoreError]) -> None:
    assert type(mapped(error)) is kind


def test_a_long_speech_is_cut() -> None:
    assert len(str(mapped(client_error("AccessDenied", 403, "no " * 10_000)))) < MAX_SERVER_WORDS + 100


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ZeroDivisionError(), Refused("r", "m")])
def test_what_is_not_foreign_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, foreign_errors("get", "a"):
        raise error
    assert raised.value is error


def test_a_bucket_is_named_by_a_url() -> None:
    assert S3Config.of_url("s3://b") == S3Config("b")
    assert S3Config.of_url("s3://b/p/q/", endpoint_url="http://h:9", region="eu") == S3Config(
        "b", "p/q", endpoint_url="http://h:9", region="eu"
    )


@pytest.mark.parametrize("url", ["", "b", "http://b", "s3://", "s3:///p", "s3://b//p", "s3://b/../c"])
def test_a_url_that_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        S3Config.of_url(url)


@pytest.mark.parametrize("endpoint", ["h:9000", "ftp://h", "http://", "http://user:secret@h"])
def test_an_endpoint_is_an_address_without_secrets(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint") as refusal:
        S3Config("b", endpoint_url=endpoint)
    assert "secret" not in str(refusal.value)


def test_parts_grow_with_objects_that_would_have_too_many() -> None:
    config = S3Config("b", part_bytes=5 << 20)
    assert config.part_bytes_for(1 << 30) == 5 << 20
    size = 100 << 30
    assert -(-size // config.part_bytes_for(size)) <= MAX_PARTS
