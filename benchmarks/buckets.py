"""The buckets that tiered storage is measured with, and the bare clients that the same bytes are read with beside it.

A directory is always there. An S3 server is used where the environment names one: AWS_ENDPOINT_URL_S3, the usual
credentials, and S3_BUCKET (`strandline-test` by default), which is made if it does not exist; everything is written below a
prefix of its own and removed in the end. moto's server is of no use here: it reads a whole object for each range. The same
server behind `benchmarks.far_link` is a bucket of its own, for who does not want to measure how processors are shared.

The bare clients know nothing of segments: they get ranges, look at their length and let go of them. For S3 that is
aiobotocore with its default settings but for the pool of connections; for a directory `pread` in threads.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks import bare_uploads, far_link
from benchmarks.load import LoadError

DIRECTORY, S3 = "directory", "S3"
FAR_S3 = "S3, 1 Gbit/s and 10 ms"
"""The S3 server behind a link, see `benchmarks.far_link`."""
_DEFAULT_BUCKET = "strandline-test"
_SUFFIX = ".seg"
_KEYS_PER_DELETE = 1000
_PRESIGNED_S = 3600


class Object(NamedTuple):
    """A segment object in the bucket, by a name that the bucket understands."""

    key: str
    size_bytes: int


class Range(NamedTuple):
    """Bytes [start, end) of an object."""

    key: str
    start: int
    end: int


class RawRead(NamedTuple):
    """What a bare client read, in seconds; `cpu_s` is its own processor time."""

    size_bytes: int
    elapsed_s: float
    cpu_s: float


class FirstByte(NamedTuple):
    """Seconds from a request to the first byte of its body, and to the last one."""

    first_s: float
    last_s: float


class Bucket(ABC):
    """A place for segment objects; each experiment uses a part of it, which is a bucket, too."""

    label: str
    """What the table calls it."""
    far: bool = False
    """Whether it is slow for being far away: only what the distance matters for is measured with it, and with less."""

    @abstractmethod
    def part(self, name: str) -> Bucket:
        """Return a part of this bucket."""

    @abstractmethod
    def options(self) -> list[str]:
        """Return the arguments of `strandline dev` that make it use this bucket."""

    @abstractmethod
    def objects(self, topic: str) -> list[Object]:
        """Return the segment objects of a topic, by partition and offset."""

    @abstractmethod
    def read(self, ranges: Sequence[Range], concurrency: int) -> RawRead:
        """Get all ranges, in order, so many at once. Raises LoadError for one that is short."""

    @abstractmethod
    def first_bytes(self, ranges: Sequence[Range]) -> list[FirstByte]:
        """Get one range after the other. Raises LoadError for one that is short."""

    @abstractmethod
    def bare_uploads(self, object_bytes: int, bytes_per_s: int) -> AbstractContextManager[None]:
        """Have a bare client put objects at a steady rate within the block, see `benchmarks.bare_uploads`."""

    @abstractmethod
    def forget(self) -> None:
        """Empty the caches of the bucket itself as far as this process can."""

    @abstractmethod
    def remove(self) -> None:
        """Delete everything in it."""


def ranges_of(objects: Sequence[Object], chunk_bytes: int) -> list[Range]:
    """Cut objects into ranges of a size."""
    return [
        Range(one.key, start, min(start + chunk_bytes, one.size_bytes))
        for one in objects
        for start in range(0, one.size_bytes, chunk_bytes)
    ]


class DirectoryBucket(Bucket):
    """A directory, on the disk that the brokers' logs are on."""

    label = DIRECTORY

    def __init__(self, root: Path) -> None:
        self._root = root

    def part(self, name: str) -> DirectoryBucket:
        """See `Bucket.part`."""
        return DirectoryBucket(self._root / name)

    def options(self) -> list[str]:
        """See `Bucket.options`."""
        return ["--bucket", str(self._root)]

    def objects(self, topic: str) -> list[Object]:
        """See `Bucket.objects`."""
        found = [path for path in self._root.rglob(f"*{_SUFFIX}") if _is_of(str(path), topic)]
        return [Object(str(path), path.stat().st_size) for path in sorted(found)]

    def read(self, ranges: Sequence[Range], concurrency: int) -> RawRead:
        """See `Bucket.read`."""
        before, began = time.process_time(), time.perf_counter()
        with ThreadPoolExecutor(concurrency) as pool:
            size_bytes = sum(pool.map(_pread, ranges))
        return RawRead(size_bytes, time.perf_counter() - began, time.process_time() - before)

    def first_bytes(self, ranges: Sequence[Range]) -> list[FirstByte]:
        """See `Bucket.first_bytes`. There is no first byte before the last one."""
        found = []
        for one in ranges:
            began = time.perf_counter()
            _pread(one)
            took = time.perf_counter() - began
            found.append(FirstByte(took, took))
        return found

    def bare_uploads(self, object_bytes: int, bytes_per_s: int) -> AbstractContextManager[None]:
        """See `Bucket.bare_uploads`."""
        places = [str(self._root / "bare" / str(number)) for number in range(bare_uploads.PLACES)]
        return bare_uploads.uploads(places, object_bytes, bytes_per_s)

    def forget(self) -> None:
        """Drop the objects from the page cache."""
        os.sync()  # what is not written yet cannot be dropped
        for path in self._root.rglob(f"*{_SUFFIX}"):
            file = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)

    def remove(self) -> None:
        """See `Bucket.remove`."""
        shutil.rmtree(self._root, ignore_errors=True)


