"""The S3 store against moto's server: the contract, and what is special to S3."""

from __future__ import annotations

import asyncio
import itertools
import socket
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.tiered.moto_server import create_bucket, moto_server
from tests.unit.tiered.s3_fault_proxy import Harm, Request, S3FaultProxy
from tests.unit.tiered.segment_objects import companions_of, info_of
from tests.unit.tiered.store_contract import MIB, FileLike, StoreContract, keys, pattern, run

from strandline_tiered import s3_store
from strandline_tiered.object_store import (
    AlreadyThere,
    DamagedAnswer,
    NoSuchObject,
    ObjectStore,
    Refused,
    SourceFailed,
    Unavailable,
)
from strandline_tiered.probe import probe
from strandline_tiered.remote_reader import ReaderConfig, RemoteReader, SegmentRef
from strandline_tiered.retrying_store import RetryingStore, RetryPolicy
from strandline_tiered.s3_config import MIN_PART_BYTES, S3Config
from strandline_tiered.s3_store import S3Store
from strandline_tiered.segment_object import build

_numbers = itertools.count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with moto_server() as address:
        yield address


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "known-to-nobody")


class TestS3Store(StoreContract):
    many = 33
    # moto looks, and writes a moment later, in another thread for each request.
    atomic_conditions = False

    @pytest.fixture(autouse=True)
    def _bucket(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3_store, "MAX_BATCH", 10)
        self.endpoint = endpoint
        self.bucket = f"contract-{next(_numbers)}"
        create_bucket(endpoint, self.bucket)

    def open_store(self, directory: Path) -> ObjectStore:
        return S3Store(
            S3Config(
                self.bucket,
                "some/prefix",
                endpoint_url=self.endpoint,
                part_bytes=MIN_PART_BYTES,
                connect_timeout_s=60,
            )
        )


@pytest.fixture
def bucket(endpoint: str) -> str:
    name = f"special-{next(_numbers)}"
    create_bucket(endpoint, name)
    return name


def list_uploads(endpoint: str, bucket: str) -> str:
    with urllib.request.urlopen(f"{endpoint}/{bucket}?uploads") as answer:
        return str(answer.read().decode())


def store_of(endpoint: str, bucket: str, **options: Any) -> S3Store:
    options = {"part_bytes": MIN_PART_BYTES, "connect_timeout_s": 60, **options}
    return S3Store(S3Config(bucket, endpoint_url=endpoint, **options))


def quick(store: S3Store) -> RetryingStore:
    return RetryingStore(store, RetryPolicy(deadline_s=60, attempt_timeout_s=2, first_wait_s=0.001))


def of_method(method: str) -> Callable[[Request], bool]:
    return lambda request: request.method == method


def test_large_objects_go_up_in_parts_and_a_failed_upload_leaves_none(endpoint: str, bucket: str) -> None:
    async def scenario() -> None:
        proxy = S3FaultProxy(endpoint, [], of_method("PUT"))
        async with proxy.serving() as address:
            store = store_of(address, bucket)
            await store.put("whole", FileLike(pattern(6 * MIB)))
            puts = [request.target for request in proxy.requests if request.method == "PUT"]
            assert len(puts) == 2
            assert all("partNumber=" in target for target in puts)
            with pytest.raises(SourceFailed):
                await store.put("torn", FileLike(pattern(6 * MIB), broken_from=5 * MIB + 9))
            await store.close()
        assert "<Upload>" not in list_uploads(endpoint, bucket)

    run(scenario())


def test_a_cancelled_upload_is_aborted(endpoint: str, bucket: str) -> None:
    async def scenario() -> None:
        proxy = S3FaultProxy(endpoint, [None, Harm.STALL], of_method("PUT"))
        async with proxy.serving() as address:
            store = store_of(address, bucket, concurrent_parts=1)
            upload = asyncio.create_task(store.put("a", FileLike(pattern(6 * MIB))))
            while not proxy.harmed:
                await asyncio.sleep(0.01)
            assert "<Upload>" in list_uploads(endpoint, bucket)
            upload.cancel()
            with pytest.raises(asyncio.CancelledError):
                await upload
            await store.close()
        assert "<Upload>" not in list_uploads(endpoint, bucket)

    run(scenario())


