"""The aiobotocore client of one bucket: made at first use, closed at the end, made anew when its credentials are refused.

Who uses it: the S3 store. aiobotocore is imported here and only when a client is made: it costs about 30 MiB and half a
second, which brokers without a bucket do not pay.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from functools import cache
from typing import Any, TypeAlias

from strandline_tiered.s3_config import S3Config
from strandline_tiered.s3_errors import foreign_errors

S3Client: TypeAlias = Any
"""aiobotocore's client: its methods are made at run time from a description of S3, so there is no type to name."""
RENEWAL_INTERVAL_S = 30.0
"""Shortest time between two readings of credentials."""


class ClientHolder:
    """Gives out the client, one for all tasks."""

    def __init__(self, config: S3Config) -> None:
        self._config = config
        self._client: S3Client | None = None
        self._open = contextlib.AsyncExitStack()
        self._making = asyncio.Lock()
        self._made_at = 0.0

    async def get(self) -> S3Client:
        """Return the client. Raises Refused, Unavailable."""
        if self._client is None:
            async with self._making:
                if self._client is None:
                    with foreign_errors("connect to", self._config.bucket):
                        self._client = await self._make()
                    self._made_at = asyncio.get_running_loop().time()
        return self._client

    def renew(self) -> None:
        """Read credentials anew at the next request, unless that was just done: a mounted Secret may have changed.

        The old client stays open for the requests under way and is closed with everything else.
        """
        if asyncio.get_running_loop().time() - self._made_at >= RENEWAL_INTERVAL_S:
            self._client = None

    async def close(self) -> None:
        """Close every connection. The holder may be used again and starts from the beginning."""
        self._client = None
        await self._open.aclose()

    async def _make(self) -> S3Client:
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session
        from botocore.handlers import add_expect_header

        config = self._config
        session = get_session()
        session.register_component("data_loader", _descriptions())
        path_style = config.endpoint_url is not None if config.path_style is None else config.path_style
        client: S3Client = await self._open.enter_async_context(
            session.create_client(
                "s3",
                region_name=config.region or session.get_config_variable("region") or "us-east-1",
                endpoint_url=config.endpoint_url,
                config=AioConfig(
                    connect_timeout=config.connect_timeout_s,
                    read_timeout=config.read_timeout_s,
                    max_pool_connections=config.max_connections,
                    # Retries are `RetryingStore`'s, which knows deadlines. One layer of them is enough.
                    retries={"total_max_attempts": 1},
                    # Checksums are ours: botocore's would read a body twice on the event loop, and its trailers are not
                    # understood by every server. Bodies are vouched for by a signed checksum header instead.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    signature_version="s3v4",
                    s3={
                        "addressing_style": "path" if path_style else "auto",
                        "payload_signing_enabled": False,
                    },
                ),
            )
        )
        # Not every server answers `Expect: 100-continue`, and it costs a round trip where one does.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        client.meta.events.register("before-call.s3.DeleteObjects", _vouch_by_md5)
        return client


@cache
def _descriptions() -> Any:
    """Return botocore's reader of its description of S3: a new session would parse that megabyte again."""
    from botocore.loaders import create_loader

    return create_loader()


def _vouch_by_md5(params: dict[str, Any], **_: object) -> None:
    """DeleteObjects must carry a checksum; MD5 is the one that every server knows."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
    params["context"].pop("checksum", None)
