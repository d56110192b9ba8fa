"""Copies within a bucket, done by the server: one request for a small object, several for a large one.

Who uses it: the S3 store. A server answers when it has copied, so a part is what it copies within one silence; S3 itself
copies no more than 5 GiB in one request.

Source: S3 API reference, CopyObject, UploadPartCopy.
"""

from __future__ import annotations

from typing import Any

from strandline_tiered.object_store import DamagedAnswer
from strandline_tiered.s3_client import S3Client
from strandline_tiered.s3_config import S3Config
from strandline_tiered.s3_upload import abort_upload
from strandline_tiered.workers import run_workers


async def copy_object(client: S3Client, config: S3Config, source: str, size: int, target: str) -> None:
    """Copy between full keys of the bucket. Raises what `ObjectStore.copy` does, and what the client raises."""
    origin = {"Bucket": config.bucket, "Key": source}
    place: dict[str, Any] = {"Bucket": config.bucket, "Key": target}
    part_bytes = config.part_bytes_for(size)
    if size <= part_bytes:
        answer = await client.copy_object(**place, CopySource=origin)
        _etag(answer.get("CopyObjectResult"), target)
        return
    started = await client.create_multipart_upload(**place)
    place["UploadId"] = started["UploadId"]
    try:
        parts = await _copy_parts(client, config, place, origin, size, part_bytes)
        await client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    except BaseException:
        await abort_upload(client, target, place)
        raise


async def _copy_parts(
    client: S3Client,
    config: S3Config,
    place: dict[str, Any],
    origin: dict[str, str],
    size: int,
    part_bytes: int,
) -> list[dict[str, Any]]:
    """Copy the parts, a few at a time; the first failure ends the others."""
    starts = range(0, size, part_bytes)
    parts: list[dict[str, Any]] = [{} for _ in starts]
    waiting = iter(enumerate(starts))

    async def worker() -> None:
        for index, start in waiting:
            last = min(start + part_bytes, size) - 1
            answer = await client.upload_part_copy(
                **place, PartNumber=index + 1, CopySource=origin, CopySourceRange=f"bytes={start}-{last}"
            )
            etag = _etag(answer.get("CopyPartResult"), place["Key"])
            parts[index] = {"PartNumber": index + 1, "ETag": etag}

    await run_workers(min(config.concurrent_parts, len(starts)), worker)
    return parts


def _etag(result: dict[str, Any] | None, target: str) -> str:
    etag: str = (result or {}).get("ETag", "")
    if not etag:
        raise DamagedAnswer(f"copy to {target}: an answer without ETag")
    return etag