@pytest.mark.parametrize(
    "harm",
    [
        Harm.SLOW_DOWN,
        Harm.SERVER_ERROR,
        Harm.GARBAGE,
        Harm.RESET_BEFORE,
        Harm.RESET_IN_BODY,
        Harm.CLOSED_IN_BODY,
        Harm.SHORT_BODY,
        Harm.STALL,
        Harm.LOST_ANSWER,
        Harm.TWICE,
    ],
)
def test_a_read_survives(endpoint: str, bucket: str, harm: Harm) -> None:
    async def scenario() -> None:
        data = pattern(3 * MIB)
        direct = store_of(endpoint, bucket)
        await direct.put("a", [data])
        await direct.close()
        script = [harm] if harm is Harm.TWICE else [harm, harm]
        proxy = S3FaultProxy(endpoint, script, of_method("GET"))
        async with proxy.serving() as address:
            store = quick(store_of(address, bucket))
            assert await store.get("a", 1000, 2_000_000) == data[1000:2_000_000]
            assert proxy.harmed == script
            # aiohttp itself repeats a read once whose connection was lost before the first byte.
            assert store.retries == 0 if harm is Harm.TWICE else store.retries >= 1
            await store.close()

    run(scenario())


def test_a_flipped_bit_in_a_whole_object_is_noticed(endpoint: str, bucket: str) -> None:
    async def scenario() -> None:
        proxy = S3FaultProxy(endpoint, [Harm.FLIPPED_BIT], of_method("GET"))
        async with proxy.serving() as address:
            store = store_of(address, bucket)
            await store.put("a", [pattern(100_000)])
            with pytest.raises(DamagedAnswer, match="checksum"):
                await store.get("a")
            assert await store.get("a") == pattern(100_000)
            await store.close()

    run(scenario())


@pytest.mark.parametrize("size", [MIB, 6 * MIB], ids=["one-request", "parts"])
@pytest.mark.parametrize(
    "harm",
    [Harm.SLOW_DOWN, Harm.RESET_BEFORE, Harm.LOST_ANSWER, Harm.TWICE, Harm.STALL, Harm.LATE],
)
def test_an_upload_survives(endpoint: str, bucket: str, harm: Harm, size: int) -> None:
    async def scenario() -> None:
        data = pattern(size)
        proxy = S3FaultProxy(
            endpoint, [None, harm, harm] if size > MIN_PART_BYTES else [harm], of_method("PUT")
        )
        async with proxy.serving() as address:
            store = quick(store_of(address, bucket))
            await store.put("a", FileLike(data))
            assert await store.get("a") == data
            landed = await proxy.land()
            assert landed == (harm is Harm.LATE) * len(proxy.harmed)
            assert await store.get("a") == data
            await store.close()
        assert "<Upload>" not in list_uploads(endpoint, bucket)

    run(scenario())


@pytest.mark.parametrize("size", [MIB, 6 * MIB], ids=["one-request", "parts"])
def test_a_conditional_upload_whose_answer_is_lost_is_known_again(
    endpoint: str, bucket: str, size: int
) -> None:
    async def scenario() -> None:
        data = pattern(size)
        # The last request of an upload in parts is a POST that completes it.
        concerns = of_method("PUT") if size < MIN_PART_BYTES else lambda request: "uploadId" in request.target
        script = [Harm.LOST_ANSWER] if size < MIN_PART_BYTES else [None, None, Harm.LOST_ANSWER]
        proxy = S3FaultProxy(endpoint, script, concerns)
        async with proxy.serving() as address:
            store = quick(store_of(address, bucket))
            await store.put("a", FileLike(data), if_absent=True)
            assert proxy.harmed == [Harm.LOST_ANSWER]
            assert await store.get("a") == data
            with pytest.raises(AlreadyThere):
                await store.put("a", [b"other"], if_absent=True)
            await store.close()

    run(scenario())


def test_a_delete_may_land_after_its_sender_gave_up(endpoint: str, bucket: str) -> None:
    async def scenario() -> None:
        proxy = S3FaultProxy(endpoint, [Harm.LATE], of_method("POST"))
        async with proxy.serving() as address:
            store = store_of(address, bucket)
            await store.put("a", [b"x"])
            with pytest.raises(Unavailable):
                await store.delete(["a"])
            assert await store.get("a") == b"x"
            assert await proxy.land() == 1
            with pytest.raises(NoSuchObject):
                await store.get("a")
            await store.close()

    run(scenario())


def test_a_bucket_that_is_not_there_is_said_to_be(endpoint: str) -> None:
    async def scenario() -> None:
        store = quick(store_of(endpoint, "nowhere"))
        for work in (store.get("a"), store.put("a", [b"x"]), keys(store, ""), store.delete(["a"])):
            with pytest.raises(Refused, match="NoSuchBucket") as refusal:
                await work
            assert refusal.value.reason == "NoSuchBucket"
        await store.close()

    run(scenario())


