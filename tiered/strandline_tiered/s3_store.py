"""A bucket on an S3-compatible server as object store, through aiobotocore.

Who uses it: the composition root, which wraps it in a `RetryingStore`; nothing here retries. What servers are known to
differ in is found out by the way, never assumed: conditional writes, CRC-32C, batched deletion.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from crc32c import crc32c

from strandline_tiered.content import as_source
from strandline_tiered.object_store import (
    Content,
    DamagedAnswer,
    NoSuchObject,
    ObjectInfo,
    Refused,
    Source,
    check_key,
)
from strandline_tiered.s3_client import ClientHolder
from strandline_tiered.s3_config import S3Config
from strandline_tiered.s3_copy import copy_object
from strandline_tiered.s3_errors import CREDENTIALS, foreign_errors, of_response
from strandline_tiered.s3_upload import Uploader
from strandline_tiered.workers import run_workers

MAX_BATCH = 1000
"""Keys of one DeleteObjects request, and of one page of a list, as S3 has it."""
SINGLE_DELETES = 8
"""Deletions at once where a server knows no batches."""


class S3Store:
    """See `ObjectStore`."""

    def __init__(self, config: S3Config) -> None:
        self._config = config
        self._prefix = f"{config.prefix}/" if config.prefix else ""
        self._client = ClientHolder(config)
        self._uploader = Uploader(config)
        self._conditional_writes = True
        self._batched_deletes = True

    async def put(self, key: str, content: Content, *, if_absent: bool = False) -> None:
        """See `ObjectStore.put`."""
        check_key(key)
        source = as_source(content)
        try:
            await self._put(key, source, if_absent=if_absent and self._conditional_writes)
        except Refused as refused:
            if not if_absent or not self._conditional_writes or refused.reason != "NotImplemented":
                raise
            self._conditional_writes = False
            await self._put(key, source, if_absent=False)

    async def _put(self, key: str, source: Source, *, if_absent: bool) -> None:
        with self._errors("put", key):
            await self._uploader.put(await self._client.get(), self._full(key), source, if_absent=if_absent)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        if end is not None and end <= start:
            await self.head(key)
            return b""
        whole = start == 0 and end is None
        wanted = (
            {"ChecksumMode": "ENABLED"}
            if whole
            else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        )
        with self._errors("get", key):
            client = await self._client.get()
            try:
                answer = await client.get_object(Bucket=self._config.bucket, Key=self._full(key), **wanted)
            except client.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 416:
                    return b""  # the object ends before the range begins
                raise
            async with answer["Body"] as body:
                expected = _expected_length(key, answer, start, end, ranged=not whole)
                data: bytes = await body.read()
        _verify(key, answer, data, expected, whole=whole)
        return data

    async def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`. S3 does not tell a missing bucket from a missing object here."""
        with self._errors("head", key):
            client = await self._client.get()
            answer = await client.head_object(Bucket=self._config.bucket, Key=self._full(key))
            return ObjectInfo(key, answer["ContentLength"])

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        place: dict[str, Any] = {"StartAfter": self._prefix + after} if after else {}
        while True:
            with self._errors("list", prefix):
                client = await self._client.get()
                page = await client.list_objects_v2(
                    Bucket=self._config.bucket, Prefix=self._prefix + prefix, MaxKeys=MAX_BATCH, **place
                )
            for entry in page.get("Contents", ()):
                key = entry["Key"][len(self._prefix) :]
                # Not every server heeds StartAfter.
                if key.encode() > after.encode():
                    yield ObjectInfo(key, entry["Size"])
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken")
            if not token or token == place.get("ContinuationToken"):
                raise DamagedAnswer(f"list {prefix}: a page that has no next one and is not the last")
            place = {"ContinuationToken": token}

    async def copy(self, source: ObjectInfo, key: str) -> None:
        """See `ObjectStore.copy`. In parts above the size of a part, since a server is silent while it copies."""
        check_key(key)
        with self._errors("copy", source.key):
            client = await self._client.get()
            await copy_object(client, self._config, self._full(source.key), source.size, self._full(key))

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        for first in range(0, len(keys), MAX_BATCH):
            batch = keys[first : first + MAX_BATCH]
            if self._batched_deletes:
                try:
                    await self._delete_batch(batch)
                    continue
                except Refused as refused:
                    if refused.reason not in ("NotImplemented", "MethodNotAllowed"):
                        raise
                    self._batched_deletes = False
            await self._delete_singly(batch)

    async def close(self) -> None:
        """See `ObjectStore.close`."""
        await self._client.close()

    async def _delete_batch(self, keys: Sequence[str]) -> None:
        what = keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
        with self._errors("delete", what):
            client = await self._client.get()
            answer = await client.delete_objects(
                Bucket=self._config.bucket,
                Delete={"Objects": [{"Key": self._full(key)} for key in keys], "Quiet": True},
            )
            for error in answer.get("Errors", ()):
                key = error.get("Key", "")[len(self._prefix) :]
                failure = of_response(
                    "delete", key, {"Error": error, "ResponseMetadata": {"HTTPStatusCode": 0}}
                )
                if not isinstance(failure, NoSuchObject):
                    raise failure

    async def _delete_singly(self, keys: Sequence[str]) -> None:
        client = await self._client.get()
        waiting = iter(keys)

        async def worker() -> None:
            for key in waiting:
                with contextlib.suppress(NoSuchObject), self._errors("delete", key):
                    await client.delete_object(Bucket=self._config.bucket, Key=self._full(key))

        await run_workers(min(SINGLE_DELETES, len(keys)), worker)

    def _full(self, key: str) -> str:
        return self._prefix + key

    @contextlib.contextmanager
    def _errors(self, operation: str, key: str) -> Iterator[None]:
        try:
            with foreign_errors(operation, key):
                yield
        except Refused as refused:
            if refused.reason in CREDENTIALS:
                self._client.renew()
            raise


def _expected_length(key: str, answer: Any, start: int, end: int | None, *, ranged: bool) -> int:
    """Return how many bytes the body must have. Raises Refused for a server that ignores ranges, DamagedAnswer."""
    length: int = answer["ContentLength"]
    if not ranged:
        return length
    place = str(answer.get("ContentRange", ""))
    if not place:
        raise Refused("NoRangeReads", f"get {key}: the server sends whole objects instead of ranges")
    total = place.rpartition("/")[2]
    if not place.startswith(f"bytes {start}-") or not total.isdecimal():
        raise DamagedAnswer(f"get {key}: an answer for {place!r} instead of bytes {start}-")
    expected = (int(total) if end is None else min(end, int(total))) - start
    if length != expected:
        raise DamagedAnswer(f"get {key}: {length} bytes from {start} on instead of {expected}")
    return expected


def _verify(key: str, answer: Any, data: bytes, expected: int, *, whole: bool) -> None:
    """Raise DamagedAnswer unless the body is as long as it must be and fits its checksum, where there is one."""
    if len(data) != expected:
        raise DamagedAnswer(f"get {key}: {len(data)} bytes instead of {expected}")
    checksum = str(answer.get("ChecksumCRC32C", ""))
    # A checksum of parts ends with their number; it is not one of the object.
    if whole and checksum and "-" not in checksum:
        ours = base64.b64encode(crc32c(data).to_bytes(4, "big")).decode()
        if ours != checksum:
            raise DamagedAnswer(f"get {key}: a checksum of {ours} instead of {checksum}")
