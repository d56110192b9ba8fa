"""How a bucket on an S3-compatible server is reached. Pure.

Credentials are not part of it: they come from where every AWS tool looks for them (environment, the file that
`AWS_SHARED_CREDENTIALS_FILE` names, a web identity token, instance metadata).
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from strandline_tiered.object_store import check_key

MIN_PART_BYTES = 5 << 20
"""Smallest part of a multipart upload but the last, as S3 has it."""
MAX_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class S3Config:
    """`prefix` goes in front of every key, with a `/` between. See `of_url` for the usual way to make one."""

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    """Address of a server other than AWS; None asks the AWS environment, too (`AWS_ENDPOINT_URL_S3`)."""
    region: str | None = None
    """None: what the AWS environment says, `us-east-1` if it says nothing."""
    path_style: bool | None = None
    """`endpoint/bucket/key` instead of `bucket.endpoint/key`. None: exactly if there is an `endpoint_url`."""
    part_bytes: int = 64 << 20
    """Objects above this size are uploaded in parts of this size: one request each."""
    concurrent_parts: int = 4
    """Parts of one object under way at once; each takes about half a MiB of memory, whatever its size."""
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 20.0
    """Longest silence of the server while it owes an answer."""
    max_connections: int = 32

    def __post_init__(self) -> None:
        if not self.bucket or "/" in self.bucket:
            raise ValueError(f"{self.bucket!r} is no name of a bucket")
        if self.prefix:
            check_key(self.prefix)
        if not MIN_PART_BYTES <= self.part_bytes <= 5 << 30:
            raise ValueError(f"parts of {self.part_bytes} bytes: S3 takes 5 MiB to 5 GiB")
        if self.concurrent_parts < 1 or self.max_connections < 1:
            raise ValueError("at least one part and one connection at a time")
        if self.endpoint_url is not None:
            address = urlsplit(self.endpoint_url)
            if address.scheme not in ("http", "https") or not address.hostname:
                raise ValueError("an endpoint is http://HOST[:PORT] or https://HOST[:PORT]")
            if address.username or address.password:
                raise ValueError(
                    "credentials do not belong into the endpoint's address: use the AWS environment"
                )

    @classmethod
    def of_url(cls, url: str, *, endpoint_url: str | None = None, region: str | None = None) -> S3Config:
        """Understand `s3://NAME[/PREFIX]`. Raises ValueError."""
        scheme, _, rest = url.partition("://")
        if scheme != "s3":
            raise ValueError(f"{url!r} is not s3://NAME[/PREFIX]")
        bucket, _, prefix = rest.partition("/")
        return cls(bucket, prefix.rstrip("/"), endpoint_url=endpoint_url, region=region)

    def part_bytes_for(self, size: int) -> int:
        """Return the part size for an object of `size` bytes, larger than configured if it takes too many parts else."""
        return max(self.part_bytes, -(-size // MAX_PARTS))
