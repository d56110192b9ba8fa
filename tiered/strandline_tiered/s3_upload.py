"""Uploads to S3: one request for a small object, several for a large one.

Who uses it: the S3 store. Every body carries its CRC-32C, computed before it is sent, so a server that knows the header
stores nothing else. Until an answer has shown that this one does, MD5 vouches as well (the `Content-MD5` that every server
knows; it costs some fifty times as much).

An upload in parts becomes visible with its last request. A failed one is aborted; what that cannot reach (the process died)
is garbage that a lifecycle rule of the bucket collects, see docs/operations.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from strandline_tiered.content import checksums
from strandline_tiered.object_store import DamagedAnswer, ObjectStoreError, Source
from strandline_tiered.s3_body import UploadBody
from strandline_tiered.s3_client import S3Client
from strandline_tiered.s3_config import S3Config
from strandline_tiered.s3_errors import foreign_errors
from strandline_tiered.workers import run_workers

ABORT_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)


class Uploader:
    """Uploads of one bucket. Remembers what its server can do."""

    def __init__(self, config: S3Config) -> None:
        self._config = config
        self.crc_verified: bool | None = None
        """Whether the server checks CRC-32C; None before the first answer."""

    async def put(self, client: S3Client, key: str, source: Source, *, if_absent: bool) -> None:
        """Store `source` under the full key. Raises what `ObjectStore.put` does."""
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        part_bytes = self._config.part_bytes_for(source.size)
        if source.size > part_bytes:
            await self._put_in_parts(client, key, source, part_bytes, condition)
            return
        async with _Sending(self, "put", key, source, 0, source.size) as sending:
            answer = await client.put_object(
                Bucket=self._config.bucket, Key=key, Body=sending.body, **sending.checksums, **condition
            )
            sending.answered(answer)

    async def _put_in_parts(
        self, client: S3Client, key: str, source: Source, part_bytes: int, condition: dict[str, Any]
    ) -> None:
        place: dict[str, Any] = {"Bucket": self._config.bucket, "Key": key}
        with foreign_errors("start the upload of", key):
            started = await client.create_multipart_upload(
                **place, **({} if self.crc_verified is False else {"ChecksumAlgorithm": "CRC32C"})
            )
        place["UploadId"] = started["UploadId"]
        try:
            parts = await self._put_parts(client, key, place, source, part_bytes)
            with foreign_errors("finish the upload of", key):
                await client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts}, **condition)
        except BaseException:
            await abort_upload(client, key, place)
            raise

    async def _put_parts(
        self, client: S3Client, key: str, place: dict[str, Any], source: Source, part_bytes: int
    ) -> list[Any]:
        """Send the parts, a few at a time; the first failure ends the others."""
        starts = range(0, source.size, part_bytes)
        parts: list[dict[str, Any]] = [{} for _ in starts]
        waiting = iter(enumerate(starts))

        async def worker() -> None:
            for index, start in waiting:
                length = min(part_bytes, source.size - start)
                parts[index] = await self._put_part(client, key, place, index + 1, (source, start, length))

        await run_workers(min(self._config.concurrent_parts, len(starts)), worker)
        return parts

    async def _put_part(
        self, client: S3Client, key: str, place: dict[str, Any], number: int, part: tuple[Source, int, int]
    ) -> dict[str, Any]:
        async with _Sending(self, f"put part {number} of", key, *part) as sending:
            answer = await client.upload_part(
                **place, PartNumber=number, Body=sending.body, **sending.checksums
            )
            sending.answered(answer)
            named = {"PartNumber": number, "ETag": answer["ETag"]}
            if "ChecksumCRC32C" in answer:
                named["ChecksumCRC32C"] = answer["ChecksumCRC32C"]
        return named


class _Sending:
    """One body on its way: its checksums before, its failures, and the server's checksum after."""

    def __init__(
        self, uploader: Uploader, operation: str, key: str, source: Source, start: int, length: int
    ) -> None:
        self._uploader = uploader
        self._what = (operation, key)
        self._range = (source, start, length)
        self._mapping = contextlib.ExitStack()
        self.body = UploadBody(source, start, length)
        self.checksums: dict[str, Any] = {}

    async def __aenter__(self) -> _Sending:
        verified = self._uploader.crc_verified
        crc, md5 = await asyncio.to_thread(checksums, *self._range, md5=not verified)
        self.checksums = {"ContentLength": len(self.body)}
        if verified is not False:
            self.checksums |= {"ChecksumAlgorithm": "CRC32C", "ChecksumCRC32C": crc}
        if md5 is not None:
            self.checksums["ContentMD5"] = md5
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if error is None or isinstance(error, ObjectStoreError):
            return
        if self.body.failure is not None and not isinstance(error, asyncio.CancelledError):
            raise self.body.failure
        with foreign_errors(*self._what):
            raise error

    def answered(self, answer: Any) -> None:
        """Compare the server's checksum with ours. Raises DamagedAnswer."""
        theirs = answer.get("ChecksumCRC32C")
        ours = self.checksums.get("ChecksumCRC32C")
        self._uploader.crc_verified = theirs is not None
        if theirs is not None and ours is not None and theirs != ours:
            raise DamagedAnswer(
                f"{' '.join(self._what)}: the server has a checksum of {theirs} instead of {ours}"
            )
        if not answer.get("ETag"):
            raise DamagedAnswer(f"{' '.join(self._what)}: an answer without ETag")


async def abort_upload(client: S3Client, key: str, place: dict[str, Any]) -> None:
    """Throw the parts of an upload away, whatever else happens; what cannot be is logged."""

    async def abort() -> None:
        with foreign_errors("abort the upload of", key):
            async with asyncio.timeout(ABORT_TIMEOUT_S):
                await client.abort_multipart_upload(**place)

    aborting = asyncio.ensure_future(abort())
    try:
        await asyncio.shield(aborting)
    except ObjectStoreError as error:
        _log.warning(
            "parts of an unfinished upload stay in the bucket until a lifecycle rule collects them: %s", error
        )
    except asyncio.CancelledError:
        await asyncio.wait([aborting])
        raise
