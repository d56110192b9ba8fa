"""The contract of object stores, and faults on the way, against a real S3 server."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.tiered.s3_fault_proxy import Harm, Request, S3FaultProxy
from tests.unit.tiered.store_contract import MIB, FileLike, StoreContract, keys, pattern, run

from strandline_tiered.object_store import AlreadyThere, ObjectStore, Refused
from strandline_tiered.probe import probe
from strandline_tiered.retrying_store import RetryingStore, RetryPolicy
from strandline_tiered.s3_config import MIN_PART_BYTES, S3Config
from strandline_tiered.s3_store import S3Store

pytestmark = pytest.mark.s3


def store_of(bucket: str, prefix: str, **options: Any) -> S3Store:
    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL_S3"], "part_bytes": MIN_PART_BYTES, **options}
    return S3Store(S3Config(bucket, prefix, **options))


@pytest.fixture(scope="session", autouse=True)
def _bucket_exists(bucket: str) -> None:
    async def make() -> None:
        store = store_of(bucket, "")
        try:
            await keys(store, "no-such-prefix/")
        except Refused as refused:
            if refused.reason != "NoSuchBucket":
                raise
            await (await store._client.get()).create_bucket(Bucket=bucket)
        await store.close()

    run(make())


@pytest.fixture
def prefix(bucket: str) -> Iterator[str]:
    name = f"test-{uuid.uuid4()}"
    yield name

    async def sweep() -> None:
        store = store_of(bucket, name)
        await store.delete(await keys(store, ""))
        await store.close()

    run(sweep())


class TestRealServer(StoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix

    def open_store(self, directory: Path) -> ObjectStore:
        return store_of(self.bucket, self.prefix)


def test_a_wrong_secret_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, bucket: str, prefix: str) -> None:
    async def scenario() -> None:
        store = store_of(bucket, prefix)
        with pytest.raises(Refused) as refusal:
            await store.put("a", [b"x"])
        assert refusal.value.reason in ("SignatureDoesNotMatch", "AccessDenied")
        assert "wrong-secret" not in str(refusal.value)
        await store.close()

    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
        run(scenario())


def test_a_body_that_does_not_fit_its_checksum_is_not_stored(bucket: str, prefix: str) -> None:
    class Moody(FileLike):
        """Other bytes at the second reading: checksums are of the first."""

        readings = 0

        def read(self, start: int, length: int) -> bytes:
            self.readings += 1
            data = super().read(start, length)
            return data if self.readings == 1 else data[:-1] + bytes([data[-1] ^ 1])

    async def scenario() -> None:
        store = store_of(bucket, prefix)
        with pytest.raises(Exception, match=r"."):
            await store.put("a", Moody(pattern(1000)))
        assert await keys(store, "") == []
        await store.close()

    run(scenario())


@pytest.mark.parametrize("size", [MIB, 12 * MIB], ids=["one-request", "parts"])
@pytest.mark.parametrize("harm", [Harm.SLOW_DOWN, Harm.RESET_BEFORE, Harm.LOST_ANSWER, Harm.TWICE, Harm.LATE])
def test_an_upload_survives(bucket: str, prefix: str, harm: Harm, size: int) -> None:
    def uploads(request: Request) -> bool:
        return request.method == "PUT"

    async def scenario() -> None:
        data = pattern(size)
        proxy = S3FaultProxy(os.environ["AWS_ENDPOINT_URL_S3"], [harm], uploads)
        async with proxy.serving() as address:
            policy = RetryPolicy(deadline_s=60, attempt_timeout_s=10, first_wait_s=0.001)
            store = RetryingStore(store_of(bucket, prefix, endpoint_url=address), policy)
            # Twice delivered, a conditional put is told of itself; it cannot know.
            await store.put("a", FileLike(data), if_absent=harm is not Harm.TWICE)
            assert proxy.harmed == [harm]
            assert await store.get("a") == data
            await proxy.land()
            assert await store.get("a") == data
            with pytest.raises(AlreadyThere):
                await store.put("a", [b"other"], if_absent=True)
            await store.close()

    run(scenario())


@pytest.mark.parametrize("harm", [Harm.SHORT_BODY, Harm.RESET_IN_BODY, Harm.CLOSED_IN_BODY])
def test_a_read_survives(bucket: str, prefix: str, harm: Harm) -> None:
    async def scenario() -> None:
        data = pattern(3 * MIB)
        proxy = S3FaultProxy(
            os.environ["AWS_ENDPOINT_URL_S3"], [harm], lambda request: request.method == "GET"
        )
        async with proxy.serving() as address:
            policy = RetryPolicy(deadline_s=60, attempt_timeout_s=10, first_wait_s=0.001)
            store = RetryingStore(store_of(bucket, prefix, endpoint_url=address), policy)
            await store.put("a", [data])
            assert await store.get("a", 1000, 2_000_000) == data[1000:2_000_000]
            assert proxy.harmed == [harm]
            await store.close()

    run(scenario())


def test_the_probe_finds_what_the_server_can_do(bucket: str, prefix: str) -> None:
    async def scenario() -> None:
        store = store_of(bucket, prefix)
        found = await probe(store, large_bytes=6 * MIB)
        print(f"{os.environ['AWS_ENDPOINT_URL_S3']}: {found}; {found.describe()}")  # noqa: T201 - shown by -rP
        assert found.usable
        await store.close()

    run(scenario())


def test_puts_in_parallel_are_all_there_in_the_list_that_follows(bucket: str, prefix: str) -> None:
    async def scenario() -> None:
        store = store_of(bucket, prefix)
        names = [f"p/{number:03}" for number in range(64)]
        await asyncio.gather(*(store.put(name, [name.encode()]) for name in names))
        assert await keys(store, "p/") == names
        await store.close()

    run(scenario())