def test_nobody_home_is_unavailable(endpoint: str) -> None:
    async def scenario() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            store = store_of(f"http://127.0.0.1:{unused.getsockname()[1]}", "b")
            with pytest.raises(Unavailable):
                await store.get("a")
            await store.close()

    run(scenario())


def test_without_credentials_it_is_said_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")

    async def scenario() -> None:
        store = store_of(endpoint, "b")
        with pytest.raises(Refused) as refusal:
            await store.get("a")
        assert refusal.value.reason == "NoCredentials"
        await store.close()

    run(scenario())


def test_no_message_shows_a_secret(monkeypatch: pytest.MonkeyPatch, endpoint: str, bucket: str) -> None:
    secrets = ("s3cr3t-k3y-material", "t0ken-material")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secrets[0])
    monkeypatch.setenv("AWS_SESSION_TOKEN", secrets[1])
    script = [Harm.SLOW_DOWN, Harm.GARBAGE, Harm.RESET_IN_BODY, Harm.SERVER_ERROR]

    async def scenario() -> None:
        proxy = S3FaultProxy(endpoint, script, of_method("GET"))
        async with proxy.serving() as address:
            store, missing = store_of(address, bucket), store_of(address, "nowhere")
            await store.put("a", [b"xyz"])
            for reading in (store,) * 4 + (missing,):
                with pytest.raises((Unavailable, Refused)) as failure:
                    await reading.get("a")
                said = "".join(traceback.format_exception(failure.value))
                assert not any(secret in said for secret in secrets)
                assert "Signature" not in said
            await store.close()
            await missing.close()
        assert any(secrets[1].encode() in request.raw for request in proxy.requests)

    run(scenario())


def test_keys_are_in_the_bucket_as_they_are_named(endpoint: str, bucket: str) -> None:
    async def scenario() -> None:
        store = store_of(endpoint, bucket, prefix="p/q")
        await store.put("a b+c/é%20", [b"x"])
        whole = store_of(endpoint, bucket)
        assert await keys(whole, "") == ["p/q/a b+c/é%20"]
        assert await keys(store, "a b") == ["a b+c/é%20"]
        await store.delete(["a b+c/é%20"])
        assert await keys(whole, "") == []
        await store.close()
        await whole.close()

    run(scenario())


def test_the_probe_finds_what_the_server_can_do(endpoint: str, bucket: str) -> None:
    async def scenario() -> None:
        store = store_of(endpoint, bucket)
        found = await probe(store, large_bytes=6 * MIB)
        assert found.describe() == "reachable; conditional writes honoured; uploads in parts work"
        assert await keys(store, "") == []
        await store.close()
        nowhere = store_of(endpoint, "nowhere")
        assert (await probe(nowhere)).reason == "NoSuchBucket"
        await nowhere.close()

    run(scenario())


def test_a_segment_is_read_through_everything_that_can_happen_to_answers(endpoint: str, bucket: str) -> None:
    log = pattern(9 * MIB + 77)
    made = build(info_of(100, 40), FileLike(log), companions_of(40))
    harms = [
        Harm.FLIPPED_BIT,
        Harm.SLOW_DOWN,
        Harm.RESET_IN_BODY,
        None,
        Harm.SHORT_BODY,
        Harm.FLIPPED_BIT,
        Harm.CLOSED_IN_BODY,
        Harm.GARBAGE,
        Harm.STALL,
        Harm.RESET_BEFORE,
        Harm.SERVER_ERROR,
        Harm.LOST_ANSWER,
    ]

    async def scenario() -> None:
        direct = store_of(endpoint, bucket)
        await direct.put("s", made)
        await direct.close()
        proxy = S3FaultProxy(endpoint, harms, of_method("GET"))
        async with proxy.serving() as address:
            store = quick(store_of(address, bucket))
            config = ReaderConfig(memory_bytes=16 * MIB, chunk_bytes=MIB, max_requests=4)
            reader = RemoteReader(store, config)
            segment = SegmentRef("s", made.size, made.log_bytes)
            position = 0
            while position < segment.log_bytes:
                data = await reader.read(segment, position, 700_000)
                assert data == log[position : position + 700_000]
                position += len(data)
            assert await reader.locate(segment, 113) == 12_000
            assert len(proxy.harmed) == len(harms) - 1
            assert reader.counters.damaged >= 1
            assert reader.counters.failures == 0
            await reader.close()
            await store.close()

    run(scenario())