def _pread(one: Range) -> int:
    file = os.open(one.key, os.O_RDONLY)
    try:
        data = os.pread(file, one.end - one.start, one.start)
    finally:
        os.close(file)
    return _whole(one, len(data))


def _whole(one: Range, got: int) -> int:
    if got != one.end - one.start:
        raise LoadError(f"{one}: {got} bytes")
    return got


class S3Bucket(Bucket):
    """A bucket on an S3 server."""

    def __init__(self, endpoint_url: str, bucket: str, prefix: str, *, far: bool = False) -> None:
        self._endpoint_url = endpoint_url
        self._bucket = bucket
        self._prefix = prefix
        self.label = FAR_S3 if far else S3
        self.far = far

    def part(self, name: str) -> S3Bucket:
        """See `Bucket.part`."""
        return S3Bucket(self._endpoint_url, self._bucket, f"{self._prefix}/{name}", far=self.far)

    @contextmanager
    def moved_away(self) -> Iterator[S3Bucket]:
        """Have a part of this bucket behind a link for a while. Raises OSError without one.

        Raises ValueError for a server that speaks TLS: its certificate is for another address than the link's.
        """
        address = urlsplit(self._endpoint_url)
        if address.scheme != "http" or address.hostname is None:
            raise ValueError(f"{self._endpoint_url} is no address of a server that speaks plain HTTP")
        with far_link.process(address.hostname, address.port or 80) as port:
            yield S3Bucket(f"http://{far_link.HOST}:{port}", self._bucket, f"{self._prefix}/far", far=True)

    def options(self) -> list[str]:
        """See `Bucket.options`."""
        return ["--bucket", f"s3://{self._bucket}/{self._prefix}", "--endpoint-url", self._endpoint_url]

    def make(self) -> str:
        """Create the bucket unless it is there; return what the server calls itself."""

        async def run() -> str:
            async with self._client(1) as client:
                found = await client.list_buckets()
                if self._bucket not in {one["Name"] for one in found["Buckets"]}:
                    await client.create_bucket(Bucket=self._bucket)
            return str(found["ResponseMetadata"]["HTTPHeaders"].get("server", "it does not say"))

        return asyncio.run(run())

    def objects(self, topic: str) -> list[Object]:
        """See `Bucket.objects`."""

        async def run() -> list[Object]:
            async with self._client(1) as client:
                return [one async for one in self._list(client)]

        found = [one for one in asyncio.run(run()) if one.key.endswith(_SUFFIX) and _is_of(one.key, topic)]
        return sorted(found)

    def read(self, ranges: Sequence[Range], concurrency: int) -> RawRead:
        """See `Bucket.read`."""
        waiting: Iterator[Range] = iter(ranges)
        sizes: list[int] = []

        async def worker(client: Any) -> None:
            for one in waiting:
                answer = await client.get_object(Bucket=self._bucket, Key=one.key, Range=_header(one))
                async with answer["Body"] as body:
                    sizes.append(_whole(one, len(await body.read())))

        async def run() -> RawRead:
            async with self._client(concurrency) as client:
                before, began = time.process_time(), time.perf_counter()
                await asyncio.gather(*(worker(client) for _ in range(concurrency)))
                return RawRead(sum(sizes), time.perf_counter() - began, time.process_time() - before)

        return asyncio.run(run())

    def first_bytes(self, ranges: Sequence[Range]) -> list[FirstByte]:
        """See `Bucket.first_bytes`."""

        async def run() -> list[FirstByte]:
            found = []
            async with self._client(1) as client:
                for one in ranges:
                    began = time.perf_counter()
                    answer = await client.get_object(Bucket=self._bucket, Key=one.key, Range=_header(one))
                    async with answer["Body"] as body:
                        size = len(await body.read(1))
                        first = time.perf_counter()
                        size += len(await body.read())
                        found.append(FirstByte(first - began, time.perf_counter() - began))
                    _whole(one, size)
            return found

        return asyncio.run(run())

    def bare_uploads(self, object_bytes: int, bytes_per_s: int) -> AbstractContextManager[None]:
        """See `Bucket.bare_uploads`."""

        async def run() -> list[str]:
            async with self._client(1) as client:
                return [
                    await client.generate_presigned_url(
                        "put_object",
                        Params={"Bucket": self._bucket, "Key": f"{self._prefix}/bare/{number}"},
                        ExpiresIn=_PRESIGNED_S,
                    )
                    for number in range(bare_uploads.PLACES)
                ]

        return bare_uploads.uploads(asyncio.run(run()), object_bytes, bytes_per_s)

    def forget(self) -> None:
        """Do nothing: nobody can reach into the server. All reads find its caches alike."""

    def remove(self) -> None:
        """See `Bucket.remove`."""

        async def run() -> None:
            async with self._client(1) as client:
                keys = [{"Key": one.key} async for one in self._list(client)]
                for first in range(0, len(keys), _KEYS_PER_DELETE):
                    batch = {"Objects": keys[first : first + _KEYS_PER_DELETE], "Quiet": True}
                    await client.delete_objects(Bucket=self._bucket, Delete=batch)

        asyncio.run(run())

    async def _list(self, client: Any) -> AsyncIterator[Object]:
        pages = client.get_paginator("list_objects_v2")
        async for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}/"):
            for entry in page.get("Contents", ()):
                yield Object(entry["Key"], entry["Size"])

    def _client(self, connections: int) -> Any:
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session

        return get_session().create_client(
            "s3",
            region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            endpoint_url=self._endpoint_url,
            config=AioConfig(
                max_pool_connections=connections,
                s3={"addressing_style": "path"},
                # As the S3 store: a checksum of a range does not exist.
                response_checksum_validation="when_required",
            ),
        )


