"""The part of a broker's configuration that is about its bucket; a base of `BrokerConfig`, apart for its size.

Which topics are tiered is said by `remote.storage.enable` of the Cluster's defaults and of Topics; here is where to.
"""

from __future__ import annotations

from dataclasses import dataclass

from strandline_broker.server.config_keys import key
from strandline_tiered.cost import Prices

DIRECTORY_PREFIX = "dir:"
S3_PREFIX = "s3://"


@dataclass(frozen=True, slots=True, kw_only=True)
class TieringConfig:
    """Keys of tiered storage; `key()` carries the documentation of each field."""

    tiering_bucket: str | None = key(
        None,
        "Where sealed segments go: `s3://NAME[/PREFIX]`, or `dir:PATH`, a directory that all brokers share. Unset: all "
        "records stay on the brokers' volumes. Credentials come from the usual AWS environment or files.",
    )
    tiering_endpoint_url: str | None = key(None, "Address of an S3-compatible server; unset means AWS.")
    tiering_region: str | None = key(None, "Region of the bucket; unset: what the AWS environment says.")
    tiering_max_unuploaded_age_ms: int = key(
        600_000,
        "Age at which a segment is sealed even when it is not full, so that it can be uploaded: about so long may records "
        "of a quiet partition be on the brokers' volumes only.",
        minimum=1000,
    )
    tiering_uploads_max: int = key(4, "Segments that this broker uploads at once.", minimum=1, maximum=64)
    tiering_upload_max_bytes_per_second: int = key(
        0, "What this broker uploads on average, in bytes per second; 0 for no limit.", minimum=0
    )
    tiering_cache_memory_bytes: int = key(
        64 << 20, "Memory for what was read from the bucket.", minimum=24 << 20
    )
    tiering_cache_disk_bytes: int = key(
        1 << 30, "Space on the broker's volume for what was read from the bucket; 0 for none.", minimum=0
    )
    tiering_scrub_interval_ms: int = key(
        6 * 3_600_000, "Time between two looks for objects in the bucket that nothing needs.", minimum=1000
    )
    tiering_offsets_snapshot_interval_ms: int = key(
        60_000,
        "Time between two snapshots of the committed group offsets of a partition of `__consumer_offsets` in the bucket, "
        "if any changed: about so much of them may be on the brokers' volumes only.",
        minimum=1000,
    )
    tiering_disk_throttle_percent: int = key(
        85,
        "Share of the volume, in percent, from which on producers are slowed down, because what is not in the bucket has "
        "to stay: while the bucket is away, or slower than they are. 100: never.",
        minimum=1,
        maximum=100,
    )
    tiering_disk_refuse_percent: int = key(
        95,
        "Share of the volume, in percent, from which on producers are refused with KAFKA_STORAGE_ERROR, which they retry; "
        "the rest is for replication and for the cluster's own topics. 100: never.",
        minimum=1,
        maximum=100,
    )
    tiering_prices: str = key(
        "",
        "Prices for the estimate of what the bucket costs, as `name=number,...` of `per_gib_month`, `per_1000_puts`, "
        "`per_1000_gets`, `per_1000_lists`, `per_1000_deletes`, `per_gib_put`, `per_gib_got`; unset: those of S3 Standard "
        "in US dollars.",
    )

    @property
    def prices(self) -> Prices:
        """What the bucket costs."""
        return Prices.parse(self.tiering_prices)

    def check_tiering(self) -> None:
        """Raise ValueError for keys that do not go together."""
        try:
            Prices.parse(self.tiering_prices)
        except ValueError as error:
            raise ValueError(f"tiering_prices: {error}") from error
        if self.tiering_disk_throttle_percent > self.tiering_disk_refuse_percent:
            raise ValueError(
                "tiering_disk_throttle_percent: must not be above tiering_disk_refuse_percent="
                f"{self.tiering_disk_refuse_percent}"
            )
        bucket = self.tiering_bucket
        if bucket is None:
            return
        path = bucket.removeprefix(DIRECTORY_PREFIX)
        if bucket.startswith(DIRECTORY_PREFIX):
            if not path.strip():
                raise ValueError("tiering_bucket: dir: needs a path, as in dir:/var/lib/strandline/bucket")
        elif not bucket.startswith(S3_PREFIX) or not bucket.removeprefix(S3_PREFIX).strip("/"):
            raise ValueError(f"tiering_bucket: {bucket!r} is neither s3://NAME[/PREFIX] nor dir:PATH")
        if self.tiering_endpoint_url is not None and not bucket.startswith(S3_PREFIX):
            raise ValueError("tiering_endpoint_url: only an s3:// bucket has an endpoint")
