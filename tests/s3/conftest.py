"""Tests against a real S3 server: `make test-s3`, which is `pytest tests/s3 -m s3`.

The environment says which: AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and S3_BUCKET, a bucket that
exists or may be made (`strandline-test` by default). Every test works below a prefix of its own and removes it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "s3: needs a real S3 server, named by AWS_ENDPOINT_URL_S3")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if "s3" in (config.getoption("-m") or "") else True


@pytest.fixture(scope="session")
def bucket() -> str:
    """The bucket to test in."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        if not os.environ.get(name):
            pytest.fail(f"set {name}: these tests need a real S3 server")
    return os.environ.get("S3_BUCKET", "strandline-test")