def _header(one: Range) -> str:
    return f"bytes={one.start}-{one.end - 1}"


def _is_of(key: str, topic: str) -> bool:
    """Whether an object's key says that it belongs to a topic (`.../topics/<topic>-<topic id>/...`, docs/formats.md)."""
    return f"/topics/{topic}-" in key


def available(
    base: Path, wanted: Container[str], links: ExitStack
) -> tuple[dict[str, Bucket], dict[str, str]]:
    """Return those of the wanted buckets that can be used, by label, and facts: the S3 server's name, or what is missing.

    The directory is below `base`; a link lives as long as `links`. Raises OSError for a server that cannot be reached or
    refuses.
    """
    found: dict[str, Bucket] = {DIRECTORY: DirectoryBucket(base / "bucket")} if DIRECTORY in wanted else {}
    endpoint_url = os.environ.get("AWS_ENDPOINT_URL_S3")
    if not endpoint_url:
        return found, {"S3 server": "SKIPPED: AWS_ENDPOINT_URL_S3 names none"}
    bucket = os.environ.get("S3_BUCKET", _DEFAULT_BUCKET)
    one = S3Bucket(endpoint_url, bucket, f"strandline-benchmark/{uuid.uuid4()}")
    facts = {"S3 server": one.make()}
    if S3 in wanted:
        found[S3] = one
    if FAR_S3 in wanted:
        try:
            found[FAR_S3] = links.enter_context(one.moved_away())
        except ValueError as refused:
            facts[FAR_S3] = f"SKIPPED: {refused}"
    return found, facts
