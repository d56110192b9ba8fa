"""Opens the bucket that a configuration names: a directory, or `s3://NAME[/PREFIX]`.

Who uses it: the composition roots (broker, `strandline tier`).
"""

from __future__ import annotations

from dataclasses import dataclass

from strandline_tiered.cost import RequestCounts
from strandline_tiered.counting_store import CountingStore
from strandline_tiered.directory_store import DirectoryStore
from strandline_tiered.object_store import ObjectStore
from strandline_tiered.retrying_store import RetryingStore, RetryPolicy


@dataclass(frozen=True, slots=True)
class OpenBucket:
    """A bucket in use. `store` tries again by itself; `counts` are what reached the bucket."""

    store: RetryingStore
    counts: RequestCounts
    name: str
    """As people know it, for logs and conditions."""
    part_bytes: int | None
    """Larger objects are uploaded in parts of this size; None: there are no parts."""


def open_bucket(
    bucket: str,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    retries: RetryPolicy | None = None,
) -> OpenBucket:
    """Open a bucket; nothing is sent yet, and `store.close()` closes it. Raises ValueError for what names no bucket."""
    store: ObjectStore
    part_bytes = None
    if bucket.startswith("s3://"):
        # What comes with it is large, and of no use to those without S3.
        from strandline_tiered.s3_config import S3Config
        from strandline_tiered.s3_store import S3Store

        config = S3Config.of_url(bucket, endpoint_url=endpoint_url, region=region)
        store = S3Store(config)
        part_bytes = config.part_bytes
    elif "://" in bucket or not bucket:
        raise ValueError(f"{bucket!r} is neither a directory nor s3://NAME[/PREFIX]")
    else:
        store = DirectoryStore(bucket)
    counting = CountingStore(store, part_bytes=part_bytes)
    return OpenBucket(RetryingStore(counting, retries), counting.counts, bucket, part_bytes)
