"""The keys of tiered storage, and the bucket that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from strandline_broker.server.config import BrokerConfig, ConfigError, load
from strandline_broker.server.tiering import bucket_of
from strandline_tiered.retrying_store import RetryingStore

OWN = ["broker_id=0", "data_dir=/d", "store=sqlite:/s"]


def config(*assignments: str) -> BrokerConfig:
    return load(None, [*OWN, *assignments], {})


def test_without_a_bucket_nothing_is_tiered() -> None:
    assert config().tiering_bucket is None
    assert bucket_of(config()) is None


@pytest.mark.parametrize("bucket", ["s3://records", "s3://records/of/here", "dir:/var/bucket", "dir:bucket"])
def test_buckets(bucket: str) -> None:
    assert config(f"tiering.bucket={bucket}").tiering_bucket == bucket


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (("tiering_bucket=records",), "neither s3://"),
        (("tiering_bucket=gs://records",), "neither s3://"),
        (("tiering_bucket=s3://",), "neither s3://"),
        (("tiering_bucket=dir:",), "needs a path"),
        (("tiering_bucket=dir:/x", "tiering_endpoint_url=http://x"), "only an s3:// bucket"),
        (("tiering_prices=gold=1",), "tiering_prices"),
        (("tiering_uploads_max=0",), "tiering_uploads_max"),
        (("tiering_disk_throttle_percent=96",), "must not be above tiering_disk_refuse_percent=95"),
        (("tiering_disk_refuse_percent=101",), "is above 100"),
        (("tiering_max_unuploaded_age_ms=10",), "tiering_max_unuploaded_age_ms"),
    ],
)
def test_what_does_not_go_together(assignments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*assignments)


def test_a_bucket_of_either_kind_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    for given in (
        (f"tiering_bucket=dir:{tmp_path}",),
        ("tiering_bucket=s3://records/p", "tiering_endpoint_url=http://127.0.0.1:9", "tiering_region=eu-1"),
    ):
        opened = bucket_of(config(*given))
        assert opened is not None
        assert isinstance(opened[0], RetryingStore)
