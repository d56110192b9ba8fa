from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.tiered.store_contract import run

from strandline_tiered.open_store import open_bucket


def test_a_directory_is_a_bucket(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = open_bucket(str(tmp_path / "bucket"))
        await bucket.store.put("a", [b"x"])
        assert await bucket.store.get("a") == b"x"
        assert (bucket.counts.puts, bucket.counts.gets) == (1, 1)
        await bucket.store.close()

    run(scenario())


def test_a_bucket_of_s3_is_named_by_its_url() -> None:
    bucket = open_bucket("s3://name/prefix", endpoint_url="http://127.0.0.1:1")
    assert bucket.name == "s3://name/prefix"
    assert bucket.part_bytes == 64 << 20


@pytest.mark.parametrize("name", ["", "gs://name", "s3://", "http://host/bucket"])
def test_what_is_no_bucket_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        open_bucket(name)


def test_who_has_no_bucket_in_s3_does_not_load_its_client() -> None:
    code = (
        "import sys; from strandline_tiered.open_store import open_bucket; open_bucket('/tmp');"
        "import strandline_tiered.s3_store; print(sorted({'aiobotocore', 'botocore'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
